"""Batch normalisation and spiking neurons in training: one pass for both, and their gradients.

Arrays of neurons are (groups, T, n) float32, contiguous. The n neurons of a group are of its
channels in turn: weighted input with time first and channels last is one group of many channels,
with channels first and time second it is one group for each channel. What belongs to channels is
(groups, channels). Where spikes are summed over the squares of a pool at once, arrays are (T,
samples, rows, columns * channels), and what belongs to channels is (channels,). Weighted input that
is the same at every step is given once, with an axis of 1 in the place of T.

Sums over all values of a channel are taken in blocks that do not depend on who computes them, and
the blocks' sums in float64, so that the number of threads does not change a bit.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from esl_lava.arrays import Array
from esl_lava.kernels.surrogate import exp_below_0

TILE = 256
"""Neurons whose state is kept at hand through all steps, where channels are not more."""

TERMS = 64
"""Terms of a sum in float32, where steps are not more; it is then added in float64."""

_ZERO, _ONE = np.float32(0), np.float32(1)


class Neuron(NamedTuple):
    """Constants of neurons that fire above 1.

    Attributes:
        keep: 1 minus the share of v lost per step.
        slope, rate: the surrogate gradient is slope * exp(-rate * |v - 1|).
    """

    keep: np.float32
    slope: np.float32
    rate: np.float32


class Tiling(NamedTuple):
    """How the n neurons of a group are cut up.

    Attributes:
        channels: of the group.
        width: neurons of a tile, a multiple of the channels.
        block: neurons of a block, a multiple of the width.
    """

    channels: int
    width: int
    block: int


def tiled(channels: int, steps: int, n: int) -> Tiling:
    """The tiling of n neurons, a multiple of the channels, over so many steps."""
    width = channels * max(1, min(TILE, n) // channels)
    return Tiling(channels, width, width * max(1, TERMS // steps))


Part = tuple[int, int, int, int]
"""Of groups and of blocks the first to compute and the first not to."""

Constants = tuple[Array, Array, Array]
"""Three float32 numbers of each channel."""


@njit(nogil=True)
def _repeated(values: Array, width: int) -> Array:
    """Those of channels, in turn."""
    out = np.empty(width, np.float32)
    for first in range(0, width, values.size):
        for c in range(values.size):
            out[first + c] = values[c]
    return out


@njit(nogil=True)
def _fold(by_lane: Array, out: Array) -> None:
    """Add sums of the lanes of a tile to those of channels; 0 is left."""
    for first in range(0, by_lane.size, out.size):
        for c in range(out.size):
            out[c] += by_lane[first + c]
    by_lane[:] = 0


@njit(nogil=True)
def _add(values: Array, out: Array) -> None:
    """Add a tile to another."""
    for j in range(out.size):
        out[j] += values[j]


@njit(nogil=True)
def _charge(z: Array, gain: Array, shift: Array, keep: np.float32, v: Array, left: Array) -> None:
    """One step of a tile: v before its reset, from what the last step left, and what is left.

    A function of its own, which may not contract: the backward pass is to find the same bits.
    """
    for j in range(v.size):
        y = keep * left[j] + (gain[j] * z[j] + shift[j])
        v[j] = y
        left[j] = _ZERO if y > _ONE else y


@njit(inline="always")
def _descend(
    by_spikes: Array,
    z: Array,
    v: Array,
    mean: Array,
    neuron: Neuron,
    by_v: Array,
    by_input: Array,
    total: Array,
    product: Array,
) -> None:
    """One step of a tile backwards: the gradient by v and by normalised input, and their sums."""
    keep, slope, rate = neuron.keep, neuron.slope, neuron.rate
    for j in range(by_v.size):
        surrogate = slope * exp_below_0(-abs(v[j] - _ONE) * rate)
        y = keep * by_v[j] + surrogate * by_spikes[j]
        by_v[j] = y
        by_input[j] = y
        total[j] += y
        product[j] += y * (z[j] - mean[j])


@njit(cache=True, nogil=True, error_model="numpy")
def add_up(z: Array, part: Part, tiling: Tiling, sums: Array) -> None:
    """Sum and sum of squares of each channel, by block.

    Squares of float32 are exact in float64, so their sum loses no more to cancellation than
    the values themselves have lost.

    Args:
        z: (groups, T, n).
        sums: (groups, blocks, 2, channels) float64, written for the part.
    """
    _, steps, n = z.shape
    total = np.zeros(tiling.width)
    squares = np.zeros(tiling.width)
    for group in range(part[0], part[1]):
        for block in range(part[2], part[3]):
            end = min(n, (block + 1) * tiling.block)
            for t in range(steps):
                for first in range(block * tiling.block, end, tiling.width):
                    x = z[group, t, first : min(end, first + tiling.width)]
                    for j in range(x.size):
                        value = np.float64(x[j])
                        total[j] += value
                        squares[j] += value * value
            sums[group, block] = 0
            _fold(total, sums[group, block, 0])
            _fold(squares, sums[group, block, 1])


@njit(cache=True, nogil=True, error_model="numpy")
def fire(
    z: Array,
    part: Part,
    tiling: Tiling,
    gain: Array,
    shift: Array,
    keep: np.float32,
    spikes: Array,
) -> None:
    """Run neurons from rest: v <- keep v + (gain z + shift); where v > 1 a spike, and v <- 0.

    Args:
        z: (groups, T or 1, n).
        gain, shift: (groups, channels) float32.
        spikes: (groups, T, n) float32, written: 0 or 1.
    """
    _, steps, n = spikes.shape
    given = z.shape[1]
    state = np.empty(tiling.width, np.float32)
    for group in range(part[0], part[1]):
        gains = _repeated(gain[group], tiling.width)
        shifts = _repeated(shift[group], tiling.width)
        end = min(n, part[3] * tiling.block)
        for first in range(part[2] * tiling.block, end, tiling.width):
            last = min(end, first + tiling.width)
            left = state[: last - first]
            left[:] = 0
            for t in range(steps):
                s = spikes[group, t, first:last]
                _charge(z[group, t % given, first:last], gains, shifts, keep, s, left)
                for j in range(s.size):
                    s[j] = _ONE if s[j] > _ONE else _ZERO


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def fire_gradients(
    by_spikes: Array,
    z: Array,
    part: Part,
    tiling: Tiling,
    constants: Constants,
    neuron: Neuron,
    by_input: Array,
    sums: Array,
) -> None:
    """From the gradient by spikes to that by normalised input; resets are passed over.

    Args:
        by_spikes: (groups, T, n) float32.
        z: (groups, T or 1, n).
        constants: gain and shift as for `fire`, and the mean of z, (groups, channels).
        by_input: like `z`, written; where that is given once the sum over steps.
        sums: (groups, blocks, 2, channels) float64, written for the part: of the gradient over
            all values of a channel, and of it times z less its mean.
    """
    _, steps, n = by_spikes.shape
    given = z.shape[1]
    width = tiling.width
    trace, state = np.empty((steps, width), np.float32), np.empty(width, np.float32)
    at_step = np.empty(width, np.float32)
    total, product = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for group in range(part[0], part[1]):
        gain = _repeated(constants[0][group], width)
        shift = _repeated(constants[1][group], width)
        mean = _repeated(constants[2][group], width)
        for block in range(part[2], part[3]):
            end = min(n, (block + 1) * tiling.block)
            for first in range(block * tiling.block, end, width):
                last = min(end, first + width)
                b = state[: last - first]
                b[:] = 0
                for t in range(steps):
                    v = trace[t, : last - first]
                    _charge(z[group, t % given, first:last], gain, shift, neuron.keep, v, b)
                b[:] = 0
                if given < steps:
                    by_input[group, 0, first:last] = 0
                for t in range(steps - 1, -1, -1):
                    g, x = by_spikes[group, t, first:last], z[group, t % given, first:last]
                    v, out = trace[t, : last - first], by_input[group, t % given, first:last]
                    y = out if given == steps else at_step[: last - first]
                    _descend(g, x, v, mean, neuron, b, y, total, product)
                    if given < steps:
                        _add(y, out)
            sums[group, block] = 0
            _fold(total, sums[group, block, 0])
            _fold(product, sums[group, block, 1])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def input_gradients(
    z: Array, part: Part, tiling: Tiling, constants: Constants, by_input: Array
) -> None:
    """From the gradient by normalised input to that by z, in place: gain g + (slope z + shift).

    Args:
        z: (groups, T, n).
        constants: gain, slope and shift, (groups, channels).
        by_input: like `z`, overwritten.
    """
    _, steps, n = z.shape
    for group in range(part[0], part[1]):
        gain = _repeated(constants[0][group], tiling.width)
        slope = _repeated(constants[1][group], tiling.width)
        shift = _repeated(constants[2][group], tiling.width)
        end = min(n, part[3] * tiling.block)
        for t in range(steps):
            for first in range(part[2] * tiling.block, end, tiling.width):
                x = z[group, t, first : min(end, first + tiling.width)]
                g = by_input[group, t, first : min(end, first + tiling.width)]
                for j in range(x.size):
                    g[j] = gain[j] * g[j] + (slope[j] * x[j] + shift[j])


@njit(nogil=True)
def _squeeze(row: Array, channels: int, side: int, out: Array) -> None:
    """Sum neighbouring places of a row; those that fill no square are left out."""
    at = 0
    for first in range(0, out.size, channels):
        for c in range(channels):
            out[first + c] = row[at + c]
        at += channels
        for _ in range(1, side):
            for c in range(channels):
                out[first + c] += row[at + c]
            at += channels


@njit(nogil=True)
def _stretch(row: Array, channels: int, side: int, out: Array) -> None:
    """The gradient by places of a row of that by their sums; 0 where there is no square."""
    for first in range(0, row.size, channels):
        for place in range(side):
            at = first * side + place * channels
            for c in range(channels):
                out[at + c] = row[first + c]
    out[row.size * side :] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def fire_and_pool(
    z: Array,
    first: int,
    last: int,
    side: int,
    gain: Array,
    shift: Array,
    keep: np.float32,
    sums: Array,
) -> None:
    """What `fire` does, of samples first:last, and the sums of spikes over squares.

    Args:
        z: (T or 1, samples, rows, columns * channels).
        side: of a square; rows and columns that fill none are left out.
        gain, shift: (channels,) float32.
        sums: (T, samples, rows // side, columns // side * channels) float32, written.
    """
    steps, given, width = len(sums), len(z), z.shape[3]
    gains, shifts = _repeated(gain, width), _repeated(shift, width)
    left, v = np.empty((side, width), np.float32), np.empty(width, np.float32)
    column = np.empty(width, np.float32)
    for k in range(first, last):
        for row in range(sums.shape[2]):
            left[:] = 0
            for t in range(steps):
                column[:] = 0
                for place in range(side):
                    x = z[t % given, k, row * side + place]
                    _charge(x, gains, shifts, keep, v, left[place])
                    for j in range(width):
                        column[j] += _ONE if v[j] > _ONE else _ZERO
                _squeeze(column, gain.size, side, sums[t, k, row])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def pooled_gradients(
    by_sums: Array,
    z: Array,
    first: int,
    last: int,
    side: int,
    constants: Constants,
    neuron: Neuron,
    by_input: Array,
    sums: Array,
) -> None:
    """What `fire_gradients` does, of samples first:last, from the gradient by sums over squares.

    Args:
        by_sums: like `sums` of `fire_and_pool`.
        z, by_input: (T or 1, samples, rows, columns * channels); the second is written.
        constants: gain, shift and mean, (channels,).
        sums: (1, samples, 2, channels) float64, written for the samples, as there.
    """
    steps = len(by_sums)
    given, _, rows, width = z.shape
    channels = constants[0].size
    gain, shift, mean = (
        _repeated(constants[0], width),
        _repeated(constants[1], width),
        _repeated(constants[2], width),
    )
    v, g = np.empty((steps, width), np.float32), np.empty((steps, width), np.float32)
    b, at_step = np.empty(width, np.float32), np.empty(width, np.float32)
    total, product = np.zeros(width, np.float32), np.zeros(width, np.float32)
    together = max(1, TERMS // steps)
    for k in range(first, last):
        sums[0, k] = 0
        for row in range(rows):
            if row // side == by_sums.shape[2]:
                g[:] = 0
            elif row % side == 0:
                for t in range(steps):
                    _stretch(by_sums[t, k, row // side], channels, side, g[t])
            b[:] = 0
            for t in range(steps):
                _charge(z[t % given, k, row], gain, shift, neuron.keep, v[t], b)
            b[:] = 0
            if given < steps:
                by_input[0, k, row] = 0
            for t in range(steps - 1, -1, -1):
                x, out = z[t % given, k, row], by_input[t % given, k, row]
                y = out if given == steps else at_step
                _descend(g[t], x, v[t], mean, neuron, b, y, total, product)
                if given < steps:
                    _add(y, out)
            if (row + 1) % together == 0 or row + 1 == rows:
                _fold(total, sums[0, k, 0])
                _fold(product, sums[0, k, 1])
