"""Files that were made to crash a reader, to take its memory or to keep it busy are refused.

The files are read in a process of its own, whose memory and time are limited.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.errors import CODES, FileError, LimitError
from esl_lava.netfile import chunks, safe, writer
from esl_lava.network import Matrix
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.netfile.networks import random_network
from tests.netfile.test_netfile import LIF, example

pytestmark = pytest.mark.slow

READ = """
import json, pathlib, resource, sys
from esl_lava import netfile
from esl_lava.errors import FileError
memory, seconds = int(sys.argv[1]), int(sys.argv[2])
if memory:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
before = resource.getrusage(resource.RUSAGE_SELF)
for path in map(pathlib.Path, sys.stdin.read().splitlines()):
    try:
        print(json.dumps({"digest": netfile.digest(netfile.read(path))}))
    except FileError as error:
        print(json.dumps({**error.faults[0].as_json(), "sentence": str(error)}))
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([(after.ru_maxrss - before.ru_maxrss) << 10, after.ru_utime - before.ru_utime]))
"""

MIB = 1 << 20


def read_apart(
    paths: list[Path], memory: int = 3 << 30, seconds: int = 60
) -> tuple[list[dict[str, Any]], int, float]:
    """Read files in another process.

    Returns:
        The fault or the digest of each file, and the memory (bytes) and the time (s) of all.
    """
    process = subprocess.run(
        [sys.executable, "-c", READ, str(memory), str(seconds)],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, f"{process.returncode}: {process.stderr[-2000:]}"
    *results, (used, time) = map(json.loads, process.stdout.splitlines())
    assert len(results) == len(paths)
    return results, used, time


def assert_refused(path: Path, code: str, within: int = 100 * MIB, **fields: object) -> str:
    """Assert that the file is refused, with little memory and time; return the sentence."""
    (fault,), memory, time = read_apart([path])
    assert fault.get("code") == code, fault
    assert fault["file"] == str(path)
    for name, value in fields.items():
        assert fault[name] == value, fault
    assert memory < within
    assert time < 20
    return str(fault["sentence"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.h5"


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


GZIP = {"compression": "gzip"}


def stored(raw: bytes, mask: int = 0) -> Callable[[Any], None]:
    return lambda weight: weight.write_direct_chunk((0, 0), raw, mask)


# --- Chunks that hold too little or too much. ------------------------------------------------


@pytest.mark.parametrize("inputs", [1000, 1 << 20])
def test_a_chunk_that_inflates_to_less(path: Path, inputs: int) -> None:
    """HDF5 returns bytes of its heap, or crashes."""
    dense(path, inputs, GZIP, stored(zlib.compress(os.urandom(30_000 if inputs > 5000 else 500))))
    assert_refused(path, "damaged", key="weight", limit=24 * inputs)


def test_a_chunk_that_inflates_to_more(path: Path) -> None:
    """HDF5 allocates whatever a stream inflates to."""
    stream = zlib.compressobj(9)
    raw = b"".join([*(stream.compress(bytes(1 << 24)) for _ in range(128)), stream.flush()])
    assert len(raw) < 3 * MIB
    dense(path, 64, GZIP, stored(raw))
    assert_refused(path, "damaged", key="weight", limit=24 * 64)


VALUES = np.arange(24 * 64, dtype=np.int8)
WHOLE = zlib.compress(VALUES.tobytes())
CHECKED = struct.pack("<I", 0)

WRONG = {
    "one byte": (GZIP, b"x", 0, "too-large"),
    "no stream": (GZIP, b"x" * 100, 0, "damaged"),
    "cut": (GZIP, WHOLE[:-1], 0, "damaged"),
    "a wrong checksum of zlib": (GZIP, WHOLE[:-1] + b"x", 0, "damaged"),
    "one byte less": (GZIP, zlib.compress(VALUES.tobytes()[:-1]), 0, "damaged"),
    "one byte more": (GZIP, zlib.compress(VALUES.tobytes() + b"x"), 0, "damaged"),
    "bytes that follow": (GZIP, WHOLE + b"x", 0, "damaged"),
    "not deflated, by its mask": (GZIP, WHOLE, 1, "damaged"),
    "not deflated, one byte less": (GZIP, VALUES.tobytes()[:-1], 1, "damaged"),
    "not deflated, one byte more": (GZIP, VALUES.tobytes() + b"x", 1, "damaged"),
    "without filters, one byte less": ({}, VALUES.tobytes()[:-1], 0, "damaged"),
    "without filters, one byte more": ({}, VALUES.tobytes() + b"x", 0, "damaged"),
    "shuffled, one byte less": ({"shuffle": True}, VALUES.tobytes()[:-1], 0, "damaged"),
    "a wrong checksum": ({"fletcher32": True}, VALUES.tobytes() + CHECKED, 0, "damaged"),
    "no checksum": ({"fletcher32": True}, VALUES.tobytes(), 0, "damaged"),
    "a checksum too many": ({"fletcher32": True}, VALUES.tobytes() + CHECKED, 1, "damaged"),
    "nothing but a checksum": ({"fletcher32": True, **GZIP}, CHECKED, 0, "damaged"),
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Read the files of `WRONG` in one process."""
    folder = tmp_path_factory.mktemp("wrong")
    paths = []
    for index, (options, raw, mask, _) in enumerate(WRONG.values()):
        paths.append(dense(folder / f"{index}.h5", 64, options, stored(raw, mask)))
    results, _, _ = read_apart(paths, 2 << 30)
    return dict(zip(WRONG, zip(paths, results)))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_chunks(wrong: dict[str, Any], name: str) -> None:
    path, fault = wrong[name]
    assert fault.get("code") == WRONG[name][3], fault
    assert (fault["key"], fault["file"], fault["layer"]) == ("weight", str(path), "layer0")


