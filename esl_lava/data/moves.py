"""Samples that have rows and columns, moved and mirrored by chance."""

from __future__ import annotations

import numpy as np

from esl_lava.arrays import Bytes


def moved(planes: Bytes, pixels: int, generator: np.random.Generator) -> Bytes:
    """Every sample moved by its own whole numbers of pixels, uniform in -pixels..pixels.

    What leaves a plane is lost, what comes in is 0. A sample's planes move together. It is the
    random crop of a picture around which `pixels` zeros were put. A single row is not moved up or
    down and a single column not sideways: all of it would be lost.

    Args:
        planes: (samples, planes, rows, columns).
        pixels: largest distance, vertically and horizontally; 0 moves nothing.
        generator: gives (samples, 2) integers.
    """
    above, beside = (pixels if length > 1 else 0 for length in planes.shape[2:])
    framed = np.pad(planes, ((0, 0), (0, 0), (above, above), (beside, beside)))
    top, left = generator.integers(0, 2 * pixels + 1, (len(planes), 2)).T
    top, left = np.minimum(top, 2 * above), np.minimum(left, 2 * beside)
    windows = np.lib.stride_tricks.sliding_window_view(framed, planes.shape[2:], (2, 3))
    return windows[np.arange(len(planes)), :, top, left]


def mirrored(planes: Bytes, generator: np.random.Generator) -> Bytes:
    """Every sample as it is or, with a chance of one half, its mirror image, left to right.

    Args:
        planes: (samples, planes, rows, columns).
        generator: gives (samples,) integers, 1 for a mirror image.
    """
    turned = generator.integers(0, 2, len(planes)).astype(bool)
    return np.where(turned[:, None, None, None], planes[..., ::-1], planes)
