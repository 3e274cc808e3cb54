"""Contents of event files, for tests."""

import struct
from collections.abc import Iterable, Sequence

HEADER = (
    b"#!AER-DAT2.0\r\n# Timestamps tick: 1 us\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
)


def aedat(events: Iterable[tuple[int, int]], header: bytes = HEADER) -> bytes:
    """Return an AEDAT 2.0 file of events (address, time)."""
    return header + b"".join(struct.pack(">II", address, time) for address, time in events)


def atis(events: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Return an N-MNIST file of events (time, row, column, 1 for ON)."""
    return b"".join(
        bytes((column, row, on << 7 | time >> 16, time >> 8 & 255, time & 255))
        for time, row, column, on in events
    )


_SIZES = {"q": 8, "i": 4, "ref": 4}
_Field = tuple[str, int | tuple[bytes, int, int]]


def _flatbuffer(identifier: bytes, fields: Sequence[_Field]) -> bytes:
    """Return a table of numbers and vectors (content, elements, alignment), in the fields' order.

    `flatbuffers.dev`, "FlatBuffers internals": offset of the table, identifier, vtable, table.
    """
    vtable = 4 + 2 * len(fields)
    table = -(-(8 + vtable) // 8) * 8
    places, end = [], 4
    for kind, _ in fields:
        end += -(table + end) % _SIZES[kind]
        places.append(end)
        end += _SIZES[kind]
    made = bytearray(table + end)
    struct.pack_into("<I4sHH", made, 0, table, identifier, vtable, end)
    struct.pack_into(f"<{len(places)}H", made, 12, *places)
    struct.pack_into("<i", made, table, table - 8)
    for (kind, value), place in zip(fields, places):
        if not isinstance(value, tuple):
            struct.pack_into(f"<{kind}", made, table + place, value)
            continue
        content, elements, alignment = value
        made += bytes(-(len(made) + 4) % alignment)
        struct.pack_into("<I", made, table + place, len(made) - table - place)
        made += struct.pack("<I", elements) + content
    return struct.pack("<I", len(made)) + bytes(made)


def aedat4(
    packets: Sequence[Sequence[tuple[int, int, int, int]]],
    side: int = 128,
    kind: str = "EVTS",
) -> bytes:
    """Return an uncompressed AEDAT 4 file of packets of events (time, column, row, 1 for ON)."""
    attributes = {
        "compression": "NONE",
        "originalModuleName": "capture",
        "originalOutputName": "events",
        "typeDescription": "polarity events",
        "typeIdentifier": kind,
    }
    strings = "".join(
        f'<attr key="{key}" type="string">{value}</attr>' for key, value in attributes.items()
    )
    information = (
        '<dv version="2.0"><node name="outInfo" path="/outInfo/"><node name="0" path="/outInfo/0/">'
        f'{strings}<node name="info" path="/outInfo/0/info/">'
        f'<attr key="sizeX" type="int">{side}</attr><attr key="sizeY" type="int">{side}</attr>'
        '<attr key="source" type="string">DVS128</attr></node></node></node></dv>'
    ).encode()
    text = (information + bytes(1), len(information), 4)
    made = b"#!AER-DAT4.0\r\n" + _flatbuffer(b"IOHE", [("i", 0), ("q", -1), ("ref", text)])
    for packet in packets:
        events = b"".join(struct.pack("<qhhB3x", *event) for event in packet)
        body = _flatbuffer(b"EVTS", [("ref", (events, len(packet), 8))])
        made += struct.pack("<iI", 0, len(body)) + body
    return made
