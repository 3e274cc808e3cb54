"""Kernel of CUBA neurons over whole samples, bit-exact to Lava's fixed point."""

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit
from esl_lava.kernels.events import MARGIN, list_spikes

_I = np.int32
_U = np.uint32
_HALF = _I(1 << 23)
_TOP = _I((1 << 23) - 1)
_BOTTOM = _I(1 - (1 << 23))

BYTE_STEPS = 255
"""The most steps whose spikes a byte can count."""


@njit(inline="always")
def decayed(x: np.int32, keep: np.uint32) -> np.int32:
    """Compute x * keep / 4096, truncated towards 0, without a product of more than 32 bits."""
    # Every cast keeps numba from widening to 64 bits, which would halve the vectors.
    sign = _I(x >> _I(31))
    size = _U(_I(_I(x ^ sign) - sign))
    high = _U(_U(size >> _U(12)) * keep)
    low = _U(_U(_U(size & _U(4095)) * keep) >> _U(12))
    y = _I(_U(high + low))
    return _I(_I(y ^ sign) - sign)


@njit(inline="always")
def _integrated(
    u: np.int32,
    v: np.int32,
    a: np.int32,
    drive: np.int32,
    keep_current: np.uint32,
    keep_voltage: np.uint32,
) -> tuple[np.int32, np.int32, np.int32, np.int32]:
    """Compute one step: u, v before clipping, v, and whether u wrapped around."""
    x = _I(decayed(u, keep_current) + a)
    above = _I(x > _HALF)
    below = _I(x <= -_HALF)
    x = _I(x - _I(_I(above - below) << _I(24)))
    y = _I(_I(decayed(v, keep_voltage) + x) + drive)
    return x, y, min(max(y, _BOTTOM), _TOP), _I(above + below)


@njit(inline="always")
def _flush(recent: Array, fired: Array) -> None:
    """Add the bytes of recent spikes to the counts, and set the bytes to 0."""
    for j in range(recent.size):
        fired[j] += recent[j]
        recent[j] = 0


@njit(cache=True, nogil=True)
def run_neurons(
    sums: Array,
    shift: int,
    injected: Array,
    keep_current: Array,
    keep_voltage: Array,
    threshold: Array,
    bias: Array,
    refractory: int,
    starts: Array,
    targets: Array,
    weights: Array,
    spikes: Array,
    u_trace: Array,
    v_trace: Array,
    totals: Array,
    fired: Array,
) -> None:
    """Run the neurons on every sample. Each sample starts from rest.

    The dynamics are those of `esl_lava.network` (PyLifModelBitAcc of lava-nc 0.10.0). As in Lava
    the arithmetic is int32, and larger values wrap around.

    Args:
        sums: (samples, T, n or more) weighted input; the kernel adds the recurrent input to it.
        shift: bits by which the weighted input is shifted left to the scale of u.
        injected: (samples, T, n) int32 added to v in place of `bias`: the sum of injected input
            and bias, already shifted; of length 0 without injected input.
        keep_current, keep_voltage: (n,) uint32, 4096 minus the decays.
        threshold: (n,) int32, already shifted to the scale of v.
        bias: (n,) int32, already shifted.
        refractory: steps after a spike in which v stays 0.
        starts, targets, weights: recurrent synapses: those of presynaptic neuron i lead to the
            neurons targets[starts[i]:starts[i + 1]], with these entries of `weights`; `starts` has
            length 0 without recurrent synapses.
        spikes: (samples, T, n) uint8, written.
        u_trace, v_trace: (samples, T, n) int32, written; of length 0 if not needed.
        totals: (5,) int64, to which the kernel adds: spikes, wraps of u, clips of v, synapses
            crossed by recurrent spikes, and number of recurrent spikes. The spikes of a sample's
            last step are not recurrent spikes, because no step follows.
        fired: (n,) int64, to which the kernel adds the spikes of each neuron.
    """
    samples, steps, n = spikes.shape
    recent = np.zeros(n, np.uint8)  # spikes that are not yet added to `fired`
    rows = 0
    recurrent = starts.size > 0
    scale = _I(shift)
    pause = _I(refractory)
    for sample in range(samples):
        u = np.zeros(n, np.int32)
        v = np.zeros(n, np.int32)
        drive = bias.copy()
        waiting = np.zeros(n if pause else 0, np.int32)
        spiking = np.empty(n + MARGIN if recurrent else 0, np.uint32)
        for t in range(steps):
            a = sums[sample, t]
            s = spikes[sample, t]
            if injected.shape[0] > 0:
                drive[:] = injected[sample, t]
            emitted = _I(0)
            wraps = _I(0)
            clips = _I(0)
            if pause:
                for j in range(n):
                    x, y, z, wrapped = _integrated(
                        u[j],
                        v[j],
                        _I(_I(a[j]) << scale),
                        drive[j],
                        keep_current[j],
                        keep_voltage[j],
                    )
                    wraps = _I(wraps + wrapped)
                    u[j] = x
                    awake = _I(waiting[j] == 0)
                    clips = _I(clips + _I(_I(z != y) & awake))
                    spike = _I(_I(z > threshold[j]) & awake)
                    emitted = _I(emitted + spike)
                    s[j] = np.uint8(spike)
                    v[j] = _I(z & -_I(awake & _I(spike ^ _I(1))))
                    waiting[j] = _I(
                        _I(pause & -spike) | _I(_I(waiting[j] - _I(1)) & -_I(awake ^ _I(1)))
                    )
            else:
                for j in range(n):
                    x, y, z, wrapped = _integrated(
                        u[j],
                        v[j],
                        _I(_I(a[j]) << scale),
                        drive[j],
                        keep_current[j],
                        keep_voltage[j],
                    )
                    wraps = _I(wraps + wrapped)
                    u[j] = x
                    clips = _I(clips + _I(z != y))
                    spike = _I(z > threshold[j])
                    emitted = _I(emitted + spike)
                    s[j] = np.uint8(spike)
                    v[j] = _I(z & _I(spike - _I(1)))
            # Bytes are counted at once, while the step's spikes are in the fastest cache.
            for j in range(n):
                recent[j] = np.uint8(recent[j] + s[j])
            rows += 1
            if rows == BYTE_STEPS:
                _flush(recent, fired)
                rows = 0
            totals[0] += emitted
            totals[1] += wraps
            totals[2] += clips
            if u_trace.shape[0] > 0:
                u_trace[sample, t] = u
            if v_trace.shape[0] > 0:
                v_trace[sample, t] = v
            if recurrent and t + 1 < steps:
                count = list_spikes(s, spiking)
                totals[4] += count
                for k in range(count):
                    i = spiking[k]
                    totals[3] += starts[i + np.uint32(1)] - starts[i]
                    for e in range(starts[i], starts[i + np.uint32(1)]):
                        sums[sample, t + 1, targets[e]] += weights[e]
    _flush(recent, fired)
