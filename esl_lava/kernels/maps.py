"""Kernels that lay out feature maps as lanes, for layers that store only connections.

A kernel that slides over maps applies the same weight at every place. If the maps are laid out
with zeros between rows and between maps, the values that a weight meets while the kernel slides
over all maps of a channel are one piece of lanes (`nonzeros`). If the kernel has a stride, a
channel is laid out in phases: each phase holds the rows and columns that one weight of the kernel
meets while it slides, without the rows and columns between them.

Arrays of maps are (channels, T, batch, rows, columns). Lanes of a channel are (phases, T * batch *
height * pitch), with the rows of a map one behind the other.
"""

from typing import NamedTuple

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit
from esl_lava.kernels.nonzeros import FLOATS, LANES, OTHER, mark, sum_small, sum_weighted

WHOLE = 64
"""Lanes are computed in multiples of this number, because a rest would be computed one by one.

Arrays of lanes therefore end with this many further lanes, of any value.
"""

_U = np.uint64
"""Unsigned indices need no check for values below 0.

Loops over rows are often short and would spend most of their time on that check.
"""


class Grid(NamedTuple):
    """The places of a channel's pooled sums in its lanes.

    Attributes:
        height, pitch: rows and columns of lanes for one map.
        pool: side of the squares of the maps that are summed.
        rows, columns: rows and columns of the sums.
        down, across: rows and columns of sums from one lane to the next.
        tops, lefts: int64, rows and columns of sums at which phases begin. There is a phase for
            every pair; the phases of the first row come first.
    """

    height: int
    pitch: int
    pool: int
    rows: int
    columns: int
    down: int
    across: int
    tops: Array
    lefts: Array

    @property
    def phases(self) -> int:
        """Number of phases."""
        return len(self.tops) * len(self.lefts)


@njit(cache=True, nogil=True)
def _arrange(x: Array, grid: Grid, lanes: Array) -> None:
    """Write the sums of a channel's maps, (T, batch, rows, columns), into lanes that hold 0."""
    pool, pitch = grid.pool, _U(grid.pitch)
    side, across, many = _U(grid.pool), _U(grid.across), len(grid.lefts)
    lefts = grid.lefts.astype(np.uint64)
    counts = (_U(grid.columns) - lefts + across - _U(1)) // across
    wide = np.empty(grid.columns * pool, np.float32)
    for i in range(len(grid.tops)):
        for t in range(x.shape[0]):
            for b in range(x.shape[1]):
                begin = _U((t * x.shape[1] + b) * grid.height * grid.pitch)
                for row in range(grid.tops[i], grid.rows, grid.down):
                    if pool > 1:
                        for k in range(_U(wide.size)):
                            wide[k] = x[t, b, row * pool, k]
                        for r in range(row * pool + 1, (row + 1) * pool):
                            for k in range(_U(wide.size)):
                                wide[k] += x[t, b, r, k]
                    for k in range(many):
                        f, left, count = i * many + k, lefts[k], counts[k]
                        if pool == 1 and across == 1:
                            for c in range(count):
                                lanes[f, begin + c] = x[t, b, row, c]
                        elif pool == 1:
                            for c in range(count):
                                lanes[f, begin + c] = x[t, b, row, left + c * across]
                        elif pool == 2 and across == 1:
                            for c in range(count):
                                lanes[f, begin + c] = wide[_U(2) * c] + wide[_U(2) * c + _U(1)]
                        else:
                            for c in range(count):
                                total = np.float32(0)
                                for j in range(side):
                                    total += wide[(left + c * across) * side + j]
                                lanes[f, begin + c] = total
                    begin += pitch


@njit(cache=True, nogil=True)
def lay_out(x: Array, grid: Grid, first: int, last: int, lanes: Array) -> None:
    """Lay out the maps of channels first:last.

    Args:
        x: (channels, T, batch, rows, columns) float32 of any strides.
        lanes: (channels, phases, n) float32, written.
    """
    for channel in range(first, last):
        lanes[channel] = 0
        _arrange(x[channel], grid, lanes[channel])


@njit(cache=True, nogil=True)
def lay_out_small(x: Array, grid: Grid, first: int, last: int, small: Array) -> int:
    """Lay out maps as `lay_out` does, as integers of 8 bits.

    Args:
        small: (channels, phases, n) int8, written; valid only if the result is not `OTHER`.

    Returns:
        The result of `nonzeros.mark` for all channels.
    """
    lanes = np.zeros(small.shape[1:], np.float32)
    largest = 0
    for channel in range(first, last):
        _arrange(x[channel], grid, lanes)
        largest = max(largest, mark(lanes.reshape(-1), small[channel].reshape(-1)))
        if largest == OTHER:
            break
    return largest


