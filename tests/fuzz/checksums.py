"""The checksums of HDF5's own structures, found in a sound file and repaired in a damaged one."""

from __future__ import annotations

import struct
from functools import lru_cache

_SIGNATURES = (b"OHDR", b"OCHK", b"BTHD", b"BTLF", b"BTIN", b"FRHP", b"FADB", b"FAHD", b"EAHD")
_SUPERBLOCK = b"\x89HDF\r\n\x1a\n"
_LONGEST = 700
_MASK = 0xFFFFFFFF


@lru_cache(16)
def find(raw: bytes) -> tuple[tuple[int, int], ...]:
    """Return the start and the end of everything that is followed by a checksum of itself."""
    found = []
    for signature in (*_SIGNATURES, _SUPERBLOCK):
        place = raw.find(signature)
        while place >= 0:
            for end in _ends(raw, place):
                (stored,) = struct.unpack_from("<I", raw, end)
                if lookup3(raw[place:end]) == stored:
                    found.append((place, end))
                    break
            place = raw.find(signature, place + 1)
    return tuple(sorted(found))


def _ends(raw: bytes, place: int) -> range:
    """Return where a structure may end."""
    if raw.startswith(b"OHDR", place):  # its length is in its head
        flags = raw[place + 5]
        head = 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
        width = 1 << (flags & 3)
        length = int.from_bytes(raw[place + head : place + head + width], "little")
        end = place + head + width + length
        return range(end, end + 1) if end + 4 <= len(raw) else range(0)
    if raw.startswith(_SUPERBLOCK, place):
        return range(place + 44, place + 45)
    return range(place + 8, min(len(raw) - 4, place + _LONGEST))


def repaired(sound: bytes, damaged: bytes) -> bytes:
    """Return damaged bytes with right checksums where the sound file has structures."""
    raw = bytearray(damaged)
    for start, end in find(sound):
        if end + 4 <= len(raw) and raw[start:end] != sound[start:end]:
            struct.pack_into("<I", raw, end, lookup3(bytes(raw[start:end])))
    return bytes(raw)


def lookup3(key: bytes) -> int:
    """Return Bob Jenkins's `hashlittle`, as HDF5 takes it (`H5checksum.c`)."""
    a = b = c = (0xDEADBEEF + len(key)) & _MASK
    if not key:
        return c
    words = struct.unpack(f"<{-(-len(key) // 12) * 3}I", key.ljust(-(-len(key) // 12) * 12, b"\0"))
    for place in range(0, len(words) - 3, 3):
        a, b, c = a + words[place], b + words[place + 1], c + words[place + 2]
        a = (a - c) & _MASK ^ _turn(c, 4)
        c += b
        b = (b - a) & _MASK ^ _turn(a, 6)
        a += c
        c = (c - b) & _MASK ^ _turn(b, 8)
        b += a
        a = (a - c) & _MASK ^ _turn(c, 16)
        c += b
        b = (b - a) & _MASK ^ _turn(a, 19)
        a += c
        c = (c - b) & _MASK ^ _turn(b, 4)
        b += a
    a, b, c = a + words[-3], b + words[-2], c + words[-1]
    c = ((c & _MASK ^ b & _MASK) - _turn(b, 14)) & _MASK
    a = ((a & _MASK ^ c) - _turn(c, 11)) & _MASK
    b = ((b & _MASK ^ a) - _turn(a, 25)) & _MASK
    c = ((c ^ b) - _turn(b, 16)) & _MASK
    a = ((a ^ c) - _turn(c, 4)) & _MASK
    b = ((b ^ a) - _turn(a, 14)) & _MASK
    return ((c ^ b) - _turn(b, 24)) & _MASK


def _turn(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> 32 - bits) & _MASK
