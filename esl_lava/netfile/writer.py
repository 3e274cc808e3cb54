"""Writing the integer network as netx HDF5.

`/layer/<i>` is what lava-dl 0.6.0's netx reads; `/esl_lava` is what it ignores: layer
names, presentation time, provenance, a digest, and the connections whose weight is 0
(all others are where the weight is not), so that masks come back from the file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from esl_lava.errors import FileError, LimitError
from esl_lava.files import replace_file
from esl_lava.network import Layer, Network

FORMAT_VERSION = 1
GROUP = "esl_lava"
MAX_POSITIONS = 1 << 28
"""Positions of all weight matrices that netx (8 bytes each, several copies) can still load."""
MAX_TEXT = 1 << 20
MAX_TEXTS = 1000
"""Bytes of all texts of the provenance together, and how many there may be."""


def write(network: Network, path: Path) -> None:
    """Write `network` whole or not at all; the same network gives the same bytes.

    Raises:
        LimitError: when the layers are too large for netx's dense matrices.
        FileError: when the file cannot be written, or cannot hold a name or text.
    """
    positions = sum(layer.connections.possible for layer in network.layers)
    if positions > MAX_POSITIONS:
        largest = max(network.layers, key=lambda layer: layer.connections.possible)
        raise LimitError(
            [
                f"layer {largest.name}: its {largest.connections.possible} positions and those "
                f"of the other layers, {positions} together, exceed {MAX_POSITIONS}, the most "
                "that plain netx, which stores matrices densely, can be given"
            ]
        )
    content = io.BytesIO()
    try:
        _check_provenance(network.provenance)
        with h5py.File(content, "w", libver="v110") as file:
            _write(network, file)
    except ValueError as error:  # a text HDF5 cannot hold
        raise FileError(f"{path}: cannot be written: {error}") from None
    replace_file(path, content.getvalue())


def _check_provenance(texts: Mapping[str, str]) -> None:
    """Refuse what `read` would refuse.

    Raises:
        ValueError: naming the text or the limit.
    """
    for key in texts:
        if not key or "/" in key or key == ".":
            raise ValueError(f"{key!r} in the provenance is no name of a dataset")
    if len(texts) > MAX_TEXTS or sum(len(text.encode()) for text in texts.values()) > MAX_TEXT:
        raise ValueError(f"the provenance exceeds {MAX_TEXTS} texts or {MAX_TEXT} bytes")


def digest(network: Network) -> str:
    """SHA-256 over everything in the network that has a meaning, hexadecimal."""
    sha = hashlib.sha256()
    _feed(sha, f"provenance={len(network.provenance)}")
    for key in sorted(network.provenance):
        _feed(sha, key)
        _feed(sha, network.provenance[key])
    _feed(sha, f"steps={network.steps}")
    for layer in network.layers:
        neuron, c = layer.neuron, layer.connections
        _feed(sha, f"{layer.name} {c.n_post} {c.n_pre}")
        _feed(sha, f"{neuron.current_decay} {neuron.voltage_decay} {neuron.threshold}")
        for array in (c.indptr, c.indices, c.weights):
            _feed(sha, array.astype(array.dtype.newbyteorder("<")).tobytes())
        _feed(sha, b"" if layer.bias is None else layer.bias.astype("<i4").tobytes())
    return sha.hexdigest()


def _feed(sha: hashlib._Hash, part: str | bytes) -> None:
    """Add a part with its length, so that no two sequences of parts read alike."""
    raw = part.encode() if isinstance(part, str) else part
    sha.update(len(raw).to_bytes(8, "little"))
    sha.update(raw)


def _write(network: Network, file: h5py.File) -> None:
    ours = file.create_group(GROUP)
    ours.attrs["format_version"] = FORMAT_VERSION
    ours.attrs["digest"] = _text(digest(network))
    if network.steps is not None:
        ours.attrs["steps"] = network.steps
    for key, value in sorted(network.provenance.items()):
        ours.create_dataset(f"provenance/{key}", data=_text(value))
    for index, layer in enumerate(network.layers):
        _write_netx(layer, file.create_group(f"layer/{index}"))
        beside = ours.create_group(f"layer/{index}")
        beside.attrs["name"] = _text(layer.name)
        _compressed(beside, "zero_connections", _zero_connections(layer))


def _write_netx(layer: Layer, group: h5py.Group) -> None:
    """The datasets `lava/lib/dl/netx/hdf5.py` reads for a block of type 'dense'."""
    c, neuron = layer.connections, layer.neuron
    group.create_dataset("type", (1,), "S10", [b"dense"])
    group.create_dataset("shape", data=np.array([c.n_post]))
    group.create_dataset("inFeatures", data=c.n_pre)
    group.create_dataset("outFeatures", data=c.n_post)
    _compressed(group, "weight", c.dense())
    if layer.bias is not None:
        _compressed(group, "bias", layer.bias)
    group.create_dataset("neuron/type", data=_text("CUBA"))
    group.create_dataset("neuron/iDecay", data=neuron.current_decay)
    group.create_dataset("neuron/vDecay", data=neuron.voltage_decay)
    group.create_dataset("neuron/vThMant", data=neuron.threshold)
    group.create_dataset("neuron/refDelay", data=1)
    group.create_dataset("neuron/gradedSpike", data=False)


def _text(value: str) -> np.ndarray:
    """Text of fixed length: HDF5 reads what says its length elsewhere at its own risk."""
    raw = value.encode()
    if b"\0" in raw:
        raise ValueError(f"a text holds a NUL character: {value[:80]!r}")
    return np.array(raw, h5py.string_dtype("utf-8", max(1, len(raw))))


def _compressed(group: h5py.Group, name: str, values: np.ndarray) -> None:
    """Store integers in the smallest dtype that holds them, one deflated chunk."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    smallest = next(
        dtype
        for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max
    )
    options = {"chunks": values.shape, "compression": "gzip", "compression_opts": 9}
    group.create_dataset(name, data=values.astype(smallest), **(options if values.size else {}))


def _zero_connections(layer: Layer) -> np.ndarray:
    """Flat positions of connections with weight 0: the first, then the gaps between."""
    c = layer.connections
    zero = c.weights == 0
    flat = c.rows()[zero] * c.n_pre + c.indices[zero]
    return np.diff(flat, prepend=0)
