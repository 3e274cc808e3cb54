"""Neurons that fire once (Eq. 3), on the time grid of a chip.

With a current that keeps `a = (4096 - d) / 4096` of itself a step, and a membrane that
keeps everything, a spike of weight w at step i has brought by the end of step n

    w (1 + a + ... + a^(n - i)) = w (1 - a^(n - i + 1)) / (1 - a),

which is Eq. 3's `w (1 - exp(-(t - t_i)))` over 1 - a, where a step lasts `-ln a` and the end of
step n is the time of step n + 1. So with a threshold of 1 / (1 - a) times the one of Eq. 3 a
neuron fires at the step during which Eq. 3 crosses: its time, rounded up to the grid. Layer l
(the first is 1) counts its steps from the time l, as each looks at its membrane one step
after what it sums. (`docs/single-spike.md`.)

On the chip u is truncated toward zero every step, in units of 2**-6 weights; `truncation`
bounds what v loses by that.
"""

from __future__ import annotations

import numpy as np

from esl_lava.arrays import Array, Floats, Int32s, Ints
from esl_lava.chip import DECAY_UNITY, NEVER, STATE_SHIFT, WEIGHT_RANGE
from esl_lava.network import Layer


def grid_threshold(weights: Array, decay: int) -> int:
    """The largest threshold mantissa at which every weight fits eight bits, 1..NEVER - 1.

    Args:
        weights: any shape, in units of the threshold.
        decay: of the current, 1..4095.
    """
    low, high = WEIGHT_RANGE
    least, most = float(weights.min(initial=0)), float(weights.max(initial=0))
    furthest = max(least / low, most / high)  # over a scale of 1
    if furthest * NEVER * decay <= DECAY_UNITY:
        return NEVER - 1
    return max(1, int(DECAY_UNITY / (furthest * decay)))


def grid_weights(weights: Array, decay: int, threshold: int) -> Int32s:
    """Even integers in -256..254 that have to a threshold the ratio of `weights` to 1.

    Args:
        weights: any shape, in units of the threshold.
        decay: of the current, 1..4095.
        threshold: mantissa, as `grid_threshold`.
    """
    scale = threshold * decay / DECAY_UNITY
    halves = np.rint(weights.astype(np.float64) * (scale / 2))
    low, high = WEIGHT_RANGE
    integers: Int32s = (2 * halves.clip(low // 2, high // 2)).astype(np.int32)
    return integers


def unit_weights(layer: Layer) -> Floats:
    """(n_post, n_pre) weights of a layer of the grid in units of its threshold, as Eq. 3's.

    These are the weights the chip really computes with.
    """
    neuron = layer.neuron
    scale = np.asarray(neuron.threshold) * np.asarray(neuron.current_decay) / DECAY_UNITY
    weights: Floats = layer.inputs[0].connections.unrolled().dense() / scale
    return weights


def truncation(decay: int, steps: int) -> Floats:
    """(steps,) by how much v of step n can lie beside its untruncated value, in units of v.

    A step's truncation moves u by less than 1 toward zero. After k steps the errors that
    have decayed since are together below e_k = a e_(k-1) + 1, with e_0 = 0 for the step in
    which the first input arrives; v sums them.

    Args:
        decay: of the current, 0..4096.
        steps: T.
    """
    keep = (DECAY_UNITY - decay) / DECAY_UNITY
    u = np.zeros(steps)
    for n in range(1, steps):
        u[n] = keep * u[n - 1] + 1
    return np.cumsum(u)


def firing_band(layer: Layer, spikes: Array) -> tuple[Ints, Ints]:
    """The steps between which each neuron of a layer of the grid fires for the first time.

    Without truncation it fires when v exceeds the threshold (Eq. 5: when it reaches it);
    with it, not before v has come as near, and not after v lies as far beyond, as `truncation`
    allows.

    Args:
        layer: of a network whose neurons fire once.
        spikes: (samples, T, n_pre) that reach it.

    Returns:
        Two arrays (samples, n_post) of steps; T where there is none.
    """
    samples, steps, _ = spikes.shape
    decay = int(layer.neuron.current_decay)
    keep = (DECAY_UNITY - decay) / DECAY_UNITY
    threshold = int(layer.neuron.threshold) << STATE_SHIFT
    weights = layer.inputs[0].connections.unrolled().dense().astype(np.float64).T * (
        1 << STATE_SHIFT
    )
    allowed = truncation(decay, steps)
    u, v = np.zeros((2, samples, layer.neurons))
    earliest, latest = np.full((2, samples, layer.neurons), steps)
    for n in range(steps):
        u = keep * u + spikes[:, n].astype(np.float64) @ weights
        v += u
        earliest = np.where((earliest == steps) & (v + allowed[n] >= threshold), n, earliest)
        latest = np.where((latest == steps) & (v - allowed[n] > threshold), n, latest)
    return earliest, latest
