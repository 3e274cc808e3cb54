"""Rounding to SLAYER's grid of weights: multiples of a step in 8 bits."""

import numpy as np

from esl_lava.kernels import njit


@njit(inline="always", error_model="numpy")
def round_to_grid(weight: np.float32, step: np.float32) -> tuple[np.float32, bool]:
    """Round a weight to the nearest multiple of `step`, ties to even, within -128..127 steps.

    Source: `quantize_8bit` of `slayer/neuron/base.py`, lava-dl 0.6.0.

    Returns:
        Number of steps; whether the weight was out of range.
    """
    value = np.rint(weight / step)
    bounded = min(max(value, np.float32(-128)), np.float32(127))
    return bounded, value != bounded
