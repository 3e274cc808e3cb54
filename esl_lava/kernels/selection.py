"""Choosing among many numbers without sorting them."""

import numpy as np
from numba import njit

DIGIT = 11
"""Bits of a number's key looked at together; the table of counts fits the first cache."""


@njit(cache=True, nogil=True)
def list_true(mask: np.ndarray, where: np.ndarray) -> None:
    """List the places where a bool is true.

    Args:
        mask: (n,) bool.
        where: (number of true + 1,) int64, written; the last entry is rubbish.
    """
    out = 0
    for i in range(mask.size):
        # Written either way: a branch would be mispredicted as often as not.
        where[out] = i
        out += mask[i]


@njit(cache=True, nogil=True)
def list_above(
    scores: np.ndarray,
    taken: np.ndarray,
    least: float,
    where: np.ndarray,
    magnitudes: np.ndarray,
) -> tuple[int, int]:
    """List the places not taken whose magnitude is above a bound, and the magnitudes.

    Args:
        scores: (n,) float32.
        taken: (n,) bool.
        least: the bound.
        where: (n + 1,) int64, written from its start.
        magnitudes: (n + 1,) float32, written from its start.

    Returns:
        How many were listed; how many scores not taken are NaN or infinite.
    """
    out = broken = 0
    for i in range(scores.size):
        magnitude = abs(scores[i])
        free = not taken[i]
        where[out] = i
        magnitudes[out] = magnitude
        out += free & (magnitude > least)
        broken += free & (not magnitude < np.inf)
    return out, broken


@njit(cache=True, nogil=True)
def _key(bits: np.uint32) -> np.uint32:
    """A float32's bits so that unsigned integers order as the numbers do; -0 is 0."""
    if bits >> np.uint32(31):
        return np.uint32(0x80000000) - (bits & np.uint32(0x7FFFFFFF))
    return bits | np.uint32(0x80000000)


@njit(cache=True, nogil=True)
def smallest(bits: np.ndarray, n: int, spare: np.ndarray, chosen: np.ndarray) -> None:
    """Where the n smallest of some numbers are, ties to the lower place.

    A radix selection: the digits of the n-th smallest are found one after the other, the
    highest first, among the numbers that share those before.

    Args:
        bits: (k,) uint32, the bits of float32 without NaN.
        n: 1 <= n <= k.
        spare: (k + 1,) uint32, overwritten.
        chosen: (n + 1,) int64, written, ascending; the last entry is rubbish.
    """
    counts = np.zeros(1 << DIGIT, np.int64)
    for i in range(bits.size):
        spare[i] = _key(bits[i])
        counts[spare[i] >> np.uint32(32 - DIGIT)] += 1
    left, alike = n, bits.size
    threshold = np.uint32(0)
    shift = 32
    while True:
        digit = 0
        while counts[digit] < left:
            left -= counts[digit]
            digit += 1
        width = min(DIGIT, shift)
        shift -= width
        threshold |= np.uint32(digit << shift)
        if shift == 0:
            break
        # Keep those alike so far, and count their next digit.
        counts[:] = 0
        out = 0
        following = max(shift - DIGIT, 0)
        mask = np.uint32((1 << (shift - following)) - 1)
        for i in range(alike):
            key = spare[i]
            spare[out] = key
            out += (key >> np.uint32(shift)) == (threshold >> np.uint32(shift))
        alike = out
        for i in range(alike):
            counts[(spare[i] >> np.uint32(following)) & mask] += 1
    out = 0
    for i in range(bits.size):
        key = _key(bits[i])
        tie = key == threshold
        chosen[out] = i
        out += (key < threshold) | (tie & (left > 0))
        left -= tie
