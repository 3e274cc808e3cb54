"""Counts of the events of a run. Energy models take their input from these counts only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerCounts:
    """Counts of one layer, summed over all samples and steps of a run.

    `esl_lava.connections` defines weights, connections and synapses.

    Attributes:
        name: the layer's name.
        neurons: neurons in the layer.
        possible: positions of the weights that were trained (`network.Origin`).
        weights: positions that the mask allows; each weight of a kernel counts once.
        possible_connections: connections if the mask allowed every position.
        connections: connections between two neurons.
        synapses: connections whose integer weight is not 0.
        sops: synaptic operations: one spike that crosses one synapse and arrives within its
            sample (NeuroBench's effective AC: zero weights are excluded).
        neuron_updates: neurons x steps x samples.
        spikes: spikes that the layer emitted.
        returned: spikes of the layer that came back through its recurrent synapses: all spikes
            except those of the last step of each sample; 0 without recurrent synapses.
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
        """Number of weights divided by number of positions, 0..1; 0 where there is no position."""
        return self.weights / self.possible if self.possible else 0.0


@dataclass(frozen=True)
class LayerDetail:
    """Further counts of one layer, for memory models and for mapped chips.

    Attributes:
        inputs: number of neurons, or inputs of the network, whose spikes the layer takes.
        positions: positions of the layer's matrices and kernels.
        nonzero: weights that are not 0; each weight of a kernel counts once.
        targets: number of positions at which the weights of one input can be: neurons of the
            layer, or positions of the kernels of one input channel.
        in_spikes: spikes that the layer's sources sent, over all samples and steps, even if a
            delay makes them arrive too late; recurrent spikes as in `LayerCounts.returned`.
        convolution: whether the weights belong to a kernel.
        bias: whether the neurons have a bias.
        leaky: whether a potential or a current decays from step to step, by a product.
        active_updates: updates of neurons that at least one synaptic operation reached, or None
            if they were not counted.
        messages: spikes times destination cores, or None if the network is not mapped.
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
class AddedCounts:
    """Counts of the neurons that a mapping adds to a network, over all samples and steps.

    Attributes:
        sops: their synaptic operations.
        neuron_updates: their updates.
        spikes: the spikes that they emit.
        messages: their spikes times destination cores.
    """

    sops: int = 0
    neuron_updates: int = 0
    spikes: int = 0
    messages: int = 0


@dataclass(frozen=True)
class Counts:
    """Counts of a run of `samples` samples with `steps` steps each.

    Attributes:
        input_spikes: spikes of the network's input, over all samples.
        layers: one entry for each layer, in order.
        details: one entry for each layer if `energy.detail.add_details` added them, else empty.
        input_messages: input spikes times destination cores, if the network is mapped.
        added: counts of the neurons that the mapping adds, if the network is mapped.
    """

    samples: int
    steps: int
    input_spikes: int
    layers: tuple[LayerCounts, ...]
    details: tuple[LayerDetail, ...] = ()
    input_messages: int | None = None
    added: AddedCounts = AddedCounts()

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
        """Spikes that all layers emitted, without the input spikes."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def possible_connections(self) -> int:
        """Connections of all layers together if nothing were pruned."""
        return sum(layer.possible_connections for layer in self.layers)

    @property
    def active_updates(self) -> int | None:
        """Active neuron updates of all layers, or None if they were not counted."""
        return _sum([detail.active_updates for detail in self.details])

    @property
    def messages(self) -> int | None:
        """Spikes of all layers times destination cores, or None if the network is not mapped."""
        return _sum([detail.messages for detail in self.details])


def _sum(values: Sequence[int | None]) -> int | None:
    """Return the sum of the values, or None if there are none or one of them is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None
