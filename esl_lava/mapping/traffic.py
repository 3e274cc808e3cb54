"""What a mapped network's cores do and send one another, from measured spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from esl_lava import arrivals
from esl_lava.arrays import Bools, Int32s, Ints
from esl_lava.errors import DataError
from esl_lava.mapping.placement import CoreMap
from esl_lava.mapping.regions import Region, maps
from esl_lava.mapping.synapse_lists import KernelIndex, RegionIndex, index_regions
from esl_lava.network import INPUT, Connections


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


def traffic(core_map: CoreMap, spikes: Mapping[str, Ints], steps: int) -> Traffic:
    """Messages and synaptic operations of every core.

    A spike is sent once to every core in which it crosses a synapse, its own core included
    where a layer is recurrent; behind a kernel, to every core in which any neuron of its place
    and core has a synapse. What arrives nowhere within its sample is not counted. Neurons that
    sum a part of another one's fan-in are taken to send in every step, the most they can.

    Args:
        core_map: of the network.
        spikes: layer name, and `network.INPUT` -> (rows, neurons) spikes of a run, as
            `arrivals.by_steps_left` has them; `arrivals.latest(network) + 1` rows at least.
        steps: of that run, all samples together.

    Raises:
        DataError: where spikes of a layer that feeds another are missing, or too few rows.
    """
    cores, network = core_map.cores, core_map.network
    home = {INPUT: np.full(network.inputs, cores)}
    shapes = {INPUT: maps(network.input_shape)}
    shares = {INPUT: [(0, shapes[INPUT][0])]}
    spikes = dict(spikes)
    for layer, place in zip(network.layers, core_map.layers):
        where = np.empty(layer.neurons, np.int64)
        for core in place.cores:
            where[core.region.members(layer.shape)] = core.number
        home[layer.name], shapes[layer.name] = where, maps(layer.shape)
        shares[layer.name] = sorted({core.region.channels for core in place.cores})
        if layer.name in core_map.sums:
            rows = max((len(known) for known in spikes.values()), default=1)
            spikes[layer.name] = np.zeros((rows, layer.neurons), np.int64)
            spikes[layer.name][-1] = steps
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
                sent_on = fan_out > 0
                if isinstance(synapses, KernelIndex) and synapses.in_shape == shapes[source]:
                    sent_on = _populations(sent_on, shapes[source], shares[source])
                crossing = np.where(sent_on, spikes[source], 0).sum(axis=0)
                np.add.at(messages[:, core.number], home[source], crossing)
    sent = {INPUT: int(messages[cores].sum())}
    for place in core_map.layers:
        own = [core.number for core in place.cores]
        sent[place.name] = int(messages[own].sum())
    return Traffic(messages, sops, emitted, sent)


def _populations(
    reached: Bools, shape: tuple[int, int, int], shares: Sequence[tuple[int, int]]
) -> Bools:
    """(rows, n_pre) whether any neuron of the same place and core is reached.

    Args:
        reached: (rows, n_pre) whether a neuron is.
        shape: channels, rows and columns of these.
        shares: channels that cores hold.
    """
    found = reached.reshape(-1, *shape).copy()
    for first, last in shares:
        found[:, first:last] = found[:, first:last].any(axis=1, keepdims=True)
    return found.reshape(reached.shape)


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
