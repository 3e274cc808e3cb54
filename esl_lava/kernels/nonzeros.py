"""Layers in training of which only connections are stored: cost falls with density.

Lanes, the rows of a batch's samples and steps (and places of a feature map), lie side by side,
so that a connection costs a few vector operations: what it meets is a piece of `lanes` values
that begins at `stride` times what `at`, (connections,) int32 or int64, says. Connections are
compressed by output neuron: neuron j owns entries starts[j]:starts[j + 1] of `at` and the
weights; or, for the gradient of inputs, by input neuron, with the place of each weight in `order`.
"""

import numpy as np
from numba import njit

from esl_lava.arrays import Array
from esl_lava.kernels.grid import multiple
from esl_lava.kernels.surrogate import Neuron, Surrogate, spike, spike_gradient

LANES = 2048
"""Lanes summed at a time."""

NEAR = 1 << 15
"""Values of neurons that two kernels in turn find in a cache."""

_TERMS = 8
_SHORT = 248
"""Weights of at most 128 whose sum fits 16 bits, a multiple of _TERMS."""


@njit(cache=True, nogil=True)
def mark(x: Array, masks: Array) -> bool:
    """Mark which inputs that lie by lanes already spike.

    Args:
        x: (n,) float32.
        masks: (n,) int8, written: all bits set where x is not 0.

    Returns:
        Whether all of x is 0 or 1.
    """
    other = np.int32(0)
    for k in range(x.size):
        fired = np.int32(x[k] != 0)
        other |= fired ^ np.int32(x[k] == 1)
        masks[k] = np.int8(-fired)
    return bool(other == 0)


@njit(cache=True, nogil=True)
def mark_turned(x: Array, first: int, last: int, masks: Array) -> bool:
    """`mark` inputs first:last of what lies by samples.

    Args:
        x: (samples, n_pre, T) float32 of any strides.
        masks: (n_pre, T, samples) int8, written.

    Returns:
        Whether all of x is 0 or 1.
    """
    samples, steps = x.shape[0], x.shape[2]
    other = np.int32(0)
    for i in range(first, last):
        for t in range(steps):
            for n in range(samples):
                value = x[n, i, t]
                fired = np.int32(value != 0)
                other |= fired ^ np.int32(value == 1)
                masks[i, t, n] = np.int8(-fired)
    return bool(other == 0)


@njit(cache=True, nogil=True)
def add_masked(
    masks: Array,
    at: Array,
    stride: int,
    starts: Array,
    weights: Array,
    step: np.float32,
    first: int,
    last: int,
    z: Array,
) -> None:
    """The weighted input of neurons first:last from binary spikes: exact.

    Args:
        masks: (n,) int8, all bits set in a spike.
        weights: (connections,) int16, multiples of `step`, -128 to 127.
        z: (n_post, lanes) float32, written.
    """
    lanes = z.shape[1]
    shorts = np.empty(LANES, np.int16)
    wides = np.empty(LANES, np.int32)
    for begin in range(0, lanes, LANES):
        size = min(lanes - begin, LANES)
        short, wide, here = shorts[:size], wides[:size], masks[begin:]
        for j in range(first, last):
            wide[:] = 0
            for part in range(starts[j], starts[j + 1], _SHORT):
                stop = min(starts[j + 1], part + _SHORT)
                short[:] = 0
                e = part
                while e + _TERMS <= stop:
                    m0, m1 = here[stride * at[e] :], here[stride * at[e + 1] :]
                    m2, m3 = here[stride * at[e + 2] :], here[stride * at[e + 3] :]
                    m4, m5 = here[stride * at[e + 4] :], here[stride * at[e + 5] :]
                    m6, m7 = here[stride * at[e + 6] :], here[stride * at[e + 7] :]
                    w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                    w4, w5, w6, w7 = weights[e + 4], weights[e + 5], weights[e + 6], weights[e + 7]
                    for k in range(size):
                        short[k] += (
                            ((w0 & m0[k]) + (w1 & m1[k])) + ((w2 & m2[k]) + (w3 & m3[k]))
                        ) + (((w4 & m4[k]) + (w5 & m5[k])) + ((w6 & m6[k]) + (w7 & m7[k])))
                    e += _TERMS
                while e < stop:
                    m0, w0 = here[stride * at[e] :], weights[e]
                    for k in range(size):
                        short[k] += w0 & m0[k]
                    e += 1
                for k in range(size):
                    wide[k] += short[k]
            out = z[j, begin : begin + size]
            for k in range(size):
                out[k] = np.float32(wide[k]) * step


