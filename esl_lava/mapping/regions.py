"""A core's share of a layer, and the lists of synapses that reach it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, product

import numpy as np

from esl_lava.arrays import Bools, Ints
from esl_lava.mapping.packing import Lists
from esl_lava.network import Connections, Convolution, Layer, Matrix

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


@dataclass(frozen=True)
class Grid:
    """A layer shared among cores, evenly along every axis.

    Attributes:
        lengths: channels, rows and columns of the layer.
        shares: how many ranges each of these is split into.
    """

    lengths: tuple[int, int, int]
    shares: tuple[int, int, int]

    def __len__(self) -> int:
        return math.prod(self.shares)

    @property
    def largest(self) -> int:
        """Neurons of the largest region."""
        return math.prod(-(-n // share) for n, share in zip(self.lengths, self.shares))

    def ranges(self, axis: int) -> tuple[Range, ...]:
        """Of channels (axis 0), rows (1) or columns (2)."""
        return splits(self.lengths[axis], self.shares[axis])

    def regions(self) -> list[Region]:
        """The region of every core, columns fastest."""
        return [Region(c, y, x) for c, y, x in product(*map(self.ranges, range(3)))]

    def sums(self, totals: Ints) -> Ints:
        """(channels, rows, columns) of the grid: sums of each region, from `running_totals`."""
        for axis, (length, share) in enumerate(zip(self.lengths, self.shares)):
            totals = np.diff(totals.take(_bounds(length, share), axis), axis=axis)
        return totals


@lru_cache(maxsize=1 << 14)
def _bounds(length: int, number: int) -> Ints:
    return length * np.arange(number + 1) // number


def running_totals(values: Ints, shape: tuple[int, ...]) -> Ints:
    """Sums over all boxes from a layer's first neuron on; one longer along every axis."""
    totals = np.pad(values.reshape(maps(shape)), ((1, 0), (1, 0), (1, 0)))
    for axis in range(3):
        totals = totals.cumsum(axis=axis)
    return totals


def maps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A layer's shape as (channels, rows, columns)."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)


@lru_cache(maxsize=1 << 14)
def splits(length: int, number: int) -> tuple[Range, ...]:
    """`number` ranges that cover 0..length-1, of lengths that differ by 1 at most."""
    return tuple(pairwise(_bounds(length, number).tolist()))


