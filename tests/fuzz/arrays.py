"""Mutants of `.npy` and `.npz`: headers as Python reads them, and bodies."""

from __future__ import annotations

import ast
import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava.data.arrays import read_array
from esl_lava.data.npz import read_member
from tests.fuzz.content import fingerprint
from tests.fuzz.damage import EDGES, damaged
from tests.fuzz.format import Chooser, Format, Mutant
from tests.fuzz.models import rezip, unzip

LIMIT = 1 << 20


def _arrays() -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        (rng.random((3, 4, 5)) < 0.3).astype(np.uint8),
        np.asfortranarray(rng.integers(-9, 9, (2, 3, 4), np.int16)),
        rng.integers(0, 10, 20),
        rng.integers(0, 9, (2, 3, 2, 2, 2)).astype(">i4"),
        rng.random((4, 3, 2)) < 0.5,
    ]


def _npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def seeds() -> list[bytes]:
    """Return arrays of several types."""
    return [_npy(array) for array in _arrays()]


def packed_seeds() -> list[bytes]:
    """Return archives of several arrays, plain and deflated."""
    made = []
    for save in (np.savez, np.savez_compressed):
        for array in _arrays():
            file = io.BytesIO()
            save(file, samples=array, labels=np.arange(len(array)))
            made.append(file.getvalue())
    return made


def read(path: Path) -> str:
    """Read spikes."""
    return _meaning(read_array(path, "spikes"))


def read_packed(path: Path) -> str:
    """Read samples and labels."""
    return _meaning(read_member(path, "samples", LIMIT)) + _meaning(
        read_member(path, "labels", LIMIT)
    )


def _meaning(array: Any) -> str:
    return fingerprint([array.dtype.str, array.shape, array.tobytes()])


def plain(raw: bytes, *, exact: bool) -> str:
    """Return the meaning of an array: its header is Python's literals, and then its bytes."""
    wide = raw[6] > 1
    start = 12 if wide else 10
    length = int.from_bytes(raw[8:start], "little")
    text = raw[start : start + length].decode("latin1")
    header = ast.literal_eval(text.strip())
    dtype, shape = np.dtype(header["descr"]), header["shape"]
    count = int(np.prod(shape, dtype=object))
    body = raw[start + length :]
    assert not exact or len(body) == count * dtype.itemsize
    values = np.frombuffer(body, dtype, count)
    return _meaning(values.reshape(shape, order="F" if header["fortran_order"] else "C"))


def agrees(path: Path, _: bytes, found: str) -> bool:
    """Return whether the array is what was read."""
    return plain(path.read_bytes(), exact=False) == found


def agrees_packed(path: Path, _: bytes, found: str) -> bool:
    """Return whether both arrays of an archive are what was read."""
    with zipfile.ZipFile(path) as file:
        parts = [file.read(f"{name}.npy") for name in ("samples", "labels")]
    return "".join(plain(part, exact=True) for part in parts) == found


def _any_bytes(rng: random.Random, raw: bytes) -> Mutant:
    changed, names = damaged(rng, raw)
    return Mutant(changed, f"bytes: {names}")


TYPES = (
    "|u1",
    "<i2",
    ">i4",
    "<i8",
    "<f4",
    "|b1",
    "|O",
    "<U5",
    "|S3",
    "|V8",
    "<M8[s]",
    "<c16",
    "O4",
)
TEXTS = (
    *("object", "u1, i4", "(1000000,1000000)u1", "[('a', '<i4')]", "i999999999", "é", "<i4\0", ""),
    *("0" * 3000, "V2147483647", ">u1", "i", "int"),
)
VALUES = (
    *(
        "()",
        "(0,)",
        "(-1,)",
        "(1, 1)",
        "1",
        "(1.5,)",
        "('3',)",
        "None",
        "True",
        "(2**40,)",
        "[3, 4]",
    ),
    *(f"({n},)" for n in EDGES),
    *("(3, 4, 5, 10**18)", "(" + "1, " * 70 + ")", "(" * 200, "9" * 5000, "-" * 500 + "1", "{}"),
    *("__import__('os').system('id')", "(0, 10**19)", "(3, 4,\n5)", "0x10", "1_000", "(1,) * 3"),
)


