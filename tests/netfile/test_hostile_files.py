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
from esl_lava.errors import FileError, LimitError
from esl_lava.netfile import chunks, safe, writer
from esl_lava.network import Matrix
from tests.attacks.hdf5_files import GZIP, VALUES, WHOLE, compact, dense, large, patch, stored
from tests.faults import refused
from tests.graphs import a_layer, a_network
from tests.netfile.networks import random_network
from tests.netfile.test_netfile import LIF

pytestmark = pytest.mark.slow

READ = """
import json, pathlib, resource, sys
from esl_lava import netfile
from esl_lava.errors import FileError
memory, seconds = int(sys.argv[1]), int(sys.argv[2])
if memory:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
def peak():  # not ru_maxrss, which a process inherits from the one that started it
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
before, base = resource.getrusage(resource.RUSAGE_SELF), peak()
for path in map(pathlib.Path, sys.stdin.read().splitlines()):
    try:
        print(json.dumps({"digest": netfile.digest(netfile.read(path))}))
    except FileError as error:
        print(json.dumps({**error.faults[0].as_json(), "sentence": str(error)}))
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([peak() - base, after.ru_utime - before.ru_utime]))
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


# --- Chunks that hold too little or too much. ------------------------------------------------


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


def test_long_names_are_not_written(path: Path) -> None:
    matrix = Matrix.from_dense([[2, -4]])
    longest = "x" * writer.MAX_NAME
    netfile.write(a_network((a_layer(longest, matrix, LIF),)), path)
    assert netfile.read(path).layers[0].name == longest
    with refused(FileError, "too-large", value=writer.MAX_NAME + 1, limit=writer.MAX_NAME):
        netfile.write(a_network((a_layer(longest + "x", matrix, LIF),)), path)


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


# --- Many names for one object, and more memory than the file could honestly take. -----------


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


def padded(path: Path) -> None:
    """Add bytes that compress badly, up to almost 300 kB: a file may take memory by its size."""
    with h5py.File(path, "r+") as file:
        file["padding"] = np.frombuffer(os.urandom(296_000 - path.stat().st_size), np.uint8)


def a_full_matrix(path: Path) -> None:
    large(path, "dense", (2560, 1 << 14), 2, shape=[2560])
    padded(path)


def a_full_kernel(path: Path) -> None:
    slid = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    large(path, "conv", (1690, 1 << 12, 3, 3), 2, shape=[1690, 1, 1], **slid)
    with h5py.File(path, "r+") as file:
        file.move("layer/0", "layer/1")
        file["layer/0/type"], file["layer/0/shape"] = np.bytes_("input"), [1 << 12, 3, 3]
    padded(path)


def a_full_matrix_of_ours(path: Path) -> None:
    """Its digest is computed too."""
    matrix = Matrix.from_dense(np.full((2440, 1 << 14), 2, np.int8))
    long = {"config": os.urandom(115_000).hex()}
    netfile.write(a_network((a_layer("a", matrix, LIF),), 4, long), path)


@pytest.mark.parametrize("make", [a_full_matrix, a_full_kernel, a_full_matrix_of_ours])
def test_the_most_that_a_small_file_may_take(path: Path, make: Callable[[Path], None]) -> None:
    """Files of less than 300 kB that are read, and take nearly as much memory as is allowed."""
    make(path)
    assert 250_000 < path.stat().st_size < 300_000
    (result,), memory, _ = read_apart([path], 4 << 30)
    assert "digest" in result, result
    assert 600 * MIB < memory < 1 << 30


def test_a_matrix_without_connections(path: Path) -> None:
    large(path, "dense", (1 << 14, 1 << 14), 0, shape=[1 << 14])
    assert_refused(path, "limit", 1 << 30)  # netx needs a weight


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
