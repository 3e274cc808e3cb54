"""The destination cores of a layer's spikes, and the output axon entries that they take.

A neuron in front of a matrix has an entry for each core in which it has a synapse. In front of a
kernel, the neurons of one place in all channels that a core holds form a population. They share
entries: one group of entries for each core in which any of them has a synapse.
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
class _CoreNumbers:
    """How many cores the neurons, or the places, of a source layer reach.

    Attributes:
        everywhere: the number of cores for each neuron or place, or running totals of these.
        on_chip: number of a chip -> the same, but only the cores on that chip count.
    """

    everywhere: Ints
    on_chip: dict[int, Ints]

    @staticmethod
    def of(on_chip: dict[int, Ints]) -> _CoreNumbers:
        """Make the numbers of all cores from those of each chip; at least one chip is needed."""
        return _CoreNumbers(np.sum([*on_chip.values()], axis=0), on_chip)


@dataclass
class _KernelCores:
    """Cores of a layer behind a kernel that hold the same channels.

    Attributes:
        cores: (chip, the populations that join the source to it) of each core. No core is added
            after the first call of `reached`.
        known: positions of the kernel -> the value of `reached` for them.
    """

    cores: list[tuple[int, Populations]] = field(default_factory=list)
    known: dict[bytes, _CoreNumbers] = field(default_factory=dict)

    @property
    def synapses(self) -> Bools:
        """(channels of the source, rows, columns of the kernel) whether a synapse exists."""
        return self.cores[0][1].synapses

    def reached(self, positions: Bools) -> _CoreNumbers:
        """Count the cores that each place of the source reaches through the given positions.

        The result holds (rows + 1, columns + 1) running totals over the source: entry (i, j) is
        the sum of the counts of the places in the first i rows and the first j columns.

        Args:
            positions: (rows * columns of the kernel,) whether a position counts.
        """
        key = positions.tobytes()
        if key not in self.known:
            on_chip: dict[int, Ints] = {}
            for chip, populations in self.cores:
                places = populations.reached(positions.reshape(self.synapses.shape[1:]))
                on_chip[chip] = on_chip.get(chip, 0) + places.astype(np.int64)
            totals = {
                chip: np.pad(cores.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
                for chip, cores in on_chip.items()
            }
            self.known[key] = _CoreNumbers.of(totals)
        return self.known[key]


class Destinations:
    """The cores that the spikes of a layer go to.

    Args:
        shape: shape of the layer.
        rule: the packing, which says how many entries a destination takes.
    """

    def __init__(self, shape: tuple[int, ...], rule: Packing) -> None:
        self._shape = maps(shape)
        self._rule = rule
        self._neurons: dict[int, Ints] = {}
        self._kernels: list[list[_KernelCores]] = []

    def copy(self) -> Destinations:
        """Return a copy, to which cores can be added."""
        other = Destinations(self._shape, self._rule)
        other._neurons = {chip: cores.copy() for chip, cores in self._neurons.items()}
        other._kernels = list(self._kernels)
        return other

    def add(self, synapses: RegionIndex, cores: Iterable[tuple[int, Region]]) -> None:
        """Add cores that the spikes of this layer reach.

        Args:
            synapses: the synapses from this layer to the layer that the cores hold.
            cores: pairs (chip of the core, region of the layer that the core holds).
        """
        kernels: dict[Range, _KernelCores] = {}
        for chip, region in cores:
            if isinstance(synapses, KernelIndex) and synapses.in_shape == self._shape:
                kernel = kernels.setdefault(region.channels, _KernelCores())
                kernel.cores.append((chip, synapses.populations(region)))
                continue
            # A kernel whose input maps differ from the layer makes each neuron a population.
            each = self._rule.population_axons if isinstance(synapses, KernelIndex) else 1
            empty = np.zeros(math.prod(self._shape), np.int64)
            self._neurons.setdefault(chip, empty)[synapses.fan_out(region) > 0] += each
        if kernels:
            self._kernels.append([*kernels.values()])

    def most_entries_of_neuron(self) -> int:
        """Return the most entries that one neuron takes if it lies alone on a chip of its own."""
        remote = self._rule.remote_axons
        entries = np.zeros(self._shape, np.int64)
        for cores in self._neurons.values():
            entries += (1 + remote) * cores.reshape(self._shape)
        for kernel in (one for kernels in self._kernels for one in kernels):
            positions = kernel.synapses.reshape(len(entries), -1)
            for some in np.unique(positions, axis=0):
                channels = (positions == some).all(axis=1)
                cores = np.diff(np.diff(kernel.reached(some).everywhere, axis=0), axis=1)
                entries[channels] += (self._rule.population_axons + remote) * cores
        return int(entries.max())

    def totals(self) -> Totals:
        """Return running totals over all added cores, which count entries quickly."""
        on_chip = {chip: running_totals(one, self._shape) for chip, one in self._neurons.items()}
        targets = [_TargetCores.of(kernels) for kernels in self._kernels]
        return Totals(self._rule, _CoreNumbers.of(on_chip) if on_chip else None, targets)


@dataclass(frozen=True, eq=False)
class _TargetCores:
    """The cores of a layer behind a kernel, grouped by the channels that they hold.

    Attributes:
        kernels: the cores of each range of channels.
        synapses: (ranges, channels of the source + 1, positions of the kernel) running totals of
            synapses.
        whole: (ranges, rows + 1, columns + 1) running totals of the cores that a place of the
            source reaches through any position.
    """

    kernels: list[_KernelCores]
    synapses: Ints
    whole: _CoreNumbers

    @staticmethod
    def of(kernels: list[_KernelCores]) -> _TargetCores:
        """Compute the running totals of the given cores."""
        present = np.stack([one.synapses.reshape(len(one.synapses), -1) for one in kernels])
        every = np.ones(present.shape[2], bool)
        whole: dict[int, Ints] = {}
        for number, kernel in enumerate(kernels):
            for chip, cores in kernel.reached(every).on_chip.items():
                whole.setdefault(chip, np.zeros((len(kernels), *cores.shape), np.int64))
                whole[chip][number] = cores
        synapses = np.pad(present.cumsum(axis=1), ((0, 0), (1, 0), (0, 0)))
        return _TargetCores(kernels, synapses, _CoreNumbers.of(whole))

    @property
    def least(self) -> int:
        """Number of pairs (place, core) with a synapse, if one source core held all channels."""
        positions = self.synapses[:, -1] > 0
        reached = (one.reached(some) for one, some in zip(self.kernels, positions))
        return sum(int(one.everywhere[-1, -1]) for one in reached)

    def count_pairs(self, grid: Grid, chips: Ints, at_most: bool) -> tuple[Ints, Ints]:
        """Count the pairs (place, destination core) for each core of the source.

        Args:
            grid: how the source is shared among cores.
            chips: (channels, rows, columns) of the grid: chip of each core.
            at_most: return a quick upper bound. It counts a place and a core that any position of
                the kernel joins, with or without a synapse, if any channel of the grid's range has
                a synapse onto the channels of that core.

        Returns:
            (channels, rows, columns) of the grid: the pairs of all destination cores, and the
            pairs whose destination core is on the same chip.
        """
        through = np.diff(self.synapses[:, grid.bounds(0)], axis=1) > 0
        any_of_them, all_of_them = through.any(axis=2), through.all(axis=2)
        simple = np.asarray(any_of_them if at_most else all_of_them)
        pairs = _sums(grid, simple, self.whole.everywhere)
        local = np.zeros_like(pairs)
        for chip, same in _shared_chips(self.whole.on_chip, chips):
            local += same * _sums(grid, simple, self.whole.on_chip[chip])
        some = np.asarray(any_of_them & ~simple)
        for number in np.flatnonzero(some.any(axis=1)):
            shares = np.flatnonzero(some[number])
            reached = [self.kernels[number].reached(one) for one in through[number, shares]]
            pairs[shares] += _boxes(grid, np.stack([one.everywhere for one in reached]))
            for chip, same in _shared_chips(reached[0].on_chip, chips):
                totals = np.stack([one.on_chip[chip] for one in reached])
                local[shares] += same[shares] * _boxes(grid, totals)
        return pairs, local


class Totals:
    """Running totals of the cores that a layer's spikes go to.

    Args:
        rule: the packing, which says how many entries a destination takes.
        neurons: numbers of cores that each neuron reaches through matrices, as `running_totals`
            returns them; None if it reaches none.
        targets: the cores of each layer behind a kernel.
    """

    def __init__(
        self, rule: Packing, neurons: _CoreNumbers | None, targets: list[_TargetCores]
    ) -> None:
        self._remote = rule.remote_axons
        self._population = rule.population_axons
        self._neurons = neurons
        self._targets = targets

    @property
    def least(self) -> int:
        """A lower bound of the entries of all cores of the layer together."""
        places = sum(one.least for one in self._targets)
        neurons = 0 if self._neurons is None else int(self._neurons.everywhere[-1, -1, -1])
        return neurons + self._population * places

    def entries(self, grid: Grid, chips: Ints, at_most: bool = False) -> Ints:
        """Count the entries in each core, as (channels, rows, columns) of the grid.

        Args:
            grid: how the layer is shared among cores.
            chips: (channels, rows, columns) of the grid: chip of each core.
            at_most: return an upper bound of the entries, which is quicker.
        """
        entries = np.zeros(grid.shares, np.int64)
        if self._neurons is not None:
            entries += (1 + self._remote) * grid.sums(self._neurons.everywhere)
            for chip, same in _shared_chips(self._neurons.on_chip, chips):
                entries -= self._remote * same * grid.sums(self._neurons.on_chip[chip])
        for target in self._targets:
            pairs, local = target.count_pairs(grid, chips, at_most)
            entries += (self._population + self._remote) * pairs - self._remote * local
        return entries


def _shared_chips(reached: Iterable[int], chips: Ints) -> Iterator[tuple[int, Bools]]:
    """Yield each chip that holds both reached and sending cores, and a mask of the sending ones."""
    for chip in reached:
        same = chips == chip
        if same.any():
            yield chip, same


def _boxes(grid: Grid, totals: Array) -> Array:
    """Return sums (..., rows, columns) of the grid from running totals of the layer's places."""
    for axis in (1, 2):
        totals = np.diff(totals.take(grid.bounds(axis), axis - 3), axis=axis - 3)
    return totals


def _sums(grid: Grid, reaching: Bools, totals: Ints) -> Ints:
    """Return (channels, rows, columns) of the grid: sums over the groups that a range reaches.

    Args:
        grid: grid of regions.
        reaching: (groups, channels of the grid) whether a range of channels reaches a group.
        totals: (groups, rows + 1, columns + 1) running totals of each group.
    """
    return np.tensordot(reaching.T.astype(np.int64), _boxes(grid, totals), 1)
