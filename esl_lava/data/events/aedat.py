"""AEDAT 2.0, the format of jAER, as it records a DVS128: the original files of DVS-CIFAR10.

Lines that begin with "#", then 8 bytes an event: address and time, big-endian and without a sign
("AEDAT file formats", version 2.0, inivation.com; jAER, `DVS128.java`). Of an address bits 1 to 7
say the column, counted from the right, bits 8 to 14 the row, counted from the bottom, bit 0 is
clear for an ON event, and bit 15 marks special events, which are no pixel's. Times are
microseconds and begin again at 0 after 2^32.
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
"""Most bytes that the lines of a header may take."""

_EVENT = 8
_SPECIAL, _OUTSIDE = 1 << 15, ~((1 << 16) - 1)
_CHIP = b"# AEChip: "


def open_aedat(given: EventFile) -> EventRecording:
    """A recording of a DVS128 in AEDAT 2.0.

    Raises:
        FileError: where the file cannot be read, is of another format or camera, or is cut off.
    """
    with given.reading() as stream:
        begin, size = _read_header(given.name, stream), stream.seek(0, 2)
    if (size - begin) % _EVENT:
        raise FileError(
            f"{given.name} is damaged: {size - begin} bytes follow its header, and an event has "
            f"{_EVENT}"
        )
    return EventRecording(given.name, SIDE, SIDE, functools.partial(_chunks, given, begin))


def _read_header(name: str, stream: BinaryIO) -> int:
    """The place of the first event.

    Raises:
        FileError: of another format or camera.
    """
    if stream.read(len(MAGIC)) != MAGIC:
        raise FileError(f"{name} is no AEDAT 2.0 file: it does not begin with {MAGIC.decode()}0")
    stream.seek(0)
    while True:
        begin = stream.tell()
        line = stream.readline(HEADER_LIMIT)
        if begin + len(line) >= HEADER_LIMIT:
            raise FileError(f"{name} has a header of more than {HEADER_LIMIT} bytes")
        if not line.startswith(b"#"):
            return begin
        if not line.endswith(b"\n"):
            raise FileError(f"{name} is damaged: it ends inside its header")
        chip = line.strip()[len(_CHIP) :]
        if line.startswith(_CHIP) and b"DVS128" not in chip:
            camera = repr(chip.decode(errors="replace"))
            raise FileError(f"{name} is of the camera {camera}, not of a DVS128")


def _chunks(given: EventFile, begin: int) -> Iterator[Events]:
    name = given.name
    time: int | None = None
    place = 0
    with given.reading() as stream:
        stream.seek(begin)
        while content := stream.read(CHUNK * _EVENT):
            if len(content) % _EVENT:
                raise FileError(f"{name} is damaged: it ends inside an event")
            words = np.frombuffer(content, ">u4").reshape(-1, 2)
            address = words[:, 0].astype(np.int64)
            wrong = np.flatnonzero(address & _OUTSIDE)
            if wrong.size:
                raise FileError(
                    f"{name} is damaged: event {place + int(wrong[0]) + 1} has the address "
                    f"{int(address[wrong[0]]):#x}, and a DVS128's have 16 bits"
                )
            raw = words[:, 1].astype(np.int64)
            gaps = np.diff(raw, prepend=raw[:1] if time is None else time % (1 << 32))
            gaps[gaps < -(1 << 31)] += 1 << 32  # times begin again at 0
            times = gaps.cumsum() + (raw[0] if time is None else time)
            check_times(name, times, time, place)
            time, place = int(times[-1]), place + len(times)
            kept = (address & _SPECIAL) == 0
            address = address[kept]
            if len(address):
                yield Events(
                    times[kept],
                    SIDE - 1 - (address >> 8 & SIDE - 1),
                    SIDE - 1 - (address >> 1 & SIDE - 1),
                    address & 1 == 0,
                )
