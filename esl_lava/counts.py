"""What a run did, counted: the only thing energy models are given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerCounts:
    """Counts of one layer, summed over all samples and steps of a run.

    Attributes:
        name: the layer's name.
        neurons: neurons in the layer.
        possible: positions of its weight matrix, connected or not.
        connections: positions the mask allows.
        synapses: connections with a non-zero integer weight.
        sops: synaptic operations: one input spike crossing one synapse (NeuroBench's
            effective AC: zero weights are excluded).
        neuron_updates: neurons x steps x samples.
        spikes: spikes the layer emitted.
    """

    name: str
    neurons: int
    possible: int
    connections: int
    synapses: int
    sops: int
    neuron_updates: int
    spikes: int


@dataclass(frozen=True)
class Counts:
    """Counts of a run of `samples` samples, `steps` steps each.

    Attributes:
        input_spikes: spikes fed to the first layer, all samples together.
        layers: one entry per layer in order.
    """

    samples: int
    steps: int
    input_spikes: int
    layers: tuple[LayerCounts, ...]

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
    def connections(self) -> int:
        """Connections of all layers together."""
        return sum(layer.connections for layer in self.layers)

    @property
    def possible(self) -> int:
        """Possible connections of all layers together."""
        return sum(layer.possible for layer in self.layers)
