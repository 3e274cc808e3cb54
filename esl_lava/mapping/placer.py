"""Place one layer on cores, after the layers that follow it have been placed."""

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
    """Return the bits of a stored weight: the chip's least width that holds every weight.

    The weights are divided by their common power of two first. They need a bit for the sign only
    if some are negative and some are positive.

    Raises:
        LimitError: if no width of the chip holds the layer's weights.
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
    widest = capacity.weight_bits[-1]
    raise LimitError(
        f"layer {layer.name}: its weights need {bits} bits, more than the limit of {widest} bits",
        "limit",
        key="weights",
        value=bits,
        limit=widest,
        layer=layer.name,
    )


def limits_of(capacity: Capacity) -> dict[str, int]:
    """Return resource -> limit of a core, for the limits that the device file states."""
    limits = {name: getattr(capacity, name) for name in RESOURCES}
    return {name: limit.value for name, limit in limits.items() if limit is not None}


def _fullest(limits: Mapping[str, int], uses: Sequence[Mapping[str, int]]) -> tuple[str, int, int]:
    """Return (resource, used, limit) of the resource that the cores exceed, or fill, most."""
    most = {name: max(use[name] for use in uses) for name in limits}
    name = max(limits, key=lambda name: most[name] / limits[name])
    return name, most[name], limits[name]


def _delay_bits(layer: Layer, waits: Sequence[int]) -> int:
    """Return the bits of a synaptic delay: 3 to 6 (NxTF), or 0 without delays.

    Raises:
        LimitError: if a spike is delayed by more steps than a synapse allows.
    """
    delays = (0 if one.delays is None else int(one.delays.max()) for one in layer.inputs)
    longest, waiting = max((delay + wait, wait) for delay, wait in zip(delays, waits))
    if longest > MAX_DELAY:
        raise LimitError(
            f"layer {layer.name}: a delay of {longest} steps exceeds the limit of {MAX_DELAY}; in "
            f"{waiting} of these steps the spike waits for spikes on a longer path",
            "limit",
            key="delay",
            value=longest,
            limit=MAX_DELAY,
            layer=layer.name,
        )
    return max(3, longest.bit_length()) if longest else 0


class Placer:
    """Place one layer on cores, after the layers that follow it have been placed.

    Args:
        layer: the layer to place.
        later: the cores that its spikes go to.
        capacity, rule: capacity and packing of the chip.
        start: number of cores that the following layers take.
        waits: for each of `layer.inputs`, the steps by which its spikes are delayed, so that they
            arrive with those on the longest path. By default no spike is delayed.
        parts: number of parts of its channels, or neurons. No core holds neurons of two parts.

    Attributes:
        shared: whether several neurons may send to one input axon.

    Raises:
        LimitError: if no width of the chip holds its weights, or its delays.
    """

    def __init__(
        self,
        layer: Layer,
        later: Destinations,
        capacity: Capacity,
        rule: Packing,
        start: int,
        waits: Sequence[int] = (),
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
        self._waits = tuple(waits) or (0,) * len(layer.inputs)
        self._bits = self._weight_bits + _delay_bits(layer, self._waits)
        self._parts = parts
        self.shared = capacity.shared_axons is not None and capacity.shared_axons.value
        indices = [
            (one, index_regions(one.connections, layer.shape, self.shared, rule.by_tap))
            for one in layer.inputs
        ]
        self._inputs = [index for _, index in indices]
        self._recurrent = next((index for one, index in indices if one is layer.recurrent), None)
        self._reached: dict[Hashable, tuple[Lists, int]] = {}
        self._costs: dict[Hashable, tuple[int, int, int]] = {}
        self._totals = later.totals()
        self._exceeded: tuple[str, int, int] | None = None

    def place(self, most: int | None = None) -> LayerMap | None:
        """Place the layer in its best format. Return None if it fits in no format.

        Chips and cores are counted from the last one.

        Args:
            most: number of cores available to the layer; None: no limit.
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
            waits=max(self._waits),
        )

    def _plans(self, most: int) -> dict[str, list[Core]]:
        """Return format -> cores of the first partition that keeps all limits.

        The partition has at most `most` cores.

        Formats that take at least four times the cores of the best one are left out.
        """
        least = max(
            -(-self._layer.neurons // self._limits["neurons"]),
            -(-self._totals.least // self._limits["output_axons"]),
        )
        plans: dict[str, list[Core]] = {}
        _, used, limit = self._alone()
        if used > limit:
            return plans
        for grid in partitions(self._layer, least, self._limits["neurons"], self._parts):
            if len(grid) > most or len(plans) == len(self._rule.formats):
                break
            self._reached.clear()
            entries = self._entries_that_decide(grid)
            for form in self._rule.formats:
                cores = None if form in plans else self._try_out(grid, form, entries)
                if cores is not None:
                    plans[form] = cores
                    most = min(most, 4 * len(grid) - 1)
        return plans

    def _fits(self, form: str, neurons: int) -> bool:
        """Return whether a core holds the first `neurons` neurons of a layer without maps."""
        grid = Grid((neurons, 1, 1), (1, 1, 1))
        return self._try_out(grid, form, self._entries_that_decide(grid)) is not None

    def _try_out(self, grid: Grid, form: str, entries: Ints) -> list[Core] | None:
        """Return the cores of a grid; or None, and set `_exceeded`, if one exceeds a limit."""
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
        """Return a lower bound of the number of memory words of each region.

        If `some` is true, only the regions of some ranges of channels are computed.
        """
        least = [part.least(grid, form == DENSE, some) for part in self._inputs]
        stored, lists = (np.sum(part, axis=0) for part in zip(*least))
        return self._rule.least_words(form, self._bits, stored, lists)

    def _exceeds(self, name: str, used: Ints) -> bool:
        """Return whether a core exceeds the limit. The first such core sets `_exceeded`."""
        over = used > self._limits[name]
        if over.any():
            self._exceeded = (name, int(used.flat[over.argmax()]), self._limits[name])
        return bool(over.any())

    def _kinds(self, grid: Grid) -> Iterator[Region]:
        """Yield the first region of every kind; regions of one kind have equal lists and axons."""
        rows, columns = (self._first_of_kinds(grid, axis) for axis in (1, 2))
        return (Region(c, y, x) for c, y, x in product(grid.ranges(0), rows, columns))

    def _first_of_kinds(self, grid: Grid, axis: int) -> list[Range]:
        first: dict[tuple[Hashable, ...], Range] = {}
        kinds = zip(*(part.alike(grid, axis) for part in self._inputs))
        for kind, one in zip(kinds, grid.ranges(axis)):
            first.setdefault(kind, one)
        return list(first.values())

    def _at_least(self, grid: Grid, form: str) -> float:
        """Return a lower bound of the share of neurons or words that a grid's fullest core uses."""
        words = self._least_words(grid, form, some=True).max() / self._limits["synapse_words"]
        return max(float(words), grid.largest / self._limits["neurons"])

    def _worst(self, grid: Grid, form: str) -> tuple[str, int, int]:
        """Return (resource, used, limit) of the resource that the grid exceeds, or fills, most.

        If a list has more targets than an index can name, the core has too many neurons.
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
        """Return (resource, used, limit) of the limit that prevents the layer from fitting.

        If the neuron with the most synapses does not fit alone on a core in the best format, it is
        the limit that this neuron exceeds. Otherwise it is the limit that the last partition
        exceeded.
        """
        resource, used, limit = self._alone()
        if used > limit:
            return resource, used, limit
        if self._exceeded is None:  # output axons alone rule every partition out
            most = self._later.most_entries_of_neuron()
            return "output_axons", most, self._limits["output_axons"]
        return self._exceeded

    def _alone(self) -> tuple[str, int, int]:
        """Return (resource, used, limit) of the neuron with the most synapses, alone on a core.

        It is the resource that this neuron fills most, in the format in which it takes the least.
        A core with more neurons takes no less.
        """
        region = self._heaviest()
        worst = [
            _fullest(self._limits, [self._use(region, form, 0)]) for form in self._rule.formats
        ]
        return min(worst, key=lambda use: use[1] / use[2])

    def _heaviest(self) -> Region:
        """Return the neuron with the most synapses. In feature maps it lies near the centre."""
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
        """Return (count,) the chip of each of the layer's `count` cores, counted from the last."""
        return (self._start + count - 1 - np.arange(count)) // self._per_chip

    def _entries_that_decide(self, grid: Grid) -> Ints:
        """Return the quick upper bound of the entries if it keeps the limit, else the entries."""
        most = self._entries(grid, at_most=True)
        return most if (most <= self._limits["output_axons"]).all() else self._entries(grid)

    def _entries(self, grid: Grid, at_most: bool = False) -> Ints:
        """Count the output axon entries in each core of the grid, as `Totals.entries` does."""
        chips = self._chips(len(grid))
        totals = self._totals
        if self._recurrent is not None:
            destinations = self._later.copy()
            destinations.add(self._recurrent, zip(chips.tolist(), grid.regions()))
            totals = destinations.totals()
        return totals.entries(grid, chips.reshape(grid.shares), at_most)

    def _use(self, region: Region, form: str, entries: int) -> dict[str, int]:
        """Return resource -> amount that a core with this region uses."""
        axons = words = formats = longest = 0
        for number, synapses in enumerate(self._inputs):
            own_axons, own_words, longest_list = self._cost_of_input(number, synapses, region, form)
            axons += own_axons
            words += own_words
            formats += own_axons > 0
            longest = max(longest, longest_list)
        return {
            "neurons": region.neurons,
            "input_axons": axons,
            "output_axons": entries,
            "synapse_words": words,
            "synapse_formats": formats,
            "neuron_groups": 1,  # a core holds one layer
            "words_per_axon": longest,
        }

    def _cost_of_input(
        self, number: int, synapses: RegionIndex, region: Region, form: str
    ) -> tuple[int, int, int]:
        """Return (axons, words, words of the longest list) of an input's synapses in a region."""
        place = (number, synapses.kind(region))
        key = (*place, form)
        if key not in self._costs:
            if place not in self._reached:
                self._reached[place] = synapses.reach(region)
            lists, axons = self._reached[place]
            listed = self._rule.list_words(form, self._bits, lists)
            words, longest = (int(listed.sum()), int(listed.max())) if axons else (0, 0)
            self._costs[key] = axons, words, longest
        return self._costs[key]

    def _fit(self, form: str, fewer: int) -> Fit | None:
        """Return the changes that make the layer fit on `fewer` cores, output axons aside.

        Later layers decide the output axons. Return None if no other limit is exceeded.
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
            widths = range(most, 0, -1)  # widths that exceed a core come first
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
