"""Check where the parts of an AEDAT 4 file lie, before the package `aedat` reads them.

The package ends the process, or raises exceptions that are no `Exception`, if a file claims lengths
and places that it does not have. (iniVation, "AEDAT 4.0"; flatbuffers.dev, "FlatBuffers
internals".)
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from esl_lava.errors import FileError

MAGIC = b"#!AER-DAT4.0\r\n"
HEADER_LIMIT = 1 << 20
"""Largest number of bytes of the header."""
PACKET_LIMIT = 1 << 26
"""Largest number of bytes of a packet."""

_COMPRESSION, _TABLE_PLACE, _DESCRIPTION = range(3)
"""Fields of the header."""
_EVENT = 16  # bytes


class _DamagedError(Exception):
    """A part does not lie within the file; the text says which."""


def check_layout(name: str, stream: BinaryIO) -> None:
    """Check the header of a file, the lengths of its packets, and the events of plain packets.

    Raises:
        FileError: a part lies beyond the end of the file, or is too large.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    try:
        if stream.read(len(MAGIC)) != MAGIC:
            raise _DamagedError(f"it does not begin with {MAGIC.decode().strip()}")
        header = stream.read(_length(stream, size, HEADER_LIMIT, "header"))
        is_plain, end = _check_header(header)
        place = len(MAGIC) + 4 + len(header)
        while place < (size if end < 0 else min(end, size)):
            stream.seek(place + 4)  # after the number of the stream
            length = _length(stream, size, PACKET_LIMIT, "packet")
            if is_plain:
                _check_packet(stream.read(length))
            place += 8 + length
    except _DamagedError as error:
        sentence = f"{name} is not an AEDAT 4 file, or is damaged: {error}"
        raise FileError(sentence, "damaged", file=name) from None


def _length(stream: BinaryIO, size: int, limit: int, part: str) -> int:
    """Return the length of a part, which is stored before it."""
    raw = stream.read(4)
    if len(raw) < 4:
        raise _DamagedError(f"it ends before the length of a {part}")
    (length,) = struct.unpack("<I", raw)
    left = min(limit, size - stream.tell())
    if length > left:
        raise _DamagedError(f"a {part} claims {length} bytes, but {left} can be read")
    return int(length)


def _check_header(header: bytes) -> tuple[bool, int]:
    """Return whether packets are not compressed, and where they end (-1: with the file)."""
    root = _root(header)
    compression = _number(header, root, _COMPRESSION, 4)
    end = _number(header, root, _TABLE_PLACE, 8, -1)
    try:
        _vector(header, root, _DESCRIPTION, 1).decode()
    except UnicodeDecodeError:
        raise _DamagedError("its description is not UTF-8 text") from None
    return compression == 0, end


def _check_packet(packet: bytes) -> None:
    """Check the events of a packet that is not compressed."""
    (length,) = struct.unpack("<I", packet[:4].ljust(4, b"\xff"))
    if length != len(packet) - 4:
        raise _DamagedError("a packet has two lengths")
    body = packet[4:]
    root = _root(body)
    if body[4:8] == b"EVTS":
        _vector(body, root, 0, _EVENT)


def _root(buffer: bytes) -> int:
    """Return the place of the root table of a buffer, whose table of fields is checked."""
    table = _unpack("I", buffer, 0)
    fields = table - _unpack("i", buffer, table)
    size = _unpack("H", buffer, fields)
    if size < 4 or size % 2 or fields + size > len(buffer):
        raise _DamagedError("a table has fields beyond its end")
    return table


def _unpack(kind: str, buffer: bytes, place: int) -> int:
    if not 0 <= place <= len(buffer) - struct.calcsize(kind):
        raise _DamagedError("a table leads out of its buffer")
    return int(struct.unpack_from(f"<{kind}", buffer, place)[0])


def _field(buffer: bytes, table: int, number: int, width: int) -> int | None:
    """Return the place of a field of a table, or None if the table lacks it."""
    fields = table - _unpack("i", buffer, table)
    entry = 4 + 2 * number
    if entry + 2 > _unpack("H", buffer, fields):
        return None
    offset = _unpack("H", buffer, fields + entry)
    if not offset:
        return None
    if table + offset + width > len(buffer):
        raise _DamagedError("a field lies beyond its buffer")
    return table + offset


def _number(buffer: bytes, table: int, number: int, width: int, default: int = 0) -> int:
    place = _field(buffer, table, number, width)
    if place is None:
        return default
    return int.from_bytes(buffer[place : place + width], "little", signed=True)


def _vector(buffer: bytes, table: int, number: int, width: int) -> bytes:
    """Return the bytes of a vector whose elements have this width."""
    place = _field(buffer, table, number, 4)
    if place is None:
        return b""
    place += _unpack("I", buffer, place)
    count = _unpack("I", buffer, place)
    if place + 4 + count * width > len(buffer):
        raise _DamagedError("a vector lies beyond its buffer")
    return buffer[place + 4 : place + 4 + count * width]
