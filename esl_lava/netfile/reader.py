"""Reading netx HDF5 files: ours completely, others' as far as the network can say them.

Files may come from strangers: links out of the file, virtual or external data and sizes
beyond the limits are refused before anything is read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from esl_lava.errors import FileError
from esl_lava.netfile.writer import (
    FORMAT_VERSION,
    GROUP,
    MAX_POSITIONS,
    MAX_TEXT,
    MAX_TEXTS,
    digest,
)
from esl_lava.network import Connections, Cuba, Layer, Network

MAX_LAYERS = 10_000
MAX_CHUNKS = 1 << 16
MAX_RATIO = 1032
"""Deflate cannot shrink data further than this."""

_FILTERS = frozenset((h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32))


class _RefusedError(Exception):
    """Why the file is refused, without its name."""


def read(path: Path) -> Network:
    """Read a netx file written by us, or by lava-dl when made of dense CUBA layers.

    Raises:
        FileError: naming file, layer and reason.
    """
    try:
        with path.open("rb") as file:
            if file.read(8) != b"\x89HDF\r\n\x1a\n":
                raise FileError(f"{path}: not an HDF5 file")
        with h5py.File(path, "r") as file:
            return _network(file)
    except (_RefusedError, ValueError, TypeError) as error:
        raise FileError(f"{path}: {error}") from None
    except (
        OSError,
        RuntimeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        MemoryError,
    ) as error:  # what a damaged file makes h5py raise
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path}: cannot be read as HDF5: {reason}") from None


def _network(file: h5py.File) -> Network:
    blocks = _group(file, "layer")
    if not 1 <= len(blocks) <= MAX_LAYERS:
        raise _RefusedError(f"{len(blocks)} layers, a network has 1 to {MAX_LAYERS}")
    if not _has(file, GROUP):
        return Network(_layers(blocks, None))
    ours = _group(file, GROUP)
    version = _attribute(ours, "format_version", int)
    if version != FORMAT_VERSION:
        raise _RefusedError(
            f"format version {version}, this esl-lava reads version {FORMAT_VERSION}"
        )
    layers = _layers(blocks, _group(ours, "layer"))
    provenance: dict[str, str] = {}
    if _has(ours, "provenance"):
        stored = _group(ours, "provenance")
        if len(stored) > MAX_TEXTS:
            raise _RefusedError(f"its provenance has {len(stored)} texts, more than {MAX_TEXTS}")
        for key in stored:
            provenance[key] = _text(stored, key)
            # Many links may lead to one text.
            if sum(map(len, provenance.values())) > MAX_TEXT:
                raise _RefusedError(f"its provenance is longer than {MAX_TEXT} characters")
    steps = _attribute(ours, "steps", int) if "steps" in ours.attrs else None
    network = Network(layers, steps, provenance)
    if digest(network) != _attribute(ours, "digest", str):
        raise _RefusedError("its digest does not match its data: the file was changed or damaged")
    return network


def _layers(blocks: h5py.Group, besides: h5py.Group | None) -> tuple[Layer, ...]:
    """All layers; `besides` is our own group of what netx ignores, if the file is ours."""
    layers: list[Layer] = []
    left = MAX_POSITIONS
    for index in range(len(blocks)):
        name, beside = f"layer{index}", None
        if besides is not None:
            beside = _group(besides, str(index))
            name = _attribute(beside, "name", str)
        try:
            layers.append(_layer(_group(blocks, str(index)), name, beside, left))
        except (_RefusedError, ValueError) as error:
            raise _RefusedError(f"layer {index} ({name}): {error}") from None
        left -= layers[-1].connections.possible
    return tuple(layers)


def _layer(group: h5py.Group, name: str, beside: h5py.Group | None, limit: int) -> Layer:
    kind = _text(group, "type")
    if kind != "dense":
        raise _RefusedError(f"type {kind!r} is not supported, only 'dense'")
    for key in ("delay", "weight_rec"):
        if _has(group, key):
            raise _RefusedError(f"{key} is not supported")
    return Layer(name, _connections(group, beside, limit), _neuron(group), _bias(group))


def _connections(group: h5py.Group, beside: h5py.Group | None, limit: int) -> Connections:
    outputs = int(np.prod(_integers(group, "shape", MAX_LAYERS).astype(object)))
    weight = _integers(group, "weight", limit)
    if outputs < 1 or weight.size == 0 or weight.size % outputs:
        raise _RefusedError(f"weight of shape {weight.shape} does not feed {outputs} neurons")
    weight = weight.reshape(outputs, -1)
    mask = weight != 0
    if beside is not None:
        gaps = _integers(beside, "zero_connections", weight.size)
        # Ascending, and no sum below can overflow.
        if gaps.ndim != 1 or (gaps < 0).any() or (gaps[1:] < 1).any() or (gaps >= mask.size).any():
            raise _RefusedError("zero_connections is not ascending")
        flat = np.cumsum(gaps, dtype=np.int64)
        if flat.size and (flat[-1] >= mask.size or mask.ravel()[flat].any()):
            raise _RefusedError("zero_connections does not fit the weights")
        mask.ravel()[flat] = True
    return Connections.from_dense(weight, mask)


def _neuron(group: h5py.Group) -> Cuba:
    if not _has(group, "neuron"):
        # What netx assumes: u and v hold the running sum of the input.
        return Cuba(current_decay=0, voltage_decay=4096, threshold=1 << 17)
    neuron = _group(group, "neuron")
    kind = _text(neuron, "type")
    if kind not in ("CUBA", "LOIHI"):
        raise _RefusedError(f"neuron type {kind!r} is not supported, only CUBA")
    if _has(neuron, "messageBits"):
        raise _RefusedError("neuron/messageBits is not supported, nor by Lava")
    for key in ("gradedSpike", "weight_exp"):
        if _has(neuron, key) and _integers(neuron, key, MAX_LAYERS).any():
            raise _RefusedError(f"neuron/{key} is not supported")
    current, voltage, threshold = (
        _parameter(neuron, key) for key in ("iDecay", "vDecay", "vThMant")
    )
    return Cuba(current, voltage, threshold)


def _parameter(neuron: h5py.Group, key: str) -> int:
    dtype = _dataset(neuron, key, MAX_POSITIONS).dtype
    if dtype.kind not in "iu":
        raise _RefusedError(f"neuron/{key} is of type {dtype}, with which Lava hangs")
    values = _integers(neuron, key, MAX_LAYERS)
    if values.size != 1:
        raise _RefusedError(f"neuron/{key} has {values.size} values, only one is supported")
    return int(values.ravel()[0])


def _bias(group: h5py.Group) -> np.ndarray | None:
    if not _has(group, "bias"):
        return None
    return _integers(group, "bias", MAX_POSITIONS).ravel()


def _has(parent: h5py.Group, key: str) -> bool:
    """Whether there is such a link; `in` would follow it, even into another file."""
    return bool(parent.id.links.exists(key.encode()))


def _group(parent: h5py.Group, key: str) -> h5py.Group:
    item = _item(parent, key)
    if not isinstance(item, h5py.Group):
        raise _RefusedError(f"{parent.name}/{key} is not a group")
    return item


def _item(parent: h5py.Group, key: str) -> Any:
    if not _has(parent, key) or parent.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        raise _RefusedError(f"{parent.name.rstrip('/')}/{key} is missing or a link")
    return parent[key]


def _dataset(parent: h5py.Group, key: str, limit: int, width: int = 8) -> h5py.Dataset:
    """A dataset of at most `limit` values of `width` bytes that lie in the file itself."""
    item = _item(parent, key)
    if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
        raise _RefusedError(f"{parent.name}/{key} is not a plain dataset")
    if item.shape is None or item.size > limit:
        raise _RefusedError(f"{key} of shape {item.shape} exceeds {limit} values")
    if item.dtype.itemsize > width:
        raise _RefusedError(f"{key} is of type {item.dtype}, wider than {width} bytes")
    made = item.id.get_create_plist()
    filters = [made.get_filter(place)[0] for place in range(made.get_nfilters())]
    chunks = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks or item.shape) if c)
    if len(set(filters)) < len(filters) or not _FILTERS.issuperset(filters) or chunks > MAX_CHUNKS:
        raise _RefusedError(f"{key} is stored with filters {filters} in {chunks} chunks")
    if item.nbytes > MAX_RATIO * item.id.get_storage_size():
        raise _RefusedError(f"{key} of shape {item.shape} is larger than what is stored of it")
    return item


def _integers(parent: h5py.Group, key: str, limit: int) -> np.ndarray:
    """An integer array; whole numbers stored as floats (as SLAYER does) count."""
    dataset = _dataset(parent, key, limit)
    if dataset.dtype.kind not in "iufb":
        raise _RefusedError(f"{key} is of type {dataset.dtype}, not a number")
    values = np.asarray(dataset[()])
    if values.dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):  # NaN and what is too large become another number
        whole = values.astype(np.int32)
    if (whole != values).any():
        raise _RefusedError(
            f"{key} holds values that are not whole 32-bit numbers, which netx truncates"
        )
    return whole


def _text(parent: h5py.Group, key: str) -> str:
    dataset = _dataset(parent, key, 1, MAX_TEXT)
    dtype = dataset.dtype
    if h5py.check_string_dtype(dtype) is None or dataset.size != 1:
        raise _RefusedError(f"{key} of type {dtype} and size {dataset.size} is no text")
    if dtype.kind != "S" and _claimed_length(dataset) > MAX_TEXT:
        raise _RefusedError(f"{key} is longer than {MAX_TEXT} bytes")
    return bytes(np.asarray(dataset[()]).ravel()[0]).decode()


def _claimed_length(dataset: h5py.Dataset) -> int:
    """Bytes of a text of variable length; to read it, HDF5 would first allocate that many."""
    place = dataset.id.get_offset()
    if place is None:
        raise _RefusedError(f"{dataset.name} is not stored in one piece")
    with open(dataset.file.filename, "rb") as file:
        file.seek(place)
        return int.from_bytes(file.read(4), "little")


def _attribute(group: h5py.Group, key: str, kind: type) -> Any:
    if key not in group.attrs:
        raise _RefusedError(f"attribute {key} of {group.name} is missing")
    stored = group.attrs.get_id(key)
    if stored.shape != () or stored.dtype.kind not in {int: "iu", str: "S"}[kind]:
        raise _RefusedError(f"attribute {key} of {group.name} is not a {kind.__name__}")
    value = group.attrs[key]
    return value.decode() if kind is str else int(value)
