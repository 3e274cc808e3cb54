"""Kernels of layers in training that store only connections: the cost falls with the density.

There is a lane for each step of each sample of a batch (and for each place of a feature map).
The lanes of a neuron lie side by side, so that a connection costs a few vector operations. The
input of connection e is a piece of `lanes` values that begins at index `stride * at[e]`, where
`at` is (connections,) int32 or int64. Connections are compressed by output neuron: neuron j owns
entries starts[j]:starts[j + 1] of `at` and of the weights. For the gradient of inputs they are
compressed by input neuron.
"""

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit
from esl_lava.kernels.grid import round_to_grid
from esl_lava.kernels.surrogate import Neuron, Surrogate, spike, spike_gradient

LANES = 2048
"""Number of lanes that are summed at a time, for inputs of 8 bits."""

FLOATS = 512
"""Number of lanes that are summed at a time, for values of 32 bits.

The values of all neurons in these lanes should fit a cache.
"""

OTHER = 128
"""Result of `mark` if not all inputs are integers within -127..127."""

NEAR = 1 << 15
"""Number of values that stay in a cache from one kernel to the next."""

_TERMS = 8
_LOW, _HIGH = np.float32(-127), np.float32(127)


@njit(cache=True, nogil=True)
def mark(x: Array, small: Array) -> int:
    """Convert inputs that are laid out by lanes to integers of 8 bits.

    Args:
        x: (n,) float32.
        small: (n,) int8, written; valid only if the result is not `OTHER`.

    Returns:
        The largest absolute value, or `OTHER` if not all of x are integers within -127..127.
    """
    largest, other = np.int32(0), np.int32(0)
    for k in range(x.size):
        value = np.int32(min(max(x[k], _LOW), _HIGH))
        other |= np.int32(np.float32(value) != x[k])
        largest = max(largest, np.int32(abs(value)))
        small[k] = np.int8(value)
    return OTHER if other else int(largest)


@njit(cache=True, nogil=True)
def mark_turned(x: Array, first: int, last: int, small: Array) -> int:
    """Convert inputs first:last to integers of 8 bits, from an array laid out by samples.

    Args:
        x: (samples, n_pre, T) float32 of any strides.
        small: (n_pre, T, samples) int8, written.

    Returns:
        The same result as that of `mark`.
    """
    samples, steps = x.shape[0], x.shape[2]
    lanes = np.empty((steps, samples), np.float32)
    largest = 0
    for i in range(first, last):
        for t in range(steps):
            for n in range(samples):
                lanes[t, n] = x[n, i, t]
        largest = max(largest, mark(lanes.reshape(-1), small[i].reshape(-1)))
    return largest


