"""The records of a mapping: the cores on which a network lies."""

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
"""The limited resources of a core. `Capacity` may have a limit of each."""


@dataclass(frozen=True)
class Core:
    """A core and the share of a layer that it holds.

    Attributes:
        chip: number of the chip, from 0 in the order of layers.
        number: number of the core, from 0 in the order of layers, counted over all chips.
        region: the neurons of the core.
        used: resource -> amount that the core uses.
    """

    KEYS: ClassVar[Keys] = keys("core=number chip region.channels region.rows region.columns used")

    chip: int
    number: int
    region: Region
    used: Mapping[str, int]


@dataclass(frozen=True)
class Fit:
    """The changes that would make a layer fit on one core fewer, to first order.

    Attributes:
        cores: one core fewer than the layer takes.
        resource: the resource that would be exceeded on these cores.
        used, limit: use and limit of this resource in the fullest core.
        width: number of neurons that would fit at the layer's density; None if it has feature maps.
        density: the density at which the layer would fit at its width; None if the resource is not
            synapse memory.
    """

    cores: int
    resource: str
    used: int
    limit: int
    width: int | None
    density: float | None


@dataclass(frozen=True)
class Spread:
    """A fan-in that is spread over several cores.

    Attributes:
        by: "host" if each neuron lies on several cores, each core sums a part of the fan-in, and
            the host adds the potentials that it reads. "neurons" if added neurons sum a part each
            and send the sum as a graded spike.
        parts: number of parts of the fan-in.
        fan_in: an upper bound of the synapses onto one neuron.
        resource, used, limit: the resource that a neuron alone on a core would exceed; None if the
            layer fits without spreading, on more cores.
        unspread: cores that the layer takes without spreading; None if it does not fit.
        layer: name of the layer of added neurons; None if the host adds.
        neurons: number of neurons added on the chip.
        messages: the most messages that are added in a step.
        steps: steps of latency that are added.
        proven: whether the sum is proven to equal the sum of a single core. The host's sum is
            equal if no v clips. Large weights and many steps can make this impossible to prove.
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
        """A sentence on how the fan-in is spread, the reason and the cost."""
        reason = f"the layer takes {self.unspread} cores otherwise"
        if self.resource is not None:
            reason = (
                f"one neuron alone on a core would take {self.used:,} "
                f"{self.resource.replace('_', ' ')}, more than the limit of {self.limit:,}"
            )
        start = (
            f"a fan-in of up to {self.fan_in:,} is spread over {self.parts} parts, "
            f"because {reason}: "
        )
        if self.layer is not None:
            return (
                f"{start}each neuron receives the sums of {self.parts} added neurons as graded "
                f"spikes (layer {self.layer}, {self.neurons:,} added neurons); this adds at most "
                f"{self.messages:,} messages in a step and {self.steps} step of latency; netx "
                "cannot build such a layer"
            )
        sentence = (
            f"{start}each neuron lies on the chip {self.parts} times ({self.neurons:,} added "
            f"neurons), and the host adds the {self.parts} potentials of each neuron; this adds no "
            "message and no step"
        )
        return sentence if self.proven else f"{sentence}; exact where no potential clips"


@dataclass(frozen=True)
class LayerMap:
    """The cores of a layer.

    Attributes:
        name: name of the layer.
        neurons: number of neurons on its cores.
        form: the format in which its synapses are stored.
        weight_bits: bits of a stored weight, without those of its delay.
        weights, connections: numbers of weights and connections, as in `esl_lava.connections`.
        density: share of its positions whose weight is not 0. Only these need synapse memory.
        words: format -> (words of synapse memory, cores). Formats that take at least four times
            the cores of the best one are left out.
        break_even: format -> density below which it takes less memory than dense lists.
        cores: the cores in order.
        binding: the resource of which its fullest core uses the largest share.
        fit: the changes that would save a core; None if it takes one core, is spread, or only
            output axons keep it from one core fewer.
        waits: the most steps that a spike on a shorter path to the layer waits.
        spread: how its fan-in is spread over several cores; None if it is not.
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
    """The cores of a network.

    Attributes:
        chip: name of the device.
        packing: name of the packing.
        limits: resource -> limit of a core.
        cores_per_chip: number of cores of a chip of the device.
        layers: the layers in order.
        network: the network as placed. A layer that is spread has its parts or its layer of sums.
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
        """Number of cores used."""
        return sum(len(layer.cores) for layer in self.layers)

    @property
    def chips(self) -> int:
        """Number of chips used."""
        return -(-self.cores // self.cores_per_chip)

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of the layers whose neurons sum parts of the fan-in of another layer."""
        spread = [layer.spread for layer in self.layers if layer.spread is not None]
        return tuple(one.layer for one in spread if one.layer is not None)

    @property
    def remarks(self) -> list[str]:
        """Sentences on facts that the number of cores does not show."""
        sentences = [f"{at.name}: {at.spread.said}" for at in self.layers if at.spread is not None]
        waiting = [f"{at.name} ({at.waits})" for at in self.layers if at.waits]
        if waiting:
            sentences.append(
                "spikes on a shorter path wait for those on the longest path (steps in brackets); "
                "the wait is counted as a synaptic delay, and relay neurons, which convolutions "
                "without delays need, are not counted: " + ", ".join(waiting)
            )
        receivers = [
            layer.name
            for layer in self.network.layers
            if any(one.source == INPUT and not one.connections.injects for one in layer.inputs)
        ]
        if self.network.message_bits and receivers and not self.carries_values:
            low, high = self.network.input_range
            sentences.append(
                f"inputs are integers from {low} to {high}, but spikes of this chip carry no "
                f"value: the host must weight and sum the inputs for {', '.join(receivers)}, or "
                "the inputs must be coded as binary spikes"
            )
        return sentences

    def utilisation(self, layer: LayerMap) -> dict[str, tuple[int, int]]:
        """Return resource -> (used, limit) of the core of the layer that uses most of it."""
        return {
            name: (max(core.used[name] for core in layer.cores), limit)
            for name, limit in self.limits.items()
        }
