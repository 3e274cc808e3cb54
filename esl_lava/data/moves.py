"""Random shifts and mirror images of samples that have rows and columns."""

from __future__ import annotations

import numpy as np

from esl_lava.arrays import Bytes


def shift(planes: Bytes, pixels: int, generator: np.random.Generator) -> Bytes:
    """Return the samples, each shifted by its own random whole numbers of pixels.

    The numbers are uniform in -pixels..pixels. Pixels that leave a plane are lost, and pixels that
    enter it are 0. All planes of a sample are shifted together. This equals a random crop of the
    picture after padding with `pixels` zeros. A single row is not shifted vertically and a single
    column not horizontally, because all of it would be lost.

    Args:
        planes: (samples, planes, rows, columns).
        pixels: largest shift, vertically and horizontally; 0 shifts nothing.
        generator: draws (samples, 2) integers.
    """
    vertical, horizontal = (pixels if length > 1 else 0 for length in planes.shape[2:])
    margins = ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal))
    padded = np.pad(planes, margins)
    top, left = generator.integers(0, 2 * pixels + 1, (len(planes), 2)).T
    top, left = np.minimum(top, 2 * vertical), np.minimum(left, 2 * horizontal)
    windows = np.lib.stride_tricks.sliding_window_view(padded, planes.shape[2:], (2, 3))
    return windows[np.arange(len(planes)), :, top, left]


def mirror(planes: Bytes, generator: np.random.Generator) -> Bytes:
    """Return the samples, each mirrored left to right with a probability of one half.

    Args:
        planes: (samples, planes, rows, columns).
        generator: draws (samples,) integers; 1 mirrors the sample.
    """
    is_mirrored = generator.integers(0, 2, len(planes)).astype(bool)
    return np.where(is_mirrored[:, None, None, None], planes[..., ::-1], planes)
