"""Recordings of an event camera, read from a file in portions.

A pixel of a dynamic vision sensor sends an event when its brightness has changed: ON if it has
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
from esl_lava.data.folders import read_error
from esl_lava.errors import DataError, FileError
from esl_lava.files import open_regular

CHUNK = 1 << 18
"""Number of events that are read at a time."""


@dataclass(frozen=True, eq=False)
class Events:
    """Some events, sorted by time.

    Attributes:
        times: (n,) int64, microseconds; they never decrease.
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
        name: name of the file in errors.
        open: opens the file from its beginning.
    """

    name: str
    open: Callable[[], BinaryIO]

    @staticmethod
    def of_path(path: Path) -> EventFile:
        """Return a file on the disk.

        Raises:
            FileError: the path is not a regular file but, for example, a folder or a pipe.
        """
        if path.exists() and not path.is_file():
            raise FileError(f"{path} is not a regular file", "unreadable", file=path)
        return EventFile(str(path), lambda: open_regular(path))

    @staticmethod
    def of_bytes(name: str, content: bytes) -> EventFile:
        """Return a file in memory."""
        return EventFile(name, lambda: io.BytesIO(content))

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """Open the file from its beginning.

        Raises:
            FileError: the file cannot be read.
        """
        try:
            with self.open() as stream:
                yield stream
        except OSError as error:
            raise read_error(self.name, error) from None


@dataclass(frozen=True, eq=False)
class EventRecording:
    """A recording of an event camera, in a file or made when it is read.

    Attributes:
        name: name of the file or of the recording, for errors.
        rows, columns: rows and columns of the sensor.
        chunks: yields the events from the beginning, in portions in the order of time. No portion
            is empty. It raises a FileError that names the file and the event if the file is
            damaged.
        polarities: 2, or 1 if events have no polarity and all count as ON.
    """

    name: str
    rows: int
    columns: int
    chunks: Callable[[], Iterator[Events]]
    polarities: int = 2


@dataclass(frozen=True, eq=False)
class EventCounts:
    """Counts of the events in a recording.

    Attributes:
        events: number of events.
        first, last: times of the first and the last event in microseconds.
        by_pixel: (2, rows, columns) int64, numbers of OFF and ON events of each pixel.
    """

    events: int
    first: int
    last: int
    by_pixel: Ints

    @property
    def seconds(self) -> float:
        """Seconds from the first event to the last event."""
        return (self.last - self.first) / 1e6

    @property
    def rate(self) -> float | None:
        """Events per second; None if all events have the same time."""
        return self.events / self.seconds if self.last > self.first else None

    @property
    def on_share(self) -> float:
        """Share of ON events, 0..1."""
        return float(self.by_pixel[1].sum() / self.events)


def survey(recording: EventRecording) -> EventCounts:
    """Read a recording once and count its events.

    Raises:
        FileError: the file is damaged.
        DataError: the recording holds no event.
    """
    by_pixel = np.zeros((2, recording.rows, recording.columns), np.int64)
    events, first, last = 0, 0, 0
    for chunk in recording.chunks():
        if not events:
            first = int(chunk.times[0])
        events, last = events + len(chunk), int(chunk.times[-1])
        cell = (chunk.on * recording.rows + chunk.rows) * recording.columns + chunk.columns
        by_pixel += np.bincount(cell, minlength=by_pixel.size).reshape(by_pixel.shape)
    if not events:
        raise no_event(recording)
    return EventCounts(events, first, last, by_pixel)


def check_times(name: str, times: Ints, last_time: int | None, numbers: Ints) -> None:
    """Refuse events whose times decrease.

    Args:
        name: name of the file.
        times: (n,) times of some events.
        last_time: time of the event before them; None if there is none.
        numbers: (n,) numbers of these events in the file, from 1.

    Raises:
        FileError: an event is earlier than the event before it.
    """
    gaps = np.diff(times, prepend=times[:1] if last_time is None else last_time)
    back = np.flatnonzero(gaps < 0)
    if back.size:
        gap = -int(gaps[back[0]])
        raise FileError(
            f"{name} is damaged: event {numbers[back[0]]} is {gap} microseconds "
            "earlier than the event before it",
            "damaged",
            value=gap,
            file=name,
        )


def outside_sensor(
    name: str, event: int, place: tuple[int, int], sensor: tuple[int, int]
) -> FileError:
    """Return the error for an event outside the sensor.

    Args:
        name: name of the file.
        event: number of the event in the file, from 1.
        place: row and column of the event.
        sensor: rows and columns of the sensor.
    """
    return FileError(
        f"{name} is damaged: event {event} is in row {place[0]}, column {place[1]} of a sensor of "
        f"{sensor[0]} x {sensor[1]}",
        "damaged",
        value=place,
        limit=sensor,
        file=name,
    )


def no_event(recording: EventRecording) -> DataError:
    """Return the error for a recording without events."""
    sentence = f"{recording.name} holds no event"
    return DataError(sentence, "range", value=0, limit=1, file=recording.name)
