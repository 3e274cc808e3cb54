"""Recordings as bytes."""

import struct
from collections.abc import Iterable

HEADER = (
    b"#!AER-DAT2.0\r\n# Timestamps tick: 1 us\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
)


def aedat(events: Iterable[tuple[int, int]], header: bytes = HEADER) -> bytes:
    """AEDAT 2.0 of (address, time)."""
    return header + b"".join(struct.pack(">II", address, time) for address, time in events)


def atis(events: Iterable[tuple[int, int, int, int]]) -> bytes:
    """N-MNIST's bytes of (time, row, column, 1 for ON)."""
    return b"".join(
        bytes((column, row, on << 7 | time >> 16, time >> 8 & 255, time & 255))
        for time, row, column, on in events
    )
