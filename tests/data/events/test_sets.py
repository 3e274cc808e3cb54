import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from esl_lava.data import datasets
from esl_lava.data.catalogue import load
from esl_lava.data.config import Encoding
from esl_lava.data.events import nmnist, prepare
from esl_lava.errors import DataError, FileError
from esl_lava.progress import show_progress_with
from tests.data.events.files import atis
from tests.faults import refused
from tests.given import needs

ENCODING = Encoding(kind="frames", steps=2, crop=1, bits=8)
Member = tuple[str, bytes]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    monkeypatch.setattr(prepare, "cache_folder", lambda: tmp_path / "cache")


def recording(row: int) -> bytes:
    """Return a recording with one event in each of two frames, in one row."""
    return atis([(0, row, 5, 1), (100, row, 6, 0)])


def archive(folder: Path, members: list[Member]) -> None:
    with tarfile.open(folder / nmnist.SUBSET, "w:gz") as file:
        for name, content in members:
            info = tarfile.TarInfo(f"nmnist_small/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


SUBSET: list[Member] = [
    ("train1K.txt", b"#sample #class\n1\t5\n2\t0\n3\t9\n\n"),
    ("test100.txt", b"#sample #class\r\n60001\t7\r\n"),
    ("3.bs2", recording(3)),
    ("1.bs2", recording(1)),
    ("60001.bs2", recording(9)),
    ("2.bs2", recording(2)),
]


def test_the_subset_is_in_the_order_of_its_list(tmp_path: Path) -> None:
    archive(tmp_path, SUBSET)
    data = load("nmnist_subset", "train", ENCODING)
    assert data.labels.tolist() == [5, 0, 9]
    assert (data.name, data.split, data.shape) == ("nmnist_subset", "train", (2, 32, 32))
    spikes = data.spikes(ENCODING).reshape(3, 2, 2, 32, 32)
    for index in range(3):  # a row less, as one is left out
        assert np.argwhere(spikes[index]).tolist() == [[0, 1, index, 4], [1, 0, index, 5]]
    assert load("nmnist_subset", "test", ENCODING).labels.tolist() == [7]


def folders(root: Path, digits: range = range(10)) -> None:
    for split, each in (("Train", 2), ("Test", 1)):
        for digit in digits:
            folder = root / "nmnist" / split / str(digit)
            folder.mkdir(parents=True)
            for number in range(each):
                (folder / f"{number:05}.bin").write_bytes(recording(digit + 1))


def test_the_whole_set_is_mixed_in_a_fixed_order(tmp_path: Path) -> None:
    folders(tmp_path)
    data = load("nmnist", "train", ENCODING)
    assert len(data) == 20
    assert sorted(data.labels.tolist()) == [digit for digit in range(10) for _ in range(2)]
    assert data.labels.tolist() != sorted(data.labels.tolist())
    rows = np.argwhere(data.spikes(ENCODING).reshape(20, 2, 2, 32, 32)[:, 0, 1])[:, 1]
    assert rows.tolist() == data.labels.tolist()
    assert load("nmnist", "train", ENCODING).labels.tolist() == data.labels.tolist()
    assert len(load("nmnist", "test", ENCODING)) == 10


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "frames").iterdir())


def test_frames_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path)
    first = load("nmnist", "train", ENCODING)
    whole, file = sorted(kept(tmp_path), key=lambda path: path.stat().st_size)
    assert whole.name == f"{file.stem}-whole.npy"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "make_frames", None)
        again = load("nmnist", "train", ENCODING)
    assert again.digest == first.digest
    load("nmnist", "train", Encoding(kind="frames", steps=1))
    assert len(kept(tmp_path)) == 4
    # One recording changes, and one file of the cache is damaged.
    (tmp_path / "nmnist" / "Train" / "0" / "00000.bin").write_bytes(recording(20))
    changed = tmp_path / "nmnist" / "Train" / "1" / "00000.bin"
    changed.write_bytes(atis([(0, 8, 8, 1), (5, 8, 8, 1), (9, 8, 8, 1)]))
    assert load("nmnist", "train", ENCODING).digest != first.digest
    assert len(kept(tmp_path)) == 6
    file.write_bytes(file.read_bytes()[:200])
    assert load("nmnist", "train", ENCODING).labels.tolist() == first.labels.tolist()


def test_without_a_cache_frames_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders(tmp_path)
    with_cache = load("nmnist", "test", ENCODING).digest
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setattr(prepare, "cache_folder", lambda: blocked)
    assert load("nmnist", "test", ENCODING).digest == with_cache
    assert "frames are not stored" in caplog.text


