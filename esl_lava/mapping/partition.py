"""Divide a network among cores: each layer takes as few cores as the limits allow.

Layers are placed from the last to the first, because the output axon entries of a neuron depend
on the cores that it sends to. A core holds one layer. Cores fill one chip after the other. An even
division is tried for one core, two cores, three cores and so on. The first number of cores that
keeps every limit is taken, in the format with the fewest cores and then the fewest words. If a
single neuron exceeds the limits of a core, its fan-in is spread over several cores (`spreading`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from esl_lava.devices import Capacity, Device
from esl_lava.errors import ConfigError, LimitError
from esl_lava.mapping import spreading
from esl_lava.mapping.destinations import Destinations
from esl_lava.mapping.packing import Packing, packing
from esl_lava.mapping.placement import CoreMap, LayerMap, Spread
from esl_lava.mapping.placer import Placer, limits_of
from esl_lava.mapping.synapse_lists import index_regions
from esl_lava.mapping.waiting import waits
from esl_lava.network import INPUT, Input, Layer, Network

SPREADABLE = ("input_axons", "synapse_words")
"""The resources of which a part of a fan-in uses less than the whole fan-in."""
TRIALS = 6
"""About this many numbers of parts are tried below the best one."""
WORTH = 1.25
"""If each part sends its sum, fewer parts may take up to this many times the fewest cores."""


def map_network(
    network: Network, device: Device, *, packed: str | None = None, chips: int | None = None
) -> CoreMap:
    """Divide a network among cores so that every core keeps every limit.

    Args:
        network: the network to place.
        device: a device with a capacity.
        packed: name of a packing other than the device's own.
        chips: number of available chips; None: no limit.

    Raises:
        ConfigError: if the device has no capacity, or the packing is unknown or fills words of
            another size than the device's.
        LimitError: if a layer cannot be placed, or the network takes more chips than `chips`. The
            sentence names layer, resource, use and limit.
    """
    if device.capacity is None:
        raise ConfigError(
            f"device {device.name} states no [capacity], so no network can be mapped to it",
            "unsupported",
            key="capacity",
            value=device.name,
        )
    capacity = device.capacity
    name, per_chip = packed or capacity.packing, capacity.cores.value
    rule = packing(name)
    if rule.word_bits != capacity.word_bits:
        raise ConfigError(
            f"packing {name} fills words of {rule.word_bits} bits, but the words of {device.name} "
            f"have {capacity.word_bits} bits",
            "conflict",
            key="packing",
            value=rule.word_bits,
            limit=capacity.word_bits,
        )
    summed: frozenset[str] = frozenset()
    while True:
        late = waits(network, summed)
        placed = _place_layers(network, capacity, rule, late)
        summed |= {layer.name for layer, place in placed if place.spread and place.spread.steps}
        if waits(network, summed) == late:  # otherwise delays need more bits than assumed
            break
    start = sum(len(place.cores) for _, place in placed)
    last_chip = -(-start // per_chip) - 1
    layers = []
    for _, place in reversed(placed):
        cores = [
            replace(core, chip=last_chip - core.chip, number=start - 1 - core.number)
            for core in place.cores
        ]
        layers.append(replace(place, cores=tuple(cores)))
    as_placed = replace(network, layers=tuple(layer for layer, _ in reversed(placed)))
    core_map = CoreMap(
        chip=device.name,
        packing=name,
        limits=limits_of(capacity),
        cores_per_chip=per_chip,
        layers=tuple(layers),
        network=as_placed,
        carries_values=capacity.graded_spikes is not None,
    )
    if chips is not None and core_map.chips > chips:
        most = max(layers, key=lambda layer: len(layer.cores))
        raise LimitError(
            f"the network takes {core_map.cores} cores, more than the limit of "
            f"{chips * per_chip} (chips of {device.name}: {chips}); layer {most.name} takes the "
            f"most, {len(most.cores)} cores, and is limited by {most.binding.replace('_', ' ')}",
            "limit",
            key="chips",
            value=core_map.cores,
            limit=chips * per_chip,
            layer=most.name,
        )
    return core_map


_Placement = list[tuple[Layer, LayerMap]]
"""Pairs (layer as placed, its cores), the last layer first."""


def _place_layers(
    network: Network, capacity: Capacity, rule: Packing, late: Mapping[str, tuple[int, ...]]
) -> _Placement:
    """Place every layer. Chips and cores are counted from the last one.

    Raises:
        LimitError: if a layer cannot be placed.
    """
    shapes = {INPUT: network.input_shape, **{at.name: at.shape for at in network.layers}}
    later = {name: Destinations(shape, rule) for name, shape in shapes.items()}
    placed: _Placement = []
    start = 0
    for layer in reversed(network.layers):
        task = _Task(network, layer, later[layer.name], capacity, rule, start, late[layer.name])
        for one, place in task.place():
            placed.append((one, place))
            start += len(place.cores)
            for incoming in one.feedforward_inputs:
                if incoming.source in later:  # `_in_parts` adds the cores for sums
                    _add_cores(later[incoming.source], incoming, one, place)
    return placed


def _count_cores(placed: _Placement) -> int:
    return sum(len(place.cores) for _, place in placed)


def _best(cores: Mapping[int, int], worth: float) -> int:
    """Return the fewest parts that take at most `worth` times the fewest cores."""
    least = min(cores.values())
    return min(parts for parts, taken in cores.items() if taken <= worth * least)


def _rounded_down(share: float) -> float:
    """Round down to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return math.floor(share / unit) * unit


