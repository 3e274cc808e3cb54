"""Recordings of N-MNIST: `.bin` files of the published set, `.bs2` files of other copies.

A file has five bytes for each event: column, row, then 24 bits, big-endian. The first of these bits
is set for an ON event, the others are the time in microseconds (G. Orchard, A. Jayawant, G. K.
Cohen, N. Thakor, "Converting static image datasets to spiking neuromorphic datasets using
saccades", 2015, and its `Read_Ndataset.m`). An event in row 240 does not belong to a pixel: it adds
2^13 microseconds to all later times.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from esl_lava.data.events.recording import (
    CHUNK,
    EventFile,
    EventRecording,
    Events,
    check_times,
    outside_sensor,
)
from esl_lava.errors import FileError

SIDE = 34
_EVENT = 5  # bytes
_OVERFLOW_ROW, _OVERFLOW_TIME = 240, 1 << 13


def open_atis(file: EventFile) -> EventRecording:
    """Return a recording of N-MNIST.

    Raises:
        FileError: the file cannot be read or is cut off.
    """
    with file.reading() as stream:
        size = stream.seek(0, 2)
    if size % _EVENT:
        raise FileError(
            f"{file.name} is damaged: it has {size} bytes, but an event has {_EVENT} bytes",
            "damaged",
            value=size,
            limit=_EVENT,
            file=file.name,
        )
    return EventRecording(file.name, SIDE, SIDE, functools.partial(_read_chunks, file))


def _read_chunks(file: EventFile) -> Iterator[Events]:
    name = file.name
    last_time: int | None = None
    events_before = overflow_time = 0
    with file.reading() as stream:
        while content := stream.read(CHUNK * _EVENT):
            if len(content) % _EVENT:
                raise FileError(f"{name} is damaged: it ends inside an event", "damaged", file=name)
            columns, rows, high, middle, low = (
                np.frombuffer(content, np.uint8).reshape(-1, _EVENT).T.astype(np.int64)
            )
            is_overflow = rows == _OVERFLOW_ROW
            outside = np.flatnonzero(~is_overflow & (np.maximum(rows, columns) >= SIDE))
            if outside.size:
                first = int(outside[0])
                place = int(rows[first]), int(columns[first])
                raise outside_sensor(name, events_before + first + 1, place, (SIDE, SIDE))
            offsets = overflow_time + _OVERFLOW_TIME * is_overflow.cumsum()
            times = ((high & 127) << 16 | middle << 8 | low) + offsets
            is_pixel = ~is_overflow
            numbers = events_before + 1 + np.flatnonzero(is_pixel)
            check_times(name, times[is_pixel], last_time, numbers)
            events_before, overflow_time = events_before + len(rows), int(offsets[-1])
            if is_pixel.any():
                last_time = int(times[is_pixel][-1])
                yield Events(
                    times[is_pixel], rows[is_pixel], columns[is_pixel], high[is_pixel] >> 7 == 1
                )
