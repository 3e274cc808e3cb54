"""Kernels of weighted sums of spikes, one for each way of storing synapses.

Each kernel fills `sums` (samples, T, n or more) for whole samples from `inputs` (samples, T,
n_pre), which are 0 where there is no spike. It writes into `sops` (samples,) the number of
synapses that spikes cross. It computes this number from `fan_out` (rows, n_pre): row k holds the
synapses that a spike of each input crosses if k steps of its sample are left, and the last row
those of a spike with at least that many steps left. The caller may pass sums of int16 only if
nothing overflows; sums of int32 wrap around modulo 2**32.
"""

import numpy as np

from esl_lava.arrays import Array
from esl_lava.kernels import njit
from esl_lava.kernels.events import MARGIN, list_spikes


@njit(cache=True, nogil=True)
def add_rows(
    inputs: Array,
    rows: Array,
    fan_out: Array,
    sums: Array,
    sops: Array,
) -> None:
    """Add the row of a dense matrix for each spike, eight rows at a time.

    Args:
        rows: (n_pre, width) integers; the width is a multiple of 16, for the vector unit.
        sums: (samples, T, width).
    """
    samples, steps, n_pre = inputs.shape
    width = rows.shape[1]
    kind = sums.dtype.type
    for n in range(samples):
        spiking = np.empty(n_pre + MARGIN, np.uint32)
        crossed = 0
        for t in range(steps):
            count = list_spikes(inputs[n, t], spiking)
            a = sums[n, t]
            a[:] = 0
            reached = fan_out[min(steps - 1 - t, fan_out.shape[0] - 1)]
            for k in range(count):
                crossed += reached[spiking[k]]
            k = 0
            while k + 8 <= count:
                r0, r1, r2, r3 = (
                    rows[spiking[k]],
                    rows[spiking[k + 1]],
                    rows[spiking[k + 2]],
                    rows[spiking[k + 3]],
                )
                r4, r5, r6, r7 = (
                    rows[spiking[k + 4]],
                    rows[spiking[k + 5]],
                    rows[spiking[k + 6]],
                    rows[spiking[k + 7]],
                )
                for j in range(width):
                    a[j] += ((kind(r0[j]) + kind(r1[j])) + (kind(r2[j]) + kind(r3[j]))) + (
                        (kind(r4[j]) + kind(r5[j])) + (kind(r6[j]) + kind(r7[j]))
                    )
                k += 8
            while k < count:
                r0 = rows[spiking[k]]
                for j in range(width):
                    a[j] += r0[j]
                k += 1
        sops[n] = crossed


@njit(cache=True, nogil=True)
def add_runs(
    inputs: Array,
    base: Array,
    which: Array,
    starts: Array,
    run_offsets: Array,
    run_lengths: Array,
    run_weights: Array,
    weights: Array,
    canvas_rows: Array,
    fan_out: Array,
    sums: Array,
    sops: Array,
) -> None:
    """Add runs of neighbouring weights for each spike, to a canvas that is larger than the sums.

    The kernel serves convolutions. Every place that a kernel of weights reaches lies on the
    canvas, so no borders are checked. Afterwards the sums are cut out of the canvas.

    Args:
        base, which: (n_pre,) place on the canvas where an input's runs begin, and their list.
        starts: list l owns runs starts[l]:starts[l + 1].
        run_offsets, run_lengths, run_weights: for each run its place on the canvas relative to
            `base`, its length, and the index of its first weight in `weights`.
        canvas_rows: (rows + 2,): place on the canvas where each row of the sums begins, then the
            length of a row, then the size of the canvas.
    """
    samples, steps, n_pre = inputs.shape
    rows = canvas_rows.size - 2
    length = np.int64(canvas_rows[rows])
    for n in range(samples):
        spiking = np.empty(n_pre + MARGIN, np.uint32)
        canvas = np.empty(canvas_rows[rows + 1], sums.dtype)
        crossed = 0
        for t in range(steps):
            count = list_spikes(inputs[n, t], spiking)
            canvas[:] = 0
            reached = fan_out[min(steps - 1 - t, fan_out.shape[0] - 1)]
            for k in range(count):
                i = spiking[k]
                crossed += reached[i]
                here = base[i]
                for r in range(starts[which[i]], starts[which[i] + np.uint32(1)]):
                    first = np.int64(here + run_offsets[r])
                    c = canvas[first : first + np.int64(run_lengths[r])]
                    source = np.int64(run_weights[r])
                    w = weights[source : source + np.int64(run_lengths[r])]
                    for j in range(c.size):
                        c[j] += w[j]
            for y in range(rows):
                source = np.int64(canvas_rows[y])
                sums[n, t, y * length : (y + 1) * length] = canvas[source : source + length]
        sops[n] = crossed


@njit(cache=True, nogil=True)
def add_scattered(
    inputs: Array,
    base: Array,
    which: Array,
    starts: Array,
    targets: Array,
    weights: Array,
    canvas_rows: Array,
    fan_out: Array,
    sums: Array,
    sops: Array,
) -> None:
    """Add the weight of each synapse for each spike, times the value of a graded spike.

    Args:
        base, which, canvas_rows: as for `add_runs`.
        starts: list l owns entries starts[l]:starts[l + 1].
        targets, weights: for each synapse its place on the canvas relative to `base`, and its
            weight.
    """
    samples, steps, n_pre = inputs.shape
    rows = canvas_rows.size - 2
    length = np.int64(canvas_rows[rows])
    kind = sums.dtype.type
    for n in range(samples):
        spiking = np.empty(n_pre + MARGIN, np.uint32)
        canvas = np.empty(canvas_rows[rows + 1], sums.dtype)
        crossed = 0
        for t in range(steps):
            count = list_spikes(inputs[n, t], spiking)
            canvas[:] = 0
            reached = fan_out[min(steps - 1 - t, fan_out.shape[0] - 1)]
            for k in range(count):
                i = spiking[k]
                crossed += reached[i]
                here = base[i]
                value = kind(inputs[n, t, i])
                for e in range(starts[which[i]], starts[which[i] + np.uint32(1)]):
                    canvas[here + targets[e]] += kind(weights[e] * value)
            for y in range(rows):
                source = np.int64(canvas_rows[y])
                sums[n, t, y * length : (y + 1) * length] = canvas[source : source + length]
        sops[n] = crossed


