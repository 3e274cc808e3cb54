"""How often the neurons of each layer fire in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.network import Layer, Network
from esl_lava.simulate import Result
from esl_lava.values import OPTIONAL, Keys, keys

MANY = 0.1
"""A remark is made if at least this share of the neurons of a layer is silent or saturated.

Smaller shares are normal, for example of neurons whose inputs are always dark.
"""


@dataclass(frozen=True)
class LayerFiring:
    """Spike counts of the neurons of one layer. Counts are exact; rates are ratios of counts.

    Attributes:
        layer: name of the layer.
        neurons: number of neurons.
        samples: number of samples of the run.
        steps: number of steps of a sample.
        spikes: spikes of all neurons in all samples.
        largest: spikes of the most active neuron in all samples.
        silent: number of neurons without a spike in any sample.
        saturated: number of neurons that fire in every sample at every step, or as often as the
            refractory period allows; None if a neuron can fire only once in a sample.
        silent_maps: number of feature maps without a spike in any sample; None if the layer has
            no maps.
    """

    KEYS: ClassVar[Keys] = keys(
        "layer neurons silent saturated silent_maps rate largest_rate spikes_per_sample"
    )

    layer: str
    neurons: int
    samples: int
    steps: int
    spikes: int
    largest: int
    silent: int
    saturated: int | None
    silent_maps: int | None = field(default=None, metadata=OPTIONAL)

    @property
    def rate(self) -> float:
        """Mean spikes per neuron and step, 0..1."""
        return self.spikes / (self.neurons * self.samples * self.steps)

    @property
    def largest_rate(self) -> float:
        """Mean spikes per step of the most active neuron, 0..1."""
        return self.largest / (self.samples * self.steps)

    @property
    def spikes_per_sample(self) -> float:
        """Mean number of spikes of the whole layer per sample."""
        return self.spikes / self.samples


def layer_firing(
    layer: str, fired: Ints, samples: int, steps: int, *, refractory: int = 0, maps: int = 0
) -> LayerFiring:
    """Return the firing of a layer from the spike counts of its neurons.

    Args:
        layer: name of the layer.
        fired: (neurons,) spikes of each neuron in all samples; feature maps follow each other.
        samples: number of samples of the run, at least 1.
        steps: number of steps of a sample, at least 1.
        refractory: number of steps after a spike in which a neuron cannot fire.
        maps: number of feature maps; 0 if the layer has none.
    """
    most = -(-steps // (refractory + 1))  # the most spikes of a neuron in one sample
    once = refractory > 0 and most == 1
    return LayerFiring(
        layer=layer,
        neurons=len(fired),
        samples=samples,
        steps=steps,
        spikes=int(fired.sum()),
        largest=int(fired.max()),
        silent=int(np.count_nonzero(fired == 0)),
        saturated=None if once else int(np.count_nonzero(fired == most * samples)),
        silent_maps=int(np.count_nonzero(~fired.reshape(maps, -1).any(axis=1))) if maps else None,
    )


def firing_of(network: Network, result: Result) -> tuple[LayerFiring, ...]:
    """Return the firing of each firing layer of a network in a run, in the order of the layers."""
    counts = result.counts
    return tuple(
        layer_firing(
            layer.name,
            result.fired[layer.name],
            counts.samples,
            counts.steps,
            refractory=layer.neuron.refractory,
            maps=layer.shape[0] if len(layer.shape) > 1 else 0,
        )
        for layer in network.layers
        if layer.neuron.fires
    )


def remarks(network: Network, firing: Sequence[LayerFiring]) -> list[str]:
    """Return sentences about layers with at least the share `MANY` of silent or saturated neurons.

    Args:
        network: the network of the layers.
        firing: the result of `firing_of`.
    """
    layers = {layer.name: layer for layer in network.layers}
    sentences = []
    for counts in firing:
        if counts.silent >= MANY * counts.neurons:
            sentences.append(
                f"layer {counts.layer}: {_share(counts.silent, counts)} of its neurons never fire"
                + _waste(layers[counts.layer], counts)
            )
        if (counts.saturated or 0) >= MANY * counts.neurons:
            sentences.append(
                f"layer {counts.layer}: {_share(counts.saturated or 0, counts)} of its neurons "
                "fire as often as they can in every sample: their spikes cost energy but carry no "
                "information"
            )
    return sentences


def _waste(layer: Layer, counts: LayerFiring) -> str:
    """Return the end of a sentence on silent neurons: what they cost without having an effect."""
    own_weights = not layer.inputs[0].connections.injects
    if own_weights and counts.silent_maps:
        return (
            f", and {counts.silent_maps} of its {layer.shape[0]} feature maps never fire at all: "
            "the kernels of these maps cost memory but have no effect"
        )
    if own_weights and counts.silent_maps is None:
        return ": their weights cost memory but have no effect"
    return ": their updates cost energy but have no effect"


def _share(number: int, counts: LayerFiring) -> str:
    """Format a number of neurons as a whole percentage of the layer; only all of them are 100 %."""
    if number == counts.neurons:
        return "100 %"
    return f"{min(99, round(100 * number / counts.neurons))} %"
