"""AEDAT 4, the format of cameras of today and of the copy of DVS-CIFAR10 that tonic downloads.

The package `aedat` reads it, packet by packet.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from esl_lava.data.events.recording import EventFile, EventRecording, Events, check_times
from esl_lava.errors import FileError

LARGEST_SIDE = 4096


def open_aedat4(given: EventFile) -> EventRecording:
    """The first stream of events in an AEDAT 4 file on the disk.

    Raises:
        FileError: where the file cannot be read, is damaged, or holds no events.
        PackageError: where the package aedat is not installed.
    """
    import aedat

    with given.reading():  # aedat says little of a file that cannot be opened
        pass
    try:
        streams = aedat.Decoder(given.name).id_to_stream()
    except Exception as error:  # aedat has errors of its own, and Python's
        raise FileError(f"{given.name} is no AEDAT 4 file, or damaged: {error}") from None
    numbers = sorted(number for number, stream in streams.items() if stream["type"] == "events")
    if not numbers:
        raise FileError(f"{given.name} holds no stream of events")
    rows, columns = (int(streams[numbers[0]][side]) for side in ("height", "width"))
    if not 0 < min(rows, columns) <= max(rows, columns) <= LARGEST_SIDE:
        raise FileError(
            f"{given.name} is of a sensor of {rows} x {columns} pixels; 1 to {LARGEST_SIDE:,} rows "
            "and columns can be read"
        )
    chunks = functools.partial(_chunks, given.name, numbers[0], rows, columns)
    return EventRecording(given.name, rows, columns, chunks)


def _chunks(name: str, number: int, rows: int, columns: int) -> Iterator[Events]:
    time: int | None = None
    place = 0
    for found in _packets(name, number):
        times = found["t"].astype(np.int64)
        check_times(name, times, time, place)
        row, column = found["y"].astype(np.int64), found["x"].astype(np.int64)
        outside = np.flatnonzero((row >= rows) | (column >= columns))
        if outside.size:
            wrong = int(outside[0])
            raise FileError(
                f"{name} is damaged: event {place + wrong + 1} is in row {row[wrong]}, column "
                f"{column[wrong]} of a sensor of {rows} x {columns}"
            )
        time, place = int(times[-1]), place + len(times)
        yield Events(times, row, column, found["on"].astype(bool))


def _packets(name: str, number: int) -> Iterator[Any]:
    """Yield the events of each packet of a stream that has any."""
    import aedat

    try:
        for packet in aedat.Decoder(name):
            if packet["stream_id"] == number and len(packet["events"]):
                yield packet["events"]
    except Exception as error:
        raise FileError(f"{name} is damaged: {error}") from None