@njit(cache=True, nogil=True)
def add_lanes(
    inputs: Array,
    place: Array,
    starts: Array,
    offsets: Array,
    weights: Array,
    geometry: Array,
    fan_out: Array,
    sums: Array,
    sops: Array,
) -> None:
    """Add the weight of each synapse in all lanes that spike.

    A lane is one step of one sample; lanes lie side by side. The cost does not depend on the
    number of spikes. Each input becomes one mask for each lane, with all bits set for a spike.
    Masks are laid out so that the inputs that a synapse meets while its kernel slides along a row
    are one piece.

    Args:
        place: (n_pre,) index at which the lanes of an input begin, -1 if no synapse meets it.
        starts: the synapses of output channel c are starts[c]:starts[c + 1]; their number is a
            multiple of 8.
        offsets: for each synapse, the index at which its piece for the first row begins.
        weights: weight of each synapse.
        geometry: number of lanes at a time, rows of outputs, outputs in a row, distance of the
            pieces of two rows, size of the masks.
        sops: only the sum over samples is meaningful here.
    """
    samples, steps, n_pre = inputs.shape
    lanes, rows, columns = geometry[0], geometry[1], geometry[2]
    distance, size = geometry[3], geometry[4]
    channels = starts.size - 1
    total = samples * steps
    kind = sums.dtype.type
    flat = inputs.reshape(total, n_pre)
    out = sums.reshape(total, sums.shape[2])
    blocks = (total + lanes - 1) // lanes
    crossed = np.zeros(blocks, np.int64)
    late = np.zeros((fan_out.shape[0] - 1, n_pre), np.int32)  # spikes that miss some synapses
    piece = columns * lanes
    for block in range(blocks):
        first = block * lanes
        used = min(lanes, total - first)
        masks = np.zeros(size, sums.dtype)
        here = np.zeros(n_pre, np.uint8)
        for lane in range(used):
            row = flat[first + lane]
            for i in range(n_pre):
                here[i] += row[i]
            left = steps - 1 - (first + lane) % steps
            if left < late.shape[0]:
                few = late[left]
                for i in range(n_pre):
                    few[i] += row[i]
        count = 0
        for i in range(n_pre):
            if here[i] > 0:
                count += here[i] * fan_out[-1, i]
                if place[i] >= 0:
                    mask = masks[place[i] : place[i] + used]
                    for lane in range(used):
                        mask[lane] = -kind(flat[first + lane, i])
        crossed[block] = count
        sliding = np.empty((channels, piece), sums.dtype)
        for y in range(rows):
            for c in range(channels):
                a = sliding[c]
                a[:] = 0
                for e in range(starts[c], starts[c + 1], 8):
                    w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                    w4, w5, w6, w7 = weights[e + 4], weights[e + 5], weights[e + 6], weights[e + 7]
                    at = y * distance
                    m0 = masks[at + offsets[e] : at + offsets[e] + piece]
                    m1 = masks[at + offsets[e + 1] : at + offsets[e + 1] + piece]
                    m2 = masks[at + offsets[e + 2] : at + offsets[e + 2] + piece]
                    m3 = masks[at + offsets[e + 3] : at + offsets[e + 3] + piece]
                    m4 = masks[at + offsets[e + 4] : at + offsets[e + 4] + piece]
                    m5 = masks[at + offsets[e + 5] : at + offsets[e + 5] + piece]
                    m6 = masks[at + offsets[e + 6] : at + offsets[e + 6] + piece]
                    m7 = masks[at + offsets[e + 7] : at + offsets[e + 7] + piece]
                    for k in range(piece):
                        a[k] += (((w0 & m0[k]) + (w1 & m1[k])) + ((w2 & m2[k]) + (w3 & m3[k]))) + (
                            ((w4 & m4[k]) + (w5 & m5[k])) + ((w6 & m6[k]) + (w7 & m7[k]))
                        )
            for x in range(columns):
                target = (y * columns + x) * channels
                for lane in range(used):
                    sum_row = out[first + lane]
                    k = x * lanes + lane
                    for c in range(channels):
                        sum_row[target + c] = sliding[c, k]
    sops[:] = 0
    sops[0] = crossed.sum()
    for left in range(late.shape[0]):
        for i in range(n_pre):
            sops[0] -= late[left, i] * (fan_out[-1, i] - fan_out[left, i])


@njit(cache=True, nogil=True)
def delay(sums: Array, delays: Array) -> None:
    """Delay the input of each neuron j in `sums` (samples, T, n) by delays[j] steps, in place."""
    samples, steps, _ = sums.shape
    for n in range(samples):
        for t in range(steps - 1, -1, -1):
            for j in range(delays.size):
                late = t - delays[j]
                sums[n, t, j] = sums[n, late, j] if late >= 0 else 0