def test_absent_chunks(path: Path) -> None:
    """HDF5 would take zeros for the part of an array that an interrupted program did not write."""

    def fill(weight: Any) -> None:
        weight.write_direct_chunk((0, 0), WHOLE)
        weight.write_direct_chunk((0, 64), WHOLE)

    dense(path, 200, {"chunks": (24, 64), **GZIP}, fill)
    assert_refused(path, "damaged", key="weight", value=2, limit=4)


FILTERS = [
    {},
    {"compression": "gzip"},
    {"shuffle": True},
    {"fletcher32": True},
    {"compression": "gzip", "shuffle": True},
    {"compression": "gzip", "fletcher32": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
]


@pytest.mark.parametrize("options", FILTERS)
@pytest.mark.parametrize("chunk", [(24, 37), (7, 11), (24, 5), (1, 37)])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("dtype", ["i1", ">i2", "<i4", "f4"])
def test_what_hdf5_stores_is_read(
    path: Path, options: dict[str, Any], chunk: tuple[int, int], libver: str, dtype: str
) -> None:
    """Chunks at the edge, every index of chunks, and every filter."""
    values = 2 * np.random.default_rng(0).integers(-60, 60, (24, 37))
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("a", data=values.astype(dtype), chunks=chunk, **options)
        file.create_dataset("b", (24, 37), dtype, chunks=chunk, maxshape=(None, None), **options)
        file["b"][()] = values
        file.create_dataset("c", (24, 37), dtype, chunks=chunk, maxshape=(None, 37), **options)
        file["c"][()] = values
    with h5py.File(path, driver="sec2") as file:
        root = safe.open_root(file)
        for name in "abc":
            found = safe.read_integers(root, name, values.size)
            assert np.array_equal(found, values)
            assert found.dtype == (np.int32 if dtype == "f4" else dtype)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_growth_along_a_later_axis(path: Path, libver: str) -> None:
    """HDF5 2.0 lists the chunks of the newer kind of file at wrong places."""
    with h5py.File(path, "w", libver=libver) as file:
        values = VALUES.reshape(24, 64)
        file.create_dataset("a", data=values, chunks=(8, 8), maxshape=(24, None))
    with (
        h5py.File(path, driver="sec2") as file,
        refused(chunks.RefusedError, "unsupported", key="a"),
    ):
        safe.read_integers(safe.open_root(file), "a", VALUES.size)


def test_a_filter_left_out_of_a_chunk(path: Path) -> None:
    """HDF5 marks in its filter mask a chunk to which it did not apply a filter."""
    values = VALUES.reshape(24, 64)
    planes = np.ascontiguousarray(values.astype("<i2").view("u1").reshape(-1, 2).T)
    whole = values.astype("<i2").tobytes()
    with h5py.File(path, "w") as file:
        for name, raw, mask in (
            ("a", zlib.compress(planes.tobytes()), 0),
            ("b", planes.tobytes(), 2),
            ("c", zlib.compress(whole), 1),
            ("d", whole, 3),
        ):
            weight = file.create_dataset(
                name, (24, 64), "<i2", chunks=(24, 64), shuffle=True, **GZIP
            )
            weight.id.write_direct_chunk((0, 0), raw, mask)
    with h5py.File(path, driver="sec2") as file:
        root = safe.open_root(file)
        for name in "abcd":
            assert np.array_equal(safe.read_integers(root, name, values.size), values), name


# --- Axes, places and kinds of storage. ------------------------------------------------------


def patch(path: Path, changes: dict[int, bytes]) -> None:
    raw = bytearray(path.read_bytes())
    for place, content in changes.items():
        raw[place : place + len(content)] = content
    path.write_bytes(raw)


def test_chunks_of_more_axes_than_the_values(path: Path) -> None:
    """HDF5 would never return, and take all memory. The rank is one byte of the header."""
    with h5py.File(path, "w", libver="earliest") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = np.bytes_("dense"), np.array([24])
        values = VALUES.reshape(24, 64)
        layer.create_dataset("weight", data=values, chunks=(24, 64), **GZIP)
    raw = path.read_bytes()
    place = raw.index(struct.pack("<QQQQ", 24, 64, 24, 64))  # lengths now and at most
    assert raw[place - 8 : place - 6] == b"\1\2"  # version and rank
    patch(path, {place - 7: b"\1"})
    with h5py.File(path) as file:
        assert file["layer/0/weight"].shape == (24,)
    assert_refused(path, "damaged", key="weight", value="(24, 64)")


def test_contiguous_values_beyond_the_file(path: Path) -> None:
    values = VALUES.reshape(24, 64)
    with h5py.File(path, "w", libver="earliest") as file:
        layer = file.create_group("layer/0")
        layer["type"], layer["shape"] = np.bytes_("dense"), np.array([24])
        layer["weight"] = values
        place = layer["weight"].id.get_offset()
    raw = path.read_bytes()
    header = raw.index(struct.pack("<QQ", place, values.nbytes))
    for claimed in (len(raw) - values.nbytes + 1, 1 << 40, (1 << 63) + 5):
        patch(path, {header: struct.pack("<Q", claimed)})
        assert_refused(path, "damaged")
    for size in (values.nbytes - 1, 1):
        patch(path, {header: struct.pack("<QQ", place, size)})
        assert_refused(path, "too-large" if size == 1 else "damaged")


def compact(group: h5py.Group, name: str, values: Any) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    kind, space = (
        h5py.h5t.py_create(values.dtype, logical=True),
        h5py.h5s.create_simple(values.shape),
    )
    dataset = h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=creation)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def test_compact_values(path: Path) -> None:
    values = VALUES.reshape(24, 64)
    netfile_path = dense(path, 64, {"chunks": None}, lambda weight: None)
    with h5py.File(netfile_path, "r+") as file:
        for name in ("weight", "type", "shape"):
            del file[f"layer/0/{name}"]
        compact(file["layer/0"], "weight", 2 * values)
        compact(file["layer/0"], "type", np.array([b"dense"]))
        compact(file["layer/0"], "shape", np.array([24]))
    weights = netfile.read(path).layers[0].inputs[0].connections.unrolled().dense()
    assert np.array_equal(weights, 2 * values)


