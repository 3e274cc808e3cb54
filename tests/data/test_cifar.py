import gzip
import hashlib
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from esl_lava.data import cifar
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import Images, load
from esl_lava.errors import DataError, FileError
from tests.cifar import DATA, needs_jpegs, needs_subset
from tests.data.test_archives import tar_bytes
from tests.data.test_batches import batch_bytes
from tests.data.test_jpegs import encoded, packed, told, tree, unpacked
from tests.faults import refused

BATCHES = {f"data_batch_{n}": n for n in range(1, 6)} | {"test_batch": 6}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of data sets and the cache, both empty."""
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def pixels(seed: int, images: int = 4) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (images, 3072)).astype(np.uint8)


def cifar10_files(**others: bytes) -> dict[str, bytes]:
    """Return the files of the python version, of four images each, in its folder."""
    files = {
        name: batch_bytes(labels=[seed, 9, 0, 3], data=pixels(seed))
        for name, seed in BATCHES.items()
    }
    return {f"cifar-10-batches-py/{name}": raw for name, raw in (files | others).items()}


def cifar100_files() -> dict[str, bytes]:
    return {
        f"cifar-100-python/{name}": batch_bytes(
            filenames=[b"a.png"] * 4,
            fine_labels=[99, seed, 0, 50],
            coarse_labels=[19, 1, 0, 3],
            data=pixels(seed),
        )
        for name, seed in (("train", 7), ("test", 8))
    }


def lay(folder: Path, files: Mapping[str, bytes], archive: str | None) -> None:
    """Put files into a folder of a data set: unpacked, or into an archive of that name."""
    folder.mkdir(exist_ok=True)
    if archive is None:
        unpacked(folder, files)
    else:
        (folder / archive).write_bytes(gzip.compress(tar_bytes(files), compresslevel=1))


@pytest.mark.parametrize("archive", [None, "cifar-10-python.tar.gz"])
def test_cifar10_is_its_batches_in_order(data: Path, archive: str | None) -> None:
    # The published archive is not in order, and holds other files too.
    files = dict(reversed(cifar10_files(**{"batches.meta": b"no", "readme.html": b""}).items()))
    lay(data / "cifar10", files, archive)
    train, test = load("cifar10", "train"), load("cifar10", "test")
    np.testing.assert_array_equal(train.images, np.concatenate([pixels(n) for n in range(1, 6)]))
    assert train.labels.tolist() == [x for n in range(1, 6) for x in (n, 9, 0, 3)]
    np.testing.assert_array_equal(test.images, pixels(6))
    assert test.labels.tolist() == [6, 9, 0, 3]
    for half, split in ((train, "train"), (test, "test")):
        assert (half.name, half.split, half.classes) == ("cifar10", split, 10)
        assert half.image_shape == half.shape == (3, 32, 32)


@pytest.mark.parametrize("archive", [None, "cifar-100-python.tar.gz"])
def test_cifar100_has_its_fine_labels(data: Path, archive: str | None) -> None:
    lay(data / "cifar100", cifar100_files(), archive)
    for split, seed in (("train", 7), ("test", 8)):
        half = load("cifar100", split)
        assert (half.name, half.split, half.classes) == ("cifar100", split, 100)
        assert half.image_shape == (3, 32, 32)
        np.testing.assert_array_equal(half.images, pixels(seed))
        assert half.labels.tolist() == [99, seed, 0, 50]


@pytest.mark.slow
def test_the_tree_of_jpegs_is_taken_last_and_labelled(data: Path) -> None:
    folder = data / "cifar10"
    unpacked(folder, tree())
    assert load("cifar10", "test").name == "CIFAR-10 (JPEG)"
    train = load("cifar10", "train")
    assert (train.name, train.split, train.shape) == ("CIFAR-10 (JPEG)", "train", (3, 32, 32))
    assert train.labels.tolist() == [label for label, _ in told(train.images)]

    other = tree() | {"test/frog/0009.jpg": encoded(np.zeros((3, 32, 32), np.uint8))}
    packed(folder, other).rename(folder / "cifar10_jpeg_train_test.tar.gz")
    assert len(load("cifar10", "test")) == 21
    lay(folder, cifar10_files(), "cifar-10-python.tar.gz")
    assert (load("cifar10", "test").name, len(load("cifar10", "test"))) == ("cifar10", 4)
    del (files := cifar10_files())["cifar-10-batches-py/test_batch"]
    unpacked(folder, files)
    place = folder / "cifar-10-batches-py"
    with refused(DataError, "not-found", value="test_batch", file=place):
        load("cifar10", "test")


@pytest.mark.parametrize("archive", [None, "cifar-10-python.tar.gz"])
def test_a_batch_that_is_missing_is_named(data: Path, archive: str | None) -> None:
    del (files := cifar10_files())["cifar-10-batches-py/data_batch_3"]
    lay(data / "cifar10", files, archive)
    place = data / "cifar10" / (archive or "cifar-10-batches-py")
    with refused(DataError, "not-found", value="data_batch_3", file=place):
        load("cifar10", "train")
    assert len(load("cifar10", "test")) == 4


@pytest.mark.parametrize("archive", [None, "cifar-10-python.tar.gz"])
def test_a_damaged_batch_is_named(data: Path, archive: str | None) -> None:
    lay(data / "cifar10", cifar10_files(data_batch_2=b"cos\nmkdir\n."), archive)
    place = data / "cifar10" / (archive or "cifar-10-batches-py")
    with refused(FileError, "damaged", file=f"{place}: data_batch_2") as caught:
        load("cifar10", "train")
    assert "os mkdir" in str(caught.value)


def test_labels_of_other_classes_are_refused(data: Path) -> None:
    raw = batch_bytes(labels=[1, 2, 10, 3], data=pixels(1))
    lay(data / "cifar10", cifar10_files(test_batch=raw), None)
    place = data / "cifar10" / "cifar-10-batches-py"
    with refused(FileError, "range", key="labels", value=10, limit=9, file=f"{place}: test_batch"):
        load("cifar10", "test")


def test_other_folders_in_the_archive_are_refused(data: Path) -> None:
    files = cifar10_files() | {"elsewhere/test_batch": b""}
    lay(data / "cifar10", files, "cifar-10-python.tar.gz")
    with refused(FileError, "unknown", value="elsewhere/test_batch"):
        load("cifar10", "test")


def test_other_content_than_the_published_is_remarked(
    data: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(data / "cifar100", cifar100_files(), None)
    load("cifar100", "test")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("esl_lava.data.cifar", logging.WARNING)
    assert record.getMessage() == (
        f"test in {data}/cifar100/cifar-100-python: not the published data set, "
        "but other data of the same format"
    )
    # The published files are recognised by their MD5, which is replaced here.
    caplog.clear()
    raw = cifar100_files()["cifar-100-python/test"]
    published = {"test": hashlib.md5(raw, usedforsecurity=False).hexdigest()}
    monkeypatch.setattr(cifar, "_CIFAR100", replace(cifar._CIFAR100, published=published))
    load("cifar100", "test")
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "cifar10",
            "cifar10/ that holds cifar-10-batches-py/, cifar-10-python.tar.gz, "
            "cifar10_jpeg_train_test.tar.gz, or train/ and test/",
        ),
        ("cifar10_subset", "cifar10/ that holds cifar10_lossless_subset.npz"),
        ("cifar100", "cifar100/ that holds cifar-100-python/ or cifar-100-python.tar.gz"),
    ],
)
@pytest.mark.parametrize("made", [None, "", "cifar10", "cifar100"])
def test_where_there_are_none_it_is_said_where_files_are_expected(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str, wanted: str, made: str | None
) -> None:
    now = None if made is None else str(data)
    if made is None:
        monkeypatch.delenv("ESL_LAVA_DATA")
    elif made:
        (data / made).mkdir()
    with refused(DataError, "not-found", key="ESL_LAVA_DATA", value=now) as caught:
        load(name, "test")
    assert str(caught.value).startswith(f"{name} is not found")
    assert str(caught.value).endswith(wanted)


# --- the lossless subset -----------------------------------------------------------------


def subset(data: Path, **changes: Any) -> Path:
    draw = np.random.default_rng(3)
    arrays: dict[str, Any] = {
        "x_train": draw.integers(0, 256, (5, 32, 32, 3)).astype(np.uint8),
        "y_train": np.array([0, 9, 3, 3, 1], np.uint8),
        "x_test": draw.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8),
        "y_test": np.array([4, 7], np.int64),
        "test_index": np.array([3, 9], np.int32),
    } | changes
    (data / "cifar10").mkdir(exist_ok=True)
    path = data / "cifar10" / "cifar10_lossless_subset.npz"
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_the_subset_is_turned_to_channels_first(data: Path) -> None:
    with np.load(subset(data)) as arrays:
        for split in ("train", "test"):
            half = load("cifar10_subset", split)
            assert (half.name, half.classes, half.shape) == ("cifar10_subset", 10, (3, 32, 32))
            assert half.labels.tolist() == arrays[f"y_{split}"].tolist()
            for index in range(len(half)):
                picture = half.picture(index)
                assert picture is not None
                np.testing.assert_array_equal(picture, arrays[f"x_{split}"][index])


@pytest.mark.parametrize(
    ("changes", "key", "code", "value"),
    [
        ({"x_test": None}, "x_test", "missing", None),
        ({"y_test": None}, "y_test", "missing", None),
        ({"x_test": np.zeros((2, 32, 32, 3))}, "x_test", "type", "float64"),
        ({"x_test": np.zeros((2, 3, 32, 32), np.uint8)}, "x_test", "shape", (2, 3, 32, 32)),
        ({"x_test": np.zeros((2, 3072), np.uint8)}, "x_test", "shape", (2, 3072)),
        ({"y_test": np.array([1.0, 2.0])}, "y_test", "type", "float64"),
        ({"y_test": np.array([1])}, "y_test", "shape", (1,)),
        ({"y_test": np.array([1, 10])}, "y_test", "range", 10),
        ({"y_test": np.array([-1, 1])}, "y_test", "range", -1),
        ({"y_test": np.array([{}, {}], object)}, "y_test", "type", "object"),
        (
            {"x_test": np.zeros((0, 32, 32, 3), np.uint8), "y_test": np.array([], int)},
            "y_test",
            "shape",
            (0,),
        ),
    ],
)
def test_other_arrays_are_refused(
    data: Path, changes: dict[str, Any], key: str, code: str, value: object
) -> None:
    path = subset(data, **changes)
    with refused(FileError, code, key=key, value=value, file=path):
        load("cifar10_subset", "test")


def test_a_damaged_subset_is_refused(data: Path) -> None:
    path = subset(data)
    raw = path.read_bytes()
    for damaged in (b"", b"text", raw[:-30], raw[: len(raw) // 2]):
        path.write_bytes(damaged)
        with refused(FileError, "damaged", key="x_test", file=path):
            load("cifar10_subset", "test")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_test.npy", b"\x93NUMPY\x01\x00")
        archive.writestr("y_test.npy", b"")
    with refused(FileError, "damaged", key="x_test", file=path):
        load("cifar10_subset", "test")


def test_a_subset_that_is_too_large_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subset(data)
    size = 128 + 2 * 3072
    monkeypatch.setattr(cifar, "SUBSET_LIMIT", size)
    load("cifar10_subset", "test")
    monkeypatch.setattr(cifar, "SUBSET_LIMIT", size - 1)
    with refused(FileError, "too-large", key="x_test", value=size, limit=size - 1):
        load("cifar10_subset", "test")


# --- the real data sets -----------------------------------------------------------------------


@pytest.mark.slow
@needs_subset
def test_the_real_subset() -> None:
    """The images and labels have recorded digests."""
    train, test = load("cifar10_subset", "train"), load("cifar10_subset", "test")
    assert (len(train), len(test)) == (4000, 1900)
    assert np.bincount(train.labels).tolist() == [
        *(396, 366, 420, 384, 422, 393, 414, 385, 407, 413)
    ]
    assert [half.digest for half in (train, test)] == [
        "cb72bf4cf276895804c83328f17e08db7e91e40af7c3ee2b7a1ffdacf206ff1d",
        "df22383f0c016b83ff91a9623f872ea9b648aea651c5116bc5668d6e21b44d81",
    ]


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Images]:
    """Both splits, decoded into an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("ESL_LAVA_DATA", str(DATA))
        return {split: load("cifar10", split) for split in ("train", "test")}


