"""What a run did, counted: the only thing energy models are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerCounts:
    """Counts of one layer, summed over all samples and steps of a run.

    What weights, connections and synapses are, `esl_lava.connections` says.

    Attributes:
        name: the layer's name.
        neurons: neurons in the layer.
        possible: positions of the weights that were trained (`network.Origin`).
        weights: of these, positions the mask allows; of a kernel each once.
        possible_connections: connections if the mask allowed every position.
        connections: between two neurons.
        synapses: connections whose integer weight is not 0.
        sops: synaptic operations: one spike that crosses one synapse and arrives within its
            sample (NeuroBench's effective AC: zero weights are excluded).
        neuron_updates: neurons x steps x samples.
        spikes: spikes the layer emitted.
        returned: of these, those that came back through recurrent synapses: all but those of
            a sample's last step; 0 where there are none.
    """

    name: str
    neurons: int
    possible: int
    weights: int
    possible_connections: int
    connections: int
    synapses: int
    sops: int
    neuron_updates: int
    spikes: int
    returned: int = 0

    @property
    def density(self) -> float:
        """Weights over positions, 0..1; 0 where there is no position."""
        return self.weights / self.possible if self.possible else 0.0


@dataclass(frozen=True)
class LayerDetail:
    """What memory models and mapped chips are charged for, besides `LayerCounts`.

    Attributes:
        inputs: neurons or input channels its synapses come from.
        positions: of its matrices and kernels.
        nonzero: weights that are not 0; of a kernel each once.
        targets: positions a stored weight of one input can name: neurons, or positions
            of a kernel.
        in_spikes: spikes that came in, all samples and steps; a delay comes after that.
        convolution: whether weights are a kernel's.
        bias: whether its neurons have one.
        leaky: whether a potential or a current decays from step to step, by a product.
        active_updates: updates of neurons that at least one synaptic operation reached,
            or None where nobody counted them.
        messages: spikes times destination cores, or None where it is not mapped.
    """

    inputs: int
    positions: int
    nonzero: int
    targets: int
    in_spikes: int
    convolution: bool
    bias: bool
    leaky: bool
    active_updates: int | None = None
    messages: int | None = None


@dataclass(frozen=True)
class Added:
    """What neurons add that a mapping needs, of all samples and steps.

    Attributes:
        sops, neuron_updates, spikes: of neurons that the network does not have.
        messages: they send.
    """

    sops: int = 0
    neuron_updates: int = 0
    spikes: int = 0
    messages: int = 0


@dataclass(frozen=True)
class Counts:
    """Counts of a run of `samples` samples, `steps` steps each.

    Attributes:
        input_spikes: spikes fed to the first layer, all samples together.
        layers: one entry per layer in order.
        details: one for each layer where `energy.detail.detailed` filled them in, else empty.
        input_messages: input spikes times destination cores, where the network is mapped.
        added: by neurons that a chip needs besides, where the network is mapped.
    """

    samples: int
    steps: int
    input_spikes: int
    layers: tuple[LayerCounts, ...]
    details: tuple[LayerDetail, ...] = ()
    input_messages: int | None = None
    added: Added = Added()

    @property
    def sops(self) -> int:
        """Synaptic operations of all layers and samples."""
        return sum(layer.sops for layer in self.layers)

    @property
    def neuron_updates(self) -> int:
        """Neuron updates of all layers and samples."""
        return sum(layer.neuron_updates for layer in self.layers)

    @property
    def spikes(self) -> int:
        """Spikes emitted by all layers (the input's not included)."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def possible_connections(self) -> int:
        """Connections of all layers together if nothing were pruned."""
        return sum(layer.possible_connections for layer in self.layers)

    @property
    def active_updates(self) -> int | None:
        """Active neuron updates of all layers, or None where nobody counted them."""
        return _sum([detail.active_updates for detail in self.details])

    @property
    def messages(self) -> int | None:
        """Messages between cores of all layers' spikes, or None where nothing is mapped."""
        return _sum([detail.messages for detail in self.details])


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None
