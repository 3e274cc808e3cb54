"""The lists of synapses that a core stores for its share of a layer, and their input axons."""

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
"""The most counts, by position in a kernel, that are cached at a time: 128 MB."""

_Sign = tuple[tuple[int, int], ...]
"""How an input meets a kernel along an axis: pairs (position of the kernel, output index).

The output index counts from the first output that the input meets.
"""


class MatrixIndex:
    """An index of a layer's matrix that finds the synapses onto a region quickly.

    Every input has an input axon of its own and a list of synapses in each core. If axons are
    shared, inputs with equal lists in a core have one axon.

    Args:
        matrix: connections to the layer's neurons. It is empty if the input is injected.
        shape: shape of the layer.
        shared: whether several inputs may share an axon.
    """

    def __init__(self, matrix: Matrix, shape: tuple[int, ...], shared: bool = False) -> None:
        self.in_shape = (matrix.n_pre, 1, 1)
        self._matrix = matrix
        self._shape = shape
        self._is_shared = shared

    @cached_property
    def _by_output(self) -> tuple[Ints, Ints, Ints]:
        """The start of each output's synapses, and input and weight of every synapse."""
        present = self._matrix.weights != 0
        starts = np.concatenate([[0], np.cumsum(present)])[self._matrix.indptr]
        inputs = self._matrix.indices[present].astype(np.int64)
        return starts, inputs, self._matrix.weights[present]

    def _within(self, region: Region) -> tuple[Ints, Ints, Ints]:
        """Return input, target in the region and weight of every synapse, in order of inputs."""
        starts, pre, weights = self._by_output
        members = region.members(self._shape)
        first, sizes = starts[members], starts[members + 1] - starts[members]
        target = np.repeat(np.arange(region.neurons), sizes)
        chosen = np.arange(len(target)) + (first - np.cumsum(sizes) + sizes)[target]
        order = np.argsort(pre[chosen], kind="stable")
        chosen = chosen[order]
        return pre[chosen], target[order], weights[chosen]

    def reach(self, region: Region) -> tuple[Lists, int]:
        """Return the lists of synapses onto a region, and the number of their input axons."""
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
        """Return (n_pre,) the number of synapses of each input onto the neurons of a region."""
        return np.bincount(self._within(region)[0], minlength=self._matrix.n_pre).astype(np.int64)

    def kind(self, region: Region) -> Hashable:
        """Return a key. Regions with equal keys have equal lists and numbers of axons."""
        return region

    def alike(self, grid: Grid, axis: int) -> tuple[Hashable, ...]:
        """Return a key for each range of rows (axis 1) or columns (2).

        Regions whose ranges have equal keys are of one kind.
        """
        return grid.ranges(axis)

    def least(self, grid: Grid, every_position: bool, some: bool) -> tuple[Ints, Ints]:
        """Return lower bounds of the stored weights and the lists of each region of a grid.

        The lists are not built. If inputs share axons and lists, both bounds are 0.
        """
        stored = grid.sums(self._totals) * (not self._is_shared)
        # A region has at least as many lists as one of its neurons has synapses: take the mean.
        sizes = [np.diff(grid.bounds(axis)) for axis in range(3)]
        lists = -(-stored // np.einsum("a,b,c->abc", *sizes))
        chosen = grid.chosen(some)
        return stored[chosen], lists[chosen]

    @cached_property
    def _totals(self) -> Ints:
        return running_totals(np.diff(self._by_output[0]), self._shape)


@dataclass(frozen=True, eq=False)
class Populations:
    """The synapses that join the maps in front of a kernel to a core.

    Attributes:
        synapses: (channels of the source, rows, columns of the kernel) whether a channel has a
            synapse at a position.
        rows, columns: (rows or columns of the source, positions of the kernel along the axis)
            whether a place meets a position.
    """

    synapses: Bools
    rows: Bools
    columns: Bools

    def reached(self, positions: Bools) -> Bools:
        """Return (rows, columns) of the source: whether each place meets any of the positions."""
        rows, columns = self.rows.astype(np.int64), self.columns.astype(np.int64)
        return np.asarray(rows @ positions.astype(np.int64) @ columns.T > 0)


class KernelIndex:
    """An index of a layer's kernel that finds the synapses onto a region quickly.

    It has the methods of `MatrixIndex`. An input axon is a place of the input maps: a population
    whose spikes carry their channel. If lists are shared, positions of the kernel with the same
    weights, which a folded pool has, store these weights once.

    Args:
        kernel: a kernel whose `out_shape` is the shape of the layer.
        shared: whether lists with the same weights are stored once.
        by_tap: whether each position of the kernel has a list of its own, whatever other positions
            its inputs meet.
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
        """Return the lists of synapses onto a region, and the number of their input axons."""
        populations = self.populations(region)
        places = populations.reached(np.asarray(populations.synapses.any(axis=0)))
        return self._laid_out(region), int(np.count_nonzero(places))

    def fan_out(self, region: Region) -> Ints:
        """Return (n_pre,) the number of synapses of each input onto the neurons of a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        # An input that meets no position has kind -1, which selects the last row or column: 0.
        counts = np.pad(self._counts(region), ((0, 0), (0, 1), (0, 1)))
        return np.asarray(counts[:, rows.kinds[:, None], columns.kinds]).ravel()

    def populations(self, region: Region) -> Populations:
        """Return the populations in front of a region."""
        return Populations(
            self._spread_of(region.channels) > 0,
            self._met_by_place(0, region.rows),
            self._met_by_place(1, region.columns),
        )

    def _met_by_place(self, axis: int, outputs: Range) -> Bools:
        """Return (inputs, positions) along an axis: whether an input meets a kernel position."""
        meeting = self._meeting(axis, outputs)
        # An input that meets no position has kind -1, which selects the last row: no position.
        return np.asarray(np.pad(meeting.met > 0, ((0, 1), (0, 0)))[meeting.kinds])

    def _counts(self, region: Region) -> Ints:
        """Return (input channels, row kinds, column kinds) synapses of an input onto a region."""
        rows, columns = self._meeting(0, region.rows), self._meeting(1, region.columns)
        spread = self._spread_of(region.channels)
        return rows.met @ spread @ columns.met.T

    def kind(self, region: Region) -> Hashable:
        """Return a key. Regions with equal keys have equal lists and numbers of axons.

        Regions away from the borders of a feature map differ only in their place.
        """
        rows, columns = (
            self._like(axis, of) for axis, of in ((0, region.rows), (1, region.columns))
        )
        return region.channels, region.shape[2], rows, columns

    def alike(self, grid: Grid, axis: int) -> tuple[Hashable, ...]:
        """Return a key for each range of rows (axis 1) or columns (2).

        Regions whose ranges have equal keys are of one kind.
        """
        ranges = grid.ranges(axis)
        key = axis, grid.lengths[axis], grid.shares[axis]
        if key not in self._alike:
            self._alike[key] = tuple(
                (last - first, self._like(axis - 1, (first, last))) for first, last in ranges
            )
        return self._alike[key]

    def least(self, grid: Grid, every_position: bool, some: bool) -> tuple[Ints, Ints]:
        """Return lower bounds of the stored weights and the lists of each region of a grid.

        Args:
            grid: grid of regions.
            every_position: whether to count positions, as dense lists do, instead of synapses.
            some: whether to check only some ranges of channels, which is quick.
        """
        rows, columns = (self._listed(grid, axis) for axis in (1, 2))
        synapses, lists = self._counted(grid, some)
        if every_position:
            widths = np.diff(grid.bounds(0))[grid.chosen(some)]
            synapses = widths[:, None, None] * lists
        stored = rows @ synapses @ columns.T
        # Without `by_tap` a list covers several positions: 0 is the only simple bound.
        return stored, rows @ lists @ columns.T if self._by_tap else np.zeros_like(stored)

    def _listed(self, grid: Grid, axis: int) -> Ints:
        """Return (ranges of rows (axis 1) or columns (2), positions): how often lists hold each."""
        key = axis, grid.lengths[axis], grid.shares[axis]
        if key not in self._often:
            often = np.zeros((grid.shares[axis], len(self._equal[axis - 1])), np.int64)
            for one, outputs in zip(often, grid.ranges(axis)):
                signs = self._signs(axis - 1, outputs)
                np.add.at(one, [tap for sign in signs for tap, _ in sign], 1)
            self._often[key] = often
        return self._often[key]

    def _counted(self, grid: Grid, some: bool) -> tuple[Ints, Ints]:
        """Return (channel ranges, rows, columns of the kernel) synapses, and channels with any."""
        key = grid.lengths[0], grid.shares[0], some
        if key not in self._counts_of:
            spread = [self._spread_of(one) for one in grid.ranges(0)[grid.chosen(some)]]
            self._counts_of[key] = (
                np.stack([one.sum(axis=0) for one in spread]),
                np.stack([np.count_nonzero(one, axis=0) for one in spread]),
            )
        return self._counts_of[key]

    def _signs(self, axis: int, outputs: Range) -> tuple[_Sign, ...]:
        """Return the `_Sign` of each list of a range of rows (axis 0) or columns (1)."""
        signs = self._meeting(axis, outputs).signs
        if not self._by_tap:
            return signs
        return tuple(((tap, 0),) for tap in sorted({tap for sign in signs for tap, _ in sign}))

    def _like(self, axis: int, outputs: Range) -> int:
        """Return a number. Ranges whose inputs meet them in equal ways have equal numbers."""
        if (axis, outputs) not in self._numbers:
            meetings = self._meeting(axis, outputs)
            ways = (axis, meetings.signs, meetings.inputs)
            self._numbers[axis, outputs] = self._ways.setdefault(ways, len(self._ways))
        return self._numbers[axis, outputs]

    def _spread_of(self, channels: Range) -> Ints:
        """Return (input channels, rows, columns of the kernel) synapses onto these channels."""
        if channels not in self._spread:
            if len(self._spread) * self._used[0].size > KEPT:
                self._spread.clear()
            spread = self._used[slice(*channels)].sum(axis=0, dtype=np.int64)
            self._spread[channels] = spread.reshape(-1, *self._part.kernel.shape[2:])
        return self._spread[channels]

    def _meeting(self, axis: int, outputs: Range) -> _Meetings:
        """Return how the inputs meet a range of rows (axis 0) or columns (1)."""
        part = self._part
        steps = part.stride[axis], part.padding[axis], part.dilation[axis]
        return _meetings(part.in_shape[1 + axis], self._equal[axis], *steps, outputs)

    @cached_property
    def _used(self) -> Bools:
        """(channels, input channels, positions of the kernel) whether a synapse exists."""
        part = self._part
        outputs, share, *size = part.kernel.shape
        used = np.zeros((outputs, part.in_shape[0], math.prod(size)), bool)
        for group, low, high in _groups(part, (0, outputs)):
            kernel = part.kernel[low:high].reshape(high - low, share, -1)
            used[low:high, group * share : (group + 1) * share] = kernel != 0
        return used

    def _laid_out(self, region: Region) -> Lists:
        """Return the lists of a kernel: one for each input channel and way to meet the region.

        Inputs of a channel that meet the same positions of the kernel share a list. Inputs near
        the region's border, or at another phase of the stride, have lists of their own, unless
        each position of the kernel has a list. An axon is a place of the input maps: the spike
        carries the channel.
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
    """Return an index of the connections to a layer.

    A kernel whose output maps are the layer's maps shares lists of synapses among places.

    Args:
        connections: connections to the layer.
        shape: shape of the layer.
        shared: whether several inputs may share an axon, and equal lists are stored once.
        by_tap: whether each position of a kernel has a list, as in `KernelIndex`.
    """
    if isinstance(connections, Convolution) and maps(shape) == connections.out_shape:
        return KernelIndex(connections, shared, by_tap)
    return MatrixIndex(connections.unrolled(), shape, shared)


def synapses_of_outputs(kind: Connections) -> Ints:
    """Return the number of weights that are not 0: (n_post,) of each output.

    For a convolution it is (channels,) of each output channel of the kernel.
    """
    if isinstance(kind, Convolution):
        return np.count_nonzero(kind.kernel.reshape(len(kind.kernel), -1), axis=1)
    matrix = kind.unrolled()
    return np.diff(np.concatenate([[0], np.cumsum(matrix.weights != 0)])[matrix.indptr])


def distinct_lists(owner: Ints, target: Ints, weights: Ints) -> Bools:
    """Return (lists,) whether each list is the first one with its synapses.

    Args:
        owner: (synapses,) the list of each synapse, ascending. No list is empty.
        target, weights: (synapses,) target and weight, in the same order in every list.
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
    # Equal sums do not prove equal lists: compare the lists synapse by synapse.
    within = np.arange(len(owner)) - starts[owner]
    other = np.minimum(starts[like[owner]] + within, len(owner) - 1)
    differs = (target != target[other]) | (weights != weights[other])
    unequal = (sizes != sizes[like]) | (np.bincount(owner[differs], minlength=len(starts)) > 0)
    return unequal | (like == np.arange(len(starts)))


def first_equal(kernel: Array, axis: int) -> tuple[int, ...]:
    """Return, for each position along an axis of a kernel, the first one with equal weights."""
    slices = np.moveaxis(kernel, axis, 0)
    return tuple(
        next(first for first, other in enumerate(slices) if np.array_equal(one, other))
        for one in slices
    )


def _groups(part: Convolution, channels: Range) -> Iterator[tuple[int, int, int]]:
    """Yield each group with output channels in a range, and the first and last + 1 of these."""
    per_group = part.kernel.shape[0] // part.groups
    for group in range(part.groups):
        low, high = max(channels[0], group * per_group), min(channels[1], (group + 1) * per_group)
        if low < high:
            yield group, low, high


@dataclass(frozen=True, eq=False)
class _Meetings:
    """The ways in which the inputs along an axis meet a range of outputs.

    Inputs that meet the kernel in the same way are of one kind.

    Attributes:
        kinds: (inputs,) the number of the kind of each input, -1 if no output of the range sees
            the input.
        signs: the `_Sign` of each kind: how its inputs meet the kernel.
        inputs: the number of inputs of each kind.
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
    """Return how `size` inputs along an axis meet a kernel.

    Args:
        size: number of inputs.
        positions: the number of each position of the kernel. Equal positions have equal numbers.
        stride, padding, dilation: those of the kernel along the axis.
        outputs: range of outputs.
    """
    kinds = np.full(size, -1, np.int64)
    known: dict[_Sign, int] = {}
    meetings: dict[int, list[tuple[int, int]]] = {}
    for out in range(*outputs):
        for tap, number in enumerate(positions):
            place = out * stride - padding + tap * dilation
            if 0 <= place < size:
                meetings.setdefault(place, []).append((number, out))
    for place, meets in meetings.items():
        lowest = min(out for _, out in meets)
        sign = tuple(sorted((tap, out - lowest) for tap, out in meets))
        kinds[place] = known.setdefault(sign, len(known))
    met = np.zeros((len(known), len(positions)), np.int64)
    for sign, kind in known.items():
        np.add.at(met[kind], [tap for tap, _ in sign], 1)
    inputs = np.bincount(kinds[kinds >= 0], minlength=len(known))
    return _Meetings(kinds, tuple(known), tuple(inputs.tolist()), met)
