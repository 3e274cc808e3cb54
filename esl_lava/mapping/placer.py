"""The cores of one layer, those behind it being placed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product, takewhile

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.chip import MAX_DELAY
from esl_lava.devices import Capacity
from esl_lava.errors import ConfigError, LimitError
from esl_lava.mapping.destinations import Destinations
from esl_lava.mapping.packing import DENSE, Lists, Packing
from esl_lava.mapping.placement import RESOURCES, Core, Fit, LayerMap
from esl_lava.mapping.regions import Grid, Range, Region, maps, partitions
from esl_lava.mapping.synapse_lists import RegionIndex, index_regions, synapses_of_outputs
from esl_lava.network import Layer


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


def limits_of(capacity: Capacity) -> dict[str, int]:
    """Resource -> limit of a core, of those that the chip's file states."""
    limits = {name: getattr(capacity, name) for name in RESOURCES}
    return {name: limit.value for name, limit in limits.items() if limit is not None}


def _fullest(limits: Mapping[str, int], uses: Sequence[Mapping[str, int]]) -> tuple[str, int, int]:
    """(resource, used, limit) of what is exceeded most, or filled most, of some cores."""
    most = {name: max(use[name] for use in uses) for name in limits}
    name = max(limits, key=lambda name: most[name] / limits[name])
    return name, most[name], limits[name]


def _delay_bits(layer: Layer, waits: int) -> int:
    """Bits of a synaptic delay: 3 to 6 (NxTF), or none without delays.

    Raises:
        LimitError: where a spike is on its way for more steps than a synapse can be late.
    """
    longest = max(0 if one.delays is None else int(one.delays.max()) for one in layer.inputs)
    longest += waits
    if longest > MAX_DELAY:
        raise LimitError(
            [
                f"layer {layer.name}: a delay of {longest} steps exceeds {MAX_DELAY}; "
                f"{waits} of them are for what comes on a longer way"
            ]
        )
    return max(3, longest.bit_length()) if longest else 0


