"""What a network and its spikes add to the counts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from esl_lava.arrays import Array, Bools, Int32s
from esl_lava.chip import DECAY_UNITY
from esl_lava.counts import Counts, LayerDetail
from esl_lava.network import INPUT, Network


def detailed(network: Network, counts: Counts) -> Counts:
    """Counts of a run with the details that follow from its network alone."""
    spikes = {INPUT: counts.input_spikes} | {layer.name: layer.spikes for layer in counts.layers}
    details = []
    for layer, counted in zip(network.layers, counts.layers):
        first = layer.inputs[0].connections
        voltage, current = map(np.asarray, (layer.neuron.voltage_decay, layer.neuron.current_decay))
        details.append(
            LayerDetail(
                inputs=sum(part.n_pre for part in layer.wiring),
                positions=sum(part.possible for part in layer.wiring),
                nonzero=sum(part.nonzero for part in layer.wiring),
                targets=first.n_post if first.injects else first.possible // first.in_shape[0],
                in_spikes=sum(spikes[given.source] for given in layer.feeding) + counted.returned,
                convolution=first.shares,
                bias=layer.bias is not None,
                leaky=bool((voltage > 0).any() or (current < DECAY_UNITY).any()),
            )
        )
    return replace(counts, details=tuple(details))


def with_activity(counts: Counts, active: Mapping[str, int]) -> Counts:
    """Detailed counts with the active updates per layer, of the same samples.

    Args:
        counts: as `detailed` returns them.
        active: layer name -> as `active_updates` returns them, summed over samples.
    """
    details = tuple(
        replace(detail, active_updates=active[layer.name])
        for layer, detail in zip(counts.layers, counts.details)
    )
    return replace(counts, details=details)


def with_messages(counts: Counts, messages: Mapping[str, int]) -> Counts:
    """Detailed counts with the messages per layer, of the same samples.

    Args:
        counts: as `detailed` returns them.
        messages: layer name, and `network.INPUT` -> spikes times destination cores.
    """
    details = tuple(
        replace(detail, messages=messages[layer.name])
        for layer, detail in zip(counts.layers, counts.details)
    )
    return replace(counts, details=details, input_messages=messages[INPUT])


def active_updates(network: Network, inputs: Array, spikes: Mapping[str, Array]) -> dict[str, int]:
    """Neuron updates in which at least one synaptic operation arrived at the neuron.

    Args:
        network: the one that was run.
        inputs: (samples, T, inputs) integers; what is not 0 is a spike.
        spikes: layer name -> (samples, T, neurons), all firing layers.

    Returns:
        Layer name -> updates, summed over samples and steps.
    """
    found = {}
    silent = {layer.name for layer in network.layers if not layer.neuron.fires}
    samples, steps = inputs.shape[:2]
    for layer in network.layers:
        reached = np.zeros((samples, steps, layer.neurons), bool)
        for given in layer.inputs:
            if given.connections.injects or given.source in silent:
                continue
            coming = inputs if given.source == INPUT else spikes[given.source]
            active = coming.reshape(samples * steps, -1) != 0
            crossing = given.connections.reached(active).reshape(reached.shape)
            reached |= _arriving(crossing, np.broadcast_to(layer.late(given), layer.neurons))
        found[layer.name] = int(np.count_nonzero(reached))
    return found


def _arriving(crossing: Bools, late: Int32s) -> Bools:
    """(samples, T, n) what arrives in each step, of what sets out to neurons in each.

    Args:
        crossing: (samples, T, n).
        late: (n,) steps that it takes; what takes too many never arrives.
    """
    steps = crossing.shape[1]
    found = np.zeros_like(crossing)
    for delay in np.unique(late):
        if delay < steps:
            there = late == delay
            found[:, delay:, there] = crossing[:, : steps - delay, there]
    return found
