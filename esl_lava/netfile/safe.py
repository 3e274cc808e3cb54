"""Read values from HDF5 files that may come from strangers.

Before anything is read, this module refuses links out of the file, virtual and external data, and
sizes that exceed the caller's limit or the file itself. `chunks` reads the stored bytes.

A file may link to an object many times, and so claim far more than it holds. Each group and each
dataset is therefore read once, and its second use is refused.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from esl_lava.arrays import Array
from esl_lava.netfile.chunks import FileBytes, RefusedError, read_values
from esl_lava.netfile.structures import check_structures

MAX_TEXT = 1 << 20
_HEAP = b"GCOL\x01\0\0\0"
"""How a global heap starts: signature, version and padding."""
_HEADER = 16
"""Bytes before the objects of a global heap, and before the content of each object."""


@dataclass
class Contents:
    """An open file of a stranger.

    Attributes:
        stored: bytes of the file.
        visited: addresses of the groups and datasets that were read.
        heaps: place of a global heap in the file -> its objects by number. Global heaps hold the
            texts of variable length.
    """

    stored: FileBytes
    visited: set[int] = field(default_factory=set)
    heaps: dict[int, dict[int, bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """A group of a stranger's file.

    Attributes:
        handle: HDF5's group.
        contents: the file that the group lies in.
    """

    handle: h5py.Group
    contents: Contents

    @property
    def name(self) -> str:
        """Path of the group in the file, for errors."""
        return str(self.handle.name or "").rstrip("/")

    def __len__(self) -> int:
        return len(self.handle)

    def names(self, most: int) -> list[str]:
        """Return the names of the group's links, at most `most` of them."""
        names: list[bytes] = []

        def add(name: bytes) -> bool | None:
            names.append(name)
            return True if len(names) == most else None  # True ends the list

        # In this order HDF5 needs no table, whose length the file would claim.
        self.handle.id.links.iterate(add, order=h5py.h5.ITER_NATIVE)
        return [name.decode() for name in names]


def open_root(file: h5py.File) -> Group:
    """Return the root group of a file that is open for reading with HDF5's driver `sec2`.

    Raises:
        RefusedError: if HDF5's own structures could do harm.
    """
    content = FileBytes(file.id.get_vfd_handle())
    check_structures(content)
    sizes = file.id.get_create_plist().get_sizes()
    if sizes != (8, 8):
        raise RefusedError(
            f"addresses and lengths in the file have {sizes} bytes, not 8",
            "unsupported",
            value=sizes,
            limit=8,
        )
    return Group(file["/"], Contents(content))


def has_link(parent: Group, key: str) -> bool:
    """Return whether the group has this link. h5py's `in` would follow it, even to another file.

    Raises:
        RefusedError: if the name is a path. HDF5 would follow the links in it.
    """
    if "/" in key:
        raise RefusedError(
            f"{parent.name} has a link of the name {key!r}; a name must not contain '/'",
            "damaged",
            key=key,
        )
    return bool(parent.handle.id.links.exists(key.encode()))


def get_group(parent: Group, key: str) -> Group:
    """Return the group of this name, which must lie in the file itself."""
    handle = _open(parent, key)
    if not isinstance(handle, h5py.h5g.GroupID):
        raise RefusedError(f"{parent.name}/{key} is not a group", "type", key=key)
    return Group(h5py.Group(handle), parent.contents)


def has_group(parent: Group, key: str) -> bool:
    """Return whether the file itself has a group of this name."""
    if not _is_hard_link(parent, key):
        return False
    return isinstance(h5py.h5o.open(parent.handle.id, key.encode()), h5py.h5g.GroupID)


def _is_hard_link(parent: Group, key: str) -> bool:
    """Return whether an object of this name lies in the file itself."""
    links = parent.handle.id.links
    return has_link(parent, key) and links.get_info(key.encode()).type == h5py.h5l.TYPE_HARD


