"""Mutants of IDX files, plain and compressed by gzip: headers, bodies and trailers."""

from __future__ import annotations

import gzip
import hashlib
import math
import random
import struct
import zlib
from pathlib import Path

import numpy as np

from esl_lava.data.idx import read_idx
from tests.fuzz.content import fingerprint
from tests.fuzz.damage import EDGES, any_number, damaged
from tests.fuzz.format import Chooser, Format, Mutant

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""Code of a type -> its dtype (LeCun, "The MNIST database", section "File formats")."""


def seeds() -> list[bytes]:
    """Return files of each type, plain and compressed."""
    rng = np.random.default_rng(0)
    made = []
    for code, dtype in TYPES.items():
        for shape in ((20,), (5, 4, 4)):
            values = rng.integers(0, 100, shape).astype(dtype)
            head = bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
            made.append(head + values.tobytes())
    return made + [gzip.compress(raw, mtime=0) for raw in made[::3]]


def read(path: Path) -> str:
    """Read an array and the digest of the file."""
    array, sha = read_idx(path)
    return fingerprint([array.dtype.name, array.shape, array.tobytes(), sha])


def agrees(path: Path, _: bytes, found: str) -> bool:
    """Return whether the array is what was read."""
    raw = path.read_bytes()
    if raw.startswith(b"\x1f\x8b"):
        raw = gzip.decompress(raw)
    dtype, axes = np.dtype(TYPES[raw[2]]), raw[3]
    shape = struct.unpack_from(f">{axes}I", raw, 4)
    body = raw[4 + 4 * axes :]
    assert raw[:2] == b"\0\0"
    assert len(body) == math.prod(shape) * dtype.itemsize
    values = np.frombuffer(body, dtype).astype(dtype.newbyteorder("="))
    expected = [values.dtype.name, shape, values.tobytes(), hashlib.sha256(raw).hexdigest()]
    return fingerprint(expected) == found


def _any_bytes(rng: random.Random, raw: bytes) -> Mutant:
    changed, names = damaged(rng, raw)
    return Mutant(changed, f"bytes: {names}")


def _header(rng: random.Random, raw: bytes) -> Mutant:
    """Change the type, the number of axes or a length."""
    is_compressed = raw.startswith(b"\x1f\x8b")
    plain = bytearray(gzip.decompress(raw) if is_compressed else raw)
    kind = rng.choice(["magic", "type", "axes", "length", "length", "length", "body"])
    if kind == "magic":
        plain[rng.randrange(2)] = rng.randrange(256)
    elif kind == "type":
        plain[2] = rng.choice([*TYPES, 0, 10, 255, rng.randrange(256)])
    elif kind == "axes":
        plain[3] = rng.choice([0, 1, 2, 3, 4, 32, 33, 255])
    elif kind == "length":
        place = 4 + 4 * rng.randrange(plain[3])
        (old,) = struct.unpack_from(">I", plain, place)
        new = rng.choice([any_number(rng, old, 4), rng.choice(EDGES) % (1 << 32), 0])
        struct.pack_into(">I", plain, place, new)
    else:
        plain = bytearray(damaged(rng, bytes(plain))[0])
    changed = bytes(plain)
    if is_compressed:
        changed = gzip.compress(changed, rng.choice([0, 9]), mtime=0)
    return Mutant(changed, f"header: {kind}")


def _gzip(rng: random.Random, raw: bytes) -> Mutant:
    """Change what is particular to gzip: several members, trailers, bombs."""
    plain = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    packed = gzip.compress(plain, mtime=0)
    half = len(plain) // 2
    kind = rng.choice(["two", "twice", "trailer", "bomb", "junk", "zeros", "crc", "nested"])
    if kind == "two":
        packed = gzip.compress(plain[:half], mtime=0) + gzip.compress(plain[half:], mtime=0)
    elif kind == "twice":
        packed *= 2
    elif kind == "trailer":
        packed = packed[: -rng.randrange(1, 9)]
    elif kind == "bomb":
        packed = gzip.compress(plain + bytes(rng.choice([1 << 20, 1 << 25])), mtime=0)
    elif kind == "junk":
        packed += rng.randbytes(rng.randrange(1, 30))
    elif kind == "zeros":
        packed += bytes(rng.randrange(1, 30))
    elif kind == "crc":
        packed = packed[:-8] + struct.pack("<I", zlib.crc32(plain) ^ 1) + packed[-4:]
    else:
        packed = gzip.compress(packed, mtime=0)
    return Mutant(packed, f"gzip: {kind}")


FORMAT = Format(
    "images-idx3-ubyte", seeds, Chooser((3, _any_bytes), (5, _header), (2, _gzip)), read, agrees
)
