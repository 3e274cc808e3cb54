"""Kernels of dense layers in training with sparse input: each spike costs a row of weights.

In `events`, `counts`, `z` and `gradient` a row is one step of one sample, ordered by step.
"""

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit
from esl_lava.kernels.grid import round_to_grid

INPUTS = 16
"""Number of inputs whose rows are transposed at a time: a cache line of float32."""


@njit(cache=True, nogil=True)
def list_events(x: Array, first: int, last: int, events: Array, counts: Array) -> bool:
    """List the inputs that spike in samples first:last.

    Args:
        x: (samples, n_pre, T) of any strides.
        events: (T, samples, n_pre) uint32, written: first the inputs that spike in a step, whose
            number is in `counts`; the entries behind them are undefined.
        counts: (T, samples) int64, written.

    Returns:
        Whether all values of x are 0 or 1.
    """
    n_pre, steps = x.shape[1], x.shape[2]
    binary = True
    for n in range(first, last):
        for t in range(steps):
            row = events[t, n]
            k = 0
            for i in range(n_pre):
                value = x[n, i, t]
                row[k] = i
                k += value != 0
                binary &= (value == 0) | (value == 1)
            counts[t, n] = k
    return binary


@njit(cache=True, nogil=True)
def by_input(events: Array, counts: Array, starts: Array, rows: Array) -> None:
    """Invert the lists of `list_events`: list for each input the rows in which it spikes.

    Args:
        events: (all rows, n_pre) uint32.
        counts: (all rows,) int64.
        starts: (n_pre + 1,) int64, written.
        rows: (events,) uint32, written: input i spikes in rows[starts[i]:starts[i + 1]].
    """
    starts[:] = 0
    for row in range(counts.size):
        for k in range(counts[row]):
            starts[events[row, k] + 1] += 1
    for i in range(starts.size - 1):
        starts[i + 1] += starts[i]
    places = starts[:-1].copy()
    for row in range(counts.size):
        for k in range(counts[row]):
            i = events[row, k]
            rows[places[i]] = row
            places[i] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def quantise_turned(weight: Array, step: np.float32, first: int, last: int, turned: Array) -> int:
    """Round the weights of inputs first:last to SLAYER's grid and transpose them.

    Args:
        weight: (n_post, n_pre) float32.
        step: step of the grid.
        turned: (n_pre, n_post) int16, written: numbers of steps.

    Returns:
        Number of weights out of range.
    """
    n_post = weight.shape[0]
    clamped = 0
    for start in range(first, last, INPUTS):
        stop = min(last, start + INPUTS)
        for j in range(n_post):
            for i in range(start, stop):
                # The same as `round_to_grid`, which would take twice as long here.
                value = np.rint(weight[j, i] / step)
                bounded = min(max(value, np.float32(-128)), np.float32(127))
                clamped += value != bounded
                turned[i, j] = np.int16(bounded)
    return clamped


@njit(cache=True, nogil=True)
def add_rows(
    events: Array,
    counts: Array,
    first: int,
    last: int,
    turned: Array,
    step: np.float32,
    z: Array,
) -> None:
    """Compute the weighted input of rows first:last. It is exact because integers are summed.

    Args:
        events, counts: spikes of all rows, as for `by_input`.
        turned: (n_pre, n_post) int16 weights in multiples of `step`.
        z: (all rows, n_post) float32, written.
    """
    n_post = turned.shape[1]
    short = np.empty(n_post, np.int16)
    wide = np.empty(n_post, np.int32)
    for row in range(first, last):
        listed = events[row, : counts[row]]
        wide[:] = 0
        # 255 weights of at most 128 fit 16 bits.
        for start in range(0, listed.size, 248):
            part = listed[start : start + 248]
            short[:] = 0
            k = 0
            while k + 8 <= part.size:
                r0, r1 = turned[part[k]], turned[part[k + 1]]
                r2, r3 = turned[part[k + 2]], turned[part[k + 3]]
                r4, r5 = turned[part[k + 4]], turned[part[k + 5]]
                r6, r7 = turned[part[k + 6]], turned[part[k + 7]]
                for j in range(n_post):
                    short[j] += ((r0[j] + r1[j]) + (r2[j] + r3[j])) + (
                        (r4[j] + r5[j]) + (r6[j] + r7[j])
                    )
                k += 8
            while k < part.size:
                r0 = turned[part[k]]
                for j in range(n_post):
                    short[j] += r0[j]
                k += 1
            for j in range(n_post):
                wide[j] += short[j]
        out = z[row]
        for j in range(n_post):
            out[j] = np.float32(wide[j]) * step


@njit(cache=True, nogil=True)
def add_gradients(
    starts: Array,
    rows: Array,
    gradient: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Compute the gradient of the weights of inputs first:last.

    Args:
        starts, rows: as `by_input` wrote them.
        gradient: (all rows, n_post) float32, gradient with respect to the weighted input.
        out: (n_post, n_pre) float32, written.
    """
    n_post = gradient.shape[1]
    sums = np.empty((INPUTS, n_post), np.float32)
    for start in range(first, last, INPUTS):
        width = min(last - start, INPUTS)
        for i in range(width):
            a = sums[i]
            a[:] = 0
            listed = rows[starts[start + i] : starts[start + i + 1]]
            k = 0
            while k + 8 <= listed.size:
                g0, g1 = gradient[listed[k]], gradient[listed[k + 1]]
                g2, g3 = gradient[listed[k + 2]], gradient[listed[k + 3]]
                g4, g5 = gradient[listed[k + 4]], gradient[listed[k + 5]]
                g6, g7 = gradient[listed[k + 6]], gradient[listed[k + 7]]
                for j in range(n_post):
                    a[j] += ((g0[j] + g1[j]) + (g2[j] + g3[j])) + (
                        (g4[j] + g5[j]) + (g6[j] + g7[j])
                    )
                k += 8
            while k < listed.size:
                g0 = gradient[listed[k]]
                for j in range(n_post):
                    a[j] += g0[j]
                k += 1
        for j in range(n_post):
            for i in range(width):
                out[j, start + i] = sums[i, j]


@njit(cache=True, nogil=True, error_model="numpy")
def quantise(weight: Array, step: np.float32, first: int, last: int, out: Array) -> int:
    """Round flat weights first:last to SLAYER's grid.

    Args:
        weight: (n,) float32.
        step: step of the grid.
        out: (n,) float32, written.

    Returns:
        Number of weights out of range.
    """
    clamped = 0
    for k in range(first, last):
        steps, beyond = round_to_grid(weight[k], step)
        clamped += beyond
        out[k] = steps * step
    return clamped
