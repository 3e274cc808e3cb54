import contextlib
import io
import os
import pickle
import struct
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data import batches
from esl_lava.data.batches import read_batch
from esl_lava.errors import FileError
from tests.faults import refused

FEATURES, CLASSES = 6, 4
FILE = "folder/data_batch_1"


class Written:
    """A pickle as Python 2's cPickle wrote it, with the kinds of values of the published files."""

    def __init__(self, protocol: int = 2) -> None:
        self.protocol = protocol
        self.out = io.BytesIO()
        self.puts = 0
        self.names: dict[str, int] = {}
        if protocol == 2:
            self.out.write(b"\x80\x02")

    def put(self) -> None:
        self.puts += 1
        small = self.puts < 256
        self.out.write(b"q%c" % self.puts if small else b"r" + struct.pack("<I", self.puts))

    def text(self, raw: bytes) -> None:
        short = len(raw) < 256
        self.out.write(b"U%c" % len(raw) if short else b"T" + struct.pack("<i", len(raw)))
        self.out.write(raw)
        self.put()

    def number(self, value: int) -> None:
        if 0 <= value < 256:
            self.out.write(b"K%c" % value)
        else:
            self.out.write(
                b"M" + struct.pack("<H", value)
                if 0 <= value < 1 << 16
                else b"J" + struct.pack("<i", value)
            )

    def tuple(self, *items: Any) -> None:
        short = self.protocol == 2 and len(items) <= 3
        self.out.write(b"" if short else b"(")
        for item in items:
            self.any(item)
        self.out.write(b"\x84\x85\x86\x87"[len(items) :][:1] if short else b"t")
        self.put()

    def name(self, name: str) -> None:
        if name in self.names:
            self.out.write(b"h%c" % self.names[name])
            return
        self.out.write(b"c%s\n" % name.replace(" ", "\n").encode())
        self.put()
        self.names[name] = self.puts

    def array(self, array: npt.NDArray[np.uint8]) -> None:
        self.name("numpy.core.multiarray _reconstruct")
        self.tuple(type("Name", (), {"name": "numpy ndarray"}), (0,), b"b")
        self.out.write(b"R")
        self.put()
        by_columns = not array.flags.c_contiguous
        dtype = type("Type", (), {})
        raw = array.tobytes("F" if by_columns else "C")
        self.tuple(1, array.shape, dtype, by_columns, raw)
        self.out.write(b"b")

    def any(self, value: Any) -> None:
        if value is None:
            self.out.write(b"N")
        elif isinstance(value, bool):
            two = b"\x88" if value else b"\x89"
            self.out.write(two if self.protocol == 2 else b"I%02d\n" % value)
        elif isinstance(value, int):
            self.number(value)
        elif isinstance(value, bytes):
            self.text(value)
        elif isinstance(value, tuple):
            self.tuple(*value)
        elif isinstance(value, np.ndarray):
            self.array(value)
        elif isinstance(value, list):
            self.out.write(b"]")
            self.put()
            for start in range(0, len(value), 1000):
                self.out.write(b"(")
                for item in value[start : start + 1000]:
                    self.any(item)
                self.out.write(b"e")
        elif hasattr(value, "name"):
            self.name(value.name)
        elif isinstance(value, type):
            self.name("numpy dtype")
            self.tuple(b"u1", 0, 1)
            self.out.write(b"R")
            self.put()
            self.tuple(3, b"|", None, None, None, -1, -1, 0)
            self.out.write(b"b")
        else:
            raise TypeError(type(value))


def batch_bytes(protocol: int = 2, **content: Any) -> bytes:
    """Return the file of a dictionary of lists, arrays, bytes and integers."""
    written = Written(protocol)
    written.out.write(b"}")
    written.put()
    written.out.write(b"(")
    for key, value in content.items():
        written.text(key.encode())
        written.any(value)
    written.out.write(b"u.")
    return written.out.getvalue()


def batch(images: int = 5, protocol: int = 2, **changes: Any) -> bytes:
    pixels = np.random.default_rng(2).integers(0, 256, (images, FEATURES)).astype(np.uint8)
    content: dict[str, Any] = {
        "batch_label": b"training batch 1 of 5",
        "labels": [n % CLASSES for n in range(images)],
        "data": pixels,
        "filenames": [b"some_s_%06d.png" % n for n in range(images)],
    }
    return batch_bytes(protocol, **(content | changes))


def read(raw: bytes, key: str = "labels") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    return read_batch(raw, FILE, key, FEATURES, CLASSES)


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("images", [1, 5, 300, 2500])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.filterwarnings("ignore")  # numpy 2 about the names of numpy 1
def test_what_python_reads_is_read(images: int, protocol: int, order: Any) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (images, FEATURES)).astype(np.uint8)
    raw = batch(images, protocol, data=np.array(pixels, order=order))
    theirs = pickle.loads(raw, encoding="latin1")  # ours, made above
    assert set(theirs) == {"batch_label", "labels", "data", "filenames"}
    found, labels = read(raw)
    assert (found.dtype, labels.dtype) == (np.dtype("u1"), np.dtype("i8"))
    np.testing.assert_array_equal(found, theirs["data"])
    np.testing.assert_array_equal(found, pixels)
    assert labels.tolist() == theirs["labels"]


