"""A model of an event camera: events of an image that moves in front of it.

Each pixel remembers a level of the logarithm of its brightness. Where the logarithm has left it by
a threshold, the pixel sends an event, ON above and OFF below, and remembers a level that is a
threshold further (after P. Lichtsteiner, C. Posch, T. Delbruck, "A 128 x 128 120 dB 15 us latency
asynchronous temporal contrast vision sensor", 2008). Noise events come at random times, of any
pixel and polarity.

Everything is computed in integers, so that one seed gives the same events on every machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.data.events.recording import Events

UNIT = 1 << 16
"""Of logarithms: a brightness e times as large is one more."""

STEP = 16
"""Positions of an image in a pixel."""

DARK = 8
"""Added to every pixel: the logarithm of black is finite, and changes of dark pixels are small."""

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
    """Events of an image that moves along a path.

    Args:
        image: (rows, columns) uint8, as bright as it is seen at (0, 0); black all around.
        path: (down, right) in 1/`STEP` pixels, one after another, the first at time 0.
        interval: microseconds from a place of the path to the next.
        threshold: of the logarithm of the brightness, above 0.
        noise: events that a pixel sends by chance, per second, in the mean over all pixels.
        generator: says which pixels send them, and when.
    """
    found = _of_changes([_seen(image, place) for place in path], interval, round(threshold * UNIT))
    found.append(_of_noise(image.shape, (len(path) - 1) * interval, noise, generator))
    times, rows, columns, on = np.concatenate(found, axis=1)
    order = np.lexsort((on, columns, rows, times))
    return Events(times[order], rows[order], columns[order], on[order] == 1)


def _seen(image: Bytes, place: tuple[int, int]) -> Ints:
    """Logarithms of the image at a place, between pixels by their shares."""
    (down, right), (rows, columns) = place, image.shape
    margin = 1 + max(abs(down), abs(right)) // STEP + 1
    framed = np.pad(image.astype(np.int64), margin)
    (y, dy), (x, dx) = divmod(-down, STEP), divmod(-right, STEP)
    total = np.zeros(image.shape, np.int64)
    for row, below in ((y, STEP - dy), (y + 1, dy)):
        for column, beside in ((x, STEP - dx), (x + 1, dx)):
            top, left = margin + row, margin + column
            total += below * beside * framed[top : top + rows, left : left + columns]
    return np.asarray(_LEVELS[total // STEP**2])


def _of_changes(seen: Sequence[Ints], interval: int, threshold: int) -> list[Ints]:
    """(4, n) times, rows, columns and polarities of what each interval brings."""
    found = []
    remembered = seen[0].copy()
    for place, (before, after) in enumerate(itertools.pairwise(seen)):
        for sign in (1, -1):
            number = np.maximum(sign * (after - remembered), 0) // threshold
            rows, columns = np.nonzero(number)
            each = number[rows, columns]
            rows, columns = rows.repeat(each), columns.repeat(each)
            count = np.arange(len(rows)) - (each.cumsum() - each).repeat(each) + 1
            # When the logarithm, on a straight line between both places, was there.
            way = sign * (remembered - before)[rows, columns] + count * threshold
            length = sign * (after - before)[rows, columns]
            times = place * interval + interval * way // length
            found.append(np.stack([times, rows, columns, np.full(len(rows), sign > 0)]))
            remembered += sign * number * threshold
    return found


def _of_noise(
    shape: tuple[int, ...], duration: int, noise: float, generator: np.random.Generator
) -> Ints:
    """(4, n) times, rows, columns and polarities of events by chance."""
    rows, columns = shape
    number = round(noise * duration / 1e6 * rows * columns)
    limits = np.array([[duration], [rows], [columns], [2]])
    return generator.integers(0, limits, (4, number))


def saccades(reach: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """A path of three straight moves that returns to where it began, as N-MNIST's camera made.

    Args:
        reach: pixels, of a move along an axis, above 0.
        generator: chooses into which of eight directions the triangle is turned or mirrored.
    """
    corners = [(0, 0), (reach, reach // 2), (0, reach), (0, 0)]
    turns, mirrored = (int(one) for one in generator.integers(0, (4, 2)))
    for _ in range(turns):
        corners = [(right, -down) for down, right in corners]
    if mirrored:
        corners = [(right, down) for down, right in corners]
    path = [corners[0]]
    for (y0, x0), (y1, x1) in itertools.pairwise(corners):
        path += [
            ((y0 * (STEP - k) + y1 * k), (x0 * (STEP - k) + x1 * k)) for k in range(1, STEP + 1)
        ]
    return path
