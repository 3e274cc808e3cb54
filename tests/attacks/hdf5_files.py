"""Parts of HDF5 files that no writer of netx files makes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from esl_lava import netfile
from tests.fuzz import checksums
from tests.netfile.test_netfile import example

GZIP = {"compression": "gzip"}
VALUES = np.arange(24 * 64, dtype=np.int8)
WHOLE = zlib.compress(VALUES.tobytes())


def sound(path: Path) -> None:
    """Write a sound file of ours."""
    netfile.write(example(), path)


def dense(path: Path, inputs: int, options: dict[str, Any], fill: Callable[[Any], None]) -> Path:
    """Write a file of one layer of 24 neurons; `fill` stores its weights."""
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = np.bytes_("dense"), np.array([24])
        shape = (24, inputs)
        fill(layer.create_dataset("weight", shape, "i1", **{"chunks": shape, **options}).id)
        neuron = layer.create_group("neuron")
        neuron["type"], neuron["vThMant"] = np.bytes_("CUBA"), 64
        neuron["iDecay"], neuron["vDecay"] = 4096, 128
    return path


def stored(raw: bytes, mask: int = 0) -> Callable[[Any], None]:
    """Return a function that stores these bytes as the first chunk of a dataset."""
    return lambda weight: weight.write_direct_chunk((0, 0), raw, mask)


def patch(path: Path, changes: Mapping[int, bytes]) -> None:
    """Write bytes at places of a file."""
    path.write_bytes(patched(path.read_bytes(), changes))


def patched(raw: bytes, changes: Mapping[int, bytes]) -> bytes:
    """Return bytes with others at some places."""
    made = bytearray(raw)
    for place, content in changes.items():
        made[place : place + len(content)] = content
    return bytes(made)


def with_checksums(raw: bytes, changes: Mapping[int, bytes]) -> bytes:
    """Return patched bytes of a file, with right checksums of HDF5's structures."""
    return checksums.repaired(raw, patched(raw, changes))


def compact(group: h5py.Group, name: str, values: Any) -> None:
    """Store values in the header of a dataset."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    kind, space = (
        h5py.h5t.py_create(values.dtype, logical=True),
        h5py.h5s.create_simple(values.shape),
    )
    dataset = h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=creation)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def large(path: Path, kind: str, lengths: tuple[int, ...], value: int, **more: Any) -> Path:
    """Write a layer whose weights are all the same, in one well compressed chunk."""
    stream = zlib.compressobj(9)
    rows = bytes([value]) * (1 << 22)
    raw = b"".join([stream.compress(rows) for _ in range(int(np.prod(lengths)) >> 22)])
    raw += stream.compress(rows[: int(np.prod(lengths)) % (1 << 22)])
    raw += stream.flush()
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer["type"] = np.bytes_(kind)
        for key, content in more.items():
            layer[key] = content
        weight = layer.create_dataset("weight", lengths, "i1", chunks=lengths, **GZIP)
        weight.id.write_direct_chunk((0,) * len(lengths), raw)
        neuron = layer.create_group("neuron")
        neuron["type"], neuron["vThMant"] = np.bytes_("CUBA"), 64
        neuron["iDecay"], neuron["vDecay"] = 4096, 128
    return path