def test_texts_of_variable_length_in_a_compact_dataset(path: Path) -> None:
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        del file["layer/0/type"]
        compact(file["layer/0"], "type", np.array(["dense"], h5py.string_dtype()))
    assert_refused(path, "unsupported", key="type")


def test_other_bits_of_a_number(path: Path) -> None:
    """numpy does not know integers of fewer bits than their bytes have."""
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        del file["layer/0/shape"]
        kind = h5py.h5t.STD_I64LE.copy()
        kind.set_precision(40)
        h5py.h5d.create(file["layer/0"].id, b"shape", kind, h5py.h5s.create_simple((1,)))
        file["layer/0/shape"][0] = 24
    assert_refused(path, "type", key="shape")


def test_a_boolean_of_two(path: Path) -> None:
    dense(path, 64, GZIP, stored(WHOLE))
    with h5py.File(path, "r+") as file:
        neuron = file["layer/0/neuron"]
        graded = neuron.create_dataset("gradedSpike", (1,), bool, chunks=(1,))
        graded.id.write_direct_chunk((0,), b"\2")
    assert_refused(path, "damaged", key="gradedSpike")


@pytest.mark.parametrize(("pad", "raw"), [("SPACEPAD", b"dense  "), ("NULLTERM", b"dense\0x")])
def test_padded_texts(path: Path, pad: str, raw: bytes) -> None:
    dense(path, 64, GZIP, stored(zlib.compress((VALUES & 126).tobytes())))
    with h5py.File(path, "r+") as file:
        del file["layer/0/type"]
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(7)
        kind.set_strpad(getattr(h5py.h5t, f"STR_{pad}"))
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((1,))
        space = h5py.h5s.create_simple((1,))
        text = h5py.h5d.create(file["layer/0"].id, b"type", kind, space, dcpl=creation)
        text.write_direct_chunk((0,), raw)
    assert netfile.read(path).layers[0].neurons == 24