def terms_at_once(weight: int, x: int, fan_in: int) -> int:
    """Return how many products can be summed in 16 bits, rounded down to a multiple of 8.

    Args:
        weight, x: largest absolute values of the weights and of the inputs.
        fan_in: largest fan-in of a neuron.

    Returns:
        The number; 0 if it is below 8, or if 32 bits cannot hold the sum of all products.
    """
    if weight * x * fan_in > np.iinfo(np.int32).max:
        return 0
    return int(np.iinfo(np.int16).max // max(weight * x, 1) // _TERMS * _TERMS)


@njit(cache=True, nogil=True)
def sum_small(
    here: Array,
    at: Array,
    stride: int,
    weights: Array,
    part: tuple[int, int],
    terms: int,
    short: Array,
    wide: Array,
) -> None:
    """Compute the exact weighted input of one neuron in `size` lanes.

    Args:
        here: int8 inputs from the first of these lanes on.
        weights: (connections,) int16.
        part: the neuron's first entry, and the entry behind its last.
        terms: see `terms_at_once`.
        short: (size,) int16, scratch space.
        wide: (size,) int32, written.
    """
    wide[:] = 0
    for begin in range(part[0], part[1], terms):
        stop = min(part[1], begin + terms)
        short[:] = 0
        e = begin
        while e + _TERMS <= stop:
            x0, x1 = here[stride * at[e] :], here[stride * at[e + 1] :]
            x2, x3 = here[stride * at[e + 2] :], here[stride * at[e + 3] :]
            x4, x5 = here[stride * at[e + 4] :], here[stride * at[e + 5] :]
            x6, x7 = here[stride * at[e + 6] :], here[stride * at[e + 7] :]
            w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
            w4, w5, w6, w7 = weights[e + 4], weights[e + 5], weights[e + 6], weights[e + 7]
            for k in range(wide.size):
                short[k] += ((w0 * x0[k] + w1 * x1[k]) + (w2 * x2[k] + w3 * x3[k])) + (
                    (w4 * x4[k] + w5 * x5[k]) + (w6 * x6[k] + w7 * x7[k])
                )
            e += _TERMS
        while e < stop:
            x0, w0 = here[stride * at[e] :], weights[e]
            for k in range(wide.size):
                short[k] += w0 * x0[k]
            e += 1
        for k in range(wide.size):
            wide[k] += short[k]


@njit(cache=True, nogil=True)
def add_small(
    small: Array,
    at: Array,
    stride: int,
    starts: Array,
    weights: Array,
    terms: int,
    step: np.float32,
    first: int,
    last: int,
    z: Array,
) -> None:
    """Compute the exact weighted inputs of neurons first:last from inputs of 8 bits.

    Args:
        small: (n,) int8, the inputs of all neurons in all lanes.
        weights: (connections,) int16, the weights divided by `step`.
        terms: see `terms_at_once`, at least 8.
        z: (n_post, lanes) float32, written.
    """
    lanes = z.shape[1]
    shorts = np.empty(LANES, np.int16)
    wides = np.empty(LANES, np.int32)
    for begin in range(0, lanes, LANES):
        size = min(lanes - begin, LANES)
        wide = wides[:size]
        for j in range(first, last):
            part = starts[j], starts[j + 1]
            sum_small(small[begin:], at, stride, weights, part, terms, shorts[:size], wide)
            out = z[j, begin : begin + size]
            for k in range(size):
                out[k] = np.float32(wide[k]) * step


@njit(cache=True, nogil=True)
def sum_weighted(
    here: Array,
    at: Array,
    stride: int,
    weights: Array,
    part: tuple[int, int],
    out: Array,
) -> None:
    """Sum weights times values for one neuron, in `size` lanes.

    Args:
        here: float32 values from the first of these lanes on.
        weights: (connections,) float32.
        part: the neuron's first entry, and the entry behind its last.
        out: (size,) float32, written.
    """
    out[:] = 0
    e = part[0]
    while e + _TERMS <= part[1]:
        v0, v1 = here[stride * at[e] :], here[stride * at[e + 1] :]
        v2, v3 = here[stride * at[e + 2] :], here[stride * at[e + 3] :]
        v4, v5 = here[stride * at[e + 4] :], here[stride * at[e + 5] :]
        v6, v7 = here[stride * at[e + 6] :], here[stride * at[e + 7] :]
        w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
        w4, w5, w6, w7 = weights[e + 4], weights[e + 5], weights[e + 6], weights[e + 7]
        for k in range(out.size):
            out[k] += ((w0 * v0[k] + w1 * v1[k]) + (w2 * v2[k] + w3 * v3[k])) + (
                (w4 * v4[k] + w5 * v5[k]) + (w6 * v6[k] + w7 * v7[k])
            )
        e += _TERMS
    while e < part[1]:
        v0, w0 = here[stride * at[e] :], weights[e]
        for k in range(out.size):
            out[k] += w0 * v0[k]
        e += 1


@njit(cache=True, nogil=True)
def add_weighted(
    values: Array,
    at: Array,
    stride: int,
    starts: Array,
    weights: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Sum weights times values for neurons first:last: the weighted input or its transpose.

    Args:
        values: (n,) float32.
        weights: (connections,) float32.
        out: (neurons, lanes) float32, written.
    """
    lanes = out.shape[1]
    for begin in range(0, lanes, FLOATS):
        size = min(lanes - begin, FLOATS)
        for j in range(first, last):
            part, sums = (starts[j], starts[j + 1]), out[j, begin : begin + size]
            sum_weighted(values[begin:], at, stride, weights, part, sums)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_products(
    gradient: Array,
    x: Array,
    at: Array,
    stride: int,
    starts: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Compute the gradient of the weights of neurons first:last, for connections only.

    Args:
        gradient: (n_post, lanes) float32, gradient with respect to the weighted input.
        x: (n,) int8 or float32 inputs.
        out: (connections,) float32, written.
    """
    lanes = gradient.shape[1]
    zero = np.float32(0)
    out[starts[first] : starts[last]] = 0
    for begin in range(0, lanes, LANES):
        size, here = min(lanes - begin, LANES), x[begin:]
        for j in range(first, last):
            g = gradient[j, begin : begin + size]
            e = starts[j]
            while e + 4 <= starts[j + 1]:
                x0, x1 = here[stride * at[e] :], here[stride * at[e + 1] :]
                x2, x3 = here[stride * at[e + 2] :], here[stride * at[e + 3] :]
                s0, s1, s2, s3 = zero, zero, zero, zero
                for k in range(size):
                    s0 += g[k] * np.float32(x0[k])
                    s1 += g[k] * np.float32(x1[k])
                    s2 += g[k] * np.float32(x2[k])
                    s3 += g[k] * np.float32(x3[k])
                out[e] += s0
                out[e + 1] += s1
                out[e + 2] += s2
                out[e + 3] += s3
                e += 4
            while e < starts[j + 1]:
                x0 = here[stride * at[e] :]
                s0 = zero
                for k in range(size):
                    s0 += g[k] * np.float32(x0[k])
                out[e] += s0
                e += 1


@njit(cache=True, nogil=True)
def fire(
    small: Array,
    at: Array,
    stride: int,
    starts: Array,
    weights: Array,
    terms: int,
    step: np.float32,
    neuron: Neuron,
    first: int,
    last: int,
    v: Array,
    spikes: Array,
) -> bool:
    """Compute the spikes of neurons first:last from integers of 8 bits: `add_small`, then `spike`.

    Args:
        v: (n_post, T, n) float32, written: the potentials before their reset, as `spike` does.
        spikes: like `v`, written.

    Returns:
        The result of `spike` for all neurons.
    """
    _, steps, n = v.shape
    z = v.reshape(-1, steps * n)
    within = True
    block = _block(steps * n, last - first)
    for a in range(first, last, block):
        b = min(last, a + block)
        add_small(small, at, stride, starts, weights, terms, step, a, b, z)
        within &= spike(v, (a, b, 0, n), neuron, spikes)
    return within


@njit(cache=True, nogil=True)
def fire_gradients(
    by_spikes: Array,
    v: Array,
    neuron: Surrogate,
    small: Array,
    at: Array,
    stride: int,
    starts: Array,
    first: int,
    last: int,
    by_z: Array,
    by_weights: Array,
) -> None:
    """Compute the gradients of `fire`: `spike_gradient`, then `add_products`.

    Args:
        by_spikes: (n_post, T, n) float32, gradient with respect to the spikes.
        v: (n_post, T, n) float32, the array that `fire` has filled.
        by_z: like `v`, written: gradient with respect to the weighted input.
        by_weights: (connections,) float32, written: gradient with respect to the weights.
    """
    _, steps, n = v.shape
    lanes = by_z.reshape(-1, steps * n)
    block = _block(steps * n, last - first)
    for a in range(first, last, block):
        b = min(last, a + block)
        spike_gradient(by_spikes, (a, b, 0, n), v, neuron, by_z)
        add_products(lanes, small, at, stride, starts, a, b, by_weights)


@njit(inline="always")
def _block(lanes: int, neurons: int) -> int:
    """Return how many neurons to compute at a time: all, if their lanes are computed in pieces."""
    return max(1, NEAR // max(1, lanes)) if lanes <= LANES else max(1, neurons)


@njit(cache=True, nogil=True, error_model="numpy")
def quantise(weight: Array, step: np.float32, out: Array) -> int:
    """Round weights to SLAYER's grid, as numbers of steps.

    Args:
        weight: (n,) float32.
        step: step of the grid.
        out: (n,) int16, written.

    Returns:
        Number of weights out of range.
    """
    clamped = 0
    for k in range(weight.size):
        steps, beyond = round_to_grid(weight[k], step)
        clamped += beyond
        out[k] = np.int16(steps)
    return clamped
