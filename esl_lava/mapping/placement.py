"""Where a network lies: the records of a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from esl_lava.mapping.regions import Region
from esl_lava.network import INPUT, Network
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
class Spread:
    """How the fan-in of a layer's neurons lies on more than one core.

    Attributes:
        by: "host": a neuron lies on several cores, each holds the sum over a part of the fan-in,
            and the host adds what it reads; "neurons": further neurons have a part each and
            send its sum as a graded spike.
        parts: of the fan-in.
        fan_in: synapses of the neuron that has most.
        resource, used, limit: what one neuron takes alone on a core; None where the layer
            fits as it is, on more cores.
        unspread: cores that it takes as it is; None where it does not fit.
        layer: name of the layer of further neurons; None where the host adds.
        neurons: on the chip, more than the layer has.
        messages: at most, more in a step.
        steps: of latency, more.
        proven: whether the sum is proven to be what one core would hold: the host's is it where
            no v clips, which many steps of large weights may not exclude.
    """

    KEYS: ClassVar[Keys] = keys(
        "by parts fan_in resource used limit unspread layer neurons messages steps proven said"
    )

    by: str
    parts: int
    fan_in: int
    resource: str | None
    used: int | None
    limit: int | None
    unspread: int | None
    layer: str | None
    neurons: int
    messages: int
    steps: int
    proven: bool

    @property
    def said(self) -> str:
        """What is done, why, and what it costs, in a sentence about the layer."""
        why = f"it takes {self.unspread} cores as it is"
        if self.resource is not None:
            why = (
                f"{self.resource.replace('_', ' ')} would be {self.used:,} of {self.limit:,} with "
                "one neuron on a core"
            )
        found = f"a fan-in of up to {self.fan_in:,} is spread over {self.parts} parts, as {why}: "
        if self.layer is not None:
            return (
                f"{found}each neuron gets the sums of {self.parts} others as graded spikes (layer "
                f"{self.layer}, {self.neurons:,} neurons more); at most {self.messages:,} messages "
                f"a step and {self.steps} step of latency more; netx builds no such layer"
            )
        found += (
            f"each neuron is there {self.parts} times ({self.neurons:,} neurons more), and the "
            f"host adds the {self.parts} potentials that it reads for one; no message and no "
            "step more"
        )
        return found if self.proven else f"{found}; exact where no potential clips"


@dataclass(frozen=True)
class LayerMap:
    """Where a layer lies.

    Attributes:
        name: the layer's.
        neurons: that lie on its cores.
        form: the format its synapses are stored in.
        weight_bits: of a stored weight, its delay's not included.
        weights, connections: it has, as `esl_lava.connections` counts them.
        density: share of its positions whose weight is not 0: what synapse memory holds.
        words: format -> (words of synapse memory, cores) it takes; without formats that
            take at least four times the cores of the best.
        break_even: format -> density below which it takes less memory than dense.
        cores: in order.
        binding: the resource its fullest core has least of.
        fit: what would save a core; None where it takes one, or is spread.
        waits: steps that a spike waits at most on its way to it, for one on a longer way.
        spread: how its fan-in lies on several cores; None where it does not.
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
    waits: int = 0
    spread: Spread | None = None


@dataclass(frozen=True)
class CoreMap:
    """Where a network lies.

    Attributes:
        chip: name of the device.
        packing: name of the rule of packing.
        limits: resource -> limit of a core.
        cores_per_chip: of the device.
        layers: in order.
        network: as it is placed: with the parts, and the layers of sums, of what is spread.
        carries_values: whether spikes of the chip carry a value.
    """

    chip: str
    packing: str
    limits: Mapping[str, int]
    cores_per_chip: int
    layers: tuple[LayerMap, ...]
    network: Network
    carries_values: bool

    @property
    def cores(self) -> int:
        """Cores used."""
        return sum(len(layer.cores) for layer in self.layers)

    @property
    def chips(self) -> int:
        """Chips used."""
        return -(-self.cores // self.cores_per_chip)

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of the layers that sum a part of another one's fan-in."""
        spread = [layer.spread for layer in self.layers if layer.spread is not None]
        return tuple(one.layer for one in spread if one.layer is not None)

    @property
    def remarks(self) -> list[str]:
        """What a number of cores does not say, in a sentence each."""
        said = [f"{at.name}: {at.spread.said}" for at in self.layers if at.spread is not None]
        waiting = [f"{at.name} ({at.waits})" for at in self.layers if at.waits]
        if waiting:
            said.append(
                "steps that spikes on a shorter way wait for the longest, counted as synaptic "
                "delays (where kernels have none, relay neurons, which are not): "
                + ", ".join(waiting)
            )
        taking = [
            layer.name
            for layer in self.network.layers
            if any(one.source == INPUT and not one.connections.injects for one in layer.inputs)
        ]
        if self.network.message_bits and taking and not self.carries_values:
            low, high = self.network.input_range
            said.append(
                f"inputs are integers from {low} to {high}, and spikes of this chip carry no "
                f"value: the host has to weigh and sum them for {', '.join(taking)}, or they have "
                "to be coded as binary spikes"
            )
        return said

    def utilisation(self, layer: LayerMap) -> dict[str, tuple[int, int]]:
        """Resource -> (used, limit), of the core of the layer that uses most of it."""
        return {
            name: (max(core.used[name] for core in layer.cores), limit)
            for name, limit in self.limits.items()
        }
