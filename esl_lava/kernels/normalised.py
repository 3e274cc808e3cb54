"""Kernels of batch normalisation and spiking neurons in training, in one pass, with gradients.

Arrays of neurons are (groups, T, n) float32, contiguous. The n neurons of a group belong to its
channels in turn: weighted input with time first and channels last is one group of many channels;
with channels first and time second it is one group for each channel. Arrays for channels are
(groups, channels). In the kernels that also sum spikes over the squares of a pool, arrays are (T,
samples, rows, columns * channels), and arrays for channels are (channels,). Weighted input that
is the same in every step is given once, with an axis of 1 in the place of T.

Sums over all values of a channel are computed in blocks that do not depend on the thread, and the
sums of the blocks are added in float64. The number of threads therefore does not change any bit.
"""

from typing import NamedTuple

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit
from esl_lava.kernels.surrogate import exp_below_0

TILE = 256
"""The most neurons of a tile, so that their state stays in a cache through all steps.

If a group has more channels than this, its tiles have one neuron for each channel.
"""

TERMS = 64
"""Largest number of terms of a float32 sum; the number of steps if that is larger.

Such sums are added in float64.
"""

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
    """The division of the n neurons of a group into blocks, and of blocks into tiles.

    Attributes:
        channels: channels of the group.
        width: neurons of a tile, a multiple of the channels.
        block: neurons of a block, a multiple of the width.
    """

    channels: int
    width: int
    block: int


