"""Kernel of both gradients of a small dense layer in training, in one pass over its input."""

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit

_ZERO = np.float32(0)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def gradients(
    weights: Array,
    x: Array,
    by_z: Array,
    first: int,
    last: int,
    by_x: Array,
    by_weights: Array,
) -> None:
    """Compute the gradients with respect to inputs first:last and to their weights.

    Args:
        weights: (n_post, n_pre) float32.
        x: (n_pre, lanes) float32 inputs; there is a lane for each step of each sample of a batch.
        by_z: (n_post, lanes) float32, gradient with respect to the weighted input.
        by_x: like `x`, written: gradient with respect to the inputs.
        by_weights: like `weights`, written: gradient with respect to the weights.
    """
    n_post, lanes = by_z.shape
    for i in range(first, last):
        spikes, out = x[i], by_x[i]
        out[:] = 0
        j = 0
        while j + 4 <= n_post:
            g0, g1, g2, g3 = by_z[j], by_z[j + 1], by_z[j + 2], by_z[j + 3]
            w0, w1 = weights[j, i], weights[j + 1, i]
            w2, w3 = weights[j + 2, i], weights[j + 3, i]
            s0, s1, s2, s3 = _ZERO, _ZERO, _ZERO, _ZERO
            for k in range(lanes):
                s0 += g0[k] * spikes[k]
                s1 += g1[k] * spikes[k]
                s2 += g2[k] * spikes[k]
                s3 += g3[k] * spikes[k]
                out[k] += (w0 * g0[k] + w1 * g1[k]) + (w2 * g2[k] + w3 * g3[k])
            by_weights[j, i], by_weights[j + 1, i] = s0, s1
            by_weights[j + 2, i], by_weights[j + 3, i] = s2, s3
            j += 4
        while j < n_post:
            g0, w0, s0 = by_z[j], weights[j, i], _ZERO
            for k in range(lanes):
                s0 += g0[k] * spikes[k]
                out[k] += w0 * g0[k]
            by_weights[j, i] = s0
            j += 1
