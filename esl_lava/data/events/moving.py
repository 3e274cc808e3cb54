"""The data set `moving_digits`: digits that move in front of a model of an event camera.

It serves machines without recordings.
"""

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


class Motion(NamedTuple):
    """The motion of the images and the parameters of the camera.

    Attributes:
        reach: largest distance in pixels that a move covers along an axis.
        interval: microseconds for 1/16 of a move.
        threshold: threshold of the logarithm of the brightness.
        noise: noise events per pixel and second.
    """

    reach: int = 3
    interval: int = 2_000
    threshold: float = 0.3
    noise: float = 2.0


MOTION = Motion()


def find_moving(split: str) -> Recordings:
    """Return recordings of the images of `digits`. Each is recorded when it is opened."""
    digits = datasets.load("digits", split)
    openers = [functools.partial(_record, image, split, n) for n, image in enumerate(digits.images)]
    return Recordings((split, *MOTION), openers, digits.labels)


def _record(image: Bytes, split: str, index: int) -> EventRecording:
    """Return the recording of an image, enlarged to twice its size, that moves in a triangle."""
    generator = np.random.default_rng((datasets.SPLITS.index(split), index))
    large = np.pad(image.reshape(8, 8).repeat(2, axis=0).repeat(2, axis=1), MOTION.reach + 1)
    events = record(
        large,
        saccades(MOTION.reach, generator),
        MOTION.interval,
        threshold=MOTION.threshold,
        noise=MOTION.noise,
        generator=generator,
    )
    return EventRecording(f"moving_digits {split} {index}", SIDE, SIDE, lambda: iter([events]))
