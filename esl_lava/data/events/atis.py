"""Recordings of N-MNIST: `.bin` of the published set, `.bs2` of other copies.

Five bytes an event: column, row, then 24 bits, big-endian, of which the first says whether the
event is ON and the others are the time in microseconds (G. Orchard, A. Jayawant, G. K. Cohen,
N. Thakor, "Converting static image datasets to spiking neuromorphic datasets using saccades",
2015, and its `Read_Ndataset.m`). A row of 240 is no pixel's: it adds 2^13 microseconds to all
times behind it.
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
)
from esl_lava.errors import FileError

SIDE = 34
_EVENT = 5
_OVERFLOW, _LATER = 240, 1 << 13


def open_atis(given: EventFile) -> EventRecording:
    """A recording of N-MNIST.

    Raises:
        FileError: where the file cannot be read or is cut off.
    """
    with given.reading() as stream:
        size = stream.seek(0, 2)
    if size % _EVENT:
        raise FileError(f"{given.name} is damaged: it has {size} bytes, and an event has {_EVENT}")
    return EventRecording(given.name, SIDE, SIDE, functools.partial(_chunks, given))


def _chunks(given: EventFile) -> Iterator[Events]:
    name = given.name
    time: int | None = None
    place = added = 0
    with given.reading() as stream:
        while content := stream.read(CHUNK * _EVENT):
            if len(content) % _EVENT:
                raise FileError(f"{name} is damaged: it ends inside an event")
            columns, rows, high, middle, low = (
                np.frombuffer(content, np.uint8).reshape(-1, _EVENT).T.astype(np.int64)
            )
            overflow = rows == _OVERFLOW
            wrong = np.flatnonzero(~overflow & (np.maximum(rows, columns) >= SIDE))
            if wrong.size:
                where = int(wrong[0])
                raise FileError(
                    f"{name} is damaged: event {place + where + 1} is in row {rows[where]}, "
                    f"column {columns[where]} of a sensor of {SIDE} x {SIDE}"
                )
            later = added + _LATER * overflow.cumsum()
            times = ((high & 127) << 16 | middle << 8 | low) + later
            kept = ~overflow
            check_times(name, times[kept], time, place)
            place, added = place + len(rows), int(later[-1])
            if kept.any():
                time = int(times[kept][-1])
                yield Events(times[kept], rows[kept], columns[kept], high[kept] >> 7 == 1)
