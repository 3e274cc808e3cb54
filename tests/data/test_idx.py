import gzip
import hashlib
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.data import idx
from esl_lava.errors import FileError
from tests.faults import refused

CODES = {
    "uint8": 0x08,
    "int8": 0x09,
    "int16": 0x0B,
    "int32": 0x0C,
    "float32": 0x0D,
    "float64": 0x0E,
}


def header(code: int, shape: tuple[int, ...]) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def idx_bytes(array: npt.NDArray[Any]) -> bytes:
    return (
        header(CODES[array.dtype.name], array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.mark.parametrize(
    ("code", "data", "expected"),
    [
        (0x08, "00 7f ff", np.array([0, 127, 255], "uint8")),
        (0x09, "00 7f ff", np.array([0, 127, -1], "int8")),
        (0x0B, "0001 7fff fffe", np.array([1, 32767, -2], "int16")),
        (0x0C, "00000001 00010000 ffffffff", np.array([1, 65536, -1], "int32")),
        (0x0D, "3f800000 c0000000 00000000", np.array([1, -2, 0], "float32")),
        (0x0E, "3ff0000000000000 c000000000000000" + "00" * 8, np.array([1, -2, 0], "float64")),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_type_by_hand(
    tmp_path: Path, code: int, data: str, expected: npt.NDArray[Any], pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack(bytes([0, 0, code, 1, 0, 0, 0, 3]) + bytes.fromhex(data)))
    read, _ = idx.read_idx(path)
    assert read.dtype == expected.dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, expected)
    read[0] = 5  # writable


def test_last_dimension_is_fastest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(header(0x08, (2, 3)) + bytes(range(6)))
    np.testing.assert_array_equal(idx.read_idx(path)[0], [[0, 1, 2], [3, 4, 5]])


def test_compression_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    content = header(0x08, (2,)) + b"\7\x08"
    (tmp_path / "plain.gz").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content))
    for name in ("plain.gz", "packed"):
        np.testing.assert_array_equal(idx.read_idx(tmp_path / name)[0], [7, 8])


@pytest.mark.slow
@given(
    array=st.sampled_from(sorted(CODES)).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_side=0, max_dims=4))
    ),
    pack=st.sampled_from([bytes, gzip.compress]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    array: npt.NDArray[Any],
    pack: Callable[[bytes], bytes],
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip"
    path.write_bytes(pack(idx_bytes(array)))
    read, digest = idx.read_idx(path)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert read.tobytes() == array.tobytes()  # bytes, so that a NaN equals itself
    assert digest == hashlib.sha256(idx_bytes(array)).hexdigest()


@pytest.mark.slow
@given(content=st.binary(max_size=60), pack=st.sampled_from([bytes, gzip.compress]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(pack(content))
    try:
        array, _ = idx.read_idx(path)
    except FileError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert idx_bytes(array) == content


GOOD = header(0x08, (2, 2)) + b"abcd"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "code", "expected"),
    [
        (b"", "damaged", {"value": ""}),
        (GOOD[:3], "damaged", {"value": "00 00 08"}),
        (b"\x89PNG" + GOOD, "damaged", {"value": "89 50 4e 47"}),
        (b"\0\1" + GOOD[2:], "damaged", {"value": "00 01 08 02"}),
        (b"\0\0\x0a\1" + GOOD[4:], "damaged", {"value": "00 00 0a 01"}),  # 0x0A is no type
        (b"\0\0\x08\0a", "range", {"value": 0, "limit": 32}),
        (b"\0\0\x08\x21" + b"\0\0\0\1" * 33 + b"a", "range", {"value": 33, "limit": 32}),
        (GOOD[:11], "damaged", {"value": 2}),  # ends inside its header
        (GOOD[:-1], "damaged", {"limit": 4}),
        (GOOD + b"e", "damaged", {"limit": 4}),
        (header(0x08, (0,)) + b"e", "damaged", {"limit": 0}),
        (header(0x08, ((1 << 31) + 1,)), "too-large", {"value": ((1 << 31) + 1,)}),
        (header(0x0E, (1 << 28, 2)), "too-large", {"value": (1 << 28, 2), "limit": 2 << 30}),
        (header(0x08, (0, 1 << 31, 2)), "too-large", {}),
        (header(0x08, (0xFFFFFFFF,) * 32), "too-large", {}),
    ],
)
def test_malformed_files_are_refused(
    tmp_path: Path,
    pack: Callable[[bytes], bytes],
    content: bytes,
    code: str,
    expected: dict[str, object],
) -> None:
    path = tmp_path / "bad-idx"
    path.write_bytes(pack(content))
    with refused(FileError, code, file=path, **expected):
        idx.read_idx(path)


def test_thirty_two_dimensions_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(header(0x08, (1,) * 32) + b"a")
    assert idx.read_idx(tmp_path / "file")[0].shape == (1,) * 32


def test_the_limit_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "SIZE_LIMIT", 4)
    (tmp_path / "at").write_bytes(GOOD)
    (tmp_path / "above").write_bytes(header(0x08, (5,)) + b"abcde")
    assert idx.read_idx(tmp_path / "at")[0].shape == (2, 2)
    with refused(FileError, "too-large", limit=4):
        idx.read_idx(tmp_path / "above")


def _flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[:12],
        lambda packed: packed[:2],
        lambda packed: packed + b"trailing",
        lambda packed: _flipped(packed, 10),  # the first byte of the deflated data
        lambda packed: _flipped(packed, -8),  # the checksum of what is packed
    ],
)
def test_damaged_gzip_files_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(damage(gzip.compress(GOOD)))
    with refused(FileError, "damaged", file=path):
        idx.read_idx(path)


def test_want_of_memory_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_at_most(stream: object, limit: int) -> bytearray:
        raise MemoryError

    (tmp_path / "file").write_bytes(GOOD)
    monkeypatch.setattr(idx, "_read_at_most", read_at_most)
    with refused(FileError, "too-large", file=tmp_path / "file"):
        idx.read_idx(tmp_path / "file")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with refused(FileError, "not-found", file=tmp_path / "absent"):
        idx.read_idx(tmp_path / "absent")
    with refused(FileError, "unreadable", file=tmp_path):
        idx.read_idx(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("promised", "held"),
    [
        (10, 64 << 20),  # a bomb: 64 KiB that expand to 64 MiB
        (2 << 30, 10),  # a header that promises far more than there is
    ],
)
def test_memory_follows_neither_a_bomb_nor_a_promise(
    tmp_path: Path, promised: int, held: int
) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(header(0x08, (promised,)) + bytes(held), compresslevel=1))
    assert os.path.getsize(path) < 1 << 20
    tracemalloc.start()
    try:
        with refused(FileError, "damaged", limit=promised, file=path):
            idx.read_idx(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20  # a few buffers of at most 1 MiB