@njit(cache=True, nogil=True)
def _scatter(sums: Array, top: int, bottom: int, f: int, grid: Grid, out: Array) -> None:
    """Copy rows top:bottom of a phase's lanes to the places of the maps that the sums cover.

    Args:
        sums: float32 lanes from row `top` on.
        f: the phase.
        out: (maps, rows, columns) float32, written at these places.
    """
    pool, side, across = grid.pool, _U(grid.pool), _U(grid.across)
    first, left = grid.tops[f // len(grid.lefts)], _U(grid.lefts[f % len(grid.lefts)])
    count = (_U(grid.columns) - left + across - _U(1)) // across
    number, place, begin = top // grid.height, top % grid.height, _U(0)
    for _ in range(top, bottom):
        row = first + place * grid.down
        if row < grid.rows:
            for i in range(row * pool, (row + 1) * pool):
                if pool == 1 and across == 1:
                    for c in range(count):
                        out[number, i, c] = sums[begin + c]
                elif pool == 2 and across == 1:
                    for c in range(count):
                        out[number, i, _U(2) * c] = sums[begin + c]
                        out[number, i, _U(2) * c + _U(1)] = sums[begin + c]
                else:
                    for c in range(count):
                        for j in range(side):
                            out[number, i, (left + c * across) * side + j] = sums[begin + c]
        begin += _U(grid.pitch)
        place += 1
        if place == grid.height:
            number, place = number + 1, 0


@njit(cache=True, nogil=True)
def add_small(
    small: Array,
    at: Array,
    starts: Array,
    weights: Array,
    terms: int,
    scale: Array,
    grid: Grid,
    first: int,
    last: int,
    z: Array,
) -> None:
    """Compute the weighted input of channels first:last from integers of 8 bits.

    The sums are exact; they are scaled afterwards.

    Args:
        small: (n,) int8, laid out; the kernel reads up to `WHOLE` entries beyond the lanes.
        at: (connections,) int64, index in `small` at which the piece of a connection begins.
        starts: (n_post + 1,) first entry of each channel.
        weights: (connections,) int16.
        terms: see `nonzeros.terms_at_once`, at least 8.
        scale: (n_post,) float32, factor that multiplies the integer sums of a channel.
        grid: grid of z, in one phase.
        z: (n_post, maps, rows, columns) float32, written.
    """
    maps, height, pitch = z.shape[1], grid.height, grid.pitch
    many = max(1, LANES // pitch)
    shorts = np.empty(many * pitch + WHOLE, np.int16)
    wides = np.empty(many * pitch + WHOLE, np.int32)
    for top in range(0, maps * height, many):
        bottom = min(maps * height, top + many)
        size = ((bottom - top) * pitch + WHOLE - 1) // WHOLE * WHOLE
        for j in range(first, last):
            part = starts[j], starts[j + 1]
            wide = wides[:size]
            sum_small(small[top * pitch :], at, 1, weights, part, terms, shorts[:size], wide)
            number, row, begin = top // height, top % height, _U(0)
            for _ in range(top, bottom):
                if row < grid.rows:
                    for c in range(_U(grid.columns)):
                        z[j, number, row, c] = np.float32(wide[begin + c]) * scale[j]
                begin += _U(pitch)
                row += 1
                if row == height:
                    number, row = number + 1, 0


@njit(cache=True, nogil=True)
def add_weighted(
    values: Array,
    at: Array,
    starts: Array,
    weights: Array,
    grid: Grid,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Compute weighted sums of lanes for channels first:last: the weighted input or its transpose.

    Args:
        values: float32, laid out like `small` of `add_small`.
        at: as for `add_small`.
        starts: (channels * phases + 1,) first entry of each phase of each channel.
        weights: (connections,) float32.
        grid: grid of `out`.
        out: (channels, maps, rows, columns) float32, written where a phase has a lane. All places
            of a pooled square get the weighted sum that belongs to the square.
    """
    lines, pitch, phases = out.shape[1] * grid.height, grid.pitch, len(grid.tops) * len(grid.lefts)
    many = max(1, FLOATS // pitch)
    sums = np.empty(many * pitch + WHOLE, np.float32)
    for top in range(0, lines, many):
        bottom = min(lines, top + many)
        size = ((bottom - top) * pitch + WHOLE - 1) // WHOLE * WHOLE
        for channel in range(first, last):
            for f in range(phases):
                j = channel * phases + f
                part = starts[j], starts[j + 1]
                sum_weighted(values[top * pitch :], at, 1, weights, part, sums[:size])
                _scatter(sums, top, bottom, f, grid, out[channel])