def _header(rng: random.Random, raw: bytes) -> Mutant:
    """Write another header before the same body."""
    length = int.from_bytes(raw[8:10], "little")
    header = ast.literal_eval(raw[10 : 10 + length].decode().strip())
    fields = {key: repr(value) for key, value in header.items()}
    kind = rng.choice(
        ["type", "type", "text", "shape", "shape", "order", "key", "version", "length"]
    )
    shape = list(header["shape"])
    if kind == "type":
        fields["descr"] = repr(rng.choice(TYPES))
    elif kind == "text":
        fields["descr"] = rng.choice([repr(rng.choice(TEXTS)), rng.choice(TEXTS)])
    elif kind == "shape":
        index = rng.randrange(len(shape))
        shape[index] = rng.choice([shape[index] + 1, shape[index] - 1, -shape[index], 0, 1 << 40])
        others = [repr(tuple(shape)), repr(tuple(reversed(header["shape"]))), rng.choice(VALUES)]
        fields["shape"] = rng.choice(others)
    elif kind == "order":
        fields["fortran_order"] = rng.choice(["True", "False", "1", "None", "'C'"])
    elif kind == "key":
        key = rng.choice(list(fields))
        value = fields.pop(key)
        fields |= rng.choice([{}, {key.upper(): value}, {key: value, "extra": "1"}])
    text = "{" + ", ".join(f"'{key}': {value}" for key, value in fields.items()) + "}"
    text += " " * rng.choice([0, 1, 17, 64 - len(text) % 64]) + rng.choice(["\n", "", "\0", "#"])
    encoded = text.encode("latin1", "replace")
    version = (1, 0) if kind != "version" else rng.choice([(2, 0), (3, 0), (0, 1), (9, 9), (1, 1)])
    size = len(encoded) if kind != "length" else rng.choice([0, 1, len(encoded) + 1, 65535])
    packed = (
        (size % (1 << 32)).to_bytes(4, "little")
        if version[0] > 1
        else (size % 65536).to_bytes(2, "little")
    )
    made = b"\x93NUMPY" + bytes(version) + packed + encoded + raw[10 + length :]
    return Mutant(made, f"header: {kind}: {text[:60]}")


def _body(rng: random.Random, raw: bytes) -> Mutant:
    """Change the bytes after the header."""
    start = 10 + int.from_bytes(raw[8:10], "little")
    changed, names = damaged(rng, raw[start:])
    return Mutant(raw[:start] + changed, f"body: {names}")


mutate = Chooser((3, _any_bytes), (5, _header), (2, _body))


def _member(rng: random.Random, raw: bytes) -> Mutant:
    """Change a member of an archive, and repair the checksums of the zip."""
    members = unzip(raw)
    index = rng.randrange(len(members))
    name, inside = members[index]
    inner = mutate(rng, inside)
    members[index] = (name, inner.content)
    every = frozenset(range(len(members))) if rng.random() < 0.5 else frozenset()
    return Mutant(rezip(members, every), f"{name}: {inner.change}")


def _members(rng: random.Random, raw: bytes) -> Mutant:
    """Drop, rename, exchange or repeat members."""
    members = unzip(raw)
    kind = rng.choice(["drop", "rename", "exchange", "twice", "extra", "bomb"])
    if kind == "drop":
        members.pop(rng.randrange(len(members)))
    elif kind == "rename":
        members[0] = (rng.choice(["../samples.npy", "samples", "labels.npy", ""]), members[0][1])
    elif kind == "exchange":
        members = [(members[0][0], members[1][1]), (members[1][0], members[0][1])]
    elif kind == "twice":
        members.append(rng.choice([members[0], (members[0][0], members[1][1])]))
    elif kind == "extra":
        members.append(("more/x.npy", rng.randbytes(50)))
    else:
        members[0] = (members[0][0], members[0][1] + bytes(1 << 24))
    return Mutant(rezip(members, frozenset([0])), f"members: {kind}")


FORMAT = Format("spikes.npy", seeds, mutate, read, agrees)
PACKED = Format(
    "samples.npz",
    packed_seeds,
    Chooser((4, _any_bytes), (8, _member), (2, _members)),
    read_packed,
    agrees_packed,
)