# --- Texts. ----------------------------------------------------------------------------------


def variable_texts(path: Path) -> tuple[int, int]:
    """Write a file with two texts of variable length; return the places of their references."""
    dense(path, 64, GZIP, stored(zlib.compress((VALUES & 126).tobytes())))
    with h5py.File(path, "r+") as file:
        del file["layer/0/type"], file["layer/0/neuron/type"]
        file["layer/0/type"], file["layer/0/neuron/type"] = "dense", "LOIHI"
        return tuple(
            file[f"layer/0/{name}"].id.get_offset()
            for name in ("type", "neuron/type")  # type: ignore[return-value]
        )


def test_texts_of_variable_length(path: Path) -> None:
    first, second = variable_texts(path)
    whole = path.read_bytes()
    assert netfile.read(path).layers[0].neurons == 24
    changes = {
        "the length": (second, struct.pack("<I", 4)),
        "another length": (second, struct.pack("<I", 6)),
        "a great length": (second, struct.pack("<I", 1 << 20)),
        "no such text": (second + 12, struct.pack("<I", 77)),
        "the other's text": (second, whole[first : first + 16]),
        "no heap": (second + 4, struct.pack("<Q", 64)),
        "beyond the file": (second + 4, struct.pack("<Q", 1 << 50)),
    }
    paths = []
    for index, (place, content) in enumerate(changes.values()):
        copy = path.with_name(f"{index}.h5")
        copy.write_bytes(whole)
        patch(copy, {place: content})
        paths.append(copy)
    heap = whole.index(b"GCOL")
    for index, (place, number) in enumerate(
        [(heap + 8, 1 << 40), (heap + 8, 8), (heap + 24, 1 << 60), (heap + 24, 4)]
    ):
        copy = path.with_name(f"heap{index}.h5")
        copy.write_bytes(whole)
        patch(copy, {place: struct.pack("<Q", number)})
        paths.append(copy)
    results, memory, _ = read_apart(paths)
    for result in results:
        assert (result["code"], result["key"]) == ("damaged", "type"), result
    assert memory < 50 * MIB


