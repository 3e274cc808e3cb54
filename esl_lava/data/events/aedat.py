"""AEDAT 2.0, the format of jAER for a DVS128, and of the original files of DVS-CIFAR10.

A file has lines that begin with "#", then 8 bytes for each event: address and time, big-endian and
unsigned ("AEDAT file formats", version 2.0, inivation.com; jAER, `DVS128.java`). In an address,
bits 1 to 7 are the column, counted from the right, and bits 8 to 14 the row, counted from the
bottom. Bit 0 is clear for an ON event. Bit 15 marks special events, which do not belong to a pixel.
Times are in microseconds and begin again at 0 after 2^32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from esl_lava.data.events.recording import (
    CHUNK,
    EventFile,
    EventRecording,
    Events,
    check_times,
)
from esl_lava.errors import FileError

SIDE = 128
MAGIC = b"#!AER-DAT2."
HEADER_LIMIT = 1 << 20
"""Largest number of bytes of the lines of a header."""

_EVENT = 8  # bytes
_SPECIAL, _OUTSIDE = 1 << 15, ~((1 << 16) - 1)
_CHIP = b"# AEChip: "


def open_aedat(file: EventFile) -> EventRecording:
    """Return a recording of a DVS128 in AEDAT 2.0.

    Raises:
        FileError: the file cannot be read, is of another format or camera, or is cut off.
    """
    with file.reading() as stream:
        begin, size = _read_header(file.name, stream), stream.seek(0, 2)
    if (size - begin) % _EVENT:
        raise FileError(
            f"{file.name} is damaged: {size - begin} bytes follow its header, but an event has "
            f"{_EVENT} bytes",
            "damaged",
            value=size - begin,
            limit=_EVENT,
            file=file.name,
        )
    return EventRecording(file.name, SIDE, SIDE, functools.partial(_read_chunks, file, begin))


def _read_header(name: str, stream: BinaryIO) -> int:
    """Return the position of the first event.

    Raises:
        FileError: the file is of another format or camera.
    """
    if stream.read(len(MAGIC)) != MAGIC:
        raise FileError(
            f"{name} is not an AEDAT 2.0 file: it does not begin with {MAGIC.decode()}0",
            "damaged",
            file=name,
        )
    stream.seek(0)
    while True:
        begin = stream.tell()
        line = stream.readline(HEADER_LIMIT)
        if begin + len(line) >= HEADER_LIMIT:
            raise FileError(
                f"{name} has a header of more than {HEADER_LIMIT} bytes",
                "too-large",
                limit=HEADER_LIMIT,
                file=name,
            )
        if not line.startswith(b"#"):
            return begin
        if not line.endswith(b"\n"):
            raise FileError(f"{name} is damaged: it ends inside its header", "damaged", file=name)
        chip = line.strip()[len(_CHIP) :]
        if line.startswith(_CHIP) and b"DVS128" not in chip:
            camera = chip.decode(errors="replace")
            raise FileError(
                f"{name} is of the camera {camera!r}, not of a DVS128",
                "unsupported",
                value=camera,
                limit="DVS128",
                file=name,
            )


def _read_chunks(file: EventFile, begin: int) -> Iterator[Events]:
    name = file.name
    last_time: int | None = None
    events_before = 0
    with file.reading() as stream:
        stream.seek(begin)
        while content := stream.read(CHUNK * _EVENT):
            if len(content) % _EVENT:
                raise FileError(f"{name} is damaged: it ends inside an event", "damaged", file=name)
            words = np.frombuffer(content, ">u4").reshape(-1, 2)
            addresses = words[:, 0].astype(np.int64)
            outside = np.flatnonzero(addresses & _OUTSIDE)
            if outside.size:
                address = int(addresses[outside[0]])
                raise FileError(
                    f"{name} is damaged: event {events_before + int(outside[0]) + 1} has the "
                    f"address {address:#x}, but a DVS128's addresses have 16 bits",
                    "damaged",
                    value=address,
                    limit=(1 << 16) - 1,
                    file=name,
                )
            raw = words[:, 1].astype(np.int64)
            gaps = np.diff(raw, prepend=raw[:1] if last_time is None else last_time % (1 << 32))
            gaps[gaps < -(1 << 31)] += 1 << 32  # times begin again at 0
            times = gaps.cumsum() + (raw[0] if last_time is None else last_time)
            check_times(name, times, last_time, events_before + np.arange(1, len(times) + 1))
            last_time, events_before = int(times[-1]), events_before + len(times)
            is_pixel = (addresses & _SPECIAL) == 0
            addresses = addresses[is_pixel]
            if len(addresses):
                yield Events(
                    times[is_pixel],
                    SIDE - 1 - (addresses >> 8 & SIDE - 1),
                    SIDE - 1 - (addresses >> 1 & SIDE - 1),
                    addresses & 1 == 0,
                )
