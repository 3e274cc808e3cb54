"""Events of a camera, read from a file piece by piece.

A pixel of a dynamic vision sensor sends an event when its brightness has changed: ON where it has
become brighter, else OFF.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from esl_lava.arrays import Bools, Ints
from esl_lava.errors import DataError, FileError

CHUNK = 1 << 18
"""Events that are read at a time."""


@dataclass(frozen=True, eq=False)
class Events:
    """Some events in the order of their times.

    Attributes:
        times: (n,) int64, microseconds; they never fall.
        rows, columns: (n,) int64, row 0 is the top one, column 0 the left one.
        on: (n,) bool, whether the pixel has become brighter.
    """

    times: Ints
    rows: Ints
    columns: Ints
    on: Bools

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, eq=False)
class EventFile:
    """A file of events, on the disk or in memory.

    Attributes:
        name: as errors print it.
        opened: opens it anew.
    """

    name: str
    opened: Callable[[], BinaryIO]

    @staticmethod
    def of_path(path: Path) -> EventFile:
        """A file on the disk.

        Raises:
            FileError: where it is no regular file, such as a folder or a pipe.
        """
        if path.exists() and not path.is_file():
            raise FileError(f"{path} is no regular file")
        return EventFile(str(path), lambda: path.open("rb"))

    @staticmethod
    def of_bytes(name: str, content: bytes) -> EventFile:
        """A file in memory."""
        return EventFile(name, lambda: io.BytesIO(content))

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """The file, opened anew.

        Raises:
            FileError: where it cannot be read.
        """
        try:
            with self.opened() as stream:
                yield stream
        except OSError as error:
            raise FileError(f"{self.name} cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True, eq=False)
class EventRecording:
    """A recording in a file.

    Attributes:
        name: of the file.
        rows, columns: of the sensor.
        chunks: reads the file from its beginning, in portions of at most `CHUNK` events. It
            raises FileError naming file and place where the file is damaged.
        polarities: 2, or 1 where events have none and all count as ON.
    """

    name: str
    rows: int
    columns: int
    chunks: Callable[[], Iterator[Events]]
    polarities: int = 2


@dataclass(frozen=True, eq=False)
class Contents:
    """What a recording holds.

    Attributes:
        events: how many.
        first, last: microseconds, of the first and of the last event.
        by_pixel: (2, rows, columns) int64, OFF and ON events of each pixel.
    """

    events: int
    first: int
    last: int
    by_pixel: Ints

    @property
    def seconds(self) -> float:
        """From the first event to the last one."""
        return (self.last - self.first) / 1e6

    @property
    def rate(self) -> float | None:
        """Events a second; None where all of them have one time."""
        return self.events / self.seconds if self.last > self.first else None

    @property
    def on_share(self) -> float:
        """Share of the events that are ON, 0..1."""
        return float(self.by_pixel[1].sum() / self.events)


def survey(recording: EventRecording) -> Contents:
    """Read a recording once and count its events.

    Raises:
        FileError: where the file is damaged.
        DataError: where it holds no event.
    """
    by_pixel = np.zeros((2, recording.rows, recording.columns), np.int64)
    events, first, last = 0, 0, 0
    for chunk in recording.chunks():
        if not events:
            first = int(chunk.times[0])
        events, last = events + len(chunk), int(chunk.times[-1])
        place = (chunk.on * recording.rows + chunk.rows) * recording.columns + chunk.columns
        by_pixel += np.bincount(place, minlength=by_pixel.size).reshape(by_pixel.shape)
    if not events:
        raise DataError(f"{recording.name} holds no event")
    return Contents(events, first, last, by_pixel)


def check_times(name: str, times: Ints, before: int | None, place: int) -> None:
    """Refuse events that are not in the order of their times.

    Args:
        name: of the file.
        times: (n,) of some events.
        before: time of the event in front of them, or None.
        place: how many events there were in front of them.

    Raises:
        FileError: naming the event.
    """
    gaps = np.diff(times, prepend=times[:1] if before is None else before)
    back = np.flatnonzero(gaps < 0)
    if back.size:
        raise FileError(
            f"{name} is damaged: event {place + int(back[0]) + 1} is "
            f"{-int(gaps[back[0]])} microseconds before the one in front of it"
        )
