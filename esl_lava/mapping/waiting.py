"""The steps that spikes wait on a chip where paths of different lengths lead to one layer.

In the integer network all spikes of a step arrive in that step. On a chip each layer adds a step
of latency. Neurons that sum for a layer add a step, too. Spikes on a shorter path therefore wait
for those on the longest path.
"""

from __future__ import annotations

from collections.abc import Collection

from esl_lava.network import INPUT, Network


def waits(network: Network, summed: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """Return layer name -> for each input, the steps that its spikes wait for the longest path.

    Spikes that return to their own layer do not wait.

    Args:
        network: the integer network, without added neurons.
        summed: names of layers for which added neurons sum.
    """
    latency = {INPUT: 0}
    waiting = {}
    for layer in network.layers:
        last = max(latency[one.source] for one in layer.feedforward_inputs)
        waiting[layer.name] = tuple(last - latency.get(one.source, last) for one in layer.inputs)
        latency[layer.name] = last + 1 + (layer.name in summed)
    return waiting