def partitions(layer: Layer, least: int, largest: int) -> Iterator[Grid]:
    """Ways to share a layer among cores, by their number, from `least` on.

    None of them has a region of more than `largest` neurons. Neurons of feature maps are
    shared by rows, columns and channels, few splits of channels first; others in equal
    ranges.
    """
    lengths = maps(layer.shape)
    for number in range(max(1, least), layer.neurons + 1):
        for channels in _divisors(number):
            for rows in _divisors(number // channels):
                grid = Grid(lengths, (channels, rows, number // channels // rows))
                possible = all(share <= n for n, share in zip(lengths, grid.shares))
                if possible and grid.largest <= largest:
                    yield grid


def _divisors(number: int) -> list[int]:
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})


class MatrixIndex:
    """A matrix of a layer, laid out so that what reaches a region is found quickly.

    Args:
        matrix: connections to the layer's neurons; without any where input is injected.
        shape: of the layer.
    """

    def __init__(self, matrix: Matrix, shape: tuple[int, ...]) -> None:
        self.n_pre = matrix.n_pre
        self._matrix = matrix
        self._shape = shape

    @cached_property
    def _by_input(self) -> tuple[Ints, Ints]:
        """(input, output) of every synapse, ascending."""
        there = self._matrix.weights != 0
        pre, post = self._matrix.indices[there].astype(np.int64), self._matrix.rows()[there]
        order = np.lexsort((post, pre))
        return pre[order], post[order]

    def _within(self, region: Region) -> tuple[Ints, Ints]:
        """(input, place within the region) of every synapse onto a region, ascending."""
        pre, post = self._by_input
        where = np.full(self._matrix.n_post, -1, np.int64)
        where[region.members(self._shape)] = np.arange(region.neurons)
        target = where[post]
        here = target >= 0
        return pre[here], target[here]

    def reach(self, region: Region) -> tuple[Lists, int]:
        """Lists of the synapses onto the neurons of a region, and the input axons they take."""
        pre, target = self._within(region)
        fan_out = np.bincount(pre, minlength=self.n_pre).astype(np.int64)
        number = np.cumsum(fan_out > 0) - 1
        axons = int(np.count_nonzero(fan_out))
        lists = Lists(
            owner=number[pre],
            target=target,
            groups=np.zeros(axons, np.int64),
            widths=np.full(axons, region.neurons, np.int64),
            runs=np.ones(axons, np.int64),
        )
        return lists, axons

    def fan_out(self, region: Region) -> Ints:
        """(n_pre,) synapses of each input onto the neurons of a region."""
        pre, _ = self._within(region)
        return np.bincount(pre, minlength=self.n_pre).astype(np.int64)

    def mark(self, cores: Ints, region: Region) -> None:
        """Add 1 to each input, (n_pre,), that has a synapse onto a neuron of a region."""
        cores += self.fan_out(region) > 0

    def kind(self, region: Region) -> Hashable:
        """Equal for regions whose lists and numbers of axons are equal."""
        return region

    def alike(self, grid: Grid, axis: int) -> tuple[Hashable, ...]:
        """Equal for ranges of rows (axis 1) or columns (2) that make regions of one kind."""
        return grid.ranges(axis)

    def least_stored(self, grid: Grid, every_position: bool) -> Ints:
        """Weights that each region of a grid stores at least: 0, as lists are quick to lay out."""
        return np.zeros(grid.shares, np.int64)


class KernelIndex:
    """A kernel that makes the maps of a layer, laid out so that regions are found quickly.

    It answers as `MatrixIndex`.

    Args:
        kernel: its `out_shape` is the layer's.
    """

    def __init__(self, kernel: Convolution) -> None:
        self.n_pre = kernel.n_pre
        self._part = kernel
        self._spread: dict[Range, Ints] = {}
        self._stored: dict[Hashable, Ints] = {}
        self._alike: dict[Hashable, tuple[Hashable, ...]] = {}
        self._numbers: dict[tuple[int, Range], int] = {}
        self._ways: dict[Hashable, int] = {}

    def reach(self, region: Region) -> tuple[Lists, int]:
        """Lists of synapses, and input axons; an axon is a place of the input maps."""
        places = self.fan_out(region).reshape(self._part.in_shape).any(axis=0)
        return self._shared(region), int(np.count_nonzero(places))

    def fan_out(self, region: Region) -> Ints:
        """(n_pre,) synapses of each input onto the neurons of a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        # What no tap meets has kind -1: the last row and column, which are 0.
        counts = np.pad(self._counts(region), ((0, 0), (0, 1), (0, 1)))
        return np.asarray(counts[:, rows.kinds[:, None], columns.kinds]).ravel()

    def mark(self, cores: Ints, region: Region) -> None:
        """Add 1 to each input, (n_pre,), that has a synapse onto a neuron of a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        counts = self._counts(region)
        c = np.flatnonzero(counts.any(axis=(1, 2)))
        y, x = np.flatnonzero(rows.kinds >= 0), np.flatnonzero(columns.kinds >= 0)
        met = counts[np.ix_(c, rows.kinds[y], columns.kinds[x])] > 0
        cores.reshape(self._part.in_shape)[np.ix_(c, y, x)] += met

    def _counts(self, region: Region) -> Ints:
        """(input channels, kinds of rows, of columns) synapses of an input onto a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        spread = self._spread_of(region.channels)
        return rows.met @ spread @ columns.met.T

    def kind(self, region: Region) -> Hashable:
        """Equal for regions whose lists and numbers of axons are equal.

        Regions of a feature map away from its borders differ by where they lie alone.
        """
        rows, columns = (
            self._like(axis, of) for axis, of in ((0, region.rows), (1, region.columns))
        )
        return region.channels, region.shape[2], rows, columns

    def alike(self, grid: Grid, axis: int) -> tuple[Hashable, ...]:
        """Equal for ranges of rows (axis 1) or columns (2) that make regions of one kind."""
        ranges = grid.ranges(axis)
        key = axis, grid.lengths[axis], grid.shares[axis]
        if key not in self._alike:
            self._alike[key] = tuple(
                (last - first, self._like(axis - 1, (first, last))) for first, last in ranges
            )
        return self._alike[key]

    def least_stored(self, grid: Grid, every_position: bool) -> Ints:
        """Weights that each region of a grid stores at least, found without laying lists out.

        Of shared kernels it is how many there are, else 0: full layers are quick to lay out.

        Args:
            grid: of regions.
            every_position: count positions, as dense lists do, instead of synapses.
        """
        used, rows, columns = (self._met(grid, axis, every_position) for axis in range(3))
        return rows @ used @ columns.T

    def _met(self, grid: Grid, axis: int, every_position: bool) -> Ints:
        """What `least_stored` multiplies.

        Returns:
            Of rows and columns, (ranges, positions of the kernel) in how many kinds of inputs
            each position is; of channels, (ranges, rows, columns) synapses or positions.
        """
        key = axis, grid.lengths[axis], grid.shares[axis], every_position
        if key not in self._stored:
            self._stored[key] = np.stack(
                [
                    self._per_tap(one, every_position)
                    if axis == 0
                    else self._meeting(axis - 1, one).met.sum(axis=0)
                    for one in grid.ranges(axis)
                ]
            )
        return self._stored[key]

    def _per_tap(self, channels: Range, every_position: bool) -> Ints:
        """(rows, columns) of the kernel: synapses, or positions, at each."""
        if every_position:
            size = (channels[1] - channels[0]) * self._part.kernel.shape[1]
            return np.full(self._part.kernel.shape[2:], size, np.int64)
        return np.asarray(self._spread_of(channels).sum(axis=0))

    def _like(self, axis: int, outputs: Range) -> int:
        """A number that ranges share whose inputs meet them in equal ways."""
        if (axis, outputs) not in self._numbers:
            meetings = self._meeting(axis, outputs)
            ways = (axis, meetings.signs, meetings.inputs)
            self._numbers[axis, outputs] = self._ways.setdefault(ways, len(self._ways))
        return self._numbers[axis, outputs]

    def _spread_of(self, channels: Range) -> Ints:
        """(input channels, rows, columns) synapses onto these channels, by place in the kernel."""
        if channels not in self._spread:
            spread = np.count_nonzero(self._used[:, :, slice(*channels)], axis=2)
            self._spread[channels] = spread.reshape(-1, *self._part.kernel.shape[2:])
        return self._spread[channels]

    def _meeting(self, axis: int, outputs: Range) -> _Meetings:
        """How the inputs meet a range of rows (axis 0) or columns (1)."""
        part = self._part
        steps = part.stride[axis], part.padding[axis], part.dilation[axis]
        return _meetings(part.in_shape[1 + axis], part.kernel.shape[2 + axis], *steps, outputs)

    @cached_property
    def _used(self) -> Bools:
        """(input channels, positions of the kernel, channels) whether there is a synapse."""
        part = self._part
        outputs, share, *size = part.kernel.shape
        used = np.zeros((part.in_shape[0], math.prod(size), outputs), bool)
        for group, low, high in _groups(part, (0, outputs)):
            kernel = part.kernel[low:high].reshape(high - low, share, -1)
            used[group * share : (group + 1) * share, :, low:high] = kernel.transpose(1, 2, 0) != 0
        return used

    def _shared(self, region: Region) -> Lists:
        """Lists of a kernel: one for each input channel and way the kernel meets the region.

        Inputs of a channel that meet the same positions of the kernel share a list; those near
        the region's border, or at another phase of the stride, have lists of their own. An
        axon is a place of the input maps: the channel travels with the spike.
        """
        part = self._part
        channels_in = part.in_shape[0]
        signs_y = self._meeting(0, region.rows).signs
        signs_x = self._meeting(1, region.columns).signs
        depth, _, wide = region.shape
        first, last = region.channels
        wide_kernel = part.kernel.shape[3]
        none = np.zeros(0, np.int64)
        owner, target, widths, runs, groups = ([none] for _ in range(5))
        lists = 0
        for sy, taps_y in enumerate(signs_y):
            for sx, taps_x in enumerate(signs_x):
                taps = [
                    (ky, kx, (dy * wide + dx) * depth) for ky, dy in taps_y for kx, dx in taps_x
                ]
                taps.sort(key=lambda tap: tap[2])
                block = self._used[:, [ky * wide_kernel + kx for ky, kx, _ in taps], first:last]
                base = np.array([place for _, _, place in taps])
                channel, tap, out = np.nonzero(block)
                size = np.bincount(channel, minlength=channels_in)
                number = np.cumsum(size > 0) - 1 + lists
                owner.append(number[channel])
                target.append(base[tap] + out)
                added = int(np.count_nonzero(size))
                widths.append(np.full(added, len(taps) * depth, np.int64))
                runs.append(np.full(added, len(taps), np.int64))
                groups.append(np.full(added, sy * len(signs_x) + sx, np.int64))
                lists += added
        columns = (owner, target, groups, widths, runs)
        return Lists(*(np.concatenate(column).astype(np.int64) for column in columns))


RegionIndex = MatrixIndex | KernelIndex


def index_regions(connections: Connections, shape: tuple[int, ...]) -> RegionIndex:
    """Lay out connections to a layer of this shape.

    A kernel shares lists of synapses where it makes the layer's maps.
    """
    if isinstance(connections, Convolution) and maps(shape) == connections.out_shape:
        return KernelIndex(connections)
    return MatrixIndex(connections.unrolled(), shape)


def _groups(part: Convolution, channels: Range) -> Iterator[tuple[int, int, int]]:
    """(group, first, behind the last) of the groups that some output channels belong to."""
    per_group = part.kernel.shape[0] // part.groups
    for group in range(part.groups):
        low, high = max(channels[0], group * per_group), min(channels[1], (group + 1) * per_group)
        if low < high:
            yield group, low, high


@dataclass(frozen=True, eq=False)
class _Meetings:
    """How the inputs along an axis meet a range of outputs.

    Attributes:
        kinds: (inputs,) kind of each, -1 where no output of the range sees it.
        signs: of each kind, its (position of the kernel, output from the first it meets).
        inputs: of each kind.
        met: (kinds, positions of the kernel) 1 where inputs of a kind meet a position, else 0.
    """

    kinds: Ints
    signs: tuple[tuple[tuple[int, int], ...], ...]
    inputs: tuple[int, ...]
    met: Ints


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
    met = np.zeros((len(known), length), np.int64)
    for sign, kind in known.items():
        met[kind, [tap for tap, _ in sign]] = 1
    inputs = np.bincount(kinds[kinds >= 0], minlength=len(known))
    return _Meetings(kinds, tuple(known), tuple(inputs.tolist()), met)
