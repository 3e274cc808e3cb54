"""Kernels of CUBA neurons in training: SLAYER's forward pass, bit for bit, and its gradient."""

from typing import NamedTuple

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit
from esl_lava.kernels.cuba import decayed

TILE = 1024
"""Number of neurons whose state stays in a cache through all steps."""


class Neuron(NamedTuple):
    """Constants of neurons in a forward pass.

    Attributes:
        scale: integers of the state per unit of weighted input.
        keep_current, keep_voltage: 4096 minus the decays.
        reset_at: v at which the neuron is reset, in integers of the state.
        fire_at: v at which the neuron spikes, in units of weighted input.
    """

    scale: np.float32
    keep_current: np.uint32
    keep_voltage: np.uint32
    reset_at: np.float32
    fire_at: np.float32


class Surrogate(NamedTuple):
    """Constants of neurons in a backward pass.

    Attributes:
        threshold, slope, tau: the surrogate gradient is slope * exp(-|v - threshold| / tau).
        keep_current, keep_voltage: 1 minus the shares lost per step.
    """

    threshold: np.float32
    slope: np.float32
    tau: np.float32
    keep_current: np.float32
    keep_voltage: np.float32


_LOG2_E = np.float32(1.44269504)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_SMALLEST = np.float32(-60.0)
"""The least exponent. exp of it times a small gradient is still a normal floating-point number.

Operations on subnormal numbers take several times as long.
"""
_BIAS, _MANTISSA = np.int32(127), np.int32(23)
# exp(r) = 1 + r + r**2 p(r) for |r| <= ln(2) / 2. The polynomial p interpolates
# (exp(r) - 1 - r) / r**2 at five Chebyshev nodes, with an error below 1e-8.
_P = tuple(map(np.float32, (1.3926176e-3, 8.363173e-3, 4.1666556e-2, 1.6666578e-1, 0.5)))
_ONE = np.float32(1)


@njit(inline="always")
def exp_below_0(x: np.float32) -> np.float32:
    """Compute exp(x) for x <= 0, in operations that vectorise; exp(-60) for x < -60."""
    x = max(x, _SMALLEST)
    n = np.rint(x * _LOG2_E)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = (((_P[0] * r + _P[1]) * r + _P[2]) * r + _P[3]) * r + _P[4]
    power = np.int32((np.int32(n) + _BIAS) << _MANTISSA).view(np.float32)
    return (p * (r * r) + r + _ONE) * power


@njit(cache=True, nogil=True, error_model="numpy")
def spike(
    z: Array,
    part: tuple[int, int, int, int],
    neuron: Neuron,
    spikes: Array,
) -> bool:
    """Run neurons that start at rest (`slayer/neuron/cuba.py`, lava-dl 0.6.0), in int32.

    Args:
        z: (groups, T, n) float32 weighted input, contiguous; overwritten with v before its
            reset.
        part: first group, end of the groups, first neuron, end of the neurons; ends excluded.
        spikes: like `z`, written: 0 or 1.

    Returns:
        Whether u and v stayed within +-2**29. SLAYER's u and v have 64 bits; the written values
        are valid only if the result is true.
    """
    scale, keep_current, keep_voltage, reset_at, fire_at = neuron
    steps = z.shape[1]
    magnitudes = np.int32(0)
    us = np.empty(TILE, np.int32)
    vs = np.empty(TILE, np.int32)
    for group in range(part[0], part[1]):
        for first in range(part[2], part[3], TILE):
            width = min(TILE, part[3] - first)
            u = us[:width]
            v = vs[:width]
            u[:] = 0
            v[:] = 0
            for t in range(steps):
                a = z[group, t, first : first + width]
                s = spikes[group, t, first : first + width]
                for j in range(width):
                    x = np.int32(decayed(u[j], keep_current) + np.int32(scale * a[j]))
                    y = np.int32(
                        decayed(v[j], keep_voltage) + np.int32(scale * (np.float32(x) / scale))
                    )
                    magnitudes = np.int32(magnitudes | np.int32(x ^ (x >> np.int32(31))))
                    magnitudes = np.int32(magnitudes | np.int32(y ^ (y >> np.int32(31))))
                    value = np.float32(y) / scale
                    u[j] = x
                    v[j] = np.int32(y & -np.int32(np.float32(y) < reset_at))
                    a[j] = value
                    s[j] = np.float32(np.int32(value >= fire_at))
    return bool(magnitudes < np.int32(1 << 29))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def spike_gradient(
    gradient: Array,
    part: tuple[int, int, int, int],
    v_trace: Array,
    neuron: Surrogate,
    out: Array,
) -> None:
    """Compute the gradient of the weighted input from that of the spikes.

    Resets are ignored, as in SLAYER.

    Args:
        gradient: (groups, T, n) float32, contiguous, gradient with respect to the spikes.
        v_trace: like `gradient`: v as `spike` wrote it.
        part: as for `spike`.
        out: like `gradient`, written.
    """
    steps = gradient.shape[1]
    threshold, slope, tau, keep_current, keep_voltage = neuron
    by_u = np.empty(TILE, np.float32)
    by_v = np.empty(TILE, np.float32)
    for group in range(part[0], part[1]):
        for first in range(part[2], part[3], TILE):
            width = min(TILE, part[3] - first)
            a = by_u[:width]
            b = by_v[:width]
            a[:] = 0
            b[:] = 0
            for back in range(steps):
                t = steps - 1 - back
                g = gradient[group, t, first : first + width]
                v = v_trace[group, t, first : first + width]
                o = out[group, t, first : first + width]
                for j in range(width):
                    surrogate = slope * exp_below_0(-abs(v[j] - threshold) / tau)
                    b[j] = keep_voltage * b[j] + surrogate * g[j]
                    a[j] = keep_current * a[j] + b[j]
                    o[j] = a[j]