def _open(parent: Group, key: str) -> Any:
    """Return the object of this name, which must lie in the file itself, and count it as read."""
    if not _is_hard_link(parent, key):
        raise RefusedError(
            f"{parent.name}/{key} is missing or a link, not an object of this name",
            "missing",
            key=key,
        )
    _visit(parent, key)
    return h5py.h5o.open(parent.handle.id, key.encode())


def _visit(parent: Group, key: str) -> None:
    """Count an object as read.

    Raises:
        RefusedError: if it was read before, under this name or another one.
    """
    # HDF5's information on the object has the address too, but needs all of the object's
    # structures, and crashes on damaged ones.
    address = parent.handle.id.links.get_info(key.encode()).u
    if address in parent.contents.visited:
        raise RefusedError(
            f"{parent.name}/{key} is an object that has another name too, which is not supported",
            "unsupported",
            key=key,
        )
    parent.contents.visited.add(address)


def _get_dataset(parent: Group, key: str, limit: int, width: int = 8) -> Any:
    """Return a dataset in the file itself of at most `limit` values of at most `width` bytes."""
    dataset = _open(parent, key)
    if not isinstance(dataset, h5py.h5d.DatasetID):
        raise RefusedError(f"{parent.name}/{key} is not a dataset", "type", key=key)
    shape = dataset.shape
    if shape is None:
        raise RefusedError(f"{key} is a dataset without values", "type", key=key)
    if math.prod(shape) > limit:
        raise RefusedError(
            f"{key} of shape {shape} exceeds {limit} values",
            "too-large",
            key=key,
            value=shape,
            limit=limit,
        )
    size = dataset.get_type().get_size()
    if size > width:
        raise RefusedError(
            f"{key} is of type {_dtype(dataset, key)}, wider than {width} bytes",
            "type",
            key=key,
            value=size,
            limit=width,
        )
    return dataset


def _dtype(dataset: Any, key: str) -> np.dtype[Any]:
    """Return numpy's type of the values."""
    try:
        dtype: np.dtype[Any] = dataset.dtype
    except TypeError as error:
        raise RefusedError(
            f"{key} is of a type that numpy lacks: {error}", "type", key=key
        ) from None
    return dtype


def read_integers(parent: Group, key: str, limit: int, *, floats: bool = True) -> Array:
    """Return an integer array of at most `limit` values.

    Args:
        floats: whether whole numbers that are stored as floats, as SLAYER stores them, are
            accepted.
    """
    dataset = _get_dataset(parent, key, limit)
    dtype = _dtype(dataset, key)
    if dtype.kind not in "iufb":
        raise RefusedError(f"{key} is of type {dtype}, not a number", "type", key=key)
    if not floats and dtype.kind not in "iu":
        raise RefusedError(
            f"{key} is of type {dtype}; Lava needs an integer type here, and hangs with others",
            "type",
            key=key,
        )
    if not h5py.h5t.py_create(dtype, logical=True).equal(dataset.get_type()):
        raise RefusedError(
            f"{key} is of a number type whose bits differ from {dtype}", "type", key=key
        )
    is_boolean = dtype.kind == "b"
    stored = np.dtype(np.uint8) if is_boolean else dtype
    values = read_values(dataset, stored, key, parent.contents.stored)
    if is_boolean:
        if (values > 1).any():
            raise RefusedError(f"{key} holds values other than 0 and 1", "damaged", key=key)
        return values.astype(bool)
    if dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):  # NaN and too large values become another number
        whole = values.astype(np.int32)
    if (whole != values).any():
        raise RefusedError(
            f"{key} holds values that are not whole 32-bit numbers, which netx truncates",
            "type",
            key=key,
        )
    return whole


