"""The steps that spikes wait on a chip, where a layer is reached on ways of several lengths.

In the integer network spikes of a step meet in that step. On a chip each layer adds a step, and so
do neurons that sum for one; what comes on a shorter way has to wait for the longer one.
"""

from __future__ import annotations

from collections.abc import Collection

from esl_lava.network import INPUT, Network


def waits(network: Network, summed: Collection[str] = ()) -> dict[str, int]:
    """Layer name -> steps that a spike on the shortest way to it waits for the longest.

    Args:
        network: as it is, without further neurons.
        summed: names of layers for which further neurons sum.
    """
    done = {INPUT: 0}
    found = {}
    for layer in network.layers:
        arrivals = [done[given.source] for given in layer.feeding]
        found[layer.name] = max(arrivals) - min(arrivals)
        done[layer.name] = max(arrivals) + 1 + (layer.name in summed)
    return found
