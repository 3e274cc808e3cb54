"""Mutants of recordings of event cameras: AEDAT 2.0, AEDAT 4 and N-MNIST's format."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from esl_lava.data.events.files import open_recording
from esl_lava.data.events.frames import Framing, make_frames
from tests.data.events.files import HEADER, aedat, aedat4, atis
from tests.fuzz.content import fingerprint
from tests.fuzz.damage import EDGES, any_number, damaged
from tests.fuzz.format import Chooser, Format, Mutant

FRAMING = Framing(2, "time", 0, None, 255)


def read(path: Path) -> str:
    """Read all events and make frames of them."""
    recording = open_recording(path)
    make_frames(recording, FRAMING)
    chunks = list(recording.chunks())
    columns = [
        np.concatenate([getattr(chunk, name) for chunk in chunks]).astype(np.int64)
        for name in ("times", "rows", "columns", "on")
    ]
    return _meaning(recording.rows, recording.columns, np.stack(columns, 1))


def _meaning(rows: int, columns: int, events: Any) -> str:
    return fingerprint([rows, columns, np.asarray(events, np.int64).reshape(-1, 4).tolist()])


def _any_bytes(rng: random.Random, raw: bytes) -> Mutant:
    changed, names = damaged(rng, raw)
    return Mutant(changed, f"bytes: {names}")


# --- AEDAT 2.0. ------------------------------------------------------------------------------


def _recorded(seed: int, events: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(0, 2000, events)) + (1 << 32) - 20_000 * seed
    addresses = rng.integers(0, 1 << 15, events)
    return [(int(a), int(t) % (1 << 32)) for a, t in zip(addresses, times)]


def seeds() -> list[bytes]:
    """Return recordings with and without lines of a header; times that begin again."""
    return [aedat(_recorded(seed, 60)) for seed in range(3)] + [
        aedat(_recorded(1, 9), b"#!AER-DAT2.0\n"),
        aedat([(1 << 15, 1), (0, 2), (1 << 15 | 7, 3), (5, 9)], HEADER),
    ]


def agrees(path: Path, _: bytes, found: str) -> bool:
    """Return whether the events are what was read: 8 bytes each, after the lines that begin #."""
    raw = path.read_bytes()
    while raw.startswith(b"#"):
        raw = raw.partition(b"\n")[2]
    assert len(raw) % 8 == 0
    events = []
    now = last = None
    for address, time in struct.iter_unpack(">II", raw):
        now = (
            time
            if now is None
            else now + (time - last) + ((1 << 32) if time - last < -(1 << 31) else 0)
        )
        last = time
        if not address & 1 << 15:
            x, y = address >> 1 & 127, address >> 8 & 127
            events.append((now, 127 - y, 127 - x, int(not address & 1)))
    return _meaning(128, 128, events) == found


LINES = (
    *(
        b"# AEChip: DAVIS240C\r\n",
        b"# AEChip: \xff\xfe\r\n",
        b"#\n",
        b"#" + b"x" * 5000 + b"\n",
        b"#",
    ),
    *(
        b"#!AER-DAT3.1\n",
        b"# End Of ASCII Header\r\n",
        b"#\n" * 3000,
        b"#" * (1 << 20),
        b"\n",
        b"# a\r",
    ),
)


def _header(rng: random.Random, raw: bytes) -> Mutant:
    """Insert a line into the header, or begin otherwise."""
    first = raw.index(b"\n") + 1
    place = rng.choice([0, first, first])
    line = rng.choice(LINES)
    return Mutant(raw[:place] + line + raw[place:], f"line {line[:30]!r} at {place}")


def _packets(rng: random.Random, raw: bytes) -> Mutant:
    """Change the address or the time of an event, or the order of events."""
    start = 0
    while raw[start : start + 1] == b"#":
        start = raw.index(b"\n", start) + 1
    events = [list(event) for event in struct.iter_unpack(">II", raw[start:])]
    index, field = rng.randrange(len(events)), rng.randrange(2)
    kind = rng.choice(["number", "number", "edge", "order", "repeat", "cut"])
    if kind == "number":
        events[index][field] = any_number(rng, events[index][field], 4)
    elif kind == "edge":
        events[index][field] = rng.choice([n for n in EDGES if n < 1 << 32])
    elif kind == "order":
        rng.shuffle(events)
    elif kind == "repeat":
        events[index:index] = [events[index]] * rng.choice([1, 100])
    made = b"".join(struct.pack(">II", *event) for event in events)
    if kind == "cut":
        made = made[: rng.randrange(len(made))]
    return Mutant(raw[:start] + made, f"event {index}: {kind}")


FORMAT = Format(
    "a.aedat", seeds, Chooser((3, _any_bytes), (2, _header), (5, _packets)), read, agrees
)


# --- N-MNIST. --------------------------------------------------------------------------------


