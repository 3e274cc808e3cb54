"""A model of an event camera: the events of an image that moves in front of it.

Each pixel stores a reference level of the logarithm of its brightness. When the logarithm differs
from the reference by a threshold, the pixel sends an event, ON above and OFF below, and moves its
reference by one threshold (after P. Lichtsteiner, C. Posch, T. Delbruck, "A 128 x 128 120 dB 15 us
latency asynchronous temporal contrast vision sensor", 2008). Noise events come at random times,
from random pixels and with random polarity.

All computations use integers, so that a random seed gives the same events on every machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.data.events.recording import Events

UNIT = 1 << 16
"""Fixed-point unit of logarithms: the logarithm of e is `UNIT`."""

STEP = 16
"""Number of positions of an image per pixel: a position is a multiple of 1/16 pixel."""

DARK = 8
"""Added to every pixel before the logarithm, which is then finite for black and changes little for
dark pixels."""

_LEVELS = np.array([round(UNIT * math.log(value + DARK)) for value in range(256)])


def record(
    image: Bytes,
    path: Sequence[tuple[int, int]],
    interval: int,
    *,
    threshold: float,
    noise: float,
    generator: np.random.Generator,
) -> Events:
    """Return the events of an image that moves along a path.

    Args:
        image: (rows, columns) uint8, the brightness at position (0, 0); black all around.
        path: successive positions (down, right) in 1/`STEP` pixels, the first at time 0.
        interval: microseconds between two positions.
        threshold: threshold of the logarithm of the brightness, above 0.
        noise: noise events per second and pixel, on average over all pixels.
        generator: draws pixels, times and polarities of the noise events.
    """
    views = [_view(image, position) for position in path]
    parts = _change_events(views, interval, round(threshold * UNIT))
    parts.append(_noise_events(image.shape, (len(path) - 1) * interval, noise, generator))
    times, rows, columns, on = np.concatenate(parts, axis=1)
    order = np.lexsort((on, columns, rows, times))
    return Events(times[order], rows[order], columns[order], on[order] == 1)


def _view(image: Bytes, position: tuple[int, int]) -> Ints:
    """Return (rows, columns) logarithms of the brightness of an image at a position.

    The brightness is interpolated between pixels before the logarithm is taken.
    """
    (down, right), (rows, columns) = position, image.shape
    margin = 1 + max(abs(down), abs(right)) // STEP + 1
    padded = np.pad(image.astype(np.int64), margin)
    (y, dy), (x, dx) = divmod(-down, STEP), divmod(-right, STEP)
    total = np.zeros(image.shape, np.int64)
    for row, row_share in ((y, STEP - dy), (y + 1, dy)):
        for column, column_share in ((x, STEP - dx), (x + 1, dx)):
            top, left = margin + row, margin + column
            pixels = padded[top : top + rows, left : left + columns]
            total += row_share * column_share * pixels
    return np.asarray(_LEVELS[total // STEP**2])


def _change_events(views: Sequence[Ints], interval: int, threshold: int) -> list[Ints]:
    """Return the events that changes of brightness cause, two arrays for each interval: ON, OFF.

    An array holds (4, n) times, rows, columns and polarities.
    """
    parts = []
    reference = views[0].copy()
    for index, (before, after) in enumerate(itertools.pairwise(views)):
        for sign in (1, -1):
            numbers = np.maximum(sign * (after - reference), 0) // threshold
            rows, columns = np.nonzero(numbers)
            repeats = numbers[rows, columns]
            rows, columns = rows.repeat(repeats), columns.repeat(repeats)
            count = np.arange(len(rows)) - (repeats.cumsum() - repeats).repeat(repeats) + 1
            # The time at which the logarithm reaches the level, by linear interpolation.
            distance = sign * (reference - before)[rows, columns] + count * threshold
            length = sign * (after - before)[rows, columns]
            times = index * interval + interval * distance // length
            parts.append(np.stack([times, rows, columns, np.full(len(rows), sign > 0)]))
            reference += sign * numbers * threshold
    return parts


def _noise_events(
    shape: tuple[int, ...], duration: int, noise: float, generator: np.random.Generator
) -> Ints:
    """Return (4, n) times, rows, columns and polarities of the noise events."""
    rows, columns = shape
    number = round(noise * duration / 1e6 * rows * columns)
    limits = np.array([[duration], [rows], [columns], [2]])
    return generator.integers(0, limits, (4, number))


def saccades(reach: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Return a path for `record`: a triangle back to its start, like the camera of N-MNIST.

    Args:
        reach: largest distance in pixels that a side covers along an axis, above 0.
        generator: draws one of eight orientations of the triangle.
    """
    corners = [(0, 0), (reach, reach // 2), (0, reach), (0, 0)]
    quarter_turns, is_mirrored = (int(number) for number in generator.integers(0, (4, 2)))
    for _ in range(quarter_turns):
        corners = [(right, -down) for down, right in corners]
    if is_mirrored:
        corners = [(right, down) for down, right in corners]
    path = [corners[0]]
    for (y0, x0), (y1, x1) in itertools.pairwise(corners):
        path += [
            ((y0 * (STEP - k) + y1 * k), (x0 * (STEP - k) + x1 * k)) for k in range(1, STEP + 1)
        ]
    return path
