"""Which cores a network takes: every layer shared among as few as its limits allow.

Layers are placed from the last to the first, as the entries of a neuron's output axons
depend on the cores it sends to. Cores hold one layer each, and fill one chip after the
other. An even share is tried for one core, two, three and so on: the first number that
respects every limit in every core is taken, in the format that takes the fewest cores and
then the fewest words.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import ClassVar

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.devices import Capacity, Device
from esl_lava.errors import ConfigError, LimitError
from esl_lava.mapping.packing import DENSE, Lists, Packing, packing
from esl_lava.mapping.regions import (
    Grid,
    Range,
    Region,
    RegionIndex,
    index_regions,
    maps,
    partitions,
    running_totals,
)
from esl_lava.network import INPUT, Layer, Network
from esl_lava.values import Keys, keys

RESOURCES = (
    "neurons",
    "input_axons",
    "output_axons",
    "synapse_words",
    "synapse_formats",
    "neuron_groups",
    "words_per_axon",
)
"""What a core may run out of; `Capacity` has a limit of each, or none."""


@dataclass(frozen=True)
class Core:
    """A core's share of a layer.

    Attributes:
        chip, number: counted from 0 in the order of layers; `number` over all chips.
        region: its neurons.
        used: resource -> how much of it.
    """

    KEYS: ClassVar[Keys] = keys("core=number chip region.channels region.rows region.columns used")

    chip: int
    number: int
    region: Region
    used: Mapping[str, int]


@dataclass(frozen=True)
class Fit:
    """What would save a layer one core, to first order.

    Attributes:
        cores: one fewer than it takes.
        resource: what is exceeded then.
        used, limit: of it, in the fullest core.
        width: neurons that would fit, at the density the layer has; None where it has maps.
        density: at which the layer would fit at its width; None where no density helps.
    """

    cores: int
    resource: str
    used: int
    limit: int
    width: int | None
    density: float | None


@dataclass(frozen=True)
class LayerMap:
    """Where a layer lies.

    Attributes:
        name: the layer's.
        neurons: it has.
        form: the format its synapses are stored in.
        weight_bits: of a stored weight, its delay's not included.
        weights, connections: it has, as `esl_lava.connections` counts them.
        density: share of its positions whose weight is not 0: what synapse memory holds.
        words: format -> (words of synapse memory, cores) it takes; without formats that
            take at least four times the cores of the best.
        break_even: format -> density below which it takes less memory than dense.
        cores: in order.
        binding: the resource its fullest core has least of.
        fit: what would save a core; None where it takes one.
    """

    name: str
    neurons: int
    form: str
    weight_bits: int
    weights: int
    connections: int
    density: float
    words: Mapping[str, tuple[int, int]]
    break_even: Mapping[str, float]
    cores: tuple[Core, ...]
    binding: str
    fit: Fit | None


@dataclass(frozen=True)
class CoreMap:
    """Where a network lies.

    Attributes:
        chip: name of the device.
        packing: name of the rule of packing.
        limits: resource -> limit of a core.
        cores_per_chip: of the device.
        layers: in order.
    """

    chip: str
    packing: str
    limits: Mapping[str, int]
    cores_per_chip: int
    layers: tuple[LayerMap, ...]

    @property
    def cores(self) -> int:
        """Cores used."""
        return sum(len(layer.cores) for layer in self.layers)

    @property
    def chips(self) -> int:
        """Chips used."""
        return -(-self.cores // self.cores_per_chip)

    def utilisation(self, layer: LayerMap) -> dict[str, tuple[int, int]]:
        """Resource -> (used, limit), of the core of the layer that uses most of it."""
        return {
            name: (max(core.used[name] for core in layer.cores), limit)
            for name, limit in self.limits.items()
        }


_Later = dict[int, Ints]
"""Where a source's spikes go among the layers placed so far: chip, counted from the last one ->
(neurons,) cores on it in which a neuron has a synapse."""


def _add_core(later: _Later, chip: int, synapses: RegionIndex, region: Region) -> None:
    """Add a core on `chip` that holds a region, and the synapses that reach it."""
    synapses.mark(later.setdefault(chip, np.zeros(synapses.n_pre, np.int64)), region)


def _totals(later: _Later, shape: tuple[int, ...]) -> tuple[dict[int, Ints], Ints]:
    """Running totals of the cores that each neuron of a layer reaches: on each chip, on all."""
    by_chip = {chip: running_totals(cores, shape) for chip, cores in later.items()}
    none = running_totals(np.zeros(math.prod(shape), np.int64), shape)
    return by_chip, sum(by_chip.values(), none)


def map_network(
    network: Network, device: Device, *, packed: str | None = None, chips: int | None = None
) -> CoreMap:
    """Share a network among cores so that every limit of every core holds.

    Args:
        network: what to place.
        device: with a capacity.
        packed: name of a packing other than the device's own.
        chips: that there are; None: as many as it takes.

    Raises:
        ConfigError: where the device has no capacity, or there is no such packing.
        LimitError: naming layer, resource, used and limit of what cannot be placed.
    """
    if device.capacity is None:
        raise ConfigError(f"device {device.name} states no [capacity]: nothing can be mapped to it")
    capacity = device.capacity
    name, per_chip = packed or capacity.packing, capacity.cores.value
    rule = packing(name)
    if rule.word_bits != capacity.word_bits:
        raise ConfigError(
            f"packing {name} fills words of {rule.word_bits} bits, those "
            f"of {device.name} have {capacity.word_bits}"
        )
    later: dict[str, _Later] = {name: {} for name in (INPUT, *(at.name for at in network.layers))}
    done: list[LayerMap] = []
    start = 0
    for layer in reversed(network.layers):
        done.append(_Placer(layer, later[layer.name], capacity, rule, start).placed())
        for given in layer.feeding:
            synapses = index_regions(given.connections, layer.shape)
            for core in done[-1].cores:
                _add_core(later[given.source], core.chip, synapses, core.region)
        start += len(done[-1].cores)
    last_chip = -(-start // per_chip) - 1
    layers = []
    for layer_map in reversed(done):
        cores = [
            replace(core, chip=last_chip - core.chip, number=start - 1 - core.number)
            for core in layer_map.cores
        ]
        layers.append(replace(layer_map, cores=tuple(cores)))
    found_map = CoreMap(device.name, name, _limits(capacity), per_chip, tuple(layers))
    if chips is not None and found_map.chips > chips:
        most = max(layers, key=lambda layer: len(layer.cores))
        raise LimitError(
            [
                f"network: cores {found_map.cores} exceed {chips * per_chip} "
                f"({chips} of {device.name}); layer {most.name} takes {len(most.cores)} of them"
            ]
        )
    return found_map


def stored_bits(layer: Layer, capacity: Capacity) -> int:
    """Bits of a stored weight, sign included, once a common power of two is taken out.

    Raises:
        LimitError: where no width of the chip holds the layer's weights.
    """
    values = np.concatenate([kind.weights for kind in layer.wiring])
    used = values[values != 0]
    if not used.size:
        return capacity.weight_bits[0]
    shift = int(np.bitwise_or.reduce(np.abs(used)))
    used = used >> ((shift & -shift).bit_length() - 1)
    low, high = int(used.min()), int(used.max())
    if low > 0:
        bits = high.bit_length()
    elif high < 0:
        bits = (-low).bit_length()
    else:
        bits = max(high.bit_length(), (-low - 1).bit_length()) + 1
    for width in capacity.weight_bits:
        if width >= bits:
            return width
    raise LimitError(
        [f"layer {layer.name}: weights of {bits} bits exceed {capacity.weight_bits[-1]} bits"]
    )


def _limits(capacity: Capacity) -> dict[str, int]:
    limits = {name: getattr(capacity, name) for name in RESOURCES}
    return {name: limit.value for name, limit in limits.items() if limit is not None}


def _fullest(limits: Mapping[str, int], uses: Sequence[Mapping[str, int]]) -> tuple[str, int, int]:
    """(resource, used, limit) of what is exceeded most, or filled most, of some cores."""
    most = {name: max(use[name] for use in uses) for name in limits}
    name = max(limits, key=lambda name: most[name] / limits[name])
    return name, most[name], limits[name]


def _delay_bits(layer: Layer) -> int:
    """Bits of a synaptic delay: 3 to 6 (NxTF), or none without delays."""
    longest = max(0 if one.delays is None else int(one.delays.max()) for one in layer.inputs)
    return max(3, longest.bit_length()) if longest else 0


class _Placer:
    """Partitions of one layer, those behind it being placed.

    Args:
        layer: to place.
        later: where its spikes go.
        capacity, rule: of the chip.
        start: cores behind the layer.
    """

    def __init__(
        self, layer: Layer, later: _Later, capacity: Capacity, rule: Packing, start: int
    ) -> None:
        self._layer = layer
        self._later = later
        self._capacity = capacity
        self._rule = rule
        self._start = start
        self._per_chip = capacity.cores.value
        self._limits = _limits(capacity)
        self._weight_bits = stored_bits(layer, capacity)
        self._bits = self._weight_bits + _delay_bits(layer)
        indices = [(one, index_regions(one.connections, layer.shape)) for one in layer.inputs]
        self._inputs = [index for _, index in indices]
        self._recurrent = next((index for one, index in indices if one is layer.recurrent), None)
        self._reached: dict[Hashable, tuple[Lists, int]] = {}
        self._brought: dict[Hashable, tuple[int, int, int]] = {}
        self._totals = _totals(later, layer.shape)
        self._exceeded: tuple[str, int, int] | None = None

    def placed(self) -> LayerMap:
        """The layer in its best format; chips and cores are counted from the last one.

        Raises:
            LimitError: where it fits in none.
        """
        layer, rule, plans = self._layer, self._rule, self._plans()
        if not plans:
            raise LimitError([self._refusal()])
        words = {
            form: (sum(core.used["synapse_words"] for core in cores), len(cores))
            for form, cores in plans.items()
        }
        best = min(words, key=lambda form: words[form][::-1])
        cores = plans[best]
        index = rule.index(max(core.region.neurons for core in cores) - 1)
        possible = sum(kind.possible for kind in layer.wiring)
        return LayerMap(
            name=layer.name,
            neurons=layer.neurons,
            form=best,
            weight_bits=self._weight_bits,
            weights=sum(kind.stored for kind in layer.wiring),
            connections=sum(kind.count for kind in layer.wiring),
            density=sum(kind.nonzero for kind in layer.wiring) / possible if possible else 0.0,
            words=words,
            break_even={
                form: rule.break_even(form, self._bits, index)
                for form in rule.formats
                if form != DENSE
            },
            cores=tuple(cores),
            binding=_fullest(self._limits, [core.used for core in cores])[0],
            fit=self._fit(best, len(cores) - 1),
        )

    def _plans(self) -> dict[str, list[Core]]:
        """Format -> cores of its first partition in which every limit holds.

        Formats that take four times the cores of the best, or more, are left out.
        """
        sent = sum(int(cores.sum()) for cores in self._later.values())
        least = max(
            -(-self._layer.neurons // self._limits["neurons"]),
            -(-sent // self._limits["output_axons"]),
        )
        found: dict[str, list[Core]] = {}
        most = self._layer.neurons
        fewest = self._fewest_entries()
        for grid in partitions(self._layer, least, self._limits["neurons"]):
            if len(grid) > most or len(found) == len(self._rule.formats):
                break
            if fewest * grid.largest > self._limits["output_axons"] and len(grid) < most:
                continue
            self._reached.clear()
            entries = self._entries(grid)
            for form in self._rule.formats:
                cores = None if form in found else self._try_out(grid, form, entries)
                if cores is not None:
                    found[form] = cores
                    most = min(most, 4 * len(grid) - 1)
        return found

    def _fits(self, form: str, neurons: int) -> bool:
        """Whether a core holds so many of the first neurons of a layer without maps."""
        grid = Grid((neurons, 1, 1), (1, 1, 1))
        return self._try_out(grid, form, self._entries(grid)) is not None

    def _try_out(self, grid: Grid, form: str, entries: Ints) -> list[Core] | None:
        """The cores, or None where a limit does not hold (`_exceeded` says which)."""
        if self._exceeds("output_axons", entries):
            return None
        stored = sum(part.least_stored(grid, form == DENSE) for part in self._inputs)
        words = self._rule.least_words(form, self._bits, np.asarray(stored))
        if self._exceeds("synapse_words", words):
            return None
        for region in self._kinds(grid):
            used = self._use(region, form, 0)
            for name, limit in self._limits.items():
                if used[name] > limit:
                    self._exceeded = (name, used[name], limit)
                    return None
        chips, last = self._chips(len(grid)).tolist(), self._start + len(grid) - 1
        return [
            Core(chip, last - number, region, self._use(region, form, int(sent)))
            for number, (chip, region, sent) in enumerate(zip(chips, grid.regions(), entries.flat))
        ]

    def _exceeds(self, name: str, used: Ints) -> bool:
        """Whether a core uses more than the limit; the first that does is `_exceeded`."""
        over = used > self._limits[name]
        if over.any():
            self._exceeded = (name, int(used.flat[over.argmax()]), self._limits[name])
        return bool(over.any())

    def _kinds(self, grid: Grid) -> Iterator[Region]:
        """The first region of every kind, in the grid's order."""
        rows, columns = (self._first_of_kinds(grid, axis) for axis in (1, 2))
        return (Region(c, y, x) for c, y, x in product(grid.ranges(0), rows, columns))

    def _first_of_kinds(self, grid: Grid, axis: int) -> list[Range]:
        first: dict[tuple[Hashable, ...], Range] = {}
        kinds = zip(*(part.alike(grid, axis) for part in self._inputs))
        for kind, one in zip(kinds, grid.ranges(axis)):
            first.setdefault(kind, one)
        return list(first.values())

    def _worst(self, grid: Grid, form: str) -> tuple[str, int, int]:
        """(resource, used, limit) of what is exceeded most, or filled most.

        Where a list has more targets than an index can name, a core has too many neurons.
        """
        try:
            uses = [
                self._use(region, form, int(sent))
                for region, sent in zip(grid.regions(), self._entries(grid).flat)
            ]
        except ConfigError:
            return "neurons", grid.largest, self._limits["neurons"]
        return _fullest(self._limits, uses)

    def _refusal(self) -> str:
        """Why no partition was found, in one sentence."""
        if self._exceeded is None:  # spikes sent alone rule every partition out
            entries = sum(self._later.values(), np.zeros(self._layer.neurons, np.int64))
            self._exceeded = "output_axons", int(entries.max()), self._limits["output_axons"]
        resource, used, limit = self._exceeded
        return (
            f"layer {self._layer.name}: {resource.replace('_', ' ')} {used:,} of a core exceed "
            f"{limit:,}, even with one neuron on a core"
        )

    def _fewest_entries(self) -> int:
        """Entries of output axons that every neuron takes at least, wherever it lies."""
        found = np.zeros(self._layer.neurons, np.int64)
        for chip, cores in self._later.items():
            behind = chip < self._start // self._per_chip  # of which the layer has no core
            found += cores * (1 + self._rule.remote_axons * behind)
        return int(found.min())

    def _chips(self, count: int) -> Ints:
        """(count,) chip, counted from the last, of each core of the layer's `count`."""
        return (self._start + count - 1 - np.arange(count)) // self._per_chip

    def _entries(self, grid: Grid) -> Ints:
        """(channels, rows, columns) of the grid: entries of output axons in each core."""
        chips = self._chips(len(grid))
        by_chip, everywhere = self._totals
        if self._recurrent is not None:
            goes = {chip: cores.copy() for chip, cores in self._later.items()}
            for chip, region in zip(chips.tolist(), grid.regions()):
                _add_core(goes, chip, self._recurrent, region)
            by_chip, everywhere = _totals(goes, self._layer.shape)
        remote = self._rule.remote_axons
        found = (1 + remote) * grid.sums(everywhere)
        chips = chips.reshape(grid.shares)
        for chip in range(int(chips.min()), int(chips.max()) + 1):
            if remote and chip in by_chip:
                found -= remote * np.where(chips == chip, grid.sums(by_chip[chip]), 0)
        return found

    def _use(self, region: Region, form: str, entries: int) -> dict[str, int]:
        axons = words = formats = longest = 0
        for number, synapses in enumerate(self._inputs):
            taken, filled, most = self._bring(number, synapses, region, form)
            axons += taken
            words += filled
            formats += taken > 0
            longest = max(longest, most)
        return {
            "neurons": region.neurons,
            "input_axons": axons,
            "output_axons": entries,
            "synapse_words": words,
            "synapse_formats": formats,
            "neuron_groups": 1,  # a core holds one layer
            "words_per_axon": longest,
        }

    def _bring(
        self, number: int, synapses: RegionIndex, region: Region, form: str
    ) -> tuple[int, int, int]:
        """(axons, words, words of the longest list) that an input brings to a region."""
        place = (number, synapses.kind(region))
        key = (*place, form)
        if key not in self._brought:
            if place not in self._reached:
                self._reached[place] = synapses.reach(region)
            lists, axons = self._reached[place]
            listed = self._rule.list_words(form, self._bits, lists)
            words, longest = (int(listed.sum()), int(listed.max())) if axons else (0, 0)
            self._brought[key] = axons, words, longest
        return self._brought[key]

    def _fit(self, form: str, fewer: int) -> Fit | None:
        """What makes the layer fit fewer cores; output axons apart, as later layers decide them."""
        if fewer < 1:
            return None
        layer, rule = self._layer, self._rule
        alone = _Placer(layer, {}, self._capacity, rule, 0)
        grid = next(partitions(layer, fewer, layer.neurons))
        resource, used, limit = alone._worst(grid, form)
        width = None
        if maps(layer.shape)[1:] == (1, 1):
            most = min(layer.neurons, self._limits["neurons"])
            widths = range(most, 0, -1)  # those too many for a core come first
            width = fewer * (most - bisect_left(widths, True, key=partial(alone._fits, form)))
        density = None
        first = layer.inputs[0].connections
        if resource not in ("synapse_words", "words_per_axon"):
            pass
        elif form != DENSE or first.shares or first.injects:
            density = limit / used * sum(kind.nonzero for kind in layer.wiring)
            density /= sum(kind.possible for kind in layer.wiring)
        else:
            room = self._limits["synapse_words"] * rule.word_bits
            share = -(-layer.neurons // fewer)
            index = rule.index(share - 1)
            others = (other for other in rule.formats if other != DENSE)
            each = min(rule.bits_per_synapse(other, self._bits, index) for other in others)
            density = min(1.0, room / (first.n_pre * share * each))
        return Fit(fewer, resource, used, limit, width, density)
