"""Attacks by recordings of event cameras."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.attacks.attack import attack
from tests.data.events.files import HEADER, aedat, aedat4, atis

AEDAT, AEDAT4, ATIS = "a.aedat", "a.aedat4", "a.bin"
EVENTS = [[(time, 1, 2, 1) for time in range(20)]]
START = 14
"""Place of the header of an AEDAT 4 file, after its first line."""


@attack(AEDAT, "too-large")
def a_line_without_end(path: Path) -> None:
    """A line of the header has 64 MiB."""
    path.write_bytes(b"#!AER-DAT2.0\n#" + b"x" * (1 << 26) + b"\n")


@attack(AEDAT, "too-large")
def a_header_without_end(path: Path) -> None:
    """The header has a million short lines."""
    path.write_bytes(b"#!AER-DAT2.0\n" + b"#\n" * (1 << 20))


@attack(AEDAT, "unsupported")
def a_camera_that_a_terminal_obeys(path: Path) -> None:
    """The name of the camera clears the screen of whoever prints it."""
    path.write_bytes(b"#!AER-DAT2.0\n# AEChip: \x1b[2J\x1b]0;owned\x07\xff\n" + bytes(8))


@attack(AEDAT, "damaged")
def an_event_that_is_cut(path: Path) -> None:
    """The last event has three bytes."""
    path.write_bytes(aedat([(0, 1), (0, 2)])[:-5])


@attack(AEDAT, "damaged")
def an_address_beyond_the_sensor(path: Path) -> None:
    """An address has 32 bits, which would be a place in another array."""
    path.write_bytes(aedat([(0, 1), ((1 << 32) - 1, 2)]))


@attack(AEDAT, "damaged")
def a_time_that_goes_back(path: Path) -> None:
    """The last event is earlier than all others."""
    path.write_bytes(aedat([(0, 1000), (0, 2000), (0, 0)]))


@attack(AEDAT, "range", value=0)
def no_event(path: Path) -> None:
    """The recording is a header alone."""
    path.write_bytes(HEADER)


@attack(AEDAT4, "damaged")
def a_packet_of_four_gigabytes(path: Path) -> None:
    """A packet claims 4 GiB: the package aedat allocates them and ends the process."""
    raw = bytearray(aedat4(EVENTS))
    (length,) = struct.unpack_from("<I", raw, START)
    struct.pack_into("<I", raw, START + 4 + length + 4, (1 << 32) - 4)
    path.write_bytes(raw)


@attack(AEDAT4, "damaged")
def a_header_of_four_gigabytes(path: Path) -> None:
    """The header claims 4 GiB."""
    raw = bytearray(aedat4(EVENTS))
    struct.pack_into("<I", raw, START, (1 << 32) - 1)
    path.write_bytes(raw)


@attack(AEDAT4, "damaged")
def a_table_beyond_the_header(path: Path) -> None:
    """The header's table lies behind the header: the package aedat panics."""
    raw = bytearray(aedat4(EVENTS))
    struct.pack_into("<I", raw, START + 4, 1 << 30)
    path.write_bytes(raw)


@attack(AEDAT4, "damaged")
def fields_before_the_header(path: Path) -> None:
    """The header's table has its fields before the header."""
    raw = bytearray(aedat4(EVENTS))
    (table,) = struct.unpack_from("<I", raw, START + 4)
    struct.pack_into("<i", raw, START + 4 + table, 1 << 30)
    path.write_bytes(raw)


@attack(AEDAT4, "damaged")
def more_events_than_the_packet_has(path: Path) -> None:
    """A packet claims 2^28 events and holds 20."""
    raw = aedat4(EVENTS)
    place = raw.rindex(struct.pack("<Iqhh", 20, 0, 1, 2))
    path.write_bytes(raw[:place] + struct.pack("<I", 1 << 28) + raw[place + 4 :])


@attack(AEDAT4, "damaged")
def a_description_that_is_no_text(path: Path) -> None:
    """The description of the streams is not UTF-8: the package aedat panics."""
    path.write_bytes(aedat4(EVENTS).replace(b"capture", b"captur\xe8"))


@attack(AEDAT4, "range")
def a_sensor_of_a_billion_pixels(path: Path) -> None:
    """The sensor has a side of 30,000 pixels, and frames would take all memory."""
    path.write_bytes(aedat4(EVENTS, side=30_000))


@attack(AEDAT4, "damaged")
def a_compression_that_does_not_exist(path: Path) -> None:
    """The header says that packets are compressed in an unknown way."""
    raw = bytearray(aedat4(EVENTS))
    (table,) = struct.unpack_from("<I", raw, START + 4)
    struct.pack_into("<i", raw, START + 4 + table + 4, 77)
    path.write_bytes(raw)


@attack(ATIS, "damaged")
def a_pixel_beyond_the_sensor(path: Path) -> None:
    """An event is in row 239 of 34."""
    path.write_bytes(atis([(1, 2, 3, 1), (2, 239, 3, 1)]))


@attack(ATIS, "range", value=0)
def overflows_alone(path: Path) -> None:
    """A million events move the time and none is a pixel."""
    path.write_bytes(bytes([0, 240, 0, 0, 0]) * 1_000_000)


@attack(ATIS, "damaged")
def a_cut_event(path: Path) -> None:
    """The last event has four bytes."""
    path.write_bytes(atis([(1, 2, 3, 1), (2, 3, 3, 1)])[:-1])
