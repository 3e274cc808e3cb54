"""Read values from HDF5 files that may come from strangers.

Before anything is read, this module refuses links out of the file, virtual and external data, and
sizes that exceed the caller's limit or the file itself.
"""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from esl_lava.arrays import Array
from esl_lava.errors import UserError

MAX_CHUNKS = 1 << 16
MAX_RATIO = 1032
"""Deflate cannot compress data further than this."""
MAX_TEXT = 1 << 20

_FILTERS = frozenset((h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32))


class RefusedError(UserError):
    """The content of a file is refused. The reader adds the layer and the file to the sentence."""


def has_link(parent: h5py.Group, key: str) -> bool:
    """Return whether the group has this link. `in` would follow it, even into another file."""
    return bool(parent.id.links.exists(key.encode()))


def get_group(parent: h5py.Group, key: str) -> h5py.Group:
    """Return the group of this name, which must lie in the file itself."""
    item = _get_item(parent, key)
    if not isinstance(item, h5py.Group):
        raise RefusedError(f"{parent.name.rstrip('/')}/{key} is not a group", "type", key=key)
    return item


def has_group(parent: h5py.Group, key: str) -> bool:
    """Return whether the file itself has a group of this name."""
    return _is_hard_link(parent, key) and isinstance(parent[key], h5py.Group)


def _is_hard_link(parent: h5py.Group, key: str) -> bool:
    """Return whether an object of this name lies in the file itself."""
    return (
        has_link(parent, key) and parent.id.links.get_info(key.encode()).type == h5py.h5l.TYPE_HARD
    )


def _get_item(parent: h5py.Group, key: str) -> Any:
    if not _is_hard_link(parent, key):
        raise RefusedError(
            f"{parent.name.rstrip('/')}/{key} is missing or a link", "missing", key=key
        )
    return parent[key]


def _get_dataset(parent: h5py.Group, key: str, limit: int, width: int = 8) -> h5py.Dataset:
    """Return a dataset of at most `limit` values of `width` bytes that lies in the file itself."""
    item = _get_item(parent, key)
    if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
        raise RefusedError(
            f"{parent.name}/{key} is not a dataset that the file itself stores", "type", key=key
        )
    if item.shape is None or item.size > limit:
        raise RefusedError(
            f"{key} of shape {item.shape} exceeds {limit} values",
            "too-large",
            key=key,
            value=item.shape,
            limit=limit,
        )
    if item.dtype.itemsize > width:
        raise RefusedError(
            f"{key} is of type {item.dtype}, wider than {width} bytes",
            "type",
            key=key,
            value=item.dtype.itemsize,
            limit=width,
        )
    creation = item.id.get_create_plist()
    filters = [creation.get_filter(place)[0] for place in range(creation.get_nfilters())]
    chunks = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks or item.shape) if c)
    if len(set(filters)) < len(filters) or not _FILTERS.issuperset(filters) or chunks > MAX_CHUNKS:
        raise RefusedError(
            f"{key} is stored with filters {filters} in {chunks} chunks; each filter of "
            f"{sorted(_FILTERS)} may occur once, and there may be {MAX_CHUNKS} chunks",
            "unsupported",
            key=key,
        )
    if item.nbytes > MAX_RATIO * item.id.get_storage_size():
        raise RefusedError(
            f"{key} of shape {item.shape} is larger than its stored bytes can hold",
            "too-large",
            key=key,
            value=item.shape,
        )
    return item


def read_integers(parent: h5py.Group, key: str, limit: int, *, floats: bool = True) -> Array:
    """Return an integer array of at most `limit` values.

    Args:
        floats: whether whole numbers that are stored as floats, as SLAYER stores them, are
            accepted.
    """
    dataset = _get_dataset(parent, key, limit)
    if dataset.dtype.kind not in "iufb":
        raise RefusedError(f"{key} is of type {dataset.dtype}, not a number", "type", key=key)
    if not floats and dataset.dtype.kind not in "iu":
        raise RefusedError(
            f"{key} is of type {dataset.dtype}, with which Lava hangs; it must be an integer",
            "type",
            key=key,
        )
    values = np.asarray(dataset[()])
    if values.dtype.kind != "f":
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


def read_text(parent: h5py.Group, key: str) -> str:
    """Return the single text of a dataset."""
    dataset = _get_dataset(parent, key, 1, MAX_TEXT)
    dtype = dataset.dtype
    if h5py.check_string_dtype(dtype) is None or dataset.size != 1:
        raise RefusedError(
            f"{key} of type {dtype} and size {dataset.size} is not one text", "type", key=key
        )
    if dtype.kind != "S" and _claimed_length(dataset) > MAX_TEXT:
        raise RefusedError(
            f"{key} is longer than {MAX_TEXT} bytes", "too-large", key=key, limit=MAX_TEXT
        )
    return bytes(np.asarray(dataset[()]).ravel()[0]).decode()


def _claimed_length(dataset: h5py.Dataset) -> int:
    """Return the bytes that a text of variable length claims. HDF5 would allocate them to read."""
    place = dataset.id.get_offset()
    if place is None:
        raise RefusedError(f"{dataset.name} is not stored in one piece", "damaged")
    with open(dataset.file.filename, "rb") as file:
        file.seek(place)
        return int.from_bytes(file.read(4), "little")


def read_attribute(group: h5py.Group, key: str, kind: type) -> Any:
    """Return the number (`int`) or the text of fixed length (`str`) of an attribute."""
    if key not in group.attrs:
        raise RefusedError(f"attribute {key} of {group.name} is missing", "missing", key=key)
    stored = group.attrs.get_id(key)
    if stored.shape != () or stored.dtype.kind not in {int: "iu", str: "S"}[kind]:
        noun = {int: "one integer", str: "one text of fixed length"}[kind]
        raise RefusedError(f"attribute {key} of {group.name} is not {noun}", "type", key=key)
    value = group.attrs[key]
    return value.decode() if kind is str else int(value)
