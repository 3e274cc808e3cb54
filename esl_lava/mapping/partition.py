"""Which cores a network takes: every layer shared among as few as its limits allow.

Layers are placed from the last to the first, as the entries of a neuron's output axons
depend on the cores it sends to. Cores hold one layer each, and fill one chip after the
other. An even share is tried for one core, two, three and so on: the first number that
respects every limit in every core is taken, in the format that takes the fewest cores and
then the fewest words. Where a single neuron takes more than a core holds, its fan-in is spread
over several (`spreading`).
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
"""What a part of a fan-in takes less of."""
TRIALS = 6
"""Numbers of parts that are tried below the best one, about."""
WORTH = 1.25
"""Cores that fewer parts of a fan-in are worth, where each part sends its sum."""


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
    summed: frozenset[str] = frozenset()
    while True:
        late = waits(network, summed)
        placed = _placed(network, capacity, rule, late)
        summed |= {layer.name for layer, place in placed if place.spread and place.spread.steps}
        if waits(network, summed) == late:  # else delays take more bits than was reckoned with
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
    found = CoreMap(
        chip=device.name,
        packing=name,
        limits=limits_of(capacity),
        cores_per_chip=per_chip,
        layers=tuple(layers),
        network=as_placed,
        carries_values=capacity.graded_spikes is not None,
    )
    if chips is not None and found.chips > chips:
        most = max(layers, key=lambda layer: len(layer.cores))
        raise LimitError(
            [
                f"network: cores {found.cores} exceed {chips * per_chip} "
                f"({chips} of {device.name}); layer {most.name} takes {len(most.cores)} of them, "
                f"{most.binding.replace('_', ' ')} bind there"
            ]
        )
    return found


_Placed = list[tuple[Layer, LayerMap]]
"""Layers as they are placed, and where they lie, the last one first."""


def _placed(
    network: Network, capacity: Capacity, rule: Packing, late: Mapping[str, int]
) -> _Placed:
    """Where each layer lies; chips and cores are counted from the last one.

    Raises:
        LimitError: naming what cannot be placed.
    """
    shapes = {INPUT: network.input_shape, **{at.name: at.shape for at in network.layers}}
    later = {name: Destinations(shape, rule) for name, shape in shapes.items()}
    done: _Placed = []
    start = 0
    for layer in reversed(network.layers):
        task = _Task(network, layer, later[layer.name], capacity, rule, start, late[layer.name])
        for one, place in task.placed():
            done.append((one, place))
            start += len(place.cores)
            for given in one.feeding:
                if given.source in later:  # a layer of sums has sent to its own already
                    _send(later[given.source], given, one, place)
    return done


def _cores(placed: _Placed) -> int:
    return sum(len(place.cores) for _, place in placed)


def _best(cores: Mapping[int, int], worth: float) -> int:
    """The fewest parts of those that take `worth` times the fewest cores at most."""
    least = min(cores.values())
    return min(parts for parts, taken in cores.items() if taken <= worth * least)


def _rounded_down(share: float) -> float:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return math.floor(share / unit) * unit


def _send(to: Destinations, given: Input, layer: Layer, place: LayerMap) -> None:
    """Add the cores of a placed layer to where the spikes of one of its sources go."""
    synapses = index_regions(given.connections, layer.shape)
    to.add(synapses, [(core.chip, core.region) for core in place.cores])


@dataclass(frozen=True)
class _Task:
    """A layer to place, those behind it being placed.

    Attributes:
        network: the layer's.
        layer: to place.
        later: where its spikes go.
        capacity, rule: of the chip.
        start: cores behind the layer.
        waits: steps that a spike waits at most on its way to it.
    """

    network: Network
    layer: Layer
    later: Destinations
    capacity: Capacity
    rule: Packing
    start: int
    waits: int

    def placed(self) -> _Placed:
        """The layer as it is, or spread where a neuron does not fit a core.

        What the host adds costs nothing on the chip: a readout is spread where that takes
        fewer cores, too.

        Raises:
            LimitError: where it does not fit.
        """
        placer = Placer(self.layer, self.later, self.capacity, self.rule, self.start, self.waits)
        place = placer.placed()
        host, neurons = self._faults()
        if place is not None:
            alone: _Placed = [(self.layer, place)]
            cores = len(place.cores)
            return alone if host else self._spread("host", None, 2, cores) or alone
        resource, used, limit = placer.exceeded()
        if resource in SPREADABLE and not (host and neurons):
            by = "neurons" if host else "host"
            found = self._spread(by, (resource, used, limit), max(2, -(-used // limit)), None)
            if found is not None:
                return found
        raise LimitError([self._refusal(placer, host, neurons)])

    def _faults(self) -> tuple[str | None, str | None]:
        """Why the fan-in cannot be spread by the host, and by neurons, or None each."""
        bits = self.capacity.graded_spikes
        return spreading.host_fault(self.layer), spreading.neurons_fault(
            self.layer, self.network, None if bits is None else bits.value
        )

    def _spread(
        self, by: str, exceeded: tuple[str, int, int] | None, first: int, unspread: int | None
    ) -> _Placed | None:
        """The layer in the parts that take the fewest cores of those tried, or None.

        Numbers of parts that grow by half are tried, then some below the best one. Where sums are
        sent, fewer parts, that is fewer messages, are worth cores: `WORTH` times the fewest.

        Args:
            by: "host" or "neurons".
            exceeded: (resource, used, limit) of one neuron on a core; None where it fits.
            first: number of parts to try.
            unspread: cores that the layer takes as it is, of which fewer have to do.
        """
        worth = WORTH if by == "neurons" else 1.0
        known: dict[int, int] = {}
        kept: dict[int, _Placed] = {}

        def tried(parts: int) -> None:
            least = min(known.values(), default=None if unspread is None else unspread - 1)
            if least is not None and parts > worth * least:  # each part takes a core at least
                return
            found = self._in_parts(by, parts, None if least is None else int(worth * least))
            if found is not None:
                known[parts] = _cores(found)
                if _best(known, worth) == parts:
                    kept.clear()  # kernels in parts are large
                    kept[parts] = found

        series = [first]
        while series[-1] < (most := spreading.most_parts(self.layer)):
            series.append(min(most, series[-1] + max(1, series[-1] // 2)))
        for parts in series:
            tried(parts)
        if not known:
            return None
        above = _best(known, worth)
        below = range(max((one for one in series if one < above), default=above) + 1, above)
        for parts in below[:: max(1, len(below) // TRIALS)]:
            tried(parts)
        best = _best(known, worth)
        found = kept.get(best) or self._in_parts(by, best, known[best])
        assert found is not None
        (layer, place), *before = found
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

    def _in_parts(self, by: str, parts: int, most: int | None) -> _Placed | None:
        """The layer in parts, and the one that sums for it, on `most` cores together, or None."""
        if by == "host":
            layer = spreading.on_the_host(self.layer, parts)
            place = self._place(layer, self.later, self.start, self.waits, most, parts)
            return None if place is None else [(layer, self._counted(place))]
        name = f"{self.layer.name}.sums"
        while name in {layer.name for layer in self.network.layers}:
            name += "_"
        sums, layer = spreading.by_neurons(self.layer, parts, name)
        place = self._place(layer, self.later, self.start, 0, most)
        if place is None:
            return None
        taken = len(place.cores)
        later = Destinations(sums.shape, self.rule)
        _send(later, layer.inputs[0], layer, place)
        left = None if most is None else most - taken
        before = self._place(sums, later, self.start + taken, self.waits, left, parts)
        return None if before is None else [(layer, place), (sums, self._counted(before))]

    def _place(
        self,
        layer: Layer,
        later: Destinations,
        start: int,
        waiting: int,
        most: int | None,
        parts: int = 1,
    ) -> LayerMap | None:
        placer = Placer(layer, later, self.capacity, self.rule, start, waiting, parts)
        return placer.placed(most)

    def _counted(self, place: LayerMap) -> LayerMap:
        """With the density that the layer has: its parts have positions of the others, too."""
        kinds = self.layer.wiring
        possible = sum(kind.possible for kind in kinds)
        return replace(place, density=sum(kind.nonzero for kind in kinds) / possible, fit=None)

    def _refusal(self, placer: Placer, host: str | None, neurons: str | None) -> str:
        """Why the layer does not fit, why it cannot be spread, and what would fit."""
        resource, used, limit = placer.exceeded()
        layer = self.layer
        said = (
            f"layer {layer.name}: {resource.replace('_', ' ')} {used:,} of a core exceed "
            f"{limit:,}, even with one neuron on a core"
        )
        if resource not in SPREADABLE:
            return said
        if host and neurons:
            said += f"; its fan-in cannot be spread, as {host}"
            said += "" if host == neurons else f" and {neurons}"
        kinds = layer.wiring
        density = sum(kind.nonzero for kind in kinds) / sum(kind.possible for kind in kinds)
        ways = [f"a density of at most about {_rounded_down(density * limit / used):g}"]
        left = -(-used * spreading.unlike(layer) // 1)
        if not placer.shared and left < used:
            ways.append(f"neurons that pool before it (about {left:,.0f} are left then)")
        return f"{said}; {' or '.join(ways)} would fit"
