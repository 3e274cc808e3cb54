"""Which synapses a spike crosses before its sample ends: the rule that operations are counted by.

A synaptic operation is one spike that crosses one synapse and arrives at its neuron within
the sample: in the step of the spike, `delays` steps later where the neuron has a delay, one
step later where the synapse is recurrent (`Layer.late`). Every sample starts from rest with
nothing under way, so nothing receives what would arrive after its last step, and nobody
counts it. A spike in step t of T has `T - 1 - t` steps *left*.
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
    """How many synapses a spike crosses, by the steps that are left to it.

    Args:
        part: connections that a spike goes into.
        late: steps until it arrives, at all neurons or at each, (n_post,).
        onto: (n_post,) which neurons count; all, if None.

    Returns:
        (rows, n_pre): row k of a spike with k steps left, the last one of a spike with at
        least so many; as many rows as the latest arrival needs.
    """
    if np.ndim(late) == 0:
        found = np.zeros((int(late) + 1, part.n_pre), np.int64)
        found[-1] = part.fan_out(onto)
        return found
    delays = np.asarray(late)
    found = np.zeros((int(delays.max()) + 1, part.n_pre), np.int64)
    for delay in np.unique(delays):
        chosen = delays == delay
        found[delay:] += part.fan_out(chosen if onto is None else chosen & onto)
    return found


def latest(network: Network) -> int:
    """The most steps that any spike of a network is on its way."""
    late = (layer.late(given) for layer in network.layers for given in layer.inputs)
    return max(int(np.max(steps)) for steps in late)


def by_steps_left(spikes: Array, rows: int) -> Ints:
    """(..., rows, n) numbers of spikes, of (..., T, n), by the steps that are left to them.

    Args:
        spikes: how many there are in each step.
        rows: as `fan_out` has them: the last one is of all that have at least so many left.
    """
    steps = spikes.shape[-2]
    early = max(0, steps - rows + 1)
    found = np.zeros((*spikes.shape[:-2], rows, spikes.shape[-1]), np.int64)
    found[..., : steps - early, :] = spikes[..., early:, :][..., ::-1, :]
    found[..., -1, :] += spikes[..., :early, :].sum(axis=-2, dtype=np.int64)
    return found


def crossed(spikes: Ints, synapses: Ints) -> Ints:
    """(...) synapses that spikes cross.

    Args:
        spikes: (..., rows, n) as `by_steps_left` has them.
        synapses: (rows, n) as `fan_out` has them.
    """
    return np.einsum("...rn,rn->...", spikes, synapses)