@njit(cache=True, nogil=True)
def add_weighted(
    values: Array,
    at: Array,
    stride: int,
    starts: Array,
    order: Array,
    weights: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Sums of weights times values, for neurons first:last: weighted input, or its transpose.

    Args:
        values: (n,) float32.
        order: (connections,) place of its weight; of length 0 where entries lie as weights do.
        weights: (connections,) float32.
        out: (neurons, lanes) float32, written.
    """
    lanes = out.shape[1]
    straight = order.size == 0
    w = np.empty(_TERMS, np.float32)
    for begin in range(0, lanes, LANES):
        size, here = min(lanes - begin, LANES), values[begin:]
        for j in range(first, last):
            a = out[j, begin : begin + size]
            a[:] = 0
            e = starts[j]
            while e + _TERMS <= starts[j + 1]:
                for k in range(_TERMS):
                    w[k] = weights[e + k] if straight else weights[order[e + k]]
                v0, v1 = here[stride * at[e] :], here[stride * at[e + 1] :]
                v2, v3 = here[stride * at[e + 2] :], here[stride * at[e + 3] :]
                v4, v5 = here[stride * at[e + 4] :], here[stride * at[e + 5] :]
                v6, v7 = here[stride * at[e + 6] :], here[stride * at[e + 7] :]
                w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
                for k in range(size):
                    a[k] += ((w0 * v0[k] + w1 * v1[k]) + (w2 * v2[k] + w3 * v3[k])) + (
                        (w4 * v4[k] + w5 * v5[k]) + (w6 * v6[k] + w7 * v7[k])
                    )
                e += _TERMS
            while e < starts[j + 1]:
                v0 = here[stride * at[e] :]
                w0 = weights[e] if straight else weights[order[e]]
                for k in range(size):
                    a[k] += w0 * v0[k]
                e += 1


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_products(
    gradient: Array,
    masks: Array,
    at: Array,
    stride: int,
    starts: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """The gradient of the weights of neurons first:last, of connections only: sums over spikes.

    Args:
        gradient: (n_post, lanes) int32, the bits of the float32 gradient of weighted input.
        masks: (n,) int8, all bits set in a spike.
        out: (connections,) float32, written.
    """
    lanes = gradient.shape[1]
    zero = np.float32(0)
    out[starts[first] : starts[last]] = 0
    for begin in range(0, lanes, LANES):
        size, here = min(lanes - begin, LANES), masks[begin:]
        for j in range(first, last):
            g = gradient[j, begin : begin + size]
            e = starts[j]
            while e + 4 <= starts[j + 1]:
                m0, m1 = here[stride * at[e] :], here[stride * at[e + 1] :]
                m2, m3 = here[stride * at[e + 2] :], here[stride * at[e + 3] :]
                s0, s1, s2, s3 = zero, zero, zero, zero
                for k in range(size):
                    s0 += np.int32(g[k] & np.int32(m0[k])).view(np.float32)
                    s1 += np.int32(g[k] & np.int32(m1[k])).view(np.float32)
                    s2 += np.int32(g[k] & np.int32(m2[k])).view(np.float32)
                    s3 += np.int32(g[k] & np.int32(m3[k])).view(np.float32)
                out[e] += s0
                out[e + 1] += s1
                out[e + 2] += s2
                out[e + 3] += s3
                e += 4
            while e < starts[j + 1]:
                m0 = here[stride * at[e] :]
                s0 = zero
                for k in range(size):
                    s0 += np.int32(g[k] & np.int32(m0[k])).view(np.float32)
                out[e] += s0
                e += 1


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_graded_products(
    gradient: Array,
    x: Array,
    at: Array,
    stride: int,
    starts: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """As `add_products` of inputs that are not binary.

    Args:
        gradient: (n_post, lanes) float32.
        x: (n,) float32.
        out: (connections,) float32, written.
    """
    for j in range(first, last):
        g = gradient[j]
        for e in range(starts[j], starts[j + 1]):
            row = x[stride * at[e] :]
            total = np.float32(0)
            for k in range(g.size):
                total += g[k] * row[k]
            out[e] = total


@njit(cache=True, nogil=True)
def fire(
    masks: Array,
    at: Array,
    stride: int,
    starts: Array,
    weights: Array,
    step: np.float32,
    neuron: Neuron,
    first: int,
    last: int,
    v: Array,
    spikes: Array,
) -> bool:
    """Neurons first:last from binary spikes to spikes: `add_masked`, then `spike`.

    Args:
        v: (n_post, T, n) float32, written as `spike` leaves it.
        spikes: like `v`, written.

    Returns:
        What `spike` does.
    """
    _, steps, n = v.shape
    z = v.reshape(-1, steps * n)
    within = True
    block = _block(steps * n, last - first)
    for a in range(first, last, block):
        b = min(last, a + block)
        add_masked(masks, at, stride, starts, weights, step, a, b, z)
        within &= spike(v, (a, b, 0, n), neuron, spikes)
    return within


@njit(cache=True, nogil=True)
def fire_gradients(
    by_spikes: Array,
    v: Array,
    neuron: Surrogate,
    masks: Array,
    at: Array,
    stride: int,
    starts: Array,
    first: int,
    last: int,
    by_z: Array,
    by_weights: Array,
) -> None:
    """The gradients of `fire`: `spike_gradient`, then `add_products`.

    Args:
        by_spikes, v: (n_post, T, n) float32.
        by_z: like them, written.
        by_weights: (connections,) float32, written.
    """
    _, steps, n = v.shape
    bits = by_z.reshape(-1, steps * n).view(np.int32)
    block = _block(steps * n, last - first)
    for a in range(first, last, block):
        b = min(last, a + block)
        spike_gradient(by_spikes, (a, b, 0, n), v, neuron, by_z)
        add_products(bits, masks, at, stride, starts, a, b, by_weights)


@njit(inline="always")
def _block(lanes: int, neurons: int) -> int:
    """Neurons at a time; all, where kernels are to go over many lanes piece by piece."""
    return max(1, NEAR // max(1, lanes)) if lanes <= LANES else max(1, neurons)


@njit(cache=True, nogil=True, error_model="numpy")
def quantise(weight: Array, step: np.float32, out: Array) -> int:
    """Weights on SLAYER's grid, as multiples of `step`.

    Args:
        weight: (n,) float32.
        out: (n,) int16, written.

    Returns:
        How many were out of range.
    """
    clamped = 0
    for k in range(weight.size):
        steps, beyond = multiple(weight[k], step)
        clamped += beyond
        out[k] = np.int16(steps)
    return clamped