def test_long_attributes(path: Path) -> None:
    netfile.write(example(), path)
    with h5py.File(path, "r+", libver="v110") as file:
        group = file["esl_lava/layer/0"]
        del group.attrs["name"]
        group.attrs["name"] = np.array(b"x" * (safe.MAX_TEXT + 1))
    assert_refused(path, "unsupported")  # HDF5 stores it in a structure of its own


def test_long_names_are_not_written(path: Path) -> None:
    matrix = Matrix.from_dense([[2, -4]])
    longest = "x" * writer.MAX_NAME
    netfile.write(a_network((a_layer(longest, matrix, LIF),)), path)
    assert netfile.read(path).layers[0].name == longest
    with refused(FileError, "too-large", value=writer.MAX_NAME + 1, limit=writer.MAX_NAME):
        netfile.write(a_network((a_layer(longest + "x", matrix, LIF),)), path)


def test_a_tree_whose_nodes_occur_at_many_places(path: Path) -> None:
    """HDF5 would count 32^9 links."""
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
    with h5py.File(path) as file:
        assert "0" in file["layer"]
    assert_refused(path, "damaged")


def test_trees_that_lead_back(path: Path) -> None:
    """HDF5 crashes on a node that is its own child."""
    with h5py.File(path, "w", libver="earliest") as file:
        for index in range(2000):
            file[f"layer/{index}"] = index
    links = path.read_bytes()
    dense(path, 100, {"chunks": (1, 1)}, lambda weight: None)
    with h5py.File(path, "r+") as file:
        file["layer/0/weight"][()] = 2
    for raw, kind, key in ((bytearray(links), 0, 8), (bytearray(path.read_bytes()), 1, 32)):
        inner = [
            place
            for place in range(0, len(raw), 8)
            if raw[place : place + 4] == b"TREE" and raw[place + 4] == kind and raw[place + 5]
        ]
        root = max(inner, key=lambda place: raw[place + 5])
        for other in (root, inner[-1]):
            child = root + 24 + key
            copy = path.with_name(f"{kind}.h5")
            copy.write_bytes(raw)
            assert raw.index(raw[child : child + 8]) > 0
            patch(copy, {child: struct.pack("<Q", other)})
            assert_refused(copy, "damaged")


def test_claims_of_trees_and_arrays(path: Path) -> None:
    """HDF5 would walk as many levels or chunks as the file claims."""
    values = VALUES.reshape(24, 64)
    with h5py.File(path, "w", libver="latest") as file:
        for index in range(20):
            file[f"layer/{index}"] = index
        file.create_dataset("fixed", data=values, chunks=(4, 4))
        file.create_dataset("growing", data=values, chunks=(4, 4), maxshape=(None, 64))
    raw = path.read_bytes()
    for signature, offset, claim, code in (
        (b"BTHD", 5, b"\3", "unsupported"),
        (b"BTHD", 12, b"\xff\xff", "too-large"),
        (b"BTHD", 6, b"\xff\xff\xff", "too-large"),
        (b"FAHD", 13, b"\1", "too-large"),
        (b"EAHD", 50, b"\1", "too-large"),
    ):
        path.write_bytes(raw)
        patch(path, {raw.index(signature) + offset: claim})
        assert "claims" in assert_refused(path, code) or signature == b"BTHD"


def test_trees_of_many_nodes(path: Path) -> None:
    """Groups of many links, and arrays of many chunks, have trees of several levels."""
    rows = np.random.default_rng(0).integers(-60, 60, (3000, 4), np.int8)
    with h5py.File(path, "w", libver="earliest") as file:
        for index in range(3000):
            file[f"group/{index}"] = index
        file.create_dataset("rows", data=rows, chunks=(1, 4), **GZIP)
        file.create_dataset("deep", data=rows.reshape(-1, 2, 2), chunks=(4, 1, 1))
    with h5py.File(path, driver="sec2") as file:
        root = safe.open_root(file)
        group = safe.get_group(root, "group")
        assert safe.read_integers(group, "1234", 1) == 1234
        assert len(group) == len(set(group.names(5000))) == 3000
        assert len(group.names(7)) == 7
        assert np.array_equal(safe.read_integers(root, "rows", rows.size), rows)
        assert np.array_equal(safe.read_integers(root, "deep", rows.size).ravel(), rows.ravel())


