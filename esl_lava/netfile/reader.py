"""Reading netx HDF5 files: ours completely, others' as far as the network can say them.

Files may come from strangers: links out of the file, virtual or external data and sizes
beyond the limits are refused before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from esl_lava.errors import FileError
from esl_lava.netfile.writer import FORMAT_VERSION, GROUP, MAX_POSITIONS, digest
from esl_lava.network import Connections, Cuba, Layer, Network

MAX_LAYERS = 10_000
MAX_TEXT = 1 << 20


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
    except (OSError, RuntimeError, KeyError) as error:  # what a damaged file makes h5py raise
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path}: cannot be read as HDF5: {reason}") from None


def _network(file: h5py.File) -> Network:
    blocks = _group(file, "layer")
    ours = _group(file, GROUP) if GROUP in file else None
    if not 1 <= len(blocks) <= MAX_LAYERS:
        raise _RefusedError(f"{len(blocks)} layers, a network has 1 to {MAX_LAYERS}")
    if ours is None:
        layers = [_layer(blocks, index, f"layer{index}", None) for index in range(len(blocks))]
        return Network(tuple(layers))
    version = _attribute(ours, "format_version", int)
    if version != FORMAT_VERSION:
        raise _RefusedError(
            f"format version {version}, this esl-lava reads version {FORMAT_VERSION}"
        )
    layers = []
    for index in range(len(blocks)):
        beside = _group(_group(ours, "layer"), str(index))
        layers.append(_layer(blocks, index, _attribute(beside, "name", str), beside))
    provenance: dict[str, str] = {}
    if "provenance" in ours:
        stored = _group(ours, "provenance")
        provenance = {key: _text(stored, key) for key in stored}
    steps = _attribute(ours, "steps", int) if "steps" in ours.attrs else None
    network = Network(tuple(layers), steps, provenance)
    if digest(network) != _attribute(ours, "digest", str):
        raise _RefusedError("its digest does not match its data: the file was changed or damaged")
    return network


def _layer(blocks: h5py.Group, index: int, name: str, beside: h5py.Group | None) -> Layer:
    try:
        group = _group(blocks, str(index))
        kind = _text(group, "type")
        if kind != "dense":
            raise _RefusedError(f"type {kind!r} is not supported, only 'dense'")
        for key in ("delay", "weight_rec", "neuron/messageBits"):
            if key in group:
                raise _RefusedError(f"{key} is not supported")
        return Layer(name, _connections(group, beside), _neuron(group), _bias(group))
    except (_RefusedError, ValueError) as error:
        raise _RefusedError(f"layer {index} ({name}): {error}") from None


def _connections(group: h5py.Group, beside: h5py.Group | None) -> Connections:
    outputs = int(np.prod(_integers(group, "shape", MAX_LAYERS).astype(object)))
    weight = _integers(group, "weight", MAX_POSITIONS)
    if outputs < 1 or weight.size == 0 or weight.size % outputs:
        raise _RefusedError(f"weight of shape {weight.shape} does not feed {outputs} neurons")
    weight = weight.reshape(outputs, -1)
    mask = weight != 0
    if beside is not None:
        gaps = _integers(beside, "zero_connections", MAX_POSITIONS)
        flat = np.cumsum(gaps, dtype=np.int64)
        if flat.size and (flat[-1] >= mask.size or mask.ravel()[flat].any()):
            raise _RefusedError("zero_connections does not fit the weights")
        mask.ravel()[flat] = True
    return Connections.from_dense(weight, mask)


def _neuron(group: h5py.Group) -> Cuba:
    if "neuron" not in group:
        # What netx assumes: u and v hold the running sum of the input.
        return Cuba(current_decay=0, voltage_decay=4096, threshold=1 << 17)
    neuron = _group(group, "neuron")
    kind = _text(neuron, "type")
    if kind not in ("CUBA", "LOIHI"):
        raise _RefusedError(f"neuron type {kind!r} is not supported, only CUBA")
    if "gradedSpike" in neuron and _integers(neuron, "gradedSpike", 1).any():
        raise _RefusedError("graded spikes are not supported")
    if "weight_exp" in neuron and _integers(neuron, "weight_exp", MAX_LAYERS).any():
        raise _RefusedError("weight_exp is ignored by netx, so the file does not mean what it says")
    values: list[int] = []
    for key in ("iDecay", "vDecay", "vThMant"):
        if neuron[key].dtype.kind not in "iu":
            raise _RefusedError(
                f"neuron/{key} is of type {neuron[key].dtype}, with which Lava hangs"
            )
        value = _integers(neuron, key, MAX_POSITIONS)
        if value.size != 1:
            raise _RefusedError(f"neuron/{key} has {value.size} values, only one is supported")
        values.append(int(value.ravel()[0]))
    return Cuba(*values)


def _bias(group: h5py.Group) -> np.ndarray | None:
    if "bias" not in group:
        return None
    return _integers(group, "bias", MAX_POSITIONS).ravel()


def _group(parent: h5py.Group, key: str) -> h5py.Group:
    item = _item(parent, key)
    if not isinstance(item, h5py.Group):
        raise _RefusedError(f"{parent.name}/{key} is not a group")
    return item


def _item(parent: h5py.Group, key: str) -> Any:
    if not isinstance(parent.get(key, getlink=True), h5py.HardLink):
        raise _RefusedError(f"{parent.name.rstrip('/')}/{key} is missing or a link")
    return parent[key]


def _dataset(parent: h5py.Group, key: str, limit: int) -> h5py.Dataset:
    item = _item(parent, key)
    if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
        raise _RefusedError(f"{parent.name}/{key} is not a plain dataset")
    if item.shape is None or item.size > limit:
        raise _RefusedError(f"{key} of shape {item.shape} exceeds {limit} values")
    return item


def _integers(parent: h5py.Group, key: str, limit: int) -> np.ndarray:
    """An integer array; whole numbers stored as floats (as SLAYER does) count."""
    dataset = _dataset(parent, key, limit)
    if dataset.dtype.kind not in "iufb":
        raise _RefusedError(f"{key} is of type {dataset.dtype}, not a number")
    values = np.asarray(dataset[()])
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values % 1 != 0).any():
            raise _RefusedError(
                f"{key} holds values that are not whole numbers, which netx truncates"
            )
        if np.abs(values).max(initial=0) >= 1 << 31:
            raise _RefusedError(f"{key} holds values beyond 32 bits")
        return values.astype(np.int64)
    return values


def _text(parent: h5py.Group, key: str) -> str:
    dataset = _dataset(parent, key, 1)
    if dataset.dtype.kind not in "SO":
        raise _RefusedError(f"{key} is of type {dataset.dtype}, not text")
    value = np.asarray(dataset[()]).ravel()[0]
    if not isinstance(value, bytes) or len(value) > MAX_TEXT:
        raise _RefusedError(f"{key} is not text of at most {MAX_TEXT} bytes")
    return value.decode()


def _attribute(group: h5py.Group, key: str, kind: type) -> Any:
    attributes: Mapping[str, Any] = group.attrs
    if key not in attributes:
        raise _RefusedError(f"attribute {key} of {group.name} is missing")
    value = attributes[key]
    if kind is int and isinstance(value, np.integer):
        return int(value)
    if kind is str and isinstance(value, str):
        return value
    raise _RefusedError(f"attribute {key} of {group.name} is not a {kind.__name__}")
