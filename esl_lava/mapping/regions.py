"""A core's share of a layer, and the lists of synapses that reach it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.mapping.packing import Ints, Lists
from esl_lava.network import Connections, Convolution, Injection, Layer

Range = tuple[int, int]


@dataclass(frozen=True)
class Region:
    """Neurons of a layer in one core: a box of channels, rows and columns.

    A layer without feature maps has one row and one column, and its neurons as channels.

    Attributes:
        channels, rows, columns: (first, behind the last).
    """

    channels: Range
    rows: Range = (0, 1)
    columns: Range = (0, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the box."""
        (c0, c1), (y0, y1), (x0, x1) = self.channels, self.rows, self.columns
        return c1 - c0, y1 - y0, x1 - x0

    @property
    def neurons(self) -> int:
        """How many there are."""
        channels, rows, columns = self.shape
        return channels * rows * columns

    def members(self, shape: tuple[int, ...]) -> Ints:
        """(neurons,) their places in a layer of this shape, in C order."""
        _, rows, columns = maps(shape)
        c, y, x = (np.arange(*pair) for pair in (self.channels, self.rows, self.columns))
        return ((c[:, None, None] * rows + y[:, None]) * columns + x).ravel()


@dataclass(frozen=True, eq=False)
class Reach:
    """What some connections bring to a core.

    Attributes:
        lists: of synapses, as they are stored.
        axons: input axons they take.
        fan_out: (n_pre,) synapses of each input in this core.
    """

    lists: Lists
    axons: int
    fan_out: Ints


def maps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A layer's shape as (channels, rows, columns)."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)