def choose_tiling(channels: int, steps: int, n: int) -> Tiling:
    """Choose the tiling of n neurons over `steps` steps; n is a multiple of the channels."""
    width = channels * max(1, min(TILE, n) // channels)
    return Tiling(channels, width, width * max(1, TERMS // steps))


Part = tuple[int, int, int, int]
"""First group, end of the groups, first block, end of the blocks to compute; ends excluded."""

Constants = tuple[Array, Array, Array]
"""Three float32 numbers for each channel."""


@njit(nogil=True)
def _repeated(values: Array, width: int) -> Array:
    """Return (width,) float32: the values of the channels, one after the other, repeated."""
    out = np.empty(width, np.float32)
    for first in range(0, width, values.size):
        for c in range(values.size):
            out[first + c] = values[c]
    return out


@njit(nogil=True)
def _add_lanes(by_lane: Array, out: Array) -> None:
    """Add the sums of a tile's neurons to those of their channels, and set the former to 0."""
    for first in range(0, by_lane.size, out.size):
        for c in range(out.size):
            out[c] += by_lane[first + c]
    by_lane[:] = 0


@njit(nogil=True)
def _add(values: Array, out: Array) -> None:
    """Add the values of a tile to another tile."""
    for j in range(out.size):
        out[j] += values[j]


@njit(nogil=True)
def _step(z: Array, gain: Array, shift: Array, keep: np.float32, v: Array, left: Array) -> None:
    """Compute one step of a tile: v before its reset, and in `left` v after its reset.

    This is a function of its own that must not contract floating-point operations, so that the
    backward pass computes the same bits as the forward pass.
    """
    for j in range(v.size):
        y = keep * left[j] + (gain[j] * z[j] + shift[j])
        v[j] = y
        left[j] = _ZERO if y > _ONE else y


@njit(inline="always")
def _step_back(
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
    """Compute one step of a tile backwards: the gradients of v and of the normalised input.

    It also adds the gradient to `total`, and the gradient times (z - mean) to `product`.
    """
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
    """Compute the sum and the sum of squares of each channel, by block.

    Squares of float32 are exact in float64. Their sum therefore loses no more to cancellation
    than the values themselves have lost.

    Args:
        z: (groups, T or 1, n).
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
            _add_lanes(total, sums[group, block, 0])
            _add_lanes(squares, sums[group, block, 1])


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
    """Run neurons that start at rest: v <- keep v + (gain z + shift); if v > 1, a spike and v <- 0.

    Args:
        z: (groups, T or 1, n).
        gain, shift: (groups, channels) float32.
        spikes: (groups, T, n) float32, written: 0 or 1.
    """
    _, steps, n = spikes.shape
    input_steps = z.shape[1]
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
                _step(z[group, t % input_steps, first:last], gains, shifts, keep, s, left)
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
    """Compute the gradient of the normalised input from that of the spikes; resets are ignored.

    Args:
        by_spikes: (groups, T, n) float32, gradient with respect to the spikes.
        z: (groups, T or 1, n).
        constants: gain and shift as for `fire`, and the mean of z, (groups, channels).
        by_input: like `z`, written: gradient with respect to the normalised input, summed over
            the steps if `z` has one step.
        sums: (groups, blocks, 2, channels) float64, written for the part: sum of the gradient
            over all values of a channel, and sum of the gradient times (z - mean).
    """
    _, steps, n = by_spikes.shape
    input_steps = z.shape[1]
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
                    _step(z[group, t % input_steps, first:last], gain, shift, neuron.keep, v, b)
                b[:] = 0
                if input_steps < steps:
                    by_input[group, 0, first:last] = 0
                for t in range(steps - 1, -1, -1):
                    g, x = by_spikes[group, t, first:last], z[group, t % input_steps, first:last]
                    v, out = trace[t, : last - first], by_input[group, t % input_steps, first:last]
                    y = out if input_steps == steps else at_step[: last - first]
                    _step_back(g, x, v, mean, neuron, b, y, total, product)
                    if input_steps < steps:
                        _add(y, out)
            sums[group, block] = 0
            _add_lanes(total, sums[group, block, 0])
            _add_lanes(product, sums[group, block, 1])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def input_gradients(
    z: Array, part: Part, tiling: Tiling, constants: Constants, by_input: Array
) -> None:
    """Compute the gradient of z from that of the normalised input: gain g + (slope z + shift).

    Args:
        z: (groups, T or 1, n).
        constants: gain, slope and shift, (groups, channels).
        by_input: like `z`: the gradient g, overwritten with the result.
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
def _pool_row(row: Array, channels: int, side: int, out: Array) -> None:
    """Sum each `side` neighbouring places of a row; places behind the last square are left out."""
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
def _unpool_row(row: Array, channels: int, side: int, out: Array) -> None:
    """Copy the gradient of sums to the places of a row; 0 at places outside all squares."""
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
    """Run neurons as `fire` does, for samples first:last, and sum their spikes over squares.

    Args:
        z: (T or 1, samples, rows, columns * channels).
        side: side of a square; rows and columns that do not fill a square are left out.
        gain, shift: (channels,) float32.
        sums: (T, samples, rows // side, columns // side * channels) float32, written.
    """
    steps, input_steps, width = len(sums), len(z), z.shape[3]
    gains, shifts = _repeated(gain, width), _repeated(shift, width)
    left, v = np.empty((side, width), np.float32), np.empty(width, np.float32)
    column = np.empty(width, np.float32)
    for k in range(first, last):
        for row in range(sums.shape[2]):
            left[:] = 0
            for t in range(steps):
                column[:] = 0
                for place in range(side):
                    x = z[t % input_steps, k, row * side + place]
                    _step(x, gains, shifts, keep, v, left[place])
                    for j in range(width):
                        column[j] += _ONE if v[j] > _ONE else _ZERO
                _pool_row(column, gain.size, side, sums[t, k, row])


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
    """Compute the gradients of `fire_and_pool` for samples first:last, as `fire_gradients` does.

    Args:
        by_sums: like `sums` of `fire_and_pool`: gradient with respect to these sums.
        z, by_input: (T or 1, samples, rows, columns * channels); `by_input` is written.
        constants: gain, shift and mean, (channels,).
        sums: (1, samples, 2, channels) float64, written for these samples, with the sums of
            `fire_gradients`.
    """
    steps = len(by_sums)
    input_steps, _, rows, width = z.shape
    channels = constants[0].size
    gain, shift, mean = (
        _repeated(constants[0], width),
        _repeated(constants[1], width),
        _repeated(constants[2], width),
    )
    v, g = np.empty((steps, width), np.float32), np.empty((steps, width), np.float32)
    b, at_step = np.empty(width, np.float32), np.empty(width, np.float32)
    total, product = np.zeros(width, np.float32), np.zeros(width, np.float32)
    rows_per_sum = max(1, TERMS // steps)
    for k in range(first, last):
        sums[0, k] = 0
        for row in range(rows):
            if row // side == by_sums.shape[2]:
                g[:] = 0
            elif row % side == 0:
                for t in range(steps):
                    _unpool_row(by_sums[t, k, row // side], channels, side, g[t])
            b[:] = 0
            for t in range(steps):
                _step(z[t % input_steps, k, row], gain, shift, neuron.keep, v[t], b)
            b[:] = 0
            if input_steps < steps:
                by_input[0, k, row] = 0
            for t in range(steps - 1, -1, -1):
                x, out = z[t % input_steps, k, row], by_input[t % input_steps, k, row]
                y = out if input_steps == steps else at_step
                _step_back(g[t], x, v[t], mean, neuron, b, y, total, product)
                if input_steps < steps:
                    _add(y, out)
            if (row + 1) % rows_per_sum == 0 or row + 1 == rows:
                _add_lanes(total, sums[0, k, 0])
                _add_lanes(product, sums[0, k, 1])
