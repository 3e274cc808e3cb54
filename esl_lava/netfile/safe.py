"""Getting values out of HDF5 files that may come from strangers.

Links out of the file, virtual or external data, and sizes beyond what a caller allows
or the file can hold are refused before anything is read.
"""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from esl_lava.arrays import Array

MAX_CHUNKS = 1 << 16
MAX_RATIO = 1032
"""Deflate cannot shrink data further than this."""
MAX_TEXT = 1 << 20

_FILTERS = frozenset((h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32))


class RefusedError(Exception):
    """Why the file is refused, without its name."""


def has(parent: h5py.Group, key: str) -> bool:
    """Whether there is such a link; `in` would follow it, even into another file."""
    return bool(parent.id.links.exists(key.encode()))


def subgroup(parent: h5py.Group, key: str) -> h5py.Group:
    """The group of that name, which must lie in the file itself."""
    item = _item(parent, key)
    if not isinstance(item, h5py.Group):
        raise RefusedError(f"{parent.name}/{key} is not a group")
    return item


def is_group(parent: h5py.Group, key: str) -> bool:
    """Whether the file itself has a group of that name."""
    return _is_own(parent, key) and isinstance(parent[key], h5py.Group)


def _is_own(parent: h5py.Group, key: str) -> bool:
    """Whether something of that name lies in the file itself."""
    return has(parent, key) and parent.id.links.get_info(key.encode()).type == h5py.h5l.TYPE_HARD


def _item(parent: h5py.Group, key: str) -> Any:
    if not _is_own(parent, key):
        raise RefusedError(f"{parent.name.rstrip('/')}/{key} is missing or a link")
    return parent[key]


def _dataset(parent: h5py.Group, key: str, limit: int, width: int = 8) -> h5py.Dataset:
    """A dataset of at most `limit` values of `width` bytes that lie in the file itself."""
    item = _item(parent, key)
    if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
        raise RefusedError(f"{parent.name}/{key} is not a plain dataset")
    if item.shape is None or item.size > limit:
        raise RefusedError(f"{key} of shape {item.shape} exceeds {limit} values")
    if item.dtype.itemsize > width:
        raise RefusedError(f"{key} is of type {item.dtype}, wider than {width} bytes")
    made = item.id.get_create_plist()
    filters = [made.get_filter(place)[0] for place in range(made.get_nfilters())]
    chunks = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks or item.shape) if c)
    if len(set(filters)) < len(filters) or not _FILTERS.issuperset(filters) or chunks > MAX_CHUNKS:
        raise RefusedError(f"{key} is stored with filters {filters} in {chunks} chunks")
    if item.nbytes > MAX_RATIO * item.id.get_storage_size():
        raise RefusedError(f"{key} of shape {item.shape} is larger than what is stored of it")
    return item


def integers(parent: h5py.Group, key: str, limit: int, *, floats: bool = True) -> Array:
    """An integer array of at most `limit` values.

    Args:
        floats: whether whole numbers stored as floats (as SLAYER does) count.
    """
    dataset = _dataset(parent, key, limit)
    if dataset.dtype.kind not in "iufb":
        raise RefusedError(f"{key} is of type {dataset.dtype}, not a number")
    if not floats and dataset.dtype.kind not in "iu":
        raise RefusedError(f"{key} is of type {dataset.dtype}, with which Lava hangs")
    values = np.asarray(dataset[()])
    if values.dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):  # NaN and what is too large become another number
        whole = values.astype(np.int32)
    if (whole != values).any():
        raise RefusedError(
            f"{key} holds values that are not whole 32-bit numbers, which netx truncates"
        )
    return whole


def text(parent: h5py.Group, key: str) -> str:
    """The one text a dataset holds."""
    dataset = _dataset(parent, key, 1, MAX_TEXT)
    dtype = dataset.dtype
    if h5py.check_string_dtype(dtype) is None or dataset.size != 1:
        raise RefusedError(f"{key} of type {dtype} and size {dataset.size} is no text")
    if dtype.kind != "S" and _claimed_length(dataset) > MAX_TEXT:
        raise RefusedError(f"{key} is longer than {MAX_TEXT} bytes")
    return bytes(np.asarray(dataset[()]).ravel()[0]).decode()


def _claimed_length(dataset: h5py.Dataset) -> int:
    """Bytes of a text of variable length; to read it, HDF5 would first allocate that many."""
    place = dataset.id.get_offset()
    if place is None:
        raise RefusedError(f"{dataset.name} is not stored in one piece")
    with open(dataset.file.filename, "rb") as file:
        file.seek(place)
        return int.from_bytes(file.read(4), "little")


def attribute(group: h5py.Group, key: str, kind: type) -> Any:
    """The one number (`int`) or text of fixed length (`str`) an attribute holds."""
    if key not in group.attrs:
        raise RefusedError(f"attribute {key} of {group.name} is missing")
    stored = group.attrs.get_id(key)
    if stored.shape != () or stored.dtype.kind not in {int: "iu", str: "S"}[kind]:
        raise RefusedError(f"attribute {key} of {group.name} is not a {kind.__name__}")
    value = group.attrs[key]
    return value.decode() if kind is str else int(value)
