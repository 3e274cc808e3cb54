"""A network on a chip's cores, and what its neurons did there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from esl_lava.arrays import Floats, Ints
from esl_lava.counts import Counts
from esl_lava.mapping import CoreMap, LayerBound, LayerMap, Traffic
from esl_lava.values import Keys, keys


@dataclass(frozen=True, eq=False)
class Activity:
    """What a network's neurons did in a run.

    Attributes:
        counts: with details and active updates.
        spikes: layer name, and `network.INPUT` -> (rows, neurons) spikes, of all samples, by
            the steps that are left to them (`arrivals.by_steps_left`).
    """

    counts: Counts
    spikes: dict[str, Ints]


@dataclass(frozen=True)
class MappedLayer:
    """A layer on its cores.

    Attributes:
        layer: where it lies.
        utilisation: resource -> (used, limit) of the core that uses most of it.
    """

    KEYS: ClassVar[Keys] = keys(
        "layer.name layer.neurons cores format=layer.form layer.weight_bits layer.weights "
        "layer.connections layer.density by_format break_even_density=layer.break_even "
        "utilisation layer.binding one_core_fewer=layer.fit layer.waits layer.spread "
        "regions=layer.cores"
    )

    layer: LayerMap
    utilisation: Mapping[str, tuple[int, int]]

    @property
    def cores(self) -> int:
        """How many hold it."""
        return len(self.layer.cores)

    @property
    def by_format(self) -> dict[str, dict[str, int]]:
        """Format -> what the layer takes in it: words of synapse memory, and their cores."""
        return {
            form: {"words": words, "cores": cores}
            for form, (words, cores) in self.layer.words.items()
        }


@dataclass(frozen=True, eq=False)
class Flow:
    """What flows between the cores of a mapped network in a run.

    Attributes:
        counts: of the run, its messages included.
        traffic: by core.
        bounds: floor of every layer.
        step_nanoseconds: floor of a step of the network, where the device states times.
    """

    KEYS: ClassVar[Keys] = keys(
        "counts.samples messages_per_sample traffic_per_step step_nanoseconds bounds"
    )

    counts: Counts
    traffic: Traffic
    bounds: tuple[LayerBound, ...]
    step_nanoseconds: float | None

    @property
    def messages_per_sample(self) -> dict[str, float]:
        """Layer name, and `network.INPUT` -> messages sent in a mean sample."""
        return {name: sent / self.counts.samples for name, sent in self.traffic.sent.items()}

    @property
    def traffic_per_step(self) -> Floats:
        """(cores + 1, cores) messages of a mean step, as `Traffic.messages`."""
        return self.traffic.messages / (self.counts.samples * self.counts.steps)


@dataclass(frozen=True, eq=False)
class Mapped:
    """A network on a chip.

    Attributes:
        core_map: which cores hold it.
        flow: between them, in the run that was measured; None without one.
    """

    KEYS: ClassVar[Keys] = keys(
        "core_map.chip core_map.packing core_map.cores core_map.chips layers "
        "core_map.remarks *=flow"
    )

    core_map: CoreMap
    flow: Flow | None = None

    @property
    def layers(self) -> list[MappedLayer]:
        """Where each lies."""
        utilisation = self.core_map.utilisation
        return [MappedLayer(layer, utilisation(layer)) for layer in self.core_map.layers]
