"""Kernels that measure and round rows of weights of any length."""

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit


@njit(cache=True, nogil=True)
def measure_rows(values: Array, starts: Array, largest: Array, below: Array, above: Array) -> None:
    """Compute each row's largest absolute value, sum of negative and sum of positive values.

    Args:
        values: (n,) numbers; row i is values[starts[i]:starts[i + 1]].
        starts: (rows + 1,) int64.
        largest, below, above: (rows,) float64, written.
    """
    for row in range(len(starts) - 1):
        most, negative, positive = 0.0, 0.0, 0.0
        for place in range(starts[row], starts[row + 1]):
            value = np.float64(values[place])
            most = max(most, abs(value))
            negative += min(value, 0.0)
            positive += max(value, 0.0)
        largest[row], below[row], above[row] = most, negative, positive


@njit(cache=True, nogil=True)
def round_rows(values: Array, starts: Array, factors: Array, step: int, out: Array) -> None:
    """Round each value times the factor of its row to multiples of `step`, ties to even multiples.

    Args:
        values, starts: see `measure_rows`.
        factors: (rows,) float64.
        step: 1 or 2.
        out: like `values`, int32, written.
    """
    for row in range(len(starts) - 1):
        factor = factors[row] / step
        for place in range(starts[row], starts[row + 1]):
            out[place] = step * np.int32(np.rint(np.float64(values[place]) * factor))
