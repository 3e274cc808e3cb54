"""SLAYER's grid of weights: multiples of a step, 8 bits of them."""

import numpy as np
from numba import njit


@njit(inline="always", error_model="numpy")
def multiple(weight: np.float32, step: np.float32) -> tuple[np.float32, bool]:
    """The nearest multiple of `step`, halves to even, within -128..127.

    `quantize_8bit` of `slayer/neuron/base.py`, lava-dl 0.6.0.

    Returns:
        How many steps; whether the weight was out of range.
    """
    value = np.rint(weight / step)
    bounded = min(max(value, np.float32(-128)), np.float32(127))
    return bounded, value != bounded