def read_text(parent: Group, key: str) -> str:
    """Return the single text of a dataset."""
    dataset = _get_dataset(parent, key, 1, MAX_TEXT)
    kind = dataset.get_type()
    shape = dataset.shape
    if not isinstance(kind, h5py.h5t.TypeStringID) or math.prod(shape) != 1:
        raise RefusedError(
            f"{key} of type {_dtype(dataset, key)} and shape {shape} is not one text",
            "type",
            key=key,
        )
    if kind.get_cset() not in (h5py.h5t.CSET_ASCII, h5py.h5t.CSET_UTF8):
        raise RefusedError(f"{key} is a text of an unknown encoding", "damaged", key=key)
    stored = np.dtype((np.void, kind.get_size()))
    if kind.is_variable_str():
        raw = _read_heap_text(parent.contents, _stored_reference(dataset, key, parent), key)
    else:
        raw = read_values(dataset, stored, key, parent.contents.stored).tobytes()
        if kind.get_strpad() == h5py.h5t.STR_SPACEPAD:
            raw = raw.rstrip(b" ")
    return raw.partition(b"\0")[0].decode()


def _stored_reference(dataset: Any, key: str, parent: Group) -> bytes:
    """Return the 16 bytes that refer to a text: its length, place of its heap, its number there."""
    if dataset.get_create_plist().get_layout() == h5py.h5d.COMPACT:  # HDF5 would read the text
        raise RefusedError(
            f"{key} is a text of variable length in a compact dataset, which is not supported",
            "unsupported",
            key=key,
        )
    stored = np.dtype((np.void, 16))
    return bytes(read_values(dataset, stored, key, parent.contents.stored).tobytes())


def _read_heap_text(contents: Contents, reference: bytes, key: str) -> bytes:
    """Return a text of variable length.

    HDF5 would allocate the length that the reference claims, and copy the object that the heap
    holds into it, whatever its length.
    """
    length, place, number = struct.unpack("<IQI", reference)
    if not length:
        return b""
    if length > MAX_TEXT:
        raise RefusedError(
            f"{key} is longer than {MAX_TEXT} bytes", "too-large", key=key, limit=MAX_TEXT
        )
    if place not in contents.heaps:
        contents.heaps[place] = dict(_read_heap(contents.stored, place, key))
    text = contents.heaps[place].pop(number, b"")  # for one dataset only
    if len(text) != length:
        raise RefusedError(
            f"{key} claims {length} bytes, but {len(text)} are stored",
            "damaged",
            key=key,
            value=length,
            limit=len(text),
        )
    return text


def _read_heap(content: FileBytes, place: int, key: str) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of each object of a global heap."""
    header = content.read(place, _HEADER, key)
    size = int.from_bytes(header[8:], "little")
    if not header.startswith(_HEAP) or size < _HEADER:
        raise RefusedError(f"{key} refers to a place without texts", "damaged", key=key)
    heap = content.read(place + _HEADER, size - _HEADER, key)
    start = 0
    while start + _HEADER <= len(heap):
        number, _, _, length = struct.unpack_from("<HHIQ", heap, start)
        start += _HEADER
        if not number:  # the free space at the end
            return
        yield number, heap[start : start + length]
        start += -(-length // 8) * 8


def has_attribute(group: Group, key: str) -> bool:
    """Return whether the group has this attribute."""
    return key in group.handle.attrs


def read_attribute(group: Group, key: str, kind: type) -> Any:
    """Return the number (`int`) or the text of fixed length (`str`) of an attribute."""
    attributes = group.handle.attrs
    if key not in attributes:
        raise RefusedError(f"attribute {key} of {group.name} is missing", "missing", key=key)
    stored = attributes.get_id(key)
    if stored.shape != () or stored.dtype.kind not in {int: "iu", str: "S"}[kind]:
        noun = {int: "one integer", str: "one text of fixed length"}[kind]
        raise RefusedError(f"attribute {key} of {group.name} is not {noun}", "type", key=key)
    if stored.dtype.itemsize > MAX_TEXT:
        raise RefusedError(
            f"attribute {key} of {group.name} is longer than {MAX_TEXT} bytes",
            "too-large",
            key=key,
            value=stored.dtype.itemsize,
            limit=MAX_TEXT,
        )
    group.contents.stored.spend(stored.dtype.itemsize, key)  # groups may share their attributes
    value = attributes[key]
    return value.decode() if kind is str else int(value)
