"""Attacks by the structures of `net.h5` in HDF5. They say what HDF5 2.0 would do."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np

from tests.attacks.attack import MIB, attack
from tests.attacks.hdf5_files import GZIP, VALUES, dense, patch, stored, with_checksums

FILE = "net.h5"

# --- Many names, and ways back. --------------------------------------------------------------


@attack(FILE, "unsupported", key="1", layer="layer1")
def ten_thousand_names_of_a_layer(path: Path) -> None:
    """A file of less than a megabyte has ten thousand layers, all of them one group."""
    dense(path, 1000, GZIP, lambda weight: None)
    with h5py.File(path, "r+", libver="latest") as file:
        file["layer/0/weight"][()] = 2
        for index in range(1, 10_000):
            file[f"layer/{index}"] = file["layer/0"]
    assert path.stat().st_size < MIB


@attack(FILE, "unsupported", key="weight", layer="layer1", memory=800 * MIB)
def forty_names_of_a_matrix(path: Path) -> None:
    """Forty layers share one matrix of 24 MB."""
    dense(path, 1 << 19, GZIP, lambda weight: None)
    with h5py.File(path, "r+") as file:
        file["layer/0/weight"][:, 0] = 2
        for index in range(1, 40):
            layer = file.create_group(f"layer/{index}")
            for key in ("type", "shape"):
                layer[key] = file[f"layer/0/{key}"][()]
            layer["weight"] = file["layer/0/weight"]
            file.copy("layer/0/neuron", layer)


@attack(FILE, "unsupported", key="neuron")
def a_group_within_itself(path: Path) -> None:
    """The neurons of a layer are the group of all layers."""
    dense(path, 64, GZIP, stored(zlib.compress((VALUES & 126).tobytes())))
    with h5py.File(path, "r+") as file:
        del file["layer/0/neuron"]
        file["layer/0/neuron"] = file["layer"]


@attack(FILE, "missing", key="layer")
def a_link_to_itself(path: Path) -> None:
    """A soft link leads to itself."""
    with h5py.File(path, "w") as file:
        file["layer"] = h5py.SoftLink("/layer")


@attack(FILE, "range")
def too_many_layers(path: Path) -> None:
    """The file has 10,001 layers, which are empty groups."""
    with h5py.File(path, "w", libver="latest") as file:
        layers = file.create_group("layer")
        for index in range(10_001):
            layers.create_group(str(index))


# --- HDF5's own structures. ------------------------------------------------------------------


@attack(FILE, "damaged")
def a_tree_whose_nodes_occur_at_many_places(path: Path) -> None:
    """A B-tree leads to one leaf at 32^8 places, and HDF5 counts all links."""
    with h5py.File(path, "w", libver="earliest") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = np.bytes_("dense"), np.array([24])
    with h5py.File(path) as file:
        header = h5py.h5o.get_info(file.id, b"layer").addr
    raw = bytearray(path.read_bytes())
    leaf = next(
        place
        for place in range(0, len(raw), 8)
        if raw[place : place + 4] == b"TREE"
        and raw.find(struct.pack("<Q", place), header, header + 120) >= 0
    )
    (last,) = struct.unpack_from("<Q", raw, leaf + 40)
    old, root = len(raw), leaf
    for level in range(1, 9):
        children = struct.pack("<QQ", root, last) * 32
        root = len(raw)
        raw += b"TREE" + struct.pack("<BBH", 0, level, 32) + b"\xff" * 16 + bytes(8) + children
    raw[:old] = raw[:old].replace(struct.pack("<Q", leaf), struct.pack("<Q", root))
    raw[40:48] = struct.pack("<Q", len(raw))  # the length of the file
    path.write_bytes(raw)


@attack(FILE, "damaged")
def a_tree_that_leads_back(path: Path) -> None:
    """A node of a B-tree is its own child: HDF5 overflows the stack."""
    with h5py.File(path, "w", libver="earliest") as file:
        for index in range(2000):
            file[f"layer/{index}"] = index
    raw = path.read_bytes()
    places = [place for place in range(0, len(raw), 8) if raw[place : place + 4] == b"TREE"]
    root = max(places, key=lambda place: raw[place + 5])
    patch(path, {root + 32: struct.pack("<Q", root)})


@attack(FILE, "too-large")
def a_tree_of_many_levels(path: Path) -> None:
    """A B-tree of version 2 claims 65,535 levels, for each of which HDF5 allocates."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"BTHD") + 12: b"\xff\xff"}))


@attack(FILE, "damaged")
def a_tree_of_empty_nodes(path: Path) -> None:
    """The nodes of a B-tree have 0 bytes: HDF5 takes all memory."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"BTHD") + 6: bytes(4)}))


@attack(FILE, "unsupported")
def a_tree_of_another_kind(path: Path) -> None:
    """A B-tree says that it holds other records than HDF5 asks it for: HDF5 crashes."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"BTHD") + 5: b"\3"}))


@attack(FILE, "damaged")
def a_heap_without_columns(path: Path) -> None:
    """The table of a heap of links has no columns: HDF5 divides by their number and crashes."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FRHP") + 110: bytes(2)}))


@attack(FILE, "damaged")
def a_heap_of_odd_blocks(path: Path) -> None:
    """The blocks of a heap of links have 2^56 - 1 bytes, of which HDF5 takes a logarithm."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FRHP") + 112: b"\xff" * 8}))


@attack(FILE, "unsupported")
def compressed_links(path: Path) -> None:
    """A heap of links is compressed, and HDF5 inflates it without a limit."""
    _many_links(path)
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FRHP") + 7: b"\x14"}))


@attack(FILE, "too-large")
def an_index_of_many_chunks(path: Path) -> None:
    """An index claims 2^40 chunks, and HDF5 walks through all of them."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("layer/0/weight", data=VALUES.reshape(24, 64), chunks=(4, 4))
    raw = path.read_bytes()
    path.write_bytes(with_checksums(raw, {raw.index(b"FAHD") + 13: b"\1"}))


def _many_links(path: Path) -> None:
    with h5py.File(path, "w", libver="v110") as file:
        for index in range(20):
            file[f"layer/0/more{index}"] = index
