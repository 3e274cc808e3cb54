"""The operations of the cores of a mapped network and their messages, from measured spikes."""

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
    """The events of a run in each core.

    Attributes:
        messages: (cores + 1, cores) messages from each core (row) to each core (column). A spike
            that arrives is one message to each of its destination cores. The last row holds the
            spikes from outside.
        sops: (cores,) synaptic operations.
        spikes: (cores,) emitted spikes.
        sent: layer name or `network.INPUT` -> messages that it sends.
    """

    messages: Ints
    sops: Ints
    spikes: Ints
    sent: Mapping[str, int]


def traffic(core_map: CoreMap, spikes: Mapping[str, Ints], steps: int) -> Traffic:
    """Count the messages and the synaptic operations of every core.

    A spike is sent once to every core in which it crosses a synapse, even if two inputs of a layer
    have the same source. In a recurrent layer this includes the spike's own core. In front of a
    kernel a spike is sent to every core in which any neuron of the same place and core has a
    synapse. A spike that reaches no neuron within its sample is not counted. Neurons that sum a
    part of another neuron's fan-in are assumed to send in every step, which is the most they can
    send.

    Args:
        core_map: where the network lies.
        spikes: layer name or `network.INPUT` -> (rows, neurons) spikes of a run, as
            `arrivals.count_by_steps_left` returns them. It needs at least
            `arrivals.longest_delay(network) + 1` rows.
        steps: steps of that run, summed over samples.

    Raises:
        DataError: if the spikes of a layer that feeds another are missing or have too few rows.
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
        inputs = [one for one in layer.inputs if one.source not in silent]
        for incoming in inputs:
            if incoming.source not in spikes:
                raise DataError(
                    f"spikes: the spikes of {incoming.source}, which feeds layer {layer.name}, are "
                    "missing",
                    "missing",
                    key="spikes",
                    value=incoming.source,
                    layer=layer.name,
                )
        indices = [index_regions(one.connections, layer.shape) for one in inputs]
        for core in place.cores:
            sent_on: dict[str, Bools] = {}
            for incoming, synapses in zip(inputs, indices):
                source, late = incoming.source, layer.late(incoming)
                fan_out = _fan_out(incoming.connections, late, synapses, core.region, layer.shape)
                if len(spikes[source]) < len(fan_out):
                    raise DataError(
                        f"spikes: the array of {source} has {len(spikes[source])} rows, but layer "
                        f"{layer.name} needs at least {len(fan_out)}; row k counts the spikes that "
                        "k more steps of their sample follow",
                        "shape",
                        key="spikes",
                        value=len(spikes[source]),
                        limit=len(fan_out),
                        layer=layer.name,
                    )
                # The last row counts all spikes with at least that many steps left.
                fan_out = fan_out[np.arange(len(spikes[source])).clip(max=len(fan_out) - 1)]
                sops[core.number] += int(arrivals.crossed(spikes[source], fan_out))
                reached = fan_out > 0
                if isinstance(synapses, KernelIndex) and synapses.in_shape == shapes[source]:
                    reached = _populations(reached, shapes[source], shares[source])
                sent_on[source] = sent_on[source] | reached if source in sent_on else reached
            for source, reached in sent_on.items():
                crossing = np.where(reached, spikes[source], 0).sum(axis=0)
                np.add.at(messages[:, core.number], home[source], crossing)
    sent = {INPUT: int(messages[cores].sum())}
    for place in core_map.layers:
        own = [core.number for core in place.cores]
        sent[place.name] = int(messages[own].sum())
    return Traffic(messages, sops, emitted, sent)


def _populations(
    reached: Bools, shape: tuple[int, int, int], shares: Sequence[tuple[int, int]]
) -> Bools:
    """Return (rows, n_pre) whether any neuron of the same place and core reaches a target.

    Args:
        reached: (rows, n_pre) whether each neuron reaches a target.
        shape: channels, rows and columns of the source layer.
        shares: the range of channels that each core of the source holds.
    """
    together = reached.reshape(-1, *shape).copy()
    for first, last in shares:
        together[:, first:last] = together[:, first:last].any(axis=1, keepdims=True)
    return together.reshape(reached.shape)


def _fan_out(
    connections: Connections,
    late: int | Int32s,
    synapses: RegionIndex,
    region: Region,
    shape: tuple[int, ...],
) -> Ints:
    """Return (rows, n_pre) synapses onto the neurons of a region, as `arrivals.fan_out` does."""
    if isinstance(late, int):
        counts = np.zeros((late + 1, connections.n_pre), np.int64)
        counts[-1] = synapses.fan_out(region)
        return counts
    onto = np.zeros(connections.n_post, bool)
    onto[region.members(shape)] = True
    return arrivals.fan_out(connections, late, onto)
