"""The rule by which synaptic operations are counted: which synapses a spike crosses in time.

A synaptic operation is one spike that crosses one synapse and arrives at its neuron within
the sample. The spike arrives in the step in which it is emitted; if the neuron has a delay, it
arrives `delays` steps later; if the synapse is recurrent, it arrives one step later
(`Layer.late`). Every sample starts from rest, with no spike on its way. A spike that would
arrive after the last step of its sample reaches no neuron and is not counted. A spike in step t
of T has `T - 1 - t` steps *left*.
"""

from __future__ import annotations

import numpy as np

from esl_lava.arrays import Array, Bools, Int32s, Ints
from esl_lava.network import Connections, Network


def fan_out(
    part: Connections,
    late: int | Int32s = 0,
    onto: Bools | None = None,
) -> Ints:
    """Count the synapses that a spike of each input crosses, by the steps that it has left.

    Args:
        part: connections that carry the spikes.
        late: steps until a spike arrives: one number for all neurons, or (n_post,).
        onto: (n_post,) whether the synapses of a neuron count; all count if None.

    Returns:
        (rows, n_pre): row k is for a spike with k steps left. The last row is for a spike with
        at least that many steps left. The number of rows is the largest `late` plus 1.
    """
    if np.ndim(late) == 0:
        synapses = np.zeros((int(late) + 1, part.n_pre), np.int64)
        synapses[-1] = part.fan_out(onto)
        return synapses
    delays = np.asarray(late)
    synapses = np.zeros((int(delays.max()) + 1, part.n_pre), np.int64)
    for delay in np.unique(delays):
        delayed = delays == delay
        synapses[delay:] += part.fan_out(delayed if onto is None else delayed & onto)
    return synapses


def longest_delay(network: Network) -> int:
    """Return the largest number of steps between a spike of a network and its arrival."""
    late = (layer.late(part) for layer in network.layers for part in layer.inputs)
    return max(int(np.max(steps)) for steps in late)


def count_by_steps_left(spikes: Array, rows: int) -> Ints:
    """Count spikes by the number of steps that they have left.

    Args:
        spikes: (..., T, n) numbers of spikes in each step.
        rows: number of rows of the result. The last row counts all spikes that have at least
            `rows - 1` steps left, as the last row of `fan_out` does.

    Returns:
        (..., rows, n) numbers of spikes.
    """
    steps = spikes.shape[-2]
    early = max(0, steps - rows + 1)
    counts = np.zeros((*spikes.shape[:-2], rows, spikes.shape[-1]), np.int64)
    counts[..., : steps - early, :] = spikes[..., early:, :][..., ::-1, :]
    counts[..., -1, :] += spikes[..., :early, :].sum(axis=-2, dtype=np.int64)
    return counts


def crossed(spikes: Ints, synapses: Ints) -> Ints:
    """Count the synapses that spikes cross.

    Args:
        spikes: (..., rows, n) as `count_by_steps_left` returns them.
        synapses: (rows, n) as `fan_out` returns them.

    Returns:
        (...) numbers of synaptic operations.
    """
    return np.einsum("...rn,rn->...", spikes, synapses)
