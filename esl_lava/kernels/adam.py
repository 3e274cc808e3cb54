"""Adam's step in one pass over weights, gradients and moments."""

import numpy as np
from numba import njit

from esl_lava.arrays import Array


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def step(
    weights: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    add_mean: np.float32,
    keep_square: np.float32,
    add_square: np.float32,
    size: np.float32,
    correction: np.float32,
    eps: np.float32,
    first: int,
    last: int,
) -> None:
    """Move weights first:last (Kingma & Ba 2015, algorithm 1).

    Args:
        weights, gradient, mean, square: (n,) float32; all but the gradient are written.
        add_mean, keep_square, add_square: 1 - beta_1, beta_2, 1 - beta_2.
        size: learning rate over 1 - beta_1**t.
        correction: square root of 1 - beta_2**t.
        eps: added to the root of the corrected square.
    """
    weights, gradient = weights[first:last], gradient[first:last]
    mean, square = mean[first:last], square[first:last]
    for k in range(weights.size):
        g = gradient[k]
        m = mean[k] + (g - mean[k]) * add_mean
        s = square[k] * keep_square + g * g * add_square
        mean[k] = m
        square[k] = s
        weights[k] -= size * m / (np.sqrt(s) / correction + eps)
