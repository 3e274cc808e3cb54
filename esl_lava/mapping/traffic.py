"""What a mapped network's cores do and send one another, from measured spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from esl_lava import arrivals
from esl_lava.arrays import Int32s, Ints
from esl_lava.errors import DataError
from esl_lava.mapping.partition import CoreMap
from esl_lava.mapping.regions import Region, RegionIndex, index_regions
from esl_lava.network import INPUT, Connections, Network


@dataclass(frozen=True, eq=False)
class Traffic:
    """A run's events by core.

    Attributes:
        messages: (cores + 1, cores) spikes sent from core to core, one for every
            destination core of a spike that arrives; the last row is of spikes from outside.
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
    where a layer is recurrent; what arrives nowhere within its sample is not counted.

    Args:
        network: as it was mapped.
        core_map: where it lies.
        spikes: layer name, and `network.INPUT` -> (rows, neurons) spikes of a run, as
            `arrivals.by_steps_left` has them; `arrivals.latest(network) + 1` rows at least.

    Raises:
        DataError: where spikes of a layer that feeds another are missing, or too few rows.
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
    for layer, place in zip(network.layers, core_map.layers):
        if layer.name in spikes:
            np.add.at(emitted, home[layer.name], spikes[layer.name].sum(axis=0))
        for given in layer.inputs:
            source, late = given.source, layer.late(given)
            if source in silent:
                continue
            if source not in spikes:
                raise DataError(f"no spikes of {source} are given, which feeds layer {layer.name}")
            synapses = index_regions(given.connections, layer.shape)
            for core in place.cores:
                fan_out = _fan_out(given.connections, late, synapses, core.region, layer.shape)
                if len(spikes[source]) < len(fan_out):
                    raise DataError(
                        f"spikes of {source} are given by {len(spikes[source])} steps left, "
                        f"not by {len(fan_out)}, as layer {layer.name} needs"
                    )
                # Its last row is of all that have at least so many steps left.
                fan_out = fan_out[np.arange(len(spikes[source])).clip(max=len(fan_out) - 1)]
                sops[core.number] += int(arrivals.crossed(spikes[source], fan_out))
                crossing = np.where(fan_out > 0, spikes[source], 0).sum(axis=0)
                np.add.at(messages[:, core.number], home[source], crossing)
    sent = {INPUT: int(messages[cores].sum())}
    for place in core_map.layers:
        own = [core.number for core in place.cores]
        sent[place.name] = int(messages[own].sum())
    return Traffic(messages, sops, emitted, sent)


def _fan_out(
    connections: Connections,
    late: int | Int32s,
    synapses: RegionIndex,
    region: Region,
    shape: tuple[int, ...],
) -> Ints:
    """(rows, n_pre) synapses onto the neurons of a region, as `arrivals.fan_out`."""
    if isinstance(late, int):
        found = np.zeros((late + 1, connections.n_pre), np.int64)
        found[-1] = synapses.fan_out(region)
        return found
    onto = np.zeros(connections.n_post, bool)
    onto[region.members(shape)] = True
    return arrivals.fan_out(connections, late, onto)
