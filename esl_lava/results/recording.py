"""A summary of a recording from an event camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from esl_lava.arrays import Bytes
from esl_lava.data.events.recording import EventCounts
from esl_lava.values import Keys, keys

HOT = 10
"""A hot pixel has at least this many times the mean number of events of an active pixel."""

SHOWN = 10
"""At most this many hot pixels are listed, those with most events first."""


@dataclass(frozen=True, eq=False)
class RecordingSummary:
    """The event counts of a recording, and its frames.

    Attributes:
        contents: counts of the events.
        frames: (T, 2, rows, columns) uint8, OFF events first.
    """

    KEYS: ClassVar[Keys] = keys(
        "contents.events contents.first contents.last contents.seconds events_per_second="
        "contents.rate contents.on_share sensor active_pixels hot_pixels hottest frames=shape"
    )

    contents: EventCounts
    frames: Bytes

    @property
    def sensor(self) -> list[int]:
        """Rows and columns of the sensor."""
        return list(self.contents.by_pixel.shape[1:])

    @property
    def shape(self) -> list[int]:
        """T, polarities, rows and columns of the frames."""
        return list(self.frames.shape)

    @property
    def active_pixels(self) -> int:
        """Number of pixels with at least one event."""
        return int((self.contents.by_pixel.sum(axis=0) > 0).sum())

    @property
    def hot_pixels(self) -> int:
        """Number of pixels with at least `HOT` times the mean number of events of active pixels."""
        by_pixel = self.contents.by_pixel.sum(axis=0)
        return int((by_pixel * self.active_pixels >= HOT * self.contents.events).sum())

    @property
    def hottest(self) -> list[tuple[int, int, int]]:
        """(row, column, events) of the first `SHOWN` hot pixels, those with most events first."""
        by_pixel = self.contents.by_pixel.sum(axis=0)
        order = np.argsort(-by_pixel, axis=None, kind="stable")[: min(SHOWN, self.hot_pixels)]
        rows, columns = np.unravel_index(order, by_pixel.shape)
        counts = by_pixel.ravel()[order]
        return list(zip(rows.tolist(), columns.tolist(), counts.tolist()))