def splits(length: int, number: int) -> list[Range]:
    """`number` ranges that cover 0..length-1, the first ones longer by 1 if need be."""
    bounds = [length * part // number for part in range(number + 1)]
    return list(pairwise(bounds))


def partitions(layer: Layer, least: int, largest: int) -> Iterator[list[Region]]:
    """Ways to share a layer among cores, by their number, from `least` on.

    None of them has a region of more than `largest` neurons. Neurons of feature maps are
    shared by rows, columns and channels, few splits of channels first; others in equal
    ranges.
    """
    channels, rows, columns = maps(layer.shape)
    for number in range(max(1, least), layer.neurons + 1):
        for by_channel in _divisors(number):
            if by_channel > channels:
                continue
            for by_row in _divisors(number // by_channel):
                by_column = number // by_channel // by_row
                shares = ((channels, by_channel), (rows, by_row), (columns, by_column))
                if math.prod(-(-length // share) for length, share in shares) > largest:
                    continue
                if by_row <= rows and by_column <= columns:
                    yield [
                        Region(c, y, x)
                        for c in splits(channels, by_channel)
                        for y in splits(rows, by_row)
                        for x in splits(columns, by_column)
                    ]


def _divisors(number: int) -> list[int]:
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})


class Synapses:
    """A part of a layer's connections, laid out so that regions of it are found quickly."""

    def __init__(self, part: Connections | Convolution | Injection, shape: tuple[int, ...]) -> None:
        self.part = part
        self._shape = shape
        self._taps: dict[tuple[int, int, bool], Ints] = {}
        self._stored: dict[tuple[Any, ...], int] = {}
        if isinstance(part, Convolution) and maps(shape) != part.out_shape:
            self.part = part.unrolled()

    @cached_property
    def _by_input(self) -> tuple[Ints, Ints]:
        """(input, output) of every synapse, ascending."""
        part = self.part
        assert isinstance(part, Connections)
        there = part.weights != 0
        pre, post = part.indices[there].astype(np.int64), part.rows()[there]
        order = np.lexsort((post, pre))
        return pre[order], post[order]

    def reach(self, region: Region) -> Reach:
        """What they bring to the neurons of a region."""
        if isinstance(self.part, Connections):
            return self._full(region)
        if isinstance(self.part, Convolution):
            return _shared(self.part, region)
        none = np.zeros(0, np.int64)
        return Reach(Lists(none, none, none, none, none), 0, self.part.fan_out())

    def least_stored(self, region: Region, every_position: bool) -> int:
        """Weights that a region stores at least, found without laying its lists out.

        Of shared kernels it is how many there are, else 0: full layers are quick to lay out.

        Args:
            region: of neurons.
            every_position: count positions, as dense lists do, instead of synapses.
        """
        if not isinstance(self.part, Convolution):
            return 0
        part = self.part
        rows, columns = (
            _meetings(part.in_shape[1 + axis], part.kernel.shape[2 + axis], *_steps(part, axis), of)
            for axis, of in ((0, region.rows), (1, region.columns))
        )
        key = (region.channels, rows.met, columns.met, every_position)
        if key not in self._stored:
            used = self._per_tap(region.channels, every_position)
            self._stored[key] = int(np.array(rows.met) @ used @ np.array(columns.met))
        return self._stored[key]

    def _per_tap(self, channels: Range, every_position: bool) -> Ints:
        """(rows, columns) of the kernel: synapses, or positions, at each."""
        key = (*channels, every_position)
        if key not in self._taps:
            assert isinstance(self.part, Convolution)
            slab = self.part.kernel[slice(*channels)]
            used = np.ones_like(slab, bool) if every_position else slab != 0
            self._taps[key] = used.sum(axis=(0, 1), dtype=np.int64)
        return self._taps[key]

    def _full(self, region: Region) -> Reach:
        pre, post = self._by_input
        where = np.full(self.part.n_post, -1, np.int64)
        where[region.members(self._shape)] = np.arange(region.neurons)
        target = where[post]
        here = target >= 0
        pre, target = pre[here], target[here]
        fan_out = np.bincount(pre, minlength=self.part.n_pre).astype(np.int64)
        number = np.cumsum(fan_out > 0) - 1
        axons = int(np.count_nonzero(fan_out))
        lists = Lists(
            owner=number[pre],
            target=target,
            groups=np.zeros(axons, np.int64),
            widths=np.full(axons, region.neurons, np.int64),
            runs=np.ones(axons, np.int64),
        )
        return Reach(lists, axons, fan_out)


def _shared(part: Convolution, region: Region) -> Reach:
    """Lists of a kernel: one for each input channel and way the kernel meets the region.

    Inputs of a channel that meet the same positions of the kernel share a list; those near
    the region's border, or at another phase of the stride, have lists of their own. An
    axon is a place of the input maps: the channel travels with the spike.
    """
    channels_in = part.in_shape[0]
    along_y, along_x = (
        _meetings(part.in_shape[1 + axis], part.kernel.shape[2 + axis], *_steps(part, axis), of)
        for axis, of in ((0, region.rows), (1, region.columns))
    )
    kinds_y, signs_y, kinds_x, signs_x = (
        *(along_y.kinds, along_y.signs),
        *(along_x.kinds, along_x.signs),
    )
    _, _, wide = region.shape
    depth = region.shape[0]
    counts = np.zeros((channels_in, len(signs_y) + 1, len(signs_x) + 1), np.int64)
    none = np.zeros(0, np.int64)
    owner, target, widths, runs, groups = ([none] for _ in range(5))
    lists = 0
    for sy, taps_y in enumerate(signs_y):
        for sx, taps_x in enumerate(signs_x):
            taps = [(ky, kx, (dy * wide + dx) * depth) for ky, dy in taps_y for kx, dx in taps_x]
            taps.sort(key=lambda tap: tap[2])
            block = _block(part, region, [(ky, kx) for ky, kx, _ in taps])
            base = np.array([first for _, _, first in taps])
            channel, tap, out = np.nonzero(block)
            size = np.bincount(channel, minlength=channels_in)
            counts[:, sy, sx] = size
            number = np.cumsum(size > 0) - 1 + lists
            owner.append(number[channel])
            target.append(base[tap] + out)
            added = int(np.count_nonzero(size))
            widths.append(np.full(added, len(taps) * depth, np.int64))
            runs.append(np.full(added, len(taps), np.int64))
            groups.append(np.full(added, sy * len(signs_x) + sx, np.int64))
            lists += added
    # What no tap meets has kind -1: the last entry, which is 0.
    fan_out = counts[:, kinds_y[:, None], kinds_x]
    axons = int(np.count_nonzero(fan_out.any(axis=0)))
    columns = (owner, target, groups, widths, runs)
    found = Lists(*(np.concatenate(column).astype(np.int64) for column in columns))
    return Reach(found, axons, fan_out.ravel())


def _block(part: Convolution, region: Region, taps: list[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """(input channels, taps, channels of the region) whether there is a synapse."""
    first, last = region.channels
    share = part.kernel.shape[1]
    per_group = part.kernel.shape[0] // part.groups
    found = np.zeros((part.in_shape[0], len(taps), last - first), bool)
    for group in range(part.groups):
        low, high = max(first, group * per_group), min(last, (group + 1) * per_group)
        if low >= high:
            continue
        for number, (ky, kx) in enumerate(taps):
            used = part.kernel[low:high, :, ky, kx] != 0
            found[group * share : (group + 1) * share, number, low - first : high - first] = used.T
    return found


@dataclass(frozen=True, eq=False)
class _Meetings:
    """How the inputs along an axis meet a range of outputs.

    Attributes:
        kinds: (inputs,) kind of each, -1 where no output of the range sees it.
        signs: of each kind, its (position of the kernel, output from the first it meets).
        met: of each position of the kernel, in how many kinds it is.
    """

    kinds: Ints
    signs: tuple[tuple[tuple[int, int], ...], ...]
    met: tuple[int, ...]


def _steps(part: Convolution, axis: int) -> tuple[int, int, int]:
    """Stride, padding and dilation along an axis: 0 for rows, 1 for columns."""
    return part.stride[axis], part.padding[axis], part.dilation[axis]


@lru_cache(maxsize=1 << 14)
def _meetings(
    size: int, length: int, stride: int, padding: int, dilation: int, outputs: Range
) -> _Meetings:
    """Of an axis of `size` inputs under a kernel of `length` positions."""
    kinds = np.full(size, -1, np.int64)
    known: dict[tuple[tuple[int, int], ...], int] = {}
    found: dict[int, list[tuple[int, int]]] = {}
    for out in range(*outputs):
        for tap in range(length):
            place = out * stride - padding + tap * dilation
            if 0 <= place < size:
                found.setdefault(place, []).append((tap, out))
    for place, meets in found.items():
        lowest = min(out for _, out in meets)
        sign = tuple(sorted((tap, out - lowest) for tap, out in meets))
        kinds[place] = known.setdefault(sign, len(known))
    met = (sum(any(k == tap for k, _ in sign) for sign in known) for tap in range(length))
    return _Meetings(kinds, tuple(known), tuple(met))
