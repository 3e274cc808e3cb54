"""Writing the integer network as netx HDF5.

`/layer/<i>` is what lava-dl 0.6.0's netx reads; `/esl_lava` is what it ignores: layer
names, presentation time, provenance, a digest, and the connections whose weight is 0
(all others are where the weight is not), so that masks come back from the file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import h5py
import numpy as np

from esl_lava.errors import FileError, LimitError
from esl_lava.network import Layer, Network

FORMAT_VERSION = 1
GROUP = "esl_lava"
MAX_POSITIONS = 1 << 28
"""Positions of a weight matrix that netx (8 bytes each, several copies) can still load."""


def write(network: Network, path: Path) -> None:
    """Write `network` whole or not at all; the same network gives the same bytes.

    Raises:
        LimitError: when a layer is too large for netx's dense matrices.
        FileError: when the file cannot be written.
    """
    too_large = [
        f"layer {layer.name}: {layer.connections.possible} positions exceed {MAX_POSITIONS}, "
        "the most that plain netx, which stores matrices densely, can be given"
        for layer in network.layers
        if layer.connections.possible > MAX_POSITIONS
    ]
    if too_large:
        raise LimitError(too_large)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(temporary, "w", libver="v110") as file:
            _write(network, file)
        with temporary.open("rb") as done:
            os.fsync(done.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None


def digest(network: Network) -> str:
    """SHA-256 over everything in the network that has a meaning, hexadecimal."""
    sha = hashlib.sha256()
    for key in sorted(network.provenance):
        _feed(sha, f"{key}={network.provenance[key]}")
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
    ours.attrs["digest"] = digest(network)
    if network.steps is not None:
        ours.attrs["steps"] = network.steps
    for key, value in network.provenance.items():
        ours.create_dataset(f"provenance/{key}", data=value)
    for index, layer in enumerate(network.layers):
        _write_netx(layer, file.create_group(f"layer/{index}"))
        beside = ours.create_group(f"layer/{index}")
        beside.attrs["name"] = layer.name
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
    group.create_dataset("neuron/type", data="CUBA")
    group.create_dataset("neuron/iDecay", data=neuron.current_decay)
    group.create_dataset("neuron/vDecay", data=neuron.voltage_decay)
    group.create_dataset("neuron/vThMant", data=neuron.threshold)
    group.create_dataset("neuron/refDelay", data=1)
    group.create_dataset("neuron/gradedSpike", data=False)


def _compressed(group: h5py.Group, name: str, values: np.ndarray) -> None:
    """Store integers in the smallest dtype that holds them, one deflated chunk."""
    smallest = (
        np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max()))
        if values.size
        else np.dtype(np.uint8)
    )
    options = {"chunks": values.shape, "compression": "gzip", "compression_opts": 9}
    group.create_dataset(name, data=values.astype(smallest), **(options if values.size else {}))


def _zero_connections(layer: Layer) -> np.ndarray:
    """Flat positions of connections with weight 0: the first, then the gaps between."""
    c = layer.connections
    zero = c.weights == 0
    flat = c.rows()[zero] * c.n_pre + c.indices[zero]
    return np.diff(flat, prepend=0)
