"""Where a layer's spikes go, and the entries of output axons that this takes in a core.

A neuron whose spikes go through a matrix has an entry for each core in which it has a synapse.
In front of a kernel the neurons of a place, one of each channel that a core holds, are a
population: they have entries in common, for each core in which any of them has a synapse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from esl_lava.arrays import Bools, Ints
from esl_lava.mapping.packing import Packing
from esl_lava.mapping.regions import (
    Grid,
    KernelIndex,
    Range,
    Region,
    RegionIndex,
    maps,
    running_totals,
)


@dataclass
class _Kernel:
    """Cores of a layer behind a kernel that hold the same channels.

    Attributes:
        channels: (channels of the source,) which have a synapse there.
        places: chip -> (rows, columns) of the source, cores on it that a place reaches.
    """

    channels: Bools
    places: dict[int, Ints] = field(default_factory=dict)


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
        self._kernels: dict[tuple[int, Range], _Kernel] = {}
        self._added = 0

    def copy(self) -> Destinations:
        """Another one, to which cores can be added."""
        other = Destinations(self._shape, self._rule)
        other._added = self._added
        other._neurons = {chip: cores.copy() for chip, cores in self._neurons.items()}
        for key, one in self._kernels.items():
            places = {chip: cores.copy() for chip, cores in one.places.items()}
            other._kernels[key] = _Kernel(one.channels.copy(), places)
        return other

    def add(self, synapses: RegionIndex, cores: Iterable[tuple[int, Region]]) -> None:
        """Add cores, by their chips, that hold regions, and the synapses that reach these."""
        self._added += 1
        _, rows, columns = self._shape
        for chip, region in cores:
            if not isinstance(synapses, KernelIndex) or synapses.in_shape != self._shape:
                # Where a kernel sees other maps than the layer has, each neuron is a population.
                each = self._rule.population_axons if isinstance(synapses, KernelIndex) else 1
                empty = np.zeros(math.prod(self._shape), np.int64)
                self._neurons.setdefault(chip, empty)[synapses.fan_out(region) > 0] += each
                continue
            channels, places = synapses.populations(region)
            key = self._added, region.channels
            kernel = self._kernels.setdefault(key, _Kernel(np.zeros_like(channels)))
            kernel.channels |= channels
            kernel.places.setdefault(chip, np.zeros((rows, columns), np.int64))[places] += 1

    def most_of_a_neuron(self) -> int:
        """Entries of the neuron that takes most, alone in a core of a chip of its own."""
        remote = self._rule.remote_axons
        found = np.zeros(self._shape, np.int64)
        for cores in self._neurons.values():
            found += (1 + remote) * cores.reshape(self._shape)
        for kernel in self._kernels.values():
            for cores in kernel.places.values():
                reached = kernel.channels[:, None, None] * cores
                found += (self._rule.population_axons + remote) * reached
        return int(found.max())

    def totals(self) -> Totals:
        """Of all cores that were added, laid out so that entries are found quickly."""
        wide, rows, columns = self._shape
        channels = np.zeros((len(self._kernels), wide + 1), np.int64)
        neurons: dict[int, Ints] = {}
        places: dict[int, Ints] = {}
        for chip, cores in self._neurons.items():
            neurons[chip] = running_totals(cores, self._shape)
        for number, kernel in enumerate(self._kernels.values()):
            channels[number, 1:] = kernel.channels.cumsum()
            for chip, cores in kernel.places.items():
                empty = np.zeros((len(channels), rows + 1, columns + 1), np.int64)
                places.setdefault(chip, empty)[number, 1:, 1:] = cores.cumsum(0).cumsum(1)
        return Totals(self._rule, channels, neurons, places)


class Totals:
    """Running totals of the cores that a layer's spikes go to.

    Args:
        rule: says what an entry takes.
        channels: (groups, channels + 1) of those that have a synapse in a group of cores.
        neurons: chip -> cores on it that each neuron reaches, as `running_totals`.
        places: chip -> (groups, rows + 1, columns + 1) cores on it that each place reaches.
    """

    def __init__(
        self, rule: Packing, channels: Ints, neurons: dict[int, Ints], places: dict[int, Ints]
    ) -> None:
        self._remote = rule.remote_axons
        self._population = rule.population_axons
        self._channels = channels
        self._neurons = neurons
        self._places = places
        self._all_neurons = np.sum([*neurons.values()], axis=0) if neurons else None
        self._all_places = np.sum([*places.values()], axis=0) if places else None

    @property
    def least(self) -> int:
        """Entries of all cores of the layer together, at least."""
        neurons = 0 if self._all_neurons is None else int(self._all_neurons[-1, -1, -1])
        places = 0 if self._all_places is None else int(self._all_places[:, -1, -1].sum())
        return neurons + self._population * places

    def entries(self, grid: Grid, chips: Ints) -> Ints:
        """(channels, rows, columns) of the grid: entries in each core.

        Args:
            grid: how the layer is shared among cores.
            chips: (channels, rows, columns) of the grid: chip of each core.
        """
        found = np.zeros(grid.shares, np.int64)
        here = range(int(chips.min()), int(chips.max()) + 1) if self._remote else ()
        if self._all_neurons is not None:
            found += (1 + self._remote) * grid.sums(self._all_neurons)
            for chip in here:
                if chip in self._neurons:
                    found -= self._remote * (chips == chip) * grid.sums(self._neurons[chip])
        if self._all_places is not None:
            there = np.diff(self._channels[:, grid.bounds(0)], axis=1) > 0
            found += (self._population + self._remote) * _sums(grid, there, self._all_places)
            for chip in here:
                if chip in self._places:
                    sums = _sums(grid, there, self._places[chip])
                    found -= self._remote * (chips == chip) * sums
        return found


def _sums(grid: Grid, there: Bools, totals: Ints) -> Ints:
    """(channels, rows, columns) of the grid: cores that the places of a core reach.

    Args:
        grid: of regions.
        there: (groups, channels of the grid) whether any of the channels reaches a group.
        totals: (groups, rows + 1, columns + 1) as `Totals` has them.
    """
    for axis in (1, 2):
        totals = np.diff(totals.take(grid.bounds(axis), axis), axis=axis)
    return np.tensordot(there.T.astype(np.int64), totals, 1)