def test_addresses_of_other_lengths(path: Path) -> None:
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_sizes(4, 4)
    with h5py.File(h5py.h5f.create(bytes(path), fcpl=creation)) as file:
        file.create_group("layer")
    assert_refused(path, "unsupported", value="(4, 4)")


# --- Many names for one object, and more memory than the file could honestly take. -----------


def test_many_names_for_one_layer(path: Path) -> None:
    dense(path, 1000, GZIP, lambda weight: None)
    with h5py.File(path, "r+", libver="latest") as file:
        file["layer/0/weight"][()] = 2
        for index in range(1, 10_000):
            file[f"layer/{index}"] = file["layer/0"]
    assert path.stat().st_size < MIB
    assert_refused(path, "unsupported", key="1", layer="layer1")


def test_many_names_for_one_matrix(path: Path) -> None:
    dense(path, 1 << 20, GZIP, lambda weight: None)
    with h5py.File(path, "r+") as file:
        file["layer/0/weight"][:, 0] = 2
        for index in range(1, 40):
            layer = file.create_group(f"layer/{index}")
            for key in ("type", "shape"):
                layer[key] = file[f"layer/0/{key}"][()]
            layer["weight"] = file["layer/0/weight"]
            file.copy("layer/0/neuron", layer)
    assert_refused(path, "unsupported", 200 * MIB, key="weight", layer="layer1")


def test_a_group_within_itself(path: Path) -> None:
    dense(path, 64, GZIP, stored(zlib.compress((VALUES & 126).tobytes())))
    with h5py.File(path, "r+") as file:
        del file["layer/0/neuron"]
        file["layer/0/neuron"] = file["layer"]
    assert_refused(path, "unsupported", key="neuron")


def test_a_name_with_a_path(path: Path, tmp_path: Path) -> None:
    """HDF5 would follow the path, and its first link leads out of the file."""
    os.mkfifo(tmp_path / "pipe")
    netfile.write(example(), path)
    with h5py.File(path, "r") as source, h5py.File(tmp_path / "old.h5", "w") as file:
        for name in ("layer", "esl_lava"):
            source.copy(name, file)
        del file["esl_lava/provenance"]
        facts = file.create_group("esl_lava/provenance")
        facts["there"] = h5py.ExternalLink("pipe", "/")
        facts["first_there_config"] = "x"
    raw = (tmp_path / "old.h5").read_bytes()
    assert raw.count(b"first_there_config") == 1
    path.write_bytes(raw.replace(b"first_there_config", b"./there/the_config"))
    assert_refused(path, "damaged", key="./there/the_config")


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


def test_small_files_take_less_than_a_gibibyte(path: Path) -> None:
    side = 1 << 14
    large(path, "dense", (side, side), 2, shape=[side])
    assert path.stat().st_size < 280_000
    assert_refused(path, "too-large", 400 * MIB, key="weight", layer="layer0")
    slid = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    kernel = (1 << 11, 1 << 13, 4, 4)
    large(path, "conv", kernel, 0, shape=[1 << 11, 1, 1], **slid)
    with h5py.File(path, "r+") as file:
        file.move("layer/0", "layer/1")
        file["layer/0/type"], file["layer/0/shape"] = np.bytes_("input"), [1 << 13, 4, 4]
    assert_refused(path, "too-large", 400 * MIB, key="weight", layer="layer1")


@pytest.mark.parametrize("value", [0, 2])
def test_the_largest_that_a_small_file_may_hold(path: Path, value: int) -> None:
    """The matrix has no connections, or as many as are allowed."""
    side = 1 << 14
    rows = side if value == 0 else 1500
    large(path, "dense", (rows, side), value, shape=[rows])
    (result,), memory, _ = read_apart([path], 4 << 30)
    if value == 0:
        assert result["code"] == "limit"  # netx needs a weight
    else:
        assert "digest" in result
    assert memory < 1 << 30