class Placer:
    """Partitions of one layer, those behind it being placed.

    Args:
        layer: to place.
        later: where its spikes go.
        capacity, rule: of the chip.
        start: cores behind the layer.
        waits: steps that a spike waits at most on its way to it.
        parts: that its channels, or neurons, are in: a core holds none of two.

    Attributes:
        shared: whether several neurons may send to one input axon.

    Raises:
        LimitError: where no width of the chip holds its weights, or its delays.
    """

    def __init__(
        self,
        layer: Layer,
        later: Destinations,
        capacity: Capacity,
        rule: Packing,
        start: int,
        waits: int = 0,
        parts: int = 1,
    ) -> None:
        self._layer = layer
        self._later = later
        self._capacity = capacity
        self._rule = rule
        self._start = start
        self._per_chip = capacity.cores.value
        self._limits = limits_of(capacity)
        self._weight_bits = stored_bits(layer, capacity)
        self._bits = self._weight_bits + _delay_bits(layer, waits)
        self._waits = waits
        self._parts = parts
        self.shared = capacity.shared_axons is not None and capacity.shared_axons.value
        indices = [
            (one, index_regions(one.connections, layer.shape, self.shared, rule.by_tap))
            for one in layer.inputs
        ]
        self._inputs = [index for _, index in indices]
        self._recurrent = next((index for one, index in indices if one is layer.recurrent), None)
        self._reached: dict[Hashable, tuple[Lists, int]] = {}
        self._brought: dict[Hashable, tuple[int, int, int]] = {}
        self._totals = later.totals()
        self._exceeded: tuple[str, int, int] | None = None

    def placed(self, most: int | None = None) -> LayerMap | None:
        """The layer in its best format, or None where it fits in none.

        Chips and cores are counted from the last one.

        Args:
            most: cores that there are for it; None: as many as it takes.
        """
        layer, rule = self._layer, self._rule
        plans = self._plans(layer.neurons if most is None else min(most, layer.neurons))
        if not plans:
            return None
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
            waits=self._waits,
        )

    def _plans(self, most: int) -> dict[str, list[Core]]:
        """Format -> cores of its first partition, of `most` at most, in which every limit holds.

        Formats that take four times the cores of the best, or more, are left out.
        """
        least = max(
            -(-self._layer.neurons // self._limits["neurons"]),
            -(-self._totals.least // self._limits["output_axons"]),
        )
        found: dict[str, list[Core]] = {}
        _, used, limit = self._alone()
        if used > limit:
            return found
        for grid in partitions(self._layer, least, self._limits["neurons"], self._parts):
            if len(grid) > most or len(found) == len(self._rule.formats):
                break
            self._reached.clear()
            entries = self._entries_that_decide(grid)
            for form in self._rule.formats:
                cores = None if form in found else self._try_out(grid, form, entries)
                if cores is not None:
                    found[form] = cores
                    most = min(most, 4 * len(grid) - 1)
        return found

    def _fits(self, form: str, neurons: int) -> bool:
        """Whether a core holds so many of the first neurons of a layer without maps."""
        grid = Grid((neurons, 1, 1), (1, 1, 1))
        return self._try_out(grid, form, self._entries_that_decide(grid)) is not None

    def _try_out(self, grid: Grid, form: str, entries: Ints) -> list[Core] | None:
        """The cores, or None where a limit does not hold (`_exceeded` says which)."""
        if self._exceeds("output_axons", entries):
            return None
        for some in (True, False):
            if self._exceeds("synapse_words", self._least_words(grid, form, some)):
                return None
        for region in self._kinds(grid):
            used = self._use(region, form, 0)
            for name, limit in self._limits.items():
                if used[name] > limit:
                    self._exceeded = (name, used[name], limit)
                    return None
        entries = self._entries(grid)
        chips, last = self._chips(len(grid)).tolist(), self._start + len(grid) - 1
        return [
            Core(chip, last - number, region, self._use(region, form, int(sent)))
            for number, (chip, region, sent) in enumerate(zip(chips, grid.regions(), entries.flat))
        ]

    def _least_words(self, grid: Grid, form: str, some: bool) -> Ints:
        """Words that each region of a grid takes at least, or of some of its channels' ranges."""
        least = [part.least(grid, form == DENSE, some) for part in self._inputs]
        stored, lists = (np.sum(part, axis=0) for part in zip(*least))
        return self._rule.least_words(form, self._bits, stored, lists)

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

    def _at_least(self, grid: Grid, form: str) -> float:
        """What share of the neurons or synapse words of a core a grid takes at least."""
        words = self._least_words(grid, form, some=True).max() / self._limits["synapse_words"]
        return max(float(words), grid.largest / self._limits["neurons"])

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

    def exceeded(self) -> tuple[str, int, int]:
        """(resource, used, limit) of what a core has too little of, once the layer fits in none.

        Of the neuron with most synapses, alone on a core in the best format, if that rules it out;
        else of what ruled the last partition out.
        """
        resource, used, limit = self._alone()
        if used > limit:
            return resource, used, limit
        if self._exceeded is None:  # spikes sent alone rule every partition out
            most = self._later.most_entries_of_neuron()
            return "output_axons", most, self._limits["output_axons"]
        return self._exceeded

    def _alone(self) -> tuple[str, int, int]:
        """(resource, used, limit) of what the neuron with most synapses takes most of, alone.

        In the format in which it takes least: a core with more neurons takes no less.
        """
        region = self._heaviest()
        worst = [
            _fullest(self._limits, [self._use(region, form, 0)]) for form in self._rule.formats
        ]
        return min(worst, key=lambda found: found[1] / found[2])

    def _heaviest(self) -> Region:
        """The neuron with most synapses, or one amid the maps of the channel with most."""
        shape = maps(self._layer.shape)
        load = np.zeros(shape, np.int64)
        for kind in self._layer.wiring:
            each = synapses_of_outputs(kind)
            load += each.reshape(shape if each.size == load.size else (-1, 1, 1))
        _, rows, columns = shape
        load[:, rows // 2, columns // 2] += 1  # where a kernel meets its whole input
        place = (int(i) for i in np.unravel_index(load.argmax(), shape))
        return Region(*((i, i + 1) for i in place))

    def _chips(self, count: int) -> Ints:
        """(count,) chip, counted from the last, of each core of the layer's `count`."""
        return (self._start + count - 1 - np.arange(count)) // self._per_chip

    def _entries_that_decide(self, grid: Grid) -> Ints:
        """What no core exceeds where that holds the limit, which is quick; else the entries."""
        most = self._entries(grid, at_most=True)
        return most if (most <= self._limits["output_axons"]).all() else self._entries(grid)

    def _entries(self, grid: Grid, at_most: bool = False) -> Ints:
        """(channels, rows, columns) of the grid: entries of output axons, as `Totals.entries`."""
        chips = self._chips(len(grid))
        totals = self._totals
        if self._recurrent is not None:
            goes = self._later.copy()
            goes.add(self._recurrent, zip(chips.tolist(), grid.regions()))
            totals = goes.totals()
        return totals.entries(grid, chips.reshape(grid.shares), at_most)

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
        """What makes the layer fit fewer cores; output axons apart, as later layers decide them.

        None where nothing else is exceeded.
        """
        if fewer < 1:
            return None
        layer, rule = self._layer, self._rule
        later = Destinations(layer.shape, rule)
        alone = Placer(layer, later, self._capacity, rule, 0, self._waits)
        grids = partitions(layer, fewer, layer.neurons)
        first_grid = next(grids)
        equal = takewhile(lambda grid: len(grid) == len(first_grid), grids)
        grid = min((first_grid, *equal), key=partial(alone._at_least, form=form))
        resource, used, limit = alone._worst(grid, form)
        if used <= limit:
            return None
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