@pytest.mark.slow
@needs_jpegs
def test_the_real_jpegs(jpegs: dict[str, Images]) -> None:
    for split, per_class in (("train", 5000), ("test", 1000)):
        half = jpegs[split]
        assert (half.name, half.split, half.shape) == ("CIFAR-10 (JPEG)", split, (3, 32, 32))
        assert np.bincount(half.labels).tolist() == [per_class] * 10
        assert isinstance(half.images, np.memmap)
        first = np.bincount(half.take(1000).labels, minlength=10)
        assert first.min() > 70  # a fair draw
        assert half.choose(np.array([3, 1])).spikes(Encoding(kind="direct")).min() >= -16


@pytest.mark.slow
@needs_jpegs
@needs_subset
@pytest.mark.parametrize(("split", "found"), [("train", 4000), ("test", 1900)])
def test_the_jpegs_are_those_of_cifar10(jpegs: dict[str, Images], split: str, found: int) -> None:
    """Every image of the lossless subset is among the JPEG images, slightly changed, same label.

    So channels, rows, columns and the numbers of the classes are the published ones.
    """
    lossless, lossy = load("cifar10_subset", split), jpegs[split]
    assert len(lossless) == found
    some = slice(0, None, 40)

    def coarse(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return means of 4 x 4 pixels, which JPEG hardly changes."""
        blocks = images.reshape(-1, 3, 8, 4, 8, 4).mean((3, 5), dtype=np.float32)
        return blocks.reshape(len(blocks), -1)

    wanted = coarse(lossless.images[some])
    there = np.concatenate(
        [coarse(lossy.images[start : start + 5000]) for start in range(0, len(lossy), 5000)]
    )
    distances = (there**2).sum(1) - 2 * wanted @ there.T + (wanted**2).sum(1)[:, None]
    nearest = distances.argmin(axis=1)
    assert lossy.labels[nearest].tolist() == lossless.labels[some].tolist()
    difference = lossy.images[nearest].astype(int) - lossless.images[some].astype(int)
    assert np.sqrt((difference**2).mean()) < 12
