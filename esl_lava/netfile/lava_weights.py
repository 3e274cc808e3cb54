"""The weights that Lava computes with, which are not always the weights of the file.

lava-dl 0.6.0 (`netx/utils.py`, optimize_weight_bits) shifts a matrix to fill 8 bits.
lava-nc 0.10.0 (`proc/dense/models.py`, PyDenseModelBitAcc) clips and truncates it again.
The two determine the sign of the matrix by different rules: without a positive weight, the most
negative weights may shrink, some to half, or all weights become 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def effective_weights(
    *matrices: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the weights that Lava's fixed point makes of fully connected matrices.

    netx shifts all matrices together: the feed-forward and the recurrent weights of a recurrent
    layer. Lava then determines the sign of each matrix alone.

    Args:
        matrices: (n_post, n_pre) integers each, not all of them zero.

    Returns:
        (n_post, n_pre) float64 each, exact. Lava rounds each sum of these weights down to an
        integer, so a fraction changes the sum as soon as two spikes arrive together.
    """
    w = np.concatenate([matrix.astype(np.int64) for matrix in matrices], axis=1)
    low, high = int(w.min()), int(w.max())
    if (high > 254 and low < 0) or (low < -256 and high > 0):
        w = np.clip(w, -256, 254)
        low, high = int(w.min()), int(w.max())

    # netx shifts up as far as 8 bits allow, and counts the bits that it still needs.
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
    stored = (_stored_in_lava(part, bits) for part in np.split(_shift_left(w, shift), ends, axis=1))
    return tuple(np.ldexp(part.astype(np.float64), -shift) for part in stored)


def _stored_in_lava(w: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """Return the matrix that Lava keeps: it determines the sign again, clips and drops bits."""
    sign = -1 if w.max() <= 0 and w.min() < 0 else 1
    mixed = int(w.min() < 0 < w.max())
    w = np.clip(sign * w, -256 * mixed, 255)
    drop = 8 - bits + mixed
    return sign * _shift_left(w >> max(drop, 0), drop)


def _shift_left(w: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """Shift as numpy's left_shift does: a negative number of bits gives 0."""
    return w << bits if bits >= 0 else np.zeros_like(w)
