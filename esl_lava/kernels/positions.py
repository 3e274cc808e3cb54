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
    beyond = n_pre * (starts.size - 1)
    next_grow = grow[0] if grow.size else beyond
    next_drop = drop[0] if drop.size else -1
    for row in range(starts.size - 1):
        new_starts[row] = out
        base = row * n_pre
        for k in range(starts[row], starts[row + 1] + 1):
            here = base + (pre[k] if k < starts[row + 1] else n_pre)
            while next_grow < here:
                if next_grow <= last or out == new_pre.size:
                    return False
                last = int(next_grow)
                new_pre[out] = last - base
                source[out] = -1
                out += 1
                g += 1
                next_grow = grow[g] if g < grow.size else beyond
            if k == starts[row + 1]:
                break
            if next_grow == here:
                return False
            if k == next_drop:
                d += 1
                next_drop = drop[d] if d < drop.size else -1
                continue
            if out == new_pre.size:
                return False
            new_pre[out] = pre[k]
            source[out] = k
            out += 1
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
    # Of a row of which much is wanted, a table of all its places answers without searching.
    table = np.zeros(n_pre if n_pre <= pre.size else 0, np.int32)
    i = 0
    while i < wanted.size:
        row = wanted[i] // n_pre
        base = row * n_pre
        low, end = int(starts[row]), int(starts[row + 1])
        until = i
        while until < wanted.size and wanted[until] < base + n_pre:
            until += 1
        if table.size and 8 * (until - i) >= end - low:
            for k in range(low, end):
                table[pre[k]] = k + 1
            for j in range(i, until):
                places[j] = table[wanted[j] - base] - 1
            for k in range(low, end):
                table[pre[k]] = 0
        else:
            for j in range(i, until):
                column = wanted[j] - base
                low = _not_below(pre, column, low, end)
                places[j] = low if low < end and pre[low] == column else -1
        i = until


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


@njit(cache=True, nogil=True)
def mark(starts: np.ndarray, pre: np.ndarray, n_pre: int, first: int, block: np.ndarray) -> None:
    """Make the connections among a run of positions true.

    Args:
        starts, pre: rows.
        n_pre: input neurons.
        first: the run's first position.
        block: bool, one a position of the run, which is within the layer; false.
    """
    for row in range(first // n_pre, -(-(first + block.size) // n_pre)):
        base = row * n_pre - first
        for k in range(_not_below(pre, -base, starts[row], starts[row + 1]), starts[row + 1]):
            if base + pre[k] >= block.size:
                break
            block[base + pre[k]] = True


@njit(cache=True, nogil=True)
def within(held: np.ndarray, wanted: np.ndarray, found: np.ndarray) -> None:
    """Whether positions are in a list.

    Args:
        held: int64, strictly ascending.
        wanted: int64, ascending, repeated ones allowed.
        found: bool, like `wanted`, written.
    """
    low = 0
    for i in range(wanted.size):
        low = _not_below(held, wanted[i], low, held.size)
        found[i] = low < held.size and held[low] == wanted[i]


@njit(cache=True, nogil=True)
def union(first: np.ndarray, second: np.ndarray, both: np.ndarray) -> int:
    """Merge two lists.

    Args:
        first, second: int64, ascending, repeated ones allowed.
        both: int64, room for both; written strictly ascending from its start.

    Returns:
        How many were written.
    """
    i = j = out = 0
    last = -1
    while i < first.size or j < second.size:
        if j == second.size or (i < first.size and first[i] <= second[j]):
            here = int(first[i])
            i += 1
        else:
            here = int(second[j])
            j += 1
        if here != last:
            both[out] = here
            out += 1
            last = here
    return out


DIGIT = 11
"""Bits of a digit that `ascending` sorts by; its table of counts fits the first cache."""


@njit(cache=True, nogil=True)
def ascending(values: np.ndarray, spare: np.ndarray, bits: int) -> np.ndarray:
    """Sort by one digit after the other, the lowest first.

    Args:
        values: int64, at least 0 and below 2**bits; overwritten.
        spare: like `values`; overwritten.
        bits: at least 0.

    Returns:
        The one of the two arrays that holds the values in ascending order.
    """
    starts = np.empty((1 << DIGIT) + 1, np.int64)
    for shift in range(0, bits, DIGIT):
        starts[:] = 0
        for value in values:
            starts[((value >> shift) & ((1 << DIGIT) - 1)) + 1] += 1
        for digit in range(1 << DIGIT):
            starts[digit + 1] += starts[digit]
        for value in values:
            digit = (value >> shift) & ((1 << DIGIT) - 1)
            spare[starts[digit]] = value
            starts[digit] += 1
        values, spare = spare, values
    return values


@njit(cache=True, nogil=True)
def get_bits(bits: np.ndarray, wanted: np.ndarray, found: np.ndarray) -> None:
    """Whether bits are set.

    Args:
        bits: (n,) uint8; position p is bit p % 8 of byte p // 8, the lowest bit being 0.
        wanted: int64 positions below 8 n.
        found: bool, like `wanted`, written.
    """
    for i in range(wanted.size):
        found[i] = (bits[wanted[i] >> 3] >> (wanted[i] & 7)) & 1


@njit(cache=True, nogil=True)
def set_bits(bits: np.ndarray, wanted: np.ndarray) -> int:
    """Set bits; how many were not set before. Arguments are those of `get_bits`."""
    fresh = 0
    for where in wanted:
        bit = 1 << (where & 7)
        before = bits[where >> 3]
        fresh += (before & bit) == 0
        bits[where >> 3] = before | bit
    return fresh
