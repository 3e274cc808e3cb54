"""A core's share of a layer, and the lists of synapses that reach it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, product

import numpy as np

from esl_lava.arrays import Array, Bools, Ints
from esl_lava.mapping.packing import Lists
from esl_lava.network import Connections, Convolution, Layer, Matrix

SOME = 4
"""Ranges of channels, about, that tell a partition that may fit from one that cannot."""
KEPT = 1 << 24
"""Counts by place in a kernel that are kept at a time: 128 MB."""

Range = tuple[int, int]
_Sign = tuple[tuple[int, int], ...]
"""What an input meets along an axis: positions of a kernel, and outputs from the first on."""


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
        for axis in range(3):
            totals = np.diff(totals.take(self.bounds(axis), axis), axis=axis)
        return totals

    def chosen(self, some: bool) -> slice:
        """All ranges of channels, or about `SOME` of them."""
        return slice(None, None, max(1, self.shares[0] // SOME) if some else 1)

    def bounds(self, axis: int) -> Ints:
        """(shares + 1,) where the ranges of an axis begin, and where the last one ends."""
        return _bounds(self.lengths[axis], self.shares[axis])


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


def partitions(layer: Layer, least: int, largest: int, parts: int = 1) -> Iterator[Grid]:
    """Ways to share a layer among cores, by their number, from `least` on.

    None of them has a region of more than `largest` neurons. Neurons of feature maps are
    shared by rows, columns and channels, few splits of channels first; others in equal
    ranges.

    Args:
        layer: to share.
        least: number of cores.
        largest: number of neurons of a region.
        parts: that the channels, or neurons, are in, equally long: none lies in two of them.
    """
    lengths = maps(layer.shape)
    for number in range(max(1, -(-least // parts)) * parts, layer.neurons + 1, parts):
        for channels in (parts * share for share in _divisors(number // parts)):
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

    Every input has an input axon of its own in each core, and a list of synapses there. Where
    axons are shared, inputs whose lists in a core are equal have one.

    Args:
        matrix: connections to the layer's neurons; without any where input is injected.
        shape: of the layer.
        shared: whether several inputs may have one axon.
    """

    def __init__(self, matrix: Matrix, shape: tuple[int, ...], shared: bool = False) -> None:
        self.in_shape = (matrix.n_pre, 1, 1)
        self._matrix = matrix
        self._shape = shape
        self._is_shared = shared

    @cached_property
    def _by_output(self) -> tuple[Ints, Ints, Ints]:
        """Where the synapses of each output start, and (input, weight) of each, ascending."""
        there = self._matrix.weights != 0
        starts = np.concatenate([[0], np.cumsum(there)])[self._matrix.indptr]
        return starts, self._matrix.indices[there].astype(np.int64), self._matrix.weights[there]

    def _within(self, region: Region) -> tuple[Ints, Ints, Ints]:
        """(input, place within the region, weight) of every synapse onto it, ascending."""
        starts, pre, weights = self._by_output
        members = region.members(self._shape)
        first, sizes = starts[members], starts[members + 1] - starts[members]
        target = np.repeat(np.arange(region.neurons), sizes)
        chosen = np.arange(len(target)) + (first - np.cumsum(sizes) + sizes)[target]
        order = np.argsort(pre[chosen], kind="stable")
        chosen = chosen[order]
        return pre[chosen], target[order], weights[chosen]

    def reach(self, region: Region) -> tuple[Lists, int]:
        """Lists of the synapses onto the neurons of a region, and the input axons they take."""
        pre, target, weights = self._within(region)
        owner = np.cumsum(np.diff(pre, prepend=-1) > 0) - 1
        if self._is_shared:
            kept = distinct_lists(owner, target, weights)
            synapses = kept[owner]
            owner, target = (np.cumsum(kept) - 1)[owner[synapses]], target[synapses]
        axons = int(owner[-1]) + 1 if len(owner) else 0
        lists = Lists(
            owner=owner,
            target=target,
            groups=np.zeros(axons, np.int64),
            widths=np.full(axons, region.neurons, np.int64),
            runs=np.ones(axons, np.int64),
        )
        return lists, axons

    def fan_out(self, region: Region) -> Ints:
        """(n_pre,) synapses of each input onto the neurons of a region."""
        return np.bincount(self._within(region)[0], minlength=self._matrix.n_pre).astype(np.int64)

    def kind(self, region: Region) -> Hashable:
        """Equal for regions whose lists and numbers of axons are equal."""
        return region

    def alike(self, grid: Grid, axis: int) -> tuple[Hashable, ...]:
        """Equal for ranges of rows (axis 1) or columns (2) that make regions of one kind."""
        return grid.ranges(axis)

    def least(self, grid: Grid, every_position: bool, some: bool) -> tuple[Ints, Ints]:
        """Weights that each region of a grid stores at least, and lists, without laying them out.

        Where inputs share an axon and a list nothing is known of them, but that there may be none.
        """
        stored = grid.sums(self._totals) * (not self._is_shared)
        # A region has a list for each synapse of any of its neurons: of the mean one, at least.
        sizes = [np.diff(grid.bounds(axis)) for axis in range(3)]
        lists = -(-stored // np.einsum("a,b,c->abc", *sizes))
        chosen = grid.chosen(some)
        return stored[chosen], lists[chosen]

    @cached_property
    def _totals(self) -> Ints:
        return running_totals(np.diff(self._by_output[0]), self._shape)


class KernelIndex:
    """A kernel that makes the maps of a layer, laid out so that regions are found quickly.

    It answers as `MatrixIndex`. An input axon is a place of the input maps, a population whose
    spikes say of which channel they are. Where lists are shared, positions of the kernel that
    have the same weights, as a folded pool makes them, store these once.

    Args:
        kernel: its `out_shape` is the layer's.
        shared: whether lists of the same weights are stored once.
        by_tap: whether a list is of a position of the kernel, whatever its inputs meet besides.
    """

    def __init__(self, kernel: Convolution, shared: bool = False, by_tap: bool = False) -> None:
        self._by_tap = by_tap
        self.in_shape = kernel.in_shape
        self._part = kernel
        self._equal = tuple(
            first_equal(kernel.kernel, axis) if shared else tuple(range(kernel.kernel.shape[axis]))
            for axis in (2, 3)
        )
        self._spread: dict[Range, Ints] = {}
        self._often: dict[Hashable, Ints] = {}
        self._counts_of: dict[Hashable, tuple[Ints, Ints]] = {}
        self._alike: dict[Hashable, tuple[Hashable, ...]] = {}
        self._numbers: dict[tuple[int, Range], int] = {}
        self._ways: dict[Hashable, int] = {}

    def reach(self, region: Region) -> tuple[Lists, int]:
        """Lists of synapses, and input axons; an axon is a place of the input maps."""
        _, places = self.populations(region)
        return self._laid_out(region), int(np.count_nonzero(places))

    def fan_out(self, region: Region) -> Ints:
        """(n_pre,) synapses of each input onto the neurons of a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        # What no tap meets has kind -1: the last row and column, which are 0.
        counts = np.pad(self._counts(region), ((0, 0), (0, 1), (0, 1)))
        return np.asarray(counts[:, rows.kinds[:, None], columns.kinds]).ravel()

    def populations(self, region: Region) -> tuple[Bools, Bools]:
        """(channels,) and (rows, columns) of the inputs with a synapse onto a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        counts = self._counts(region) > 0
        places = np.pad(counts.any(axis=0), ((0, 1), (0, 1)))  # kind -1: met by no tap
        channels = np.asarray(counts.any(axis=(1, 2)))
        return channels, places[rows.kinds[:, None], columns.kinds]

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

    def least(self, grid: Grid, every_position: bool, some: bool) -> tuple[Ints, Ints]:
        """Weights that each region of a grid stores at least, and lists, without laying them out.

        Args:
            grid: of regions.
            every_position: count positions, as dense lists do, instead of synapses.
            some: whether to look at some ranges of channels only, which is quick.
        """
        rows, columns = (self._listed(grid, axis) for axis in (1, 2))
        synapses, lists = self._counted(grid, some)
        if every_position:
            widths = np.diff(grid.bounds(0))[grid.chosen(some)]
            synapses = widths[:, None, None] * lists
        stored = rows @ synapses @ columns.T
        # Unless each position of the kernel has a list, one has many of them.
        return stored, rows @ lists @ columns.T if self._by_tap else np.zeros_like(stored)

    def _listed(self, grid: Grid, axis: int) -> Ints:
        """(ranges, positions of the kernel) how often each is in lists of rows (1), columns (2)."""
        key = axis, grid.lengths[axis], grid.shares[axis]
        if key not in self._often:
            found = np.zeros((grid.shares[axis], len(self._equal[axis - 1])), np.int64)
            for one, outputs in zip(found, grid.ranges(axis)):
                signs = self._signs(axis - 1, outputs)
                np.add.at(one, [tap for sign in signs for tap, _ in sign], 1)
            self._often[key] = found
        return self._often[key]

    def _counted(self, grid: Grid, some: bool) -> tuple[Ints, Ints]:
        """(ranges of channels, rows, columns of the kernel) synapses, and inputs with any."""
        key = grid.lengths[0], grid.shares[0], some
        if key not in self._counts_of:
            spread = [self._spread_of(one) for one in grid.ranges(0)[grid.chosen(some)]]
            self._counts_of[key] = (
                np.stack([one.sum(axis=0) for one in spread]),
                np.stack([np.count_nonzero(one, axis=0) for one in spread]),
            )
        return self._counts_of[key]

    def _signs(self, axis: int, outputs: Range) -> tuple[_Sign, ...]:
        """What the lists of a range of rows (axis 0) or columns (1) hold."""
        signs = self._meeting(axis, outputs).signs
        if not self._by_tap:
            return signs
        return tuple(((tap, 0),) for tap in sorted({tap for sign in signs for tap, _ in sign}))

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
            if len(self._spread) * self._used[0].size > KEPT:
                self._spread.clear()
            spread = self._used[slice(*channels)].sum(axis=0, dtype=np.int64)
            self._spread[channels] = spread.reshape(-1, *self._part.kernel.shape[2:])
        return self._spread[channels]

    def _meeting(self, axis: int, outputs: Range) -> _Meetings:
        """How the inputs meet a range of rows (axis 0) or columns (1)."""
        part = self._part
        steps = part.stride[axis], part.padding[axis], part.dilation[axis]
        return _meetings(part.in_shape[1 + axis], self._equal[axis], *steps, outputs)

    @cached_property
    def _used(self) -> Bools:
        """(channels, input channels, positions of the kernel) whether there is a synapse."""
        part = self._part
        outputs, share, *size = part.kernel.shape
        used = np.zeros((outputs, part.in_shape[0], math.prod(size)), bool)
        for group, low, high in _groups(part, (0, outputs)):
            kernel = part.kernel[low:high].reshape(high - low, share, -1)
            used[low:high, group * share : (group + 1) * share] = kernel != 0
        return used

    def _laid_out(self, region: Region) -> Lists:
        """Lists of a kernel: one for each input channel and way the kernel meets the region.

        Inputs of a channel that meet the same positions of the kernel share a list; those near
        the region's border, or at another phase of the stride, have lists of their own, unless
        each position of the kernel has one. An axon is a place of the input maps: the channel
        travels with the spike.
        """
        part = self._part
        channels_in = part.in_shape[0]
        signs_y, signs_x = self._signs(0, region.rows), self._signs(1, region.columns)
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
                chosen = [ky * wide_kernel + kx for ky, kx, _ in taps]
                block = self._used[first:last, :, chosen].transpose(1, 2, 0)
                base = np.array([place for _, _, place in taps])
                channel, tap, out = np.nonzero(np.ascontiguousarray(block))
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


def index_regions(
    connections: Connections, shape: tuple[int, ...], shared: bool = False, by_tap: bool = False
) -> RegionIndex:
    """Lay out connections to a layer of this shape.

    A kernel shares lists of synapses among places where it makes the layer's maps.

    Args:
        connections: to the layer.
        shape: of the layer.
        shared: whether several inputs may have one axon, and equal lists are stored once.
        by_tap: whether each position of a kernel has a list, as `KernelIndex` says.
    """
    if isinstance(connections, Convolution) and maps(shape) == connections.out_shape:
        return KernelIndex(connections, shared, by_tap)
    return MatrixIndex(connections.unrolled(), shape, shared)


def synapses_of_outputs(kind: Connections) -> Ints:
    """(n_post,) weights that are not 0 of each output, or (channels,) of a kernel."""
    if isinstance(kind, Convolution):
        return np.count_nonzero(kind.kernel.reshape(len(kind.kernel), -1), axis=1)
    matrix = kind.unrolled()
    return np.diff(np.concatenate([[0], np.cumsum(matrix.weights != 0)])[matrix.indptr])


def distinct_lists(owner: Ints, target: Ints, weights: Ints) -> Bools:
    """(lists,) the first of all lists that have the same synapses, and those of none before.

    Args:
        owner: (synapses,) list of each, ascending, none empty.
        target, weights: (synapses,) of each, in one order in every list.
    """
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    if not len(starts):
        return np.zeros(0, bool)
    sizes = np.diff(starts, append=len(owner))
    with np.errstate(over="ignore"):  # sums of mixed keys, modulo 2**64
        keys = target.astype(np.uint64) << np.uint64(32) | weights.astype(np.uint32)
        for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
            keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(factor)
        sums = np.add.reduceat(keys ^ (keys >> np.uint64(31)), starts)
    _, first, same = np.unique(sums, return_index=True, return_inverse=True)
    like = first[same]
    # Equal sums are no proof: lists are compared, synapse by synapse.
    within = np.arange(len(owner)) - starts[owner]
    other = np.minimum(starts[like[owner]] + within, len(owner) - 1)
    differs = (target != target[other]) | (weights != weights[other])
    unequal = (sizes != sizes[like]) | (np.bincount(owner[differs], minlength=len(starts)) > 0)
    return unequal | (like == np.arange(len(starts)))


def first_equal(kernel: Array, axis: int) -> tuple[int, ...]:
    """Of each position along an axis of a kernel, the first with the same weights."""
    slices = np.moveaxis(kernel, axis, 0)
    return tuple(
        next(first for first, other in enumerate(slices) if np.array_equal(one, other))
        for one in slices
    )


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
        met: (kinds, positions of the kernel) how often inputs of a kind meet a position.
    """

    kinds: Ints
    signs: tuple[_Sign, ...]
    inputs: tuple[int, ...]
    met: Ints


@lru_cache(maxsize=1 << 14)
def _meetings(
    size: int,
    positions: tuple[int, ...],
    stride: int,
    padding: int,
    dilation: int,
    outputs: Range,
) -> _Meetings:
    """Of an axis of `size` inputs under a kernel whose positions are called by these numbers."""
    kinds = np.full(size, -1, np.int64)
    known: dict[_Sign, int] = {}
    found: dict[int, list[tuple[int, int]]] = {}
    for out in range(*outputs):
        for tap, called in enumerate(positions):
            place = out * stride - padding + tap * dilation
            if 0 <= place < size:
                found.setdefault(place, []).append((called, out))
    for place, meets in found.items():
        lowest = min(out for _, out in meets)
        sign = tuple(sorted((tap, out - lowest) for tap, out in meets))
        kinds[place] = known.setdefault(sign, len(known))
    met = np.zeros((len(known), len(positions)), np.int64)
    for sign, kind in known.items():
        np.add.at(met[kind], [tap for tap, _ in sign], 1)
    inputs = np.bincount(kinds[kinds >= 0], minlength=len(known))
    return _Meetings(kinds, tuple(known), tuple(inputs.tolist()), met)
