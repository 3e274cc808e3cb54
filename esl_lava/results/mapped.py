"""A network on the cores of a chip, and the activity of its neurons there."""

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
    """The activity of the neurons of a network in a run.

    Attributes:
        counts: counts of the run, with details of each layer and active updates.
        spikes: layer name or `network.INPUT` -> (rows, neurons) numbers of spikes in all samples,
            counted by the steps left in the sample (`arrivals.count_by_steps_left`).
    """

    counts: Counts
    spikes: dict[str, Ints]


@dataclass(frozen=True)
class MappedLayer:
    """A layer on its cores.

    Attributes:
        layer: the mapping of the layer.
        utilisation: resource -> (used, limit) of the core that uses the most of the resource.
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
        """Number of cores that hold the layer."""
        return len(self.layer.cores)

    @property
    def by_format(self) -> dict[str, dict[str, int]]:
        """Synapse format -> words of synapse memory and cores that the layer needs in it."""
        return {
            form: {"words": words, "cores": cores}
            for form, (words, cores) in self.layer.words.items()
        }


@dataclass(frozen=True, eq=False)
class Flow:
    """The messages between the cores of a mapped network in a run.

    Attributes:
        counts: counts of the run, with messages.
        traffic: messages, synaptic operations and spikes of each core.
        bounds: lower bound on the time of a step in each layer.
        step_nanoseconds: lower bound on the time of a step; None if the device file has no times.
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
        """Layer name or `network.INPUT` -> mean number of messages sent per sample."""
        return {name: sent / self.counts.samples for name, sent in self.traffic.sent.items()}

    @property
    def traffic_per_step(self) -> Floats:
        """(cores + 1, cores) mean messages per step, in the order of `Traffic.messages`."""
        return self.traffic.messages / (self.counts.samples * self.counts.steps)


@dataclass(frozen=True, eq=False)
class MappedNetwork:
    """A network mapped to a chip.

    Attributes:
        core_map: the cores that hold the network.
        flow: the messages between the cores in a run; None if no run was measured.
    """

    KEYS: ClassVar[Keys] = keys(
        "core_map.chip core_map.packing core_map.cores core_map.chips layers "
        "core_map.remarks *=flow"
    )

    core_map: CoreMap
    flow: Flow | None = None

    @property
    def layers(self) -> list[MappedLayer]:
        """Each layer with its cores."""
        utilisation = self.core_map.utilisation
        return [MappedLayer(layer, utilisation(layer)) for layer in self.core_map.layers]
