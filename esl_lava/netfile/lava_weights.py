"""The weights Lava computes with, which are not always the weights of the file.

lava-dl 0.6.0 (`netx/utils.py`, optimize_weight_bits) shifts a matrix to fill 8 bits and
lava-nc 0.10.0 (`proc/dense/models.py`, PyDenseModelBitAcc) clips and truncates it again,
but the two judge the matrix's sign by different rules: without a positive weight, the
most negative ones may shrink, some to half, or all weights vanish.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def effective_weights(
    *matrices: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.float64], ...]:
    """What the weights of fully connected matrices count for in Lava's fixed point.

    netx shifts them together. So it loads the feed-forward and the recurrent weights of a
    recurrent layer, which Lava then judges apart.

    Args:
        matrices: (n_post, n_pre) integers each, not all of them zero.

    Returns:
        (n_post, n_pre) float64 each, exact. Lava rounds each sum of them down to an integer,
        so that a fraction shows as soon as two spikes meet.
    """
    w = np.concatenate([matrix.astype(np.int64) for matrix in matrices], axis=1)
    low, high = int(w.min()), int(w.max())
    if (high > 254 and low < 0) or (low < -256 and high > 0):
        w = np.clip(w, -256, 254)
        low, high = int(w.min()), int(w.max())

    # netx: shift up as far as 8 bits allow, count the bits still needed.
    if high < 0:
        mixed, scale = 0, -256 / low
    elif low >= 0:
        mixed, scale = 0, 255 / high
    else:
        mixed = 1
        scale = min(127 / high if high else np.inf, -128 / low)
    shift = int(np.floor(np.log2(scale))) + mixed
    spare = next((n for n in range(8, 0, -1) if not (w % (1 << n)).any()), 0) - mixed
    bits = 8 - shift - spare
    ends = np.cumsum([matrix.shape[1] for matrix in matrices])[:-1]
    stored = (_stored(part, bits) for part in np.split(_left(w, shift), ends, axis=1))
    return tuple(np.ldexp(part.astype(np.float64), -shift) for part in stored)


def _stored(w: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """What Lava keeps of a matrix: it judges the sign anew, clips, drops bits not counted."""
    sign = -1 if w.max() <= 0 and w.min() < 0 else 1
    mixed = int(w.min() < 0 < w.max())
    w = np.clip(sign * w, -256 * mixed, 255)
    drop = 8 - bits + mixed
    return sign * _left(w >> max(drop, 0), drop)


def _left(w: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """As numpy's left_shift does it: a negative number of bits leaves nothing."""
    return w << bits if bits >= 0 else np.zeros_like(w)
