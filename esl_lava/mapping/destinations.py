"""Where a layer's spikes go, and the entries of output axons that this takes in a core.

A neuron whose spikes go through a matrix has an entry for each core in which it has a synapse.
In front of a kernel the neurons of a place, one of each channel that a core holds, are a
population: they have entries in common, for each core in which any of them has a synapse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from esl_lava.arrays import Array, Bools, Ints
from esl_lava.mapping.packing import Packing
from esl_lava.mapping.regions import Grid, Range, Region, maps, running_totals
from esl_lava.mapping.synapse_lists import KernelIndex, Populations, RegionIndex


@dataclass
class _Reached:
    """Cores that the neurons, or the places, of a source reach.

    Attributes:
        everywhere: of each neuron, or place; or running totals of them.
        on_chip: chip -> those of them that are on it.
    """

    everywhere: Ints
    on_chip: dict[int, Ints]

    @staticmethod
    def of(on_chip: dict[int, Ints]) -> _Reached:
        """From those on each chip, of which there is one at least."""
        return _Reached(np.sum([*on_chip.values()], axis=0), on_chip)


@dataclass
class _Kernel:
    """Cores of a layer behind a kernel that hold the same channels.

    Attributes:
        cores: chip of each, and what joins the source to it. None is added once they are asked.
        known: positions of the kernel -> `reached` of them.
    """

    cores: list[tuple[int, Populations]] = field(default_factory=list)
    known: dict[bytes, _Reached] = field(default_factory=dict)

    @property
    def synapses(self) -> Bools:
        """(channels of the source, rows, columns of the kernel) whether there is a synapse."""
        return self.cores[0][1].synapses

    def reached(self, positions: Bools) -> _Reached:
        """Through some positions: (rows + 1, columns + 1) running totals of places."""
        key = positions.tobytes()
        if key not in self.known:
            found: dict[int, Ints] = {}
            for chip, joined in self.cores:
                places = joined.reached(positions.reshape(self.synapses.shape[1:]))
                found[chip] = found.get(chip, 0) + places.astype(np.int64)
            totals = {
                chip: np.pad(cores.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
                for chip, cores in found.items()
            }
            self.known[key] = _Reached.of(totals)
        return self.known[key]


class Destinations:
    """Cores that the spikes of a layer go to.

    Args:
        shape: of the layer.
        rule: says what an entry takes.
    """

    def __init__(self, shape: tuple[int, ...], rule: Packing) -> None:
        self._shape = maps(shape)
        self._rule = rule
        self._neurons: dict[int, Ints] = {}
        self._kernels: list[list[_Kernel]] = []

    def copy(self) -> Destinations:
        """Another one, to which cores can be added."""
        other = Destinations(self._shape, self._rule)
        other._neurons = {chip: cores.copy() for chip, cores in self._neurons.items()}
        other._kernels = list(self._kernels)
        return other

    def add(self, synapses: RegionIndex, cores: Iterable[tuple[int, Region]]) -> None:
        """Add cores, by their chips, that hold regions, and the synapses that reach these."""
        kernels: dict[Range, _Kernel] = {}
        for chip, region in cores:
            if isinstance(synapses, KernelIndex) and synapses.in_shape == self._shape:
                kernel = kernels.setdefault(region.channels, _Kernel())
                kernel.cores.append((chip, synapses.populations(region)))
                continue
            # Where a kernel sees other maps than the layer has, each neuron is a population.
            each = self._rule.population_axons if isinstance(synapses, KernelIndex) else 1
            empty = np.zeros(math.prod(self._shape), np.int64)
            self._neurons.setdefault(chip, empty)[synapses.fan_out(region) > 0] += each
        if kernels:
            self._kernels.append([*kernels.values()])

    def most_of_a_neuron(self) -> int:
        """Entries of the neuron that takes most, alone in a core of a chip of its own."""
        remote = self._rule.remote_axons
        found = np.zeros(self._shape, np.int64)
        for cores in self._neurons.values():
            found += (1 + remote) * cores.reshape(self._shape)
        for kernel in (one for kernels in self._kernels for one in kernels):
            positions = kernel.synapses.reshape(len(found), -1)
            for some in np.unique(positions, axis=0):
                channels = (positions == some).all(axis=1)
                cores = np.diff(np.diff(kernel.reached(some).everywhere, axis=0), axis=1)
                found[channels] += (self._rule.population_axons + remote) * cores
        return int(found.max())

    def totals(self) -> Totals:
        """Of all cores that were added, laid out so that entries are found quickly."""
        on_chip = {chip: running_totals(one, self._shape) for chip, one in self._neurons.items()}
        behind = [_Behind.of(kernels) for kernels in self._kernels]
        return Totals(self._rule, _Reached.of(on_chip) if on_chip else None, behind)


@dataclass(frozen=True, eq=False)
class _Behind:
    """The cores of a layer behind a kernel, by the channels that they hold.

    Attributes:
        kernels: the cores of each range of channels.
        synapses: (ranges, channels of the source + 1, positions) running totals of synapses.
        whole: (ranges, rows + 1, columns + 1) running totals of the cores that a place of the
            source reaches through any position.
    """

    kernels: list[_Kernel]
    synapses: Ints
    whole: _Reached

    @staticmethod
    def of(kernels: list[_Kernel]) -> _Behind:
        """Lay them out."""
        there = np.stack([one.synapses.reshape(len(one.synapses), -1) for one in kernels])
        every = np.ones(there.shape[2], bool)
        whole: dict[int, Ints] = {}
        for number, kernel in enumerate(kernels):
            for chip, cores in kernel.reached(every).on_chip.items():
                whole.setdefault(chip, np.zeros((len(kernels), *cores.shape), np.int64))
                whole[chip][number] = cores
        synapses = np.pad(there.cumsum(axis=1), ((0, 0), (1, 0), (0, 0)))
        return _Behind(kernels, synapses, _Reached.of(whole))

    @property
    def least(self) -> int:
        """Places and cores that are joined, if a core of the source held all channels."""
        positions = self.synapses[:, -1] > 0
        reached = (one.reached(some) for one, some in zip(self.kernels, positions))
        return sum(int(one.everywhere[-1, -1]) for one in reached)

    def joined(self, grid: Grid, chips: Ints, at_most: bool) -> tuple[Ints, Ints]:
        """(channels, rows, columns) of the grid: places times cores that they reach.

        Args:
            grid: of the source.
            chips: (channels, rows, columns) of the grid: chip of each core.
            at_most: count, which is quick, every place that reaches a core through any channel
                of the source, if any of the grid's range reaches it.

        Returns:
            All cores, and those on the same chip.
        """
        through = np.diff(self.synapses[:, grid.bounds(0)], axis=1) > 0
        any_of_them, all_of_them = through.any(axis=2), through.all(axis=2)
        simple = np.asarray(any_of_them if at_most else all_of_them)
        found = _sums(grid, simple, self.whole.everywhere)
        local = np.zeros_like(found)
        for chip, same in _chips(self.whole.on_chip, chips):
            local += same * _sums(grid, simple, self.whole.on_chip[chip])
        some = np.asarray(any_of_them & ~simple)
        for number in np.flatnonzero(some.any(axis=1)):
            shares = np.flatnonzero(some[number])
            reached = [self.kernels[number].reached(one) for one in through[number, shares]]
            found[shares] += _boxes(grid, np.stack([one.everywhere for one in reached]))
            for chip, same in _chips(reached[0].on_chip, chips):
                totals = np.stack([one.on_chip[chip] for one in reached])
                local[shares] += same[shares] * _boxes(grid, totals)
        return found, local


class Totals:
    """Running totals of the cores that a layer's spikes go to.

    Args:
        rule: says what an entry takes.
        neurons: cores that each neuron reaches, as `running_totals`.
        behind: cores of each layer behind a kernel.
    """

    def __init__(self, rule: Packing, neurons: _Reached | None, behind: list[_Behind]) -> None:
        self._remote = rule.remote_axons
        self._population = rule.population_axons
        self._neurons = neurons
        self._behind = behind

    @property
    def least(self) -> int:
        """Entries of all cores of the layer together, at least."""
        places = sum(one.least for one in self._behind)
        neurons = 0 if self._neurons is None else int(self._neurons.everywhere[-1, -1, -1])
        return neurons + self._population * places

    def entries(self, grid: Grid, chips: Ints, at_most: bool = False) -> Ints:
        """(channels, rows, columns) of the grid: entries in each core.

        Args:
            grid: how the layer is shared among cores.
            chips: (channels, rows, columns) of the grid: chip of each core.
            at_most: find, more quickly, a number that none of them exceeds.
        """
        found = np.zeros(grid.shares, np.int64)
        if self._neurons is not None:
            found += (1 + self._remote) * grid.sums(self._neurons.everywhere)
            for chip, same in _chips(self._neurons.on_chip, chips):
                found -= self._remote * same * grid.sums(self._neurons.on_chip[chip])
        for behind in self._behind:
            joined, local = behind.joined(grid, chips, at_most)
            found += (self._population + self._remote) * joined - self._remote * local
        return found


def _chips(reached: Iterable[int], chips: Ints) -> Iterator[tuple[int, Bools]]:
    """Yield each chip with cores that are reached and cores that send, and which these are."""
    for chip in reached:
        same = chips == chip
        if same.any():
            yield chip, same


def _boxes(grid: Grid, totals: Array) -> Array:
    """(..., rows, columns) of the grid, from running totals (..., rows + 1, columns + 1)."""
    for axis in (1, 2):
        totals = np.diff(totals.take(grid.bounds(axis), axis - 3), axis=axis - 3)
    return totals


def _sums(grid: Grid, there: Bools, totals: Ints) -> Ints:
    """(channels, rows, columns) of the grid: sums over the groups that a range reaches.

    Args:
        grid: of regions.
        there: (groups, channels of the grid) whether a range of channels reaches a group.
        totals: (groups, rows + 1, columns + 1) running totals of each group.
    """
    return np.tensordot(there.T.astype(np.int64), _boxes(grid, totals), 1)
