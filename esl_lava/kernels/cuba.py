"""One fully connected CUBA layer over whole samples, bit-exact to Lava's fixed point."""

import numba
import numpy as np

_STATE = 1 << 23


@numba.njit(parallel=True, cache=True, nogil=True)
def run_layer(
    inputs: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    keep_current: int,
    keep_voltage: int,
    threshold: int,
    bias: np.ndarray,
    spikes: np.ndarray,
    voltage: np.ndarray,
    sops: np.ndarray,
    overflows: np.ndarray,
) -> None:
    """Run every sample from rest; samples are independent and run in parallel.

    Dynamics as `esl_lava.network` states (PyLifModelBitAcc of lava-nc 0.10.0).

    Args:
        inputs: (samples, T, n_pre) uint8, 0 or 1.
        starts, targets, weights: synapses by input neuron: entries starts[i]:starts[i+1]
            are the targets (int32) and weights (int32) of input i.
        keep_current, keep_voltage: 4096 minus the decays.
        threshold: already shifted to the scale of v.
        bias: (n_post,) int64, already shifted.
        spikes: (samples, T, n_post) uint8, written.
        voltage: (samples, T, n_post) int32, written; of length 0 when not wanted.
        sops: (samples,) int64, synaptic operations, written.
        overflows: (samples, 2) int64: wraps of u and clips of v, written.
    """
    samples, steps, n_pre = inputs.shape
    n_post = spikes.shape[2]
    trace = voltage.shape[0] > 0
    for n in numba.prange(samples):
        a = np.zeros(n_post, np.int64)
        u = np.zeros(n_post, np.int64)
        v = np.zeros(n_post, np.int64)
        operations = 0
        wraps = 0
        clips = 0
        for t in range(steps):
            a[:] = 0
            for i in range(n_pre):
                if inputs[n, t, i]:
                    for k in range(starts[i], starts[i + 1]):
                        a[targets[k]] += weights[k]
                    operations += starts[i + 1] - starts[i]
            for j in range(n_post):
                x = u[j] * keep_current
                x = x >> 12 if x >= 0 else -(-x >> 12)
                x += a[j] << 6
                if x > _STATE:
                    x -= 2 * _STATE
                    wraps += 1
                elif x <= -_STATE:
                    x += 2 * _STATE
                    wraps += 1
                u[j] = x
                y = v[j] * keep_voltage
                y = y >> 12 if y >= 0 else -(-y >> 12)
                y += x + bias[j]
                if y > _STATE - 1:
                    y = _STATE - 1
                    clips += 1
                elif y < 1 - _STATE:
                    y = 1 - _STATE
                    clips += 1
                fired = y > threshold
                spikes[n, t, j] = fired
                v[j] = 0 if fired else y
                if trace:
                    voltage[n, t, j] = v[j]
        sops[n] = operations
        overflows[n, 0] = wraps
        overflows[n, 1] = clips
