"""Attacks by `.npy`, `.npz` and IDX files."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.attacks.attack import attack, deflated_zeros

NPY, NPZ, IDX = "spikes.npy", "samples.npz", "images-idx3-ubyte"


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/esl-lava-was-here",)


def npy(header: str, body: bytes = bytes(24), version: int = 1, length: int | None = None) -> bytes:
    """Return a `.npy` file with this header."""
    raw = header.encode("latin1")
    size = (len(raw) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + raw + body


def header(shape: str = "(24,)", dtype: str = "'|u1'", order: str = "False") -> str:
    """Return the header of an array."""
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}}}\n"


def saved(array: Any) -> bytes:
    """Return an array as numpy saves it."""
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


@attack(NPY, "damaged", "type")
def an_array_of_objects(path: Path) -> None:
    """The array holds a Python object, which calls os.system when it is unpickled."""
    path.write_bytes(saved(np.array([_Bomb()], object)))


@attack(NPY, "damaged")
def a_pickle(path: Path) -> None:
    """A pickle has the name of an array: numpy.load would unpickle it."""
    path.write_bytes(pickle.dumps(_Bomb()))


@attack(NPY, "unsupported")
def an_archive(path: Path) -> None:
    """An archive of arrays has the name of an array."""
    np.savez(path.with_suffix(".npz"), np.zeros(3))
    path.with_suffix(".npz").rename(path)


@attack(NPY, "damaged")
def a_header_that_calls(path: Path) -> None:
    """The header is an expression that calls os.system."""
    path.write_bytes(npy(header("__import__('os').system('touch /tmp/esl-lava-was-here')")))


@attack(NPY, "damaged")
def a_header_that_is_nested(path: Path) -> None:
    """The header has 5,000 brackets, at which parsers of Python overflow."""
    path.write_bytes(npy(header("(" * 5000 + ")" * 5000)))


@attack(NPY, "damaged")
def a_header_of_digits(path: Path) -> None:
    """A length has 9,000 digits."""
    path.write_bytes(npy(header(f"({'9' * 9000},)")))


@attack(NPY, "damaged")
def a_header_of_four_gigabytes(path: Path) -> None:
    """The header of an array claims 4 GiB."""
    path.write_bytes(npy(header(), version=2, length=(1 << 32) - 1))


@attack(NPY, "damaged")
def an_array_of_an_exbibyte(path: Path) -> None:
    """The header claims 2^60 values, and the file has 24."""
    path.write_bytes(npy(header(f"({1 << 60},)")))


@attack(NPY, "damaged")
def lengths_whose_product_is_small(path: Path) -> None:
    """The product of the lengths is 0 modulo 2^64."""
    path.write_bytes(npy(header(f"({1 << 32}, {1 << 32})")))


@attack(NPY, "damaged")
def a_negative_length(path: Path) -> None:
    """Two lengths are negative, and their product is not."""
    path.write_bytes(npy(header("(-4, -6)")))


@attack(NPY, "type", "damaged")
def records(path: Path) -> None:
    """The values are records with a field that holds objects."""
    path.write_bytes(npy(header("(1,)", "[('a', '<i4'), ('b', '|O')]")))


@attack(NPY, "type", "damaged")
def values_of_two_gigabytes(path: Path) -> None:
    """A value has 2^31 - 1 bytes."""
    path.write_bytes(npy(header("(0,)", "'|V2147483647'")))


@attack(NPY, "type", key="spikes")
def spikes_that_are_not_integers(path: Path) -> None:
    """The spikes are NaN."""
    path.write_bytes(saved(np.full((2, 3, 4), np.nan)))


@attack(NPZ, "too-large", key="samples")
def a_bomb(path: Path) -> None:
    """A member of 64 kB becomes 64 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("samples.npy", npy(header(f"({1 << 26},)"), bytes(1 << 26)))


@attack(NPZ, "damaged", key="samples")
def a_bomb_that_says_it_is_small(path: Path) -> None:
    """The directory says that a member has 300 bytes, and it becomes 64 MiB."""
    content = npy(header(f"({1 << 26},)"), bytes(1 << 26))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("samples.npy", content)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", len(content)), struct.pack("<I", 300)))


@attack(NPZ, "type", "damaged", key="samples")
def a_member_of_objects(path: Path) -> None:
    """A member holds Python objects."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("samples.npy", saved(np.array([_Bomb()], object)))


@attack(NPZ, "missing", key="samples")
def a_member_outside(path: Path) -> None:
    """The name of a member leads out of the archive."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../samples.npy", saved(np.zeros(3, np.uint8)))


@attack(NPZ, "damaged", key="samples")
def a_member_that_is_encrypted(path: Path) -> None:
    """A member says that it is encrypted."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("samples.npy", saved(np.zeros(3, np.uint8)))
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(signature) + offset] |= 1
    path.write_bytes(raw)


@attack(NPZ, "damaged", key="samples")
def a_member_that_promises_more(path: Path) -> None:
    """The header of a member promises more values than it holds."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("samples.npy", npy(header("(1000,)")))


@attack(NPZ, "unsupported", key="samples")
def a_later_version(path: Path) -> None:
    """A member has a version of numpy's format for names of fields."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("samples.npy", npy(header(), version=3))


def idx(shape: tuple[int, ...], body: bytes, code: int = 8) -> bytes:
    """Return an IDX file."""
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


@attack(IDX, "too-large")
def four_billion_images(path: Path) -> None:
    """The header promises 4 billion images."""
    path.write_bytes(idx(((1 << 32) - 1, 28, 28), bytes(784)))


@attack(IDX, "range")
def two_hundred_axes(path: Path) -> None:
    """The header promises 255 axes, more than numpy has."""
    path.write_bytes(idx((1,) * 255, b"x"))


@attack(IDX, "too-large")
def no_images_of_any_size(path: Path) -> None:
    """A length is 0 and the others are so large that their product overflows."""
    path.write_bytes(idx((0, (1 << 32) - 1, (1 << 32) - 1), b""))


@attack(IDX, "damaged")
def a_gzip_bomb(path: Path) -> None:
    """A file of a megabyte becomes a gibibyte, but promises 784 bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(idx((1, 28, 28), b"")) + packer.flush(zlib.Z_FULL_FLUSH)
    raw = gzip.compress(b"")[:10] + start + deflated_zeros(64) + bytes(8)
    path.write_bytes(raw)


@attack(IDX, "damaged")
def a_gzip_file_in_a_gzip_file(path: Path) -> None:
    """A compressed file holds a compressed file."""
    path.write_bytes(gzip.compress(gzip.compress(idx((1,), b"x"))))


@attack(IDX, "damaged")
def a_header_without_its_end(path: Path) -> None:
    """The file ends inside of its header."""
    path.write_bytes(idx((1, 28, 28), b"")[:9])


@attack(IDX, "damaged")
def a_wrong_checksum(path: Path) -> None:
    """The checksum of gzip does not match."""
    raw = bytearray(gzip.compress(idx((4,), b"abcd")))
    raw[-8] ^= 1
    path.write_bytes(raw)
