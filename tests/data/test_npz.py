import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.data.npz import read_member
from esl_lava.errors import FileError
from tests.faults import refused

DTYPES = ("u1", "i1", "<i2", ">i4", "<u8", "?", "<f4", ">f8")
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)


class Trap:
    """An object that fails the test when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("an array was unpickled",)


def raw(array: npt.NDArray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def packed(path: Path, member: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples.npy", member)
    return path


@pytest.mark.slow
@given(ARRAYS, st.booleans(), st.booleans())
def test_what_numpy_saves_is_read(
    tmp_path_factory: pytest.TempPathFactory, array: npt.NDArray, columns: bool, small: bool
) -> None:
    array = np.asfortranarray(array) if columns else array
    path = tmp_path_factory.mktemp("arrays") / "some.npz"
    (np.savez_compressed if small else np.savez)(path, samples=array, other=np.arange(3))
    found = read_member(path, "samples", 1 << 20)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


def test_an_array_may_take_as_many_bytes_as_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, samples=np.arange(100, dtype=np.uint8))
    assert len(read_member(path, "samples", 228)) == 100  # behind a header of 128 bytes
    with refused(FileError, "too-large", key="samples", value=228, limit=227, file=path):
        read_member(path, "samples", 227)


@pytest.mark.parametrize(
    ("member", "code", "expected"),
    [
        (b"", "damaged", {}),
        (b"\x93NUMPY\x01\x00", "damaged", {}),
        (raw(np.arange(9))[:-1], "damaged", {"limit": 72}),
        (raw(np.arange(9)) + b"1", "damaged", {"limit": 72}),
        (b"\x93NUMPY\x03\x00" + raw(np.arange(9))[8:], "unsupported", {"value": (3, 0)}),
    ],
)
def test_damage_is_one_sentence(
    tmp_path: Path, member: bytes, code: str, expected: dict[str, object]
) -> None:
    path = packed(tmp_path / "some.npz", member)
    with refused(FileError, code, key="samples", file=path, **expected):
        read_member(path, "samples", 1 << 20)


def test_nothing_is_reserved_that_a_header_promises(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)}
    )
    path = packed(tmp_path / "some.npz", header.getvalue())
    with refused(FileError, "damaged", key="samples", value=1 << 50, file=path):
        read_member(path, "samples", 1 << 20)


def test_what_expands_without_end_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez_compressed(path, samples=np.zeros(1 << 22, np.uint8))
    assert path.stat().st_size < 1 << 14
    with refused(FileError, "too-large", key="samples", value=4194432, limit=65536):
        read_member(path, "samples", 1 << 16)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, samples=np.array([Trap()], object))
    with refused(FileError, "type", key="samples", value="object", file=path):
        read_member(path, "samples", 1 << 20)
    packed(path, pickle.dumps(Trap()))
    with refused(FileError, "damaged", key="samples", file=path):
        read_member(path, "samples", 1 << 20)


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    with refused(FileError, "not-found", file=path):
        read_member(path, "samples", 9)
    path.write_bytes(b"text")
    with refused(FileError, "damaged", file=path):
        read_member(path, "samples", 9)
    np.savez(path, other=np.arange(3))
    with refused(FileError, "missing", key="samples", file=path):
        read_member(path, "samples", 9)
