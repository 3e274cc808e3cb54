"""Digits that move in front of a model of an event camera, for machines without recordings."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from esl_lava.arrays import Bytes
from esl_lava.data import datasets
from esl_lava.data.events.camera import record, saccades
from esl_lava.data.events.prepare import Recordings
from esl_lava.data.events.recording import EventRecording

SIDE = 24


class Moving(NamedTuple):
    """How the images move.

    Attributes:
        reach: pixels of a move along an axis.
        interval: microseconds for 1/16 of a move.
        threshold: of the logarithm of the brightness.
        noise: events per pixel and second by chance.
    """

    reach: int = 3
    interval: int = 2_000
    threshold: float = 0.3
    noise: float = 2.0


MOVING = Moving()


def find_moving(split: str) -> Recordings:
    """The images of `digits`, each of which is recorded when it is opened."""
    digits = datasets.load("digits", split)
    openers = [functools.partial(_move, image, split, n) for n, image in enumerate(digits.images)]
    return Recordings((split, *MOVING), openers, digits.labels)


def _move(image: Bytes, split: str, place: int) -> EventRecording:
    """An image, twice as large, that moves along three lines in front of a camera."""
    generator = np.random.default_rng((datasets.SPLITS.index(split), place))
    large = np.pad(image.reshape(8, 8).repeat(2, axis=0).repeat(2, axis=1), MOVING.reach + 1)
    events = record(
        large,
        saccades(MOVING.reach, generator),
        MOVING.interval,
        threshold=MOVING.threshold,
        noise=MOVING.noise,
        generator=generator,
    )
    return EventRecording(f"moving_digits {split} {place}", SIDE, SIDE, lambda: iter([events]))
