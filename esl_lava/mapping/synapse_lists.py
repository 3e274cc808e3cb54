"""The lists of synapses that reach a core's share of a layer, and the axons they take."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from esl_lava.arrays import Array, Bools, Ints
from esl_lava.mapping.packing import Lists
from esl_lava.mapping.regions import Grid, Range, Region, maps, running_totals
from esl_lava.network import Connections, Convolution, Matrix

KEPT = 1 << 24
"""Counts by place in a kernel that are kept at a time: 128 MB."""

_Sign = tuple[tuple[int, int], ...]
"""What an input meets along an axis: positions of a kernel, and outputs from the first on."""


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


@dataclass(frozen=True, eq=False)
class Populations:
    """What joins the maps in front of a kernel to a core.

    Attributes:
        synapses: (channels of the source, rows, columns of the kernel) whether a channel has a
            synapse at a position.
        rows, columns: (rows or columns of the source, positions of the kernel along the axis)
            which positions a place meets.
    """

    synapses: Bools
    rows: Bools
    columns: Bools

    def reached(self, positions: Bools) -> Bools:
        """(rows, columns) of the source: places that meet any of (rows, columns) positions."""
        rows, columns = self.rows.astype(np.int64), self.columns.astype(np.int64)
        return np.asarray(rows @ positions.astype(np.int64) @ columns.T > 0)


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
        found = self.populations(region)
        places = found.reached(np.asarray(found.synapses.any(axis=0)))
        return self._laid_out(region), int(np.count_nonzero(places))

    def fan_out(self, region: Region) -> Ints:
        """(n_pre,) synapses of each input onto the neurons of a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        # What no tap meets has kind -1: the last row and column, which are 0.
        counts = np.pad(self._counts(region), ((0, 0), (0, 1), (0, 1)))
        return np.asarray(counts[:, rows.kinds[:, None], columns.kinds]).ravel()

    def populations(self, region: Region) -> Populations:
        """What joins the inputs to a region."""
        return Populations(
            self._spread_of(region.channels) > 0,
            self._met_by_place(0, region.rows),
            self._met_by_place(1, region.columns),
        )

    def _met_by_place(self, axis: int, outputs: Range) -> Bools:
        """(inputs, positions of the kernel) along an axis, which of them an input meets."""
        meeting = self._meeting(axis, outputs)
        # What no position meets has kind -1: the last row, where there is none.
        return np.asarray(np.pad(meeting.met > 0, ((0, 1), (0, 0)))[meeting.kinds])

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
