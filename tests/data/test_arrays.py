import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data.arrays import read_array, reorder_axes
from esl_lava.errors import ConfigError, FileError
from tests.faults import refused


@pytest.mark.parametrize("dtype", ["uint8", "int32", ">i8", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_saves_is_read(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.array(np.arange(24).reshape(2, 3, 4) % 2, dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    found = read_array(tmp_path / "a.npy", "spikes")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    """A sparse file of a gigabyte takes no time and no memory."""
    np.save(tmp_path / "a.npy", np.zeros((1, 1, 1), np.uint8))
    header = (tmp_path / "a.npy").read_bytes()[:-1]
    large = header.replace(b"(1, 1, 1)", b"(1000000, 10, 100)").replace(b" " * 8, b"", 1)
    large += b" " * (len(header) - len(large)) if len(large) < len(header) else b""
    (tmp_path / "large.npy").write_bytes(large)
    os.truncate(tmp_path / "large.npy", len(large) + 10**9)
    assert read_array(tmp_path / "large.npy", "spikes").shape == (1_000_000, 10, 100)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("trapped",))


def test_nothing_is_run_of_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("trap.npy", np.array([Trap()]), allow_pickle=True)
    with refused(FileError, "damaged", file=Path("trap.npy")):
        read_array(Path("trap.npy"), "spikes")
    assert not os.path.exists("trapped")


@pytest.mark.parametrize(
    ("make", "code", "key", "value"),
    [
        (lambda path: None, "not-found", None, None),
        (lambda path: path.mkdir(), "unreadable", None, None),
        (lambda path: path.write_bytes(b""), "damaged", None, None),
        (lambda path: path.write_text("spikes"), "damaged", None, None),
        (lambda path: np.savez(path.open("wb"), a=[1]), "unsupported", "spikes", None),
        (lambda path: path.write_bytes(b"PK\x03\x04 no archive"), "unsupported", "spikes", None),
        (lambda path: path.write_bytes(b"\x93NUMPY"), "damaged", None, None),
        (lambda path: path.write_bytes(pickle.dumps([1])), "damaged", None, None),
        (lambda path: np.save(path, [0.5]), "type", "spikes", "float64"),
        (lambda path: np.save(path, ["a"]), "type", "spikes", "<U1"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, make: object, code: str, key: str | None, value: str | None
) -> None:
    path = tmp_path / "a.npy"
    make(path)  # type: ignore[operator]
    with refused(FileError, code, key=key, value=value, file=path):
        read_array(path, "spikes")


PARTS = """'descr' 'fortran_order' 'shape' '<u1' '|O' 'U999999999999' '<M8[ns]' ('a','<u1',(2,-3))
    '(2147483647,2147483647)u1' ( [ { , ) ] } : 1 -1 99999999999999999999 1e400 2**9 0x None True
    lambda:0 b'' ~""".split()


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(PARTS), max_size=20), st.integers(1, 1000), st.sampled_from(b"\1\2\3")
)
def test_any_header_is_refused_or_read(
    tmp_path: Path, parts: list[str], times: int, version: int
) -> None:
    header = f"{{'descr': '<u1', 'shape': {' '.join(parts) * times}, 'fortran_order': False}}"
    size = (len(header) % (1 << 16)).to_bytes(2 if version == 1 else 4, "little")
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + bytes(100))
    with contextlib.suppress(FileError):
        assert read_array(path, "spikes").nbytes <= 100


@pytest.mark.slow
@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, place: int, other: bytes) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 4, 5), np.uint8))
    raw = bytearray(path.read_bytes())
    raw[place : place + len(other)] = other
    path.write_bytes(raw)
    with contextlib.suppress(FileError):
        assert read_array(path, "spikes").nbytes <= len(raw)


LENGTHS = {"N": 2, "T": 3, "C": 4, "H": 5, "W": 6}
NUMBERS = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)


@pytest.mark.parametrize("axes", ["NTCHW", "NTHWC", "NCHWT", "WHCTN", "nthwc"])
def test_axes_are_arranged_as_networks_take_them(axes: str) -> None:
    theirs = np.einsum(f"ntchw->{axes.lower()}", NUMBERS)
    assert theirs.shape == tuple(LENGTHS[letter] for letter in axes.upper())
    np.testing.assert_array_equal(reorder_axes(theirs, axes), NUMBERS)
    assert np.shares_memory(reorder_axes(theirs, axes), theirs)


def test_channels_alone_are_the_inputs_and_none_is_one() -> None:
    flat = NUMBERS.reshape(2, 3, 120)
    np.testing.assert_array_equal(reorder_axes(flat.transpose(0, 2, 1), "NCT"), flat)
    one = NUMBERS[:, :, 0]
    found = reorder_axes(one.transpose(2, 3, 0, 1), "HWNT")
    np.testing.assert_array_equal(found, NUMBERS[:, :, :1])


@pytest.mark.parametrize(
    "axes", ["", "NT", "NTH", "NTW", "NTCH", "NCHW", "TCHW", "NTHWCC", "NNTHW", "NTXYZ", "NTCHWD"]
)
def test_other_letters_are_refused(axes: str) -> None:
    with refused(ConfigError, "type", key="--axes", value=axes):
        reorder_axes(NUMBERS, axes)


def test_every_axis_needs_its_letter() -> None:
    with refused(ConfigError, "mismatch", key="--axes", value="NTHW", limit=5):
        reorder_axes(NUMBERS, "NTHW")
