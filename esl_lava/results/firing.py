"""Which neurons of a layer fire and how often, of a run of samples."""

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
"""Share of a layer's neurons, silent or saturated, from which on a sentence is said of it: fewer
are usual, as of inputs that are always dark."""


@dataclass(frozen=True)
class LayerFiring:
    """What a layer's neurons did. Numbers are exact, rates are ratios of them.

    Attributes:
        layer: its name.
        neurons: there are.
        samples, steps: of a run, and of a sample.
        spikes: of all neurons in all samples.
        largest: spikes, in all samples, of the neuron that fires most.
        silent: neurons without a spike in any sample.
        saturated: neurons that in every sample fire at every step, or wherever the pause after
            a spike lets them; None where a neuron can fire only once in a sample.
        silent_maps: feature maps without a spike in any sample; None where there are no maps.
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
        """Spikes of a mean neuron at a mean step, 0..1."""
        return self.spikes / (self.neurons * self.samples * self.steps)

    @property
    def largest_rate(self) -> float:
        """Spikes at a mean step of the neuron that fires most, 0..1."""
        return self.largest / (self.samples * self.steps)

    @property
    def spikes_per_sample(self) -> float:
        """Spikes of all neurons in a mean sample."""
        return self.spikes / self.samples


def layer_firing(
    layer: str, fired: Ints, samples: int, steps: int, *, refractory: int = 0, maps: int = 0
) -> LayerFiring:
    """What is known of a layer by the spikes of each of its neurons.

    Args:
        layer: its name.
        fired: (neurons,) spikes in all samples; of feature maps one map after the other.
        samples, steps: of the run, and of a sample; at least 1.
        refractory: steps after a spike in which a neuron cannot fire.
        maps: feature maps, 0 where there are none.
    """
    often = -(-steps // (refractory + 1))  # as a neuron can fire in a sample
    once = refractory > 0 and often == 1
    return LayerFiring(
        layer=layer,
        neurons=len(fired),
        samples=samples,
        steps=steps,
        spikes=int(fired.sum()),
        largest=int(fired.max()),
        silent=int(np.count_nonzero(fired == 0)),
        saturated=None if once else int(np.count_nonzero(fired == often * samples)),
        silent_maps=int(np.count_nonzero(~fired.reshape(maps, -1).any(axis=1))) if maps else None,
    )


def firing_of(network: Network, result: Result) -> tuple[LayerFiring, ...]:
    """The firing layers of a network in a run, in order."""
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
    """Sentences on layers of which many neurons, `MANY` or more, are silent or saturated.

    Args:
        network: whose layers they are.
        firing: as `firing_of` gives them.
    """
    layers = {layer.name: layer for layer in network.layers}
    sentences = []
    for found in firing:
        if found.silent >= MANY * found.neurons:
            sentences.append(
                f"layer {found.layer}: {_share(found.silent, found)} of its neurons never fire"
                + _idle(layers[found.layer], found)
            )
        if (found.saturated or 0) >= MANY * found.neurons:
            sentences.append(
                f"layer {found.layer}: {_share(found.saturated or 0, found)} of its neurons fire "
                "as often as they can in every sample: their spikes cost energy and tell nothing"
            )
    return sentences


def _idle(layer: Layer, found: LayerFiring) -> str:
    """What silent neurons cost, as the end of a sentence: only some have weights of their own."""
    own = not layer.inputs[0].connections.injects
    if own and found.silent_maps:
        return (
            f", among them {found.silent_maps} of its {layer.shape[0]} maps as a whole: the "
            "kernels of these cost memory and do nothing"
        )
    if own and found.silent_maps is None:
        return ": their weights cost memory and do nothing"
    return ": their updates cost energy and do nothing"


def _share(number: int, found: LayerFiring) -> str:
    """A percentage without decimals; 100 % is said of all alone."""
    if number == found.neurons:
        return "100 %"
    return f"{min(99, round(100 * number / found.neurons))} %"