def test_nothing_is_kept_of_a_set_with_a_damaged_recording(tmp_path: Path) -> None:
    folders(tmp_path)
    damaged = tmp_path / "nmnist" / "Test" / "3" / "00000.bin"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with refused(FileError, "damaged", value=9, limit=5, file=str(damaged)):
        load("nmnist", "test", ENCODING)
    assert kept(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_damaged_recordings_are_left_out_where_the_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cached: bool
) -> None:
    folders(tmp_path)
    if not cached:
        (tmp_path / "file").write_bytes(b"")
        monkeypatch.setattr(prepare, "cache_folder", lambda: tmp_path / "file")
    whole = load("nmnist", "test", ENCODING)
    places = [whole.labels.tolist().index(label) for label in (3, 8)]
    for label in (3, 8):
        damaged = tmp_path / "nmnist" / "Test" / f"{label}" / "00000.bin"
        damaged.write_bytes(damaged.read_bytes()[:-1])
    skipping = ENCODING.model_copy(update={"skip_damaged": True})
    for _ in range(2):  # as it is made, and as it is kept
        rest = load("nmnist", "test", skipping)
        assert rest.labels.tolist() == np.delete(whole.labels, places).tolist()
        expected = np.delete(whole.spikes(ENCODING), places, axis=0)
        assert np.array_equal(rest.spikes(skipping), expected)
    left_out = [r.getMessage() for r in caplog.records if "is left out" in r.getMessage()]
    assert len(left_out) == (2 if cached else 4)
    assert all("is damaged: it has 9 bytes" in message for message in left_out)
    with refused(FileError, "damaged", value=9):
        load("nmnist", "test", ENCODING)


def test_a_set_of_damaged_recordings_is_refused(tmp_path: Path) -> None:
    folders(tmp_path)
    for path in (tmp_path / "nmnist" / "Test").glob("*/*.bin"):
        path.write_bytes(b"123")
    with refused(DataError, "damaged", value=10):
        load("nmnist", "test", ENCODING.model_copy(update={"skip_damaged": True}))
    assert kept(tmp_path) == []


def test_progress_is_told_while_frames_are_made(tmp_path: Path) -> None:
    folders(tmp_path)
    told: list[tuple[str, int, int]] = []
    with show_progress_with(lambda *now: told.append(now)):
        load("nmnist", "test", ENCODING)
        load("nmnist", "test", ENCODING)  # which are there already
    assert told == [("nmnist-test: frames", done, 10) for done in range(1, 11)]


def faults() -> Iterator[tuple[list[Member], str, str]]:
    yield SUBSET[1:], "not-found", "train1K.txt"
    yield SUBSET[:-1], "not-found", "2.bs2"
    yield [*SUBSET, ("notes.md", b"")], "unknown", "nmnist_small/notes.md"
    yield [("train1K.txt", b"#\n1 x\n"), *SUBSET[1:]], "damaged", "1 x"
    yield [("train1K.txt", b"#\n"), *SUBSET[1:]], "damaged", ""


@pytest.mark.parametrize(("members", "code", "value"), list(faults()))
def test_an_archive_of_something_else_is_refused(
    tmp_path: Path, members: list[Member], code: str, value: str
) -> None:
    archive(tmp_path, members)
    with refused(FileError, code, value=value, file=tmp_path / nmnist.SUBSET):
        load("nmnist_subset", "train", ENCODING)


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"key": "ESL_LAVA_DATA", "value": str(tmp_path)}
    with refused(DataError, "not-found", **place) as caught:
        load("nmnist_subset", "test", ENCODING)
    assert nmnist.SUBSET in str(caught.value)
    with refused(DataError, "not-found", **place) as caught:
        load("nmnist", "test", ENCODING)
    assert "Test/0 to Test/9" in str(caught.value)
    folders(tmp_path, range(4))
    with refused(DataError, "not-found", file=tmp_path / "nmnist" / "Test" / "4"):
        load("nmnist", "test", ENCODING)
    monkeypatch.delenv("ESL_LAVA_DATA")
    with refused(DataError, "not-found", key="ESL_LAVA_DATA", value=None):
        load("nmnist", "train", ENCODING)


@pytest.mark.slow
@needs("nmnist_small.tar.gz")
def test_the_real_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.given import path_of

    monkeypatch.setenv("ESL_LAVA_DATA", str(path_of("")))
    encoding = Encoding(kind="frames", steps=3, crop=1, side=16)
    data = load("nmnist_subset", "test", encoding)
    assert len(data) == 100
    # The labels of the first 100 test images of MNIST.
    assert np.bincount(data.labels).tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    assert 0.05 < data.spikes(encoding).mean() < 0.6


@pytest.mark.slow
def test_digits_move_in_front_of_a_model_of_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """No recordings are needed, and a random seed gives the same events on every machine."""
    monkeypatch.delenv("ESL_LAVA_DATA")
    encoding = Encoding(kind="frames", steps=3, bits=8)
    digits = datasets.load("digits", "test").take(6)
    monkeypatch.setattr(datasets, "load", lambda name, split: digits)
    data = load("moving_digits", "test", encoding)
    assert data.labels.tolist() == digits.labels.tolist()
    assert data.shape == (2, 24, 24)
    counts = data.spikes(encoding).reshape(6, 3, 2, 24, 24).sum(axis=(1, 2))
    assert counts.sum(axis=(1, 2)).min() > 1_000
    assert hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest().startswith("3870c1cc4c72e714")