def atis_seeds() -> list[bytes]:
    """Return recordings, one with events that only move the time."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 100_000, 50))
    plain = [(int(t), *rng.integers(0, 34, 2).tolist(), int(rng.integers(2))) for t in times]
    later = [(time, row, column, on) for time, row, column, on in plain[:20]]
    return [
        atis(plain),
        atis([*later, (0, 240, 0, 0), *((t, 1, 2, 1) for t in (100_000, 100_001))]),
    ]


def atis_agrees(path: Path, _: bytes, found: str) -> bool:
    """Return whether the events are what was read: 5 bytes each."""
    raw, late, events = path.read_bytes(), 0, []
    assert len(raw) % 5 == 0
    for place in range(0, len(raw), 5):
        column, row = raw[place], raw[place + 1]
        word = int.from_bytes(raw[place + 2 : place + 5], "big")
        if row == 240:
            late += 1 << 13
        else:
            events.append(((word & (1 << 23) - 1) + late, row, column, word >> 23))
    return _meaning(34, 34, events) == found


def _atis_event(rng: random.Random, raw: bytes) -> Mutant:
    """Change, repeat or remove an event."""
    events = [raw[place : place + 5] for place in range(0, len(raw), 5)]
    index = rng.randrange(len(events))
    kind = rng.choice(["number", "overflow", "repeat", "remove", "order"])
    if kind == "number":
        event = bytearray(events[index])
        event[rng.randrange(5)] = rng.choice([0, 33, 34, 127, 128, 240, 255, rng.randrange(256)])
        events[index] = bytes(event)
    elif kind == "overflow":
        events.insert(index, bytes([rng.randrange(256), 240, 0, 0, 0]))
    elif kind == "repeat":
        events[index:index] = [events[index]] * 50
    elif kind == "remove":
        del events[index]
    else:
        rng.shuffle(events)
    return Mutant(b"".join(events), f"event {index}: {kind}")


ATIS = Format("a.bin", atis_seeds, Chooser((3, _any_bytes), (5, _atis_event)), read, atis_agrees)


# --- AEDAT 4. --------------------------------------------------------------------------------

_MAGIC = b"#!AER-DAT4.0\r\n"


def aedat4_seeds() -> list[bytes]:
    """Return recordings of some packets."""
    rng = np.random.default_rng(2)
    times = np.sort(rng.integers(0, 9000, 40)).tolist()
    events = [(t, *rng.integers(0, 128, 2).tolist(), int(rng.integers(2))) for t in times]
    return [aedat4([events[:10], [], events[10:]]), aedat4([events]), aedat4([[e] for e in events])]


def aedat4_agrees(path: Path, _: bytes, found: str) -> bool:
    """Return whether the events are what was read (flatbuffers.dev, "FlatBuffers internals")."""
    raw = path.read_bytes()
    assert raw.startswith(_MAGIC)
    start = len(_MAGIC)
    (length,) = struct.unpack_from("<I", raw, start)
    information = _vector(raw[start + 4 : start + 4 + length], 2, 1).decode()
    place = start + 4 + length
    stream_node = ElementTree.fromstring(information).find("node[@name='outInfo']/node")
    number = int(stream_node.attrib["name"])
    sides = {
        key: int(stream_node.find(f"node[@name='info']/attr[@key='size{key}']").text)
        for key in "XY"
    }
    events = []
    while place + 8 <= len(raw):
        stream, length = struct.unpack_from("<iI", raw, place)
        body = raw[place + 8 : place + 8 + length]
        if stream == number:
            for time, x, y, on in struct.iter_unpack("<qhhB3x", _vector(body[4:], 0, 16)):
                events.append((time, y, x, int(on != 0)))
        place += 8 + length
    return _meaning(sides["Y"], sides["X"], events) == found


def _vector(buffer: bytes, field: int, width: int) -> bytes:
    """Return the bytes of a vector in the table of a flatbuffer."""
    (table,) = struct.unpack_from("<I", buffer, 0)
    (back,) = struct.unpack_from("<i", buffer, table)
    size, _ = struct.unpack_from("<HH", buffer, table - back)
    entry = 4 + 2 * field
    offset = struct.unpack_from("<H", buffer, table - back + entry)[0] if entry < size else 0
    if not offset:
        return b""
    place = table + offset
    place += struct.unpack_from("<I", buffer, place)[0]
    (count,) = struct.unpack_from("<I", buffer, place)
    return buffer[place + 4 : place + 4 + count * width]


def _aedat4_packet(rng: random.Random, raw: bytes) -> Mutant:
    """Change a number in the header or in the head or the table of a packet."""
    start = len(_MAGIC)
    (length,) = struct.unpack_from("<I", raw, start)
    heads = [start]
    place = start + 4 + length
    while place + 8 <= len(raw):
        heads.append(place)
        place += 8 + struct.unpack_from("<I", raw, place + 4)[0]
    head = rng.choice(heads)
    at = head + rng.choice([0, 4, 8, 12, 16, 20, 24, 26, 28, 30, 32, 36, 40, 44, 48, 52, 56])
    width = rng.choice([1, 2, 4])
    old = int.from_bytes(raw[at : at + width], "little")
    new = any_number(rng, old, width).to_bytes(width, "little")
    return Mutant(raw[:at] + new + raw[at + width :], f"head {head}+{at - head}: {old}")


def _aedat4_text(rng: random.Random, raw: bytes) -> Mutant:
    """Change the description of the streams, which is XML, in place."""
    begin, end = raw.index(b"<dv"), raw.index(b"</dv>") + 5
    piece = bytearray(raw[begin:end])
    for _ in range(rng.choice([1, 1, 2, 5])):
        piece[rng.randrange(len(piece))] = rng.choice(b'<>/="0129-&; x\0\xff')
    return Mutant(raw[:begin] + bytes(piece) + raw[end:], "description")


AEDAT4 = Format(
    "a.aedat4",
    aedat4_seeds,
    Chooser((4, _any_bytes), (4, _aedat4_packet), (2, _aedat4_text)),
    read,
    aedat4_agrees,
)
