"""AEDAT 4, the format of current cameras and of the copy of DVS-CIFAR10 that tonic downloads.

The package `aedat` reads a file packet by packet, after `aedat4_layout` has checked it. Compressed
packets are unpacked by the package alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from esl_lava.data.events.aedat4_layout import check_layout
from esl_lava.data.events.recording import (
    EventFile,
    EventRecording,
    Events,
    check_times,
    outside_sensor,
)
from esl_lava.errors import FileError

LARGEST_SIDE = 4096


def open_aedat4(file: EventFile) -> EventRecording:
    """Return the first stream of events in an AEDAT 4 file on the disk.

    Raises:
        FileError: the file cannot be read, is damaged, or holds no events.
        ModuleNotFoundError: the package aedat is not installed.
    """
    import aedat

    with file.reading() as stream:
        check_layout(file.name, stream)
    with _damage_named(f"{file.name} is not an AEDAT 4 file, or is damaged", file.name):
        streams = aedat.Decoder(file.name).id_to_stream()
    numbers = sorted(number for number, stream in streams.items() if stream["type"] == "events")
    if not numbers:
        sentence = f"{file.name} holds no stream of events"
        raise FileError(sentence, "missing", file=file.name)
    rows, columns = (int(streams[numbers[0]][side]) for side in ("height", "width"))
    if not 0 < min(rows, columns) <= max(rows, columns) <= LARGEST_SIDE:
        raise FileError(
            f"{file.name} is of a sensor of {rows} x {columns} pixels; 1 to {LARGEST_SIDE:,} rows "
            "and columns are allowed",
            "range",
            value=(rows, columns),
            limit=LARGEST_SIDE,
            file=file.name,
        )
    chunks = functools.partial(_read_chunks, file.name, numbers[0], rows, columns)
    return EventRecording(file.name, rows, columns, chunks)


def _read_chunks(name: str, number: int, rows: int, columns: int) -> Iterator[Events]:
    last_time: int | None = None
    events_before = 0
    for packet in _read_packets(name, number):
        times = packet["t"].astype(np.int64)
        check_times(name, times, last_time, events_before + np.arange(1, len(times) + 1))
        row, column = packet["y"].astype(np.int64), packet["x"].astype(np.int64)
        outside = np.flatnonzero((row >= rows) | (column >= columns))
        if outside.size:
            first = int(outside[0])
            place = int(row[first]), int(column[first])
            raise outside_sensor(name, events_before + first + 1, place, (rows, columns))
        last_time, events_before = int(times[-1]), events_before + len(times)
        yield Events(times, row, column, packet["on"].astype(bool))


def _read_packets(name: str, number: int) -> Iterator[Any]:
    """Yield the events of each packet of a stream that is not empty."""
    import aedat

    with _damage_named(f"{name} is damaged", name):
        for packet in aedat.Decoder(name):
            if packet["stream_id"] == number and len(packet["events"]):
                yield packet["events"]


@contextmanager
def _damage_named(clause: str, name: str) -> Iterator[None]:
    """Turn exceptions of the package, of its own kinds and of Python's, into a FileError."""
    try:
        yield
    except BaseException as error:
        # A panic of Rust is no `Exception`, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())
        raise FileError(f"{clause}: {reason}", "damaged", file=name) from None
