"""Neurons that fire once (Eq. 3), on the time grid of a chip.

The current keeps `a = (4096 - d) / 4096` of itself per step, and the membrane keeps everything.
By the end of step n, a spike of weight w at step i has then added

    w (1 + a + ... + a^(n - i)) = w (1 - a^(n - i + 1)) / (1 - a)

to the membrane. This is `w (1 - exp(-(t - t_i)))` of Eq. 3 divided by 1 - a, if a step lasts
`-ln a` and the end of step n is the time of step n + 1. So with a threshold of 1 / (1 - a) times
the threshold of Eq. 3, a neuron fires at the step during which Eq. 3 crosses: at its exact time,
rounded up to the grid. Layer l (the first is 1) counts its steps from the time l, because each
layer looks at its membrane one step after the step that it sums. (`docs/single-spike.md`.)

On the chip u is truncated toward zero every step, in units of 2**-6 weights. `truncation_bound`
bounds the error of v.
"""

from __future__ import annotations

import numpy as np

from esl_lava.arrays import Array, Floats, Int32s, Ints
from esl_lava.chip import DECAY_UNITY, NEVER, STATE_SHIFT, WEIGHT_RANGE
from esl_lava.network import Layer


def grid_threshold(weights: Array, decay: int) -> int:
    """Compute the largest threshold mantissa at which all weights fit 8 bits, 1..NEVER - 1.

    Args:
        weights: any shape, in units of the threshold of Eq. 3.
        decay: decay of the current, 1..4095.
    """
    low, high = WEIGHT_RANGE
    least, most = float(weights.min(initial=0)), float(weights.max(initial=0))
    furthest = max(least / low, most / high)  # at a scale of 1
    if furthest * NEVER * decay <= DECAY_UNITY:
        return NEVER - 1
    return max(1, int(DECAY_UNITY / (furthest * decay)))


def grid_weights(weights: Array, decay: int, threshold: int) -> Int32s:
    """Round `weights` * threshold * decay / 4096 to even integers, and clip them to -256..254.

    Args:
        weights: any shape, in units of the threshold of Eq. 3.
        decay: decay of the current, 1..4095.
        threshold: mantissa, as `grid_threshold`.
    """
    scale = threshold * decay / DECAY_UNITY
    halves = np.rint(weights.astype(np.float64) * (scale / 2))
    low, high = WEIGHT_RANGE
    integers: Int32s = (2 * halves.clip(low // 2, high // 2)).astype(np.int32)
    return integers


def unit_weights(layer: Layer) -> Floats:
    """Return a layer's integer weights in units of the threshold of Eq. 3, as (n_post, n_pre).

    The chip computes with these weights.
    """
    neuron = layer.neuron
    scale = np.asarray(neuron.threshold) * np.asarray(neuron.current_decay) / DECAY_UNITY
    weights: Floats = layer.inputs[0].connections.unrolled().dense() / scale
    return weights


def truncation_bound(decay: int, steps: int) -> Floats:
    """Compute (steps,) bounds on the error of v of each step from truncation, in units of v.

    The truncation of a step moves u by less than 1 toward zero. After k steps the sum of all
    decayed errors is below e_k = a e_(k-1) + 1, with e_0 = 0 for the step in which the first input
    arrives. v sums these errors.

    Args:
        decay: decay of the current, 0..4096.
        steps: T.
    """
    keep = (DECAY_UNITY - decay) / DECAY_UNITY
    u = np.zeros(steps)
    for n in range(1, steps):
        u[n] = keep * u[n - 1] + 1
    return np.cumsum(u)


def firing_band(layer: Layer, spikes: Array) -> tuple[Ints, Ints]:
    """Compute the earliest and the latest step at which each neuron can fire for the first time.

    Without truncation, a neuron fires when v exceeds the threshold (in Eq. 5: reaches it). With
    truncation, v of the chip may be off by `truncation_bound`: a neuron cannot fire before the
    untruncated v is that close below the threshold, and must fire when v is that far above it.

    Args:
        layer: a layer of a network whose neurons fire once.
        spikes: (samples, T, n_pre) input spikes of the layer.

    Returns:
        Two arrays (samples, n_post) of steps; T if there is no such step.
    """
    samples, steps, _ = spikes.shape
    decay = int(layer.neuron.current_decay)
    keep = (DECAY_UNITY - decay) / DECAY_UNITY
    threshold = int(layer.neuron.threshold) << STATE_SHIFT
    weights = layer.inputs[0].connections.unrolled().dense().astype(np.float64).T * (
        1 << STATE_SHIFT
    )
    tolerance = truncation_bound(decay, steps)
    u, v = np.zeros((2, samples, layer.neurons))
    earliest, latest = np.full((2, samples, layer.neurons), steps)
    for n in range(steps):
        u = keep * u + spikes[:, n].astype(np.float64) @ weights
        v += u
        earliest = np.where((earliest == steps) & (v + tolerance[n] >= threshold), n, earliest)
        latest = np.where((latest == steps) & (v - tolerance[n] > threshold), n, latest)
    return earliest, latest
