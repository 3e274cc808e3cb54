"""Add details of the network and its spikes to the counts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from esl_lava.arrays import Array, Bools, Int32s
from esl_lava.chip import DECAY_UNITY
from esl_lava.counts import Counts, LayerDetail
from esl_lava.network import INPUT, Network


def add_details(network: Network, counts: Counts) -> Counts:
    """Return the counts of a run with the details that follow from its network and these counts."""
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
                in_spikes=sum(spikes[one.source] for one in layer.feedforward_inputs)
                + counted.returned,
                convolution=first.shares,
                bias=layer.bias is not None,
                leaky=bool((voltage > 0).any() or (current < DECAY_UNITY).any()),
            )
        )
    return replace(counts, details=tuple(details))


def with_activity(counts: Counts, active: Mapping[str, int]) -> Counts:
    """Return detailed counts with the active updates of each layer.

    Args:
        counts: counts as `add_details` returns them.
        active: layer name -> active updates of the same samples, as `active_updates` returns them.
    """
    details = tuple(
        replace(detail, active_updates=active[layer.name])
        for layer, detail in zip(counts.layers, counts.details)
    )
    return replace(counts, details=details)


def with_messages(counts: Counts, messages: Mapping[str, int]) -> Counts:
    """Return detailed counts with the messages of each layer.

    Args:
        counts: counts as `add_details` returns them.
        messages: layer name or `network.INPUT` -> spikes times destination cores, of the same
            samples.
    """
    details = tuple(
        replace(detail, messages=messages[layer.name])
        for layer, detail in zip(counts.layers, counts.details)
    )
    return replace(counts, details=details, input_messages=messages[INPUT])


def active_updates(network: Network, inputs: Array, spikes: Mapping[str, Array]) -> dict[str, int]:
    """Count the neuron updates in which at least one synaptic operation arrived at the neuron.

    Args:
        network: the network that was run.
        inputs: (samples, T, inputs) integers. Every value that is not 0 is a spike.
        spikes: layer name -> (samples, T, neurons) spikes of every firing layer.

    Returns:
        Layer name -> updates, summed over samples and steps.
    """
    updates = {}
    silent = {layer.name for layer in network.layers if not layer.neuron.fires}
    samples, steps = inputs.shape[:2]
    for layer in network.layers:
        reached = np.zeros((samples, steps, layer.neurons), bool)
        for incoming in layer.inputs:
            if incoming.connections.injects or incoming.source in silent:
                continue
            sent = inputs if incoming.source == INPUT else spikes[incoming.source]
            active = sent.reshape(samples * steps, -1) != 0
            crossing = incoming.connections.reached(active).reshape(reached.shape)
            reached |= _arrivals(crossing, np.broadcast_to(layer.late(incoming), layer.neurons))
        updates[layer.name] = int(np.count_nonzero(reached))
    return updates


def _arrivals(crossing: Bools, late: Int32s) -> Bools:
    """Return (samples, T, n) whether a spike arrives at each neuron in each step.

    Args:
        crossing: (samples, T, n) whether a spike to each neuron is sent in each step.
        late: (n,) the delay of each neuron in steps. Spikes that would arrive after the sample are
            lost.
    """
    steps = crossing.shape[1]
    arriving = np.zeros_like(crossing)
    for delay in np.unique(late):
        if delay < steps:
            neurons = late == delay
            arriving[:, delay:, neurons] = crossing[:, : steps - delay, neurons]
    return arriving
