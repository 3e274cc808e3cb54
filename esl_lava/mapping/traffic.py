"""What a mapped network's cores do and send one another, from measured spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from esl_lava.errors import DataError
from esl_lava.mapping.packing import Ints
from esl_lava.mapping.partition import CoreMap
from esl_lava.mapping.regions import Synapses
from esl_lava.network import INPUT, Network


@dataclass(frozen=True, eq=False)
class Traffic:
    """A run's events by core.

    Attributes:
        messages: (cores + 1, cores) spikes sent from core to core, one for every
            destination core of a spike; the last row is of spikes from outside.
        sops: (cores,) synaptic operations.
        spikes: (cores,) spikes emitted.
        sent: layer name, and `network.INPUT` -> messages sent.
    """

    messages: Ints
    sops: Ints
    spikes: Ints
    sent: Mapping[str, int]


def traffic(network: Network, core_map: CoreMap, spikes: Mapping[str, Ints]) -> Traffic:
    """Messages and synaptic operations of every core.

    A spike is sent once to every core in which it crosses a synapse, its own core included
    where a layer is recurrent.

    Args:
        network: as it was mapped.
        core_map: where it lies.
        spikes: layer name, and `network.INPUT` -> (neurons,) spikes of a run.

    Raises:
        DataError: where spikes of a layer that feeds another are missing.
    """
    cores = core_map.cores
    home = {INPUT: np.full(network.inputs, cores)}
    for layer, place in zip(network.layers, core_map.layers):
        where = np.empty(layer.neurons, np.int64)
        for core in place.cores:
            where[core.region.members(layer.shape)] = core.number
        home[layer.name] = where
    silent = {layer.name for layer in network.layers if not layer.neuron.fires}
    messages = np.zeros((cores + 1, cores), np.int64)
    sops = np.zeros(cores, np.int64)
    emitted = np.zeros(cores, np.int64)
    for index, (layer, place) in enumerate(zip(network.layers, core_map.layers)):
        if layer.name in spikes:
            np.add.at(emitted, home[layer.name], spikes[layer.name])
        before = network.layers[index - 1].name if index else INPUT
        ends = [(before, layer.connections)]
        ends += [(skip.source, skip.connections) for skip in layer.skips]
        ends += [(layer.name, layer.recurrent)] if layer.recurrent is not None else []
        for source, part in ends:
            if source in silent:
                continue
            if source not in spikes:
                raise DataError(f"no spikes of {source} are given, which feeds layer {layer.name}")
            synapses = Synapses(part, layer.shape)
            for core in place.cores:
                fan_out = synapses.fan_out(core.region)
                sops[core.number] += int(spikes[source] @ fan_out)
                crossing = np.where(fan_out > 0, spikes[source], 0)
                np.add.at(messages[:, core.number], home[source], crossing)
    sent = {INPUT: int(messages[cores].sum())}
    for place in core_map.layers:
        own = [core.number for core in place.cores]
        sent[place.name] = int(messages[own].sum())
    return Traffic(messages, sops, emitted, sent)