def test_labels_of_another_key() -> None:
    raw = batch(2, coarse_labels=[3, 3], fine_labels=[1, 2])
    assert read(raw, "fine_labels")[1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "key", "code", "value", "limit"),
    [
        ({"data": [1, 2]}, "data", "missing", None, None),
        ({"data": b"text"}, "data", "missing", None, None),
        ({"data": np.zeros((5, 7), np.uint8)}, "data", "shape", (5, 7), 6),
        ({"data": np.zeros(30, np.uint8)}, "data", "shape", (30,), 6),
        ({"data": np.zeros((0, 6), np.uint8), "labels": []}, "data", "shape", (0, 6), 6),
        ({"labels": (0, 1, 2, 3, 0)}, "labels", "missing", None, None),
        ({"labels": [0, 1]}, "labels", "mismatch", 2, 5),
        ({"labels": [0, 1, 2, 3, 4]}, "labels", "range", 4, 3),
        ({"labels": [0, 1, 2, 3, -1]}, "labels", "range", -1, 3),
        ({"labels": [0, 1, 2, 3, True]}, "labels", "range", True, 3),
        ({"labels": [0, 1, 2, 3, b"0"]}, "labels", "range", "0", 3),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], key: str, code: str, value: object, limit: object
) -> None:
    with refused(FileError, code, key=key, value=value, limit=limit, file=FILE):
        read(batch(**changes))


def test_missing_parts_are_named() -> None:
    pixels = np.zeros((1, FEATURES), np.uint8)
    with refused(FileError, "missing", key="data", file=FILE):
        read(batch_bytes(labels=[1]))
    with refused(FileError, "missing", key="labels", file=FILE):
        read(batch_bytes(data=pixels))
    with refused(FileError, "type", value="list", file=FILE):
        read(b"\x80\x02].")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("trapped",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run_of_a_pickle(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = pickle.dumps({"data": Trap()}, protocol)
    with refused(FileError, "damaged", file=FILE) as caught:
        read(raw)
    assert "refused" in str(caught.value)
    assert not os.path.exists("trapped")
    pickle.loads(raw)
    assert os.path.exists("trapped")  # it is a trap


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"cos\nmkdir\n.", "os mkdir"),
        (b"cnumpy\nload\n.", "numpy load"),
        (b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.", ""),
        (b"cnumpy\nndarray\nK\x05\x85R.", ""),
        (b"}q\x01h\x01.", ""),  # refers twice to the same object
        (b"]q\x01(h\x01e.", ""),
        (b"K\x01K\x02a.", "int"),  # an item is added to an integer
        (b"}K\x01K\x02s.", ""),  # a key that is no text
        (b"K\x01K\x02b.", ""),
        (b"V1\n.", "UNICODE"),
        (b"\x8a\x01\x05.", "LONG1"),
        (b"", ""),
        (b".", ""),
        (b"text", ""),
        (b"h\x01.", ""),
    ],
)
def test_other_pickles_are_refused(raw: bytes, name: str) -> None:
    with refused(FileError, "damaged", file=FILE) as caught:
        read(raw)
    assert name in str(caught.value)


def test_an_array_has_the_bytes_that_its_shape_says() -> None:
    raw = batch()
    shape = b"K\x05K\x06\x86"
    assert raw.count(shape) == 1
    for other in (b"K\x05K\x07\x86", b"J\xff\xff\xff\xffK\x06\x86", b"U\x015K\x06\x86"):
        with refused(FileError, "damaged", file=FILE):
            read(raw.replace(shape, other))


@pytest.mark.slow
@given(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_read(place: int, other: bytes) -> None:
    raw = bytearray(batch())
    place %= len(raw)
    raw[place : place + len(other)] = other
    with contextlib.suppress(FileError):
        images, labels = read(bytes(raw))
        assert images.shape[1] == FEATURES
        assert labels.shape == images.shape[:1]
        assert set(labels.tolist()) <= set(range(CLASSES))


@pytest.mark.slow
@given(st.integers(0, 1 << 16))
def test_a_file_that_was_cut_is_refused(place: int) -> None:
    raw = batch()
    with pytest.raises(FileError):
        read(raw[: place % len(raw)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "raw",
    [
        b"T" + struct.pack("<i", (1 << 31) - 1) + b"x",  # a text of 2 GiB
        b"]" * (1 << 20),
        b"}" * (1 << 20),
        b"K\x01r\xff\xff\xff\xff.",  # where Python's own unpickler reserves 32 GiB
        b"U\x01xq\x01" + b"h\x01" * (1 << 19),
    ],
)
def test_a_small_file_takes_little_memory(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_OPCODES", 100_000)  # all of them would take long here
    tracemalloc.start()
    try:
        with pytest.raises(FileError):
            read(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_a_large_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = batch()
    monkeypatch.setattr(batches, "MOST_BYTES", len(raw))
    read(raw)
    with refused(FileError, "too-large", value=len(raw) + 1, limit=len(raw), file=FILE):
        read(raw + b".")
