"""Training images made anew: moved by a few pixels."""

from __future__ import annotations

import numpy as np

from esl_lava.arrays import Bytes
from esl_lava.errors import DataError


def shifted(
    images: Bytes,
    shape: tuple[int, ...],
    pixels: int,
    generator: np.random.Generator,
) -> Bytes:
    """Every image moved by its own whole numbers of pixels, uniform in -pixels..pixels.

    What leaves the frame is lost, what comes in is 0.

    Args:
        images: (batch, height * width).
        shape: (height, width).
        pixels: largest distance, vertically and horizontally; 0 moves nothing.
        generator: gives (batch, 2) integers.

    Returns:
        (batch, height * width) uint8.

    Raises:
        DataError: when the images are not two-dimensional.
    """
    if len(shape) != 2:
        raise DataError(f"images of shape {shape} cannot be moved: two dimensions are needed")
    height, width = shape
    framed = np.pad(images.reshape(-1, *shape), ((0, 0), (pixels, pixels), (pixels, pixels)))
    corners = generator.integers(0, 2 * pixels + 1, (len(images), 2))
    rows = corners[:, :1] + np.arange(height)
    columns = corners[:, 1:] + np.arange(width)
    sample = np.arange(len(images))[:, None, None]
    moved: Bytes = framed[sample, rows[:, :, None], columns[:, None, :]]
    return moved.reshape(images.shape)