def test_what_would_not_be_read_is_not_written(path: Path) -> None:
    weights = np.full((6000, 6000), 2, np.int8)
    network = a_network((a_layer("a", Matrix.from_dense(weights), LIF),))
    needed = weights.size * (2 + 18) + 12_000 * 32
    with refused(LimitError, "limit", value=needed) as caught:
        netfile.write(network, path)
    assert caught.value.faults[0].limit < needed
    assert not path.exists()


def test_pieces_that_share_their_bytes(path: Path) -> None:
    path.write_bytes(bytes(100))
    with path.open("rb") as file:
        content = chunks.FileBytes(file.fileno())
        assert content.read(40, 60, "a") == bytes(60)
        with refused(chunks.RefusedError, "damaged", key="b"):
            content.read(0, 50, "b")
        for place, count in ((None, 1), (-1, 1), (100, 1), (0, 101), (0, -1)):
            with refused(chunks.RefusedError, "damaged", key="c"):
                chunks.FileBytes(file.fileno()).read(place, count, "c")


def test_compressed_links_and_attributes(path: Path) -> None:
    """HDF5 would inflate them without a limit."""
    netfile.write(random_network(11), path)
    with h5py.File(path, "r+", libver="v110") as file:
        for index in range(20):
            file[f"layer/0/more{index}"] = index
    place = path.read_bytes().index(b"FRHP\0")
    assert netfile.read(path)
    patch(path, {place + 7: b"\x14"})
    assert "compressed" in assert_refused(path, "unsupported")


# --- Mutants. --------------------------------------------------------------------------------

MUTANTS = 300


def mutate(source: Path, path: Path, seed: int) -> None:
    """Copy a file and damage a chunk, or some bytes anywhere."""
    rng = np.random.default_rng(seed)
    raw = source.read_bytes()
    path.write_bytes(raw)
    if seed % 3 == 0:
        for place in rng.integers(0, len(raw), rng.integers(1, 5)).tolist():
            patch(path, {place: bytes([int(rng.integers(256))])})
        return
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: (
                names.append(name) if getattr(item, "chunks", None) is not None else None
            )
        )
        dataset = file[str(rng.choice(names))]
        mask, chunk = dataset.id.read_direct_chunk((0,) * dataset.ndim)
        plain = zlib.decompress(chunk)
        kind = rng.choice(["cut", "more", "flip", "shorter", "longer", "mask", "plain", "random"])
        count = int(rng.integers(1, 1 + len(chunk)))
        flipped = bytearray(chunk)
        flipped[count - 1] ^= int(rng.integers(1, 256))
        changed = {
            "cut": chunk[:-count],
            "more": chunk + rng.bytes(count),
            "flip": bytes(flipped),
            "shorter": zlib.compress(plain[: len(plain) - count]),
            "longer": zlib.compress(plain + bytes(count)),
            "mask": chunk,
            "plain": plain,
            "random": rng.bytes(count),
        }[str(kind)]
        if kind == "mask" or rng.random() < 0.2:
            mask = int(rng.choice([1, 2, 3, 0xFFFFFFFF]))
        dataset.id.write_direct_chunk((0,) * dataset.ndim, changed or b"\0", mask)


@pytest.mark.parametrize("network", [example(), random_network(11)], ids=["plain", "any"])
def test_mutants(tmp_path: Path, network: Any) -> None:
    """Each mutant is refused, or the reader finds the very same network."""
    source = tmp_path / "source.h5"
    netfile.write(network, source)
    digest = netfile.digest(netfile.read(source))
    paths = [tmp_path / f"{seed}.h5" for seed in range(MUTANTS)]
    for seed, path in enumerate(paths):
        mutate(source, path, seed)
    results, memory, _ = read_apart(paths, 2 << 30, 120)
    refusals = 0
    for path, result in zip(paths, results):
        if "digest" in result:
            assert result["digest"] == digest, path
        else:
            assert result["code"] in CODES
            assert result["file"] == str(path)
            refusals += 1
    assert refusals > MUTANTS / 3
    assert memory < 200 * MIB
