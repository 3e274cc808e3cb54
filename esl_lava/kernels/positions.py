"""Connections as flat positions: ascending lists, rows of a layer (CSR), bitmaps.

A flat position is post * n_pre + pre. Every list is ascending; everything is linear in what
is given, and no array is of a layer's dense size.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def rows(positions: np.ndarray, n_pre: int, starts: np.ndarray, pre: np.ndarray) -> None:
    """Positions as rows.

    Args:
        positions: (k,) int64, strictly ascending, within the layer.
        n_pre: input neurons.
        starts: (n_post + 1,) int64, written: where each output neuron's connections begin.
        pre: (k,) int32, written: input neurons.
    """
    k = 0
    for row in range(starts.size - 1):
        starts[row] = k
        base = row * n_pre
        while k < positions.size and positions[k] < base + n_pre:
            pre[k] = positions[k] - base
            k += 1
    starts[-1] = k


@njit(cache=True, nogil=True)
def flat(starts: np.ndarray, pre: np.ndarray, n_pre: int, positions: np.ndarray) -> None:
    """Write the (k,) int64 positions of rows."""
    for row in range(starts.size - 1):
        base = row * n_pre
        for k in range(starts[row], starts[row + 1]):
            positions[k] = base + pre[k]


@njit(cache=True, nogil=True)
def columns(
    starts: np.ndarray,
    pre: np.ndarray,
    by_pre: np.ndarray,
    post: np.ndarray,
    order: np.ndarray,
) -> None:
    """Rows as columns, by a counting sort.

    Args:
        starts, pre: rows.
        by_pre: (n_pre + 1,) int64 of zeros, written: where each input neuron's connections
            begin.
        post: (k,) int32, written: output neurons, ascending within an input neuron.
        order: (k,) int32, written: where the connection is among the rows.
    """
    n_pre = by_pre.size - 1
    for k in range(pre.size):
        by_pre[pre[k] + 1] += 1
    for column in range(n_pre):
        by_pre[column + 1] += by_pre[column]
    # Each start moves on to its end, the next one's start, and is shifted back.
    for row in range(starts.size - 1):
        for k in range(starts[row], starts[row + 1]):
            place = by_pre[pre[k]]
            post[place] = row
            order[place] = k
            by_pre[pre[k]] = place + 1
    for column in range(n_pre, 0, -1):
        by_pre[column] = by_pre[column - 1]
    by_pre[0] = 0


@njit(cache=True, nogil=True)
def rewire(
    starts: np.ndarray,
    pre: np.ndarray,
    n_pre: int,
    drop: np.ndarray,
    grow: np.ndarray,
    new_starts: np.ndarray,
    new_pre: np.ndarray,
    source: np.ndarray,
) -> bool:
    """Merge: the rows without what is dropped, with what is grown.

    Args:
        starts, pre: rows of k connections.
        n_pre: input neurons.
        drop: int64 places among the k, ascending.
        grow: int64 positions, ascending, where no connection is (dropped ones included).
        new_starts, new_pre: like `starts` and `pre`, of k - drops + grows; written.
        source: int32, like `new_pre`; written: the place among the k, -1 where grown.

    Returns:
        Whether `drop` and `grow` are what they should be; if not, rubbish is written.
    """
    d = g = out = 0
    last = -1  # position grown
    for row in range(starts.size - 1):
        new_starts[row] = out
        base = row * n_pre
        k, end = starts[row], starts[row + 1]
        while True:
            here = base + (pre[k] if k < end else n_pre)
            if g < grow.size and grow[g] < here:
                if grow[g] <= last or out == new_pre.size:
                    return False
                last = int(grow[g])
                new_pre[out] = last - base
                source[out] = -1
                g += 1
                out += 1
                continue
            if k == end:
                break
            if g < grow.size and grow[g] == here:
                return False
            if d < drop.size and drop[d] == k:
                d += 1
            elif out == new_pre.size:
                return False
            else:
                new_pre[out] = pre[k]
                source[out] = k
                out += 1
            k += 1
    new_starts[-1] = out
    return d == drop.size and g == grow.size


@njit(cache=True, nogil=True)
def carry(old: np.ndarray, source: np.ndarray, new: np.ndarray) -> None:
    """new[i] = old[source[i]], 0 where `source` is -1."""
    for i in range(source.size):
        new[i] = old[source[i]] if source[i] >= 0 else 0


@njit(cache=True, nogil=True)
def find(
    starts: np.ndarray, pre: np.ndarray, n_pre: int, wanted: np.ndarray, places: np.ndarray
) -> None:
    """Where connections are among the rows.

    Args:
        starts, pre: rows.
        n_pre: input neurons.
        wanted: int64 positions within the layer, ascending, repeated ones allowed.
        places: int64, like `wanted`, written: place among the rows, -1 where none is.
    """
    limit = low = end = 0
    for i in range(wanted.size):
        if wanted[i] >= limit:
            row = wanted[i] // n_pre
            limit = (row + 1) * n_pre
            low, end = int(starts[row]), int(starts[row + 1])
        column = wanted[i] - (limit - n_pre)
        low = _not_below(pre, column, low, end)
        places[i] = low if low < end and pre[low] == column else -1


@njit(cache=True, nogil=True)
def _not_below(values: np.ndarray, least: int, low: int, end: int) -> int:
    """First place from `low` on whose value is at least `least`, `end` where there is none.

    Steps double until one is too far: near places are found in few.
    """
    step = 1
    high = low
    while high < end and values[high] < least:
        low = high + 1
        high = low + step
        step *= 2
    high = min(high, end)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low