def _add_cores(destinations: Destinations, incoming: Input, layer: Layer, place: LayerMap) -> None:
    """Add the cores of a placed layer to the destinations of one of its sources."""
    synapses = index_regions(incoming.connections, layer.shape)
    destinations.add(synapses, [(core.chip, core.region) for core in place.cores])


@dataclass(frozen=True)
class _Task:
    """The placement of one layer, after the layers that follow it have been placed.

    Attributes:
        network: the network of the layer.
        layer: the layer to place.
        later: the cores that its spikes go to.
        capacity, rule: capacity and packing of the chip.
        start: number of cores that the following layers take.
        waits: for each of `layer.inputs`, the steps by which its spikes are delayed, so that they
            arrive with those on the longest path.
    """

    network: Network
    layer: Layer
    later: Destinations
    capacity: Capacity
    rule: Packing
    start: int
    waits: tuple[int, ...]

    def place(self) -> _Placement:
        """Place the layer unchanged, or spread its fan-in if a neuron does not fit a core.

        Sums on the host cost nothing on the chip. A readout is therefore also spread if that takes
        fewer cores.

        Raises:
            LimitError: if the layer does not fit.
        """
        placer = Placer(self.layer, self.later, self.capacity, self.rule, self.start, self.waits)
        place = placer.place()
        host, neurons = self._faults()
        if place is not None:
            alone: _Placement = [(self.layer, place)]
            cores = len(place.cores)
            return alone if host else self._spread("host", None, 2, cores) or alone
        resource, used, limit = placer.exceeded()
        if resource in SPREADABLE and not (host and neurons):
            by = "neurons" if host else "host"
            spread = self._spread(by, (resource, used, limit), max(2, -(-used // limit)), None)
            if spread is not None:
                return spread
        sentence = self._refusal(placer, host, neurons)
        raise LimitError(
            sentence,
            "limit",
            key=resource.replace("_", " "),
            value=used,
            limit=limit,
            layer=self.layer.name,
        )

    def _faults(self) -> tuple[str | None, str | None]:
        """Return why the host, and why added neurons, cannot sum the parts; None if they can."""
        bits = self.capacity.graded_spikes
        return spreading.host_fault(self.layer), spreading.neurons_fault(
            self.layer, self.network, None if bits is None else bits.value
        )

    def _spread(
        self, by: str, exceeded: tuple[str, int, int] | None, first: int, unspread: int | None
    ) -> _Placement | None:
        """Place the layer in the number of parts that takes the fewest cores of those tried.

        The number of parts grows by half from one trial to the next. Then some numbers below the
        best one are tried. If sums are sent, fewer parts mean fewer messages: the fewest parts that
        take at most `WORTH` times the fewest cores are chosen.

        Args:
            by: "host" or "neurons".
            exceeded: (resource, used, limit) of one neuron alone on a core; None if it fits.
            first: the first number of parts to try.
            unspread: cores that the layer takes without spreading. Fewer cores must suffice.

        Returns:
            The placed layers, or None if no number of parts fits.
        """
        worth = WORTH if by == "neurons" else 1.0
        cores: dict[int, int] = {}  # number of parts -> cores
        kept: dict[int, _Placement] = {}

        def try_parts(parts: int) -> None:
            least = min(cores.values(), default=None if unspread is None else unspread - 1)
            if least is not None and parts > worth * least:  # each part takes a core at least
                return
            placed = self._in_parts(by, parts, None if least is None else int(worth * least))
            if placed is not None:
                cores[parts] = _count_cores(placed)
                if _best(cores, worth) == parts:
                    kept.clear()  # kernels in parts are large
                    kept[parts] = placed

        series = [first]
        while series[-1] < (most := spreading.most_parts(self.layer)):
            series.append(min(most, series[-1] + max(1, series[-1] // 2)))
        for parts in series:
            try_parts(parts)
        if not cores:
            return None
        above = _best(cores, worth)
        below = range(max((one for one in series if one < above), default=above) + 1, above)
        for parts in below[:: max(1, len(below) // TRIALS)]:
            try_parts(parts)
        best = _best(cores, worth)
        placed = kept.get(best) or self._in_parts(by, best, cores[best])
        assert placed is not None
        (layer, place), *before = placed
        resource, used, limit = exceeded or (None, None, None)
        summing = by == "neurons"
        added = (best if summing else best - 1) * self.layer.neurons
        spread = Spread(
            by=by,
            parts=best,
            fan_in=spreading.fan_in(self.layer),
            resource=resource,
            used=used,
            limit=limit,
            unspread=unspread,
            layer=before[0][0].name if summing else None,
            neurons=added,
            messages=added if summing else 0,
            steps=int(summing),
            proven=summing or spreading.host_is_proven(self.layer, self.network),
        )
        return [(layer, replace(place, spread=spread, fit=None)), *before]

    def _in_parts(self, by: str, parts: int, most: int | None) -> _Placement | None:
        """Place the layer in parts, with its sums, on at most `most` cores, or return None."""
        if by == "host":
            layer = spreading.on_the_host(self.layer, parts)
            place = self._place(layer, self.later, self.start, self.waits, most, parts)
            return None if place is None else [(layer, self._with_density(place))]
        name = f"{self.layer.name}.sums"
        while name in {layer.name for layer in self.network.layers}:
            name += "_"
        sums, layer = spreading.by_neurons(self.layer, parts, name)
        place = self._place(layer, self.later, self.start, (), most)
        if place is None:
            return None
        used = len(place.cores)
        later = Destinations(sums.shape, self.rule)
        _add_cores(later, layer.inputs[0], layer, place)
        left = None if most is None else most - used
        before = self._place(sums, later, self.start + used, self.waits, left, parts)
        return None if before is None else [(layer, place), (sums, self._with_density(before))]

    def _place(
        self,
        layer: Layer,
        later: Destinations,
        start: int,
        waiting: tuple[int, ...],
        most: int | None,
        parts: int = 1,
    ) -> LayerMap | None:
        placer = Placer(layer, later, self.capacity, self.rule, start, waiting, parts)
        return placer.place(most)

    def _with_density(self, place: LayerMap) -> LayerMap:
        """Return the record with the density of the whole layer.

        Each part also has the positions of the other parts, so that its own density is too low.
        """
        kinds = self.layer.wiring
        possible = sum(kind.possible for kind in kinds)
        return replace(place, density=sum(kind.nonzero for kind in kinds) / possible, fit=None)

    def _refusal(self, placer: Placer, host: str | None, neurons: str | None) -> str:
        """Return a sentence: why the layer does not fit, why it is not spread, what would fit."""
        resource, used, limit = placer.exceeded()
        layer = self.layer
        sentence = (
            f"layer {layer.name}: one neuron alone on a core takes {used:,} "
            f"{resource.replace('_', ' ')}, more than the limit of {limit:,}"
        )
        if resource not in SPREADABLE:
            return sentence
        if host and neurons:
            sentence += f"; its fan-in cannot be spread, because {host}"
            sentence += "" if host == neurons else f" and {neurons}"
        kinds = layer.wiring
        density = sum(kind.nonzero for kind in kinds) / sum(kind.possible for kind in kinds)
        ways = [f"a density of at most about {_rounded_down(density * limit / used):g}"]
        left = -(-used * spreading.unlike(layer) // 1)
        if not placer.shared and left < used:
            ways.append(
                f"a spiking pool in front of it (which leaves about {left:,.0f} "
                f"{resource.replace('_', ' ')})"
            )
        return f"{sentence}; {' or '.join(ways)} would fit"
