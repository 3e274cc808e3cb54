import functools
import gzip
import http.client
import http.server
import io
import logging
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data import datasets
from esl_lava.data.datasets import Images, load, split_validation
from esl_lava.errors import DataError, FileError
from tests.data.test_idx import idx_bytes
from tests.faults import refused
from tests.mnist import DATA, needs_mnist

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def numbered(n: int, features: int = 6, classes: int = 3) -> Images:
    """Return `n` samples, each recognisable by its first pixel."""
    images = np.zeros((n, features), np.uint8)
    images[:, 0] = np.arange(n)
    return Images("numbered", images, np.arange(n, dtype=np.int64) % classes, classes, (features,))


# --- Images ------------------------------------------------------------------------------


def test_take_gives_the_first() -> None:
    dataset = numbered(5)
    taken = dataset.take(2)
    assert (len(dataset), len(taken)) == (5, 2)
    assert taken.images[:, 0].tolist() == [0, 1]
    assert taken.labels.tolist() == [0, 1]
    assert (taken.name, taken.classes, taken.image_shape) == ("numbered", 3, (6,))
    assert len(dataset.take(5)) == 5


def test_the_digest_tells_data_of_one_name_apart() -> None:
    first = numbered(6)
    assert first.digest == numbered(6).digest
    # A recorded value: files that hold this digest have to stay readable.
    assert first.digest == ("91ee643cc8a608b6b68a75d948d5369e1929348406c534221b321ceff6a318a0")
    turned = replace(first, images=np.asfortranarray(first.images))
    assert turned.digest == first.digest
    images, labels = first.images.copy(), first.labels.copy()
    images[3, 2], labels[4] = 1, 2
    others = [
        replace(first, images=images),
        replace(first, labels=labels),
        replace(first, image_shape=(2, 3)),
        first.take(5),
        numbered(6, features=5),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 6


@pytest.mark.parametrize("n", [-1, 0, 6])
def test_take_refuses_what_is_not_there(n: int) -> None:
    with refused(DataError, "range", key="samples", value=n, limit=5):
        numbered(5).take(n)


@pytest.mark.parametrize(
    ("changes", "key", "code", "value", "limit"),
    [
        ({"images": np.zeros((2, 4))}, "images", "type", "float64", "uint8"),
        ({"labels": np.zeros(2, np.int32)}, "labels", "type", "int32", "int64"),
        ({"images": np.zeros((2, 2, 2), np.uint8)}, "images", "shape", (2, 2, 2), 4),
        ({"images": np.zeros((2, 4, 1), np.uint8)}, "images", "shape", (2, 4, 1), 4),
        ({"image_shape": (3, 2)}, "images", "shape", (2, 4), 6),
        ({"labels": np.zeros(3, np.int64)}, "labels", "shape", (3,), 2),
        ({"labels": np.zeros((2, 1), np.int64)}, "labels", "shape", (2, 1), 2),
        ({"labels": np.array([0, 3])}, "labels", "range", 3, 2),
        ({"labels": np.array([-1, 0])}, "labels", "range", -1, 2),
    ],
)
def test_misfits_are_refused(
    changes: dict[str, Any], key: str, code: str, value: object, limit: object
) -> None:
    fitting: dict[str, Any] = {
        "name": "x",
        "images": np.zeros((2, 4), np.uint8),
        "labels": np.zeros(2, np.int64),
        "classes": 3,
        "image_shape": (2, 2),
    }
    assert len(Images(**fitting)) == 2
    with refused(DataError, code, key=key, value=value, limit=limit):
        Images(**(fitting | changes))


# --- load: names -------------------------------------------------------------------------


def test_unknown_names_are_refused() -> None:
    with refused(DataError, "unknown", key="data set", value="nmnist", limit=(*datasets.LOADERS,)):
        load("nmnist", "train")


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_unknown_splits_are_refused(name: str) -> None:
    with refused(DataError, "unknown", key="split", value="valid", limit=("train", "test")):
        load(name, "valid")


# --- digits ------------------------------------------------------------------------------


def test_digits_split() -> None:
    with np.load(Path(datasets.__file__).with_name("digits.npz")) as file:
        pixels, labels = file["pixels"], file["labels"]
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test)) == (1440, 357)
    for half in (train, test):
        assert (half.name, half.classes, half.image_shape) == ("digits", 10, (8, 8))
        assert half.images.shape == (len(half), 64)
        assert set(half.labels.tolist()) == set(range(10))

    # Joined block by block, the splits are the whole data set, so they are disjoint.
    expected = np.array([round(x * 255 / 16) for x in range(17)], np.uint8)[pixels.astype(int)]
    for whole, kept, tested in (
        (expected, train.images, test.images),
        (labels, train.labels, test.labels),
    ):
        for block in range(36):  # 40 train, 10 test; the last has 40 and 7
            start = 50 * block
            np.testing.assert_array_equal(whole[start : start + 40], kept[40 * block :][:40])
            np.testing.assert_array_equal(whole[start + 40 : start + 50], tested[10 * block :][:10])


def test_the_digits_are_those_of_scikit_learn() -> None:
    """The digests are those of `sklearn.datasets.load_digits`, version 1.7.2."""
    assert [load("digits", split).digest for split in ("train", "test")] == [
        "f64abc0375e02b1ceeeca371a93609cc52e079122335a120b45578b5eb424588",
        "fa24223b2d56950236fae864a1b426d5024abafc6007ca4b4d638da7bf1dcd28",
    ]


def test_digits_use_the_whole_range() -> None:
    images = load("digits", "train").images
    assert (images.min(), images.max()) == (0, 255)
    assert len(np.unique(images)) == 17
    assert 128 in images  # the tie: 8 * 255 / 16 = 127.5


# --- mnist from a folder -----------------------------------------------------------------


def small_mnist() -> dict[str, npt.NDArray[np.uint8]]:
    """Return arrays by file name: 6 and 4 images of 2 x 3, 3 classes, the last only in train."""
    rng = np.random.default_rng(5)
    return {
        FILES[0]: rng.integers(0, 256, (6, 2, 3), dtype=np.uint8),
        FILES[1]: np.array([0, 1, 2, 0, 1, 2], np.uint8),
        FILES[2]: rng.integers(0, 256, (4, 2, 3), dtype=np.uint8),
        FILES[3]: np.array([0, 1, 1, 0], np.uint8),
    }


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that writes files into the user's folder of data sets and returns mnist/ in it."""
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))

    def write(arrays: dict[str, npt.NDArray[Any]], compressed: bool = True) -> Path:
        folder = tmp_path / "mnist"
        folder.mkdir(exist_ok=True)
        for name, array in arrays.items():
            content = idx_bytes(array)
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
        return folder

    return write


@pytest.mark.parametrize("compressed", [True, False])
def test_other_sizes_are_accepted(write: Callable[..., Path], compressed: bool) -> None:
    arrays = small_mnist()
    write(arrays, compressed)
    for split, (images, labels) in {"train": FILES[:2], "test": FILES[2:]}.items():
        half = load("mnist", split)
        np.testing.assert_array_equal(half.images, arrays[images].reshape(-1, 6))
        np.testing.assert_array_equal(half.labels, arrays[labels])
        assert (half.name, half.classes, half.image_shape) == ("mnist", 3, (2, 3))


def test_zipped_and_unzipped_files_may_be_mixed(write: Callable[..., Path]) -> None:
    arrays = small_mnist()
    write({name: arrays[name] for name in FILES[:2]}, compressed=True)
    write({name: arrays[name] for name in FILES[2:]}, compressed=False)
    assert (len(load("mnist", "train")), len(load("mnist", "test"))) == (6, 4)


def test_where_both_are_the_zipped_file_is_read(write: Callable[..., Path]) -> None:
    folder = write(small_mnist())
    for name in FILES:
        (folder / name).write_bytes(b"cut off while being unzipped")
    assert len(load("mnist", "train")) == 6


def test_other_content_than_mnist_is_remarked(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(small_mnist())
    load("mnist", "test")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("esl_lava.data.datasets", logging.WARNING)
    assert record.getMessage().startswith(f"{FILES[2]} and {FILES[3]} in {folder}: not the publi")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("missing", FILES)
def test_missing_files_are_named(write: Callable[..., Path], missing: str, split: str) -> None:
    arrays = small_mnist()
    del arrays[missing]
    folder = write(arrays)
    with refused(DataError, "not-found", value=missing, file=folder):
        load("mnist", split)


def test_an_empty_folder_is_not_downloaded_around(write: Callable[..., Path]) -> None:
    folder = write({})
    with refused(DataError, "not-found", file=folder):
        load("mnist", "train")


@pytest.mark.parametrize(
    ("changes", "file", "code", "value"),
    [
        ({FILES[1]: np.arange(5, dtype=np.uint8)}, FILES[1], "mismatch", 5),
        ({FILES[1]: np.arange(7, dtype=np.uint8)}, FILES[1], "mismatch", 7),
        ({FILES[1]: np.array([0, 1, 4, 0, 1, 4], np.uint8)}, None, "missing", 2),
        (
            {FILES[1]: np.array([1, 2, 2, 2, 1, 1], np.uint8), FILES[3]: np.ones(4, np.uint8)},
            None,
            "missing",
            0,
        ),
        ({FILES[0]: np.zeros((6, 6), np.uint8)}, FILES[0], "shape", (6, 6)),
        ({FILES[0]: np.zeros((6, 2, 3), np.int16)}, FILES[0], "type", "int16"),
        ({FILES[1]: np.zeros(6, np.int8)}, FILES[1], "type", "int8"),
        ({FILES[1]: np.zeros((6, 1), np.uint8)}, FILES[1], "shape", (6, 1)),
        ({FILES[3]: np.zeros(4, np.int32)}, FILES[3], "type", "int32"),
        ({FILES[0]: np.zeros((0, 2, 3), np.uint8)}, FILES[0], "shape", (0, 2, 3)),
        ({FILES[0]: np.zeros((6, 0, 3), np.uint8)}, FILES[0], "shape", (6, 0, 3)),
    ],
)
def test_files_that_do_not_fit_are_refused(
    write: Callable[..., Path], changes: dict[str, Any], file: str | None, code: str, value: object
) -> None:
    """A gap in the labels is a fault of the folder, not of one file."""
    folder = write(small_mnist() | changes)
    place = folder / f"{file}.gz" if file else folder
    with refused(DataError, code, value=value, file=place):
        load("mnist", "train")


def test_malformed_files_are_refused(write: Callable[..., Path]) -> None:
    folder = write(small_mnist())
    (folder / f"{FILES[1]}.gz").write_bytes(b"<html>")
    with refused(FileError, "damaged", file=folder / f"{FILES[1]}.gz"):
        load("mnist", "train")


@pytest.mark.slow
def test_nothing_heavy_is_imported_for_a_folder(write: Callable[..., Path]) -> None:
    write(small_mnist())
    code = (
        "import sys; from esl_lava.data.datasets import load; import esl_lava.data.encoders;"
        "assert len(load('mnist', 'train')) == 6;"
        "print(sorted({'torch', 'scipy', 'lava'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# --- mnist by download -------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty, without a folder of data sets."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ESL_LAVA_DATA", raising=False)
    return tmp_path / "cache" / "esl-lava"


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The requested addresses, from a server of the files in `$ESL_LAVA_DATA/mnist`."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=f"{DATA}/mnist")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(datasets, "MNIST_ADDRESS", f"http://127.0.0.1:{server.server_port}/")
        yield asked
        server.shutdown()


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("variable", [None, "", "without-mnist"])
def test_without_a_folder_it_is_downloaded_once(
    cache: Path,
    internet: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    variable: str | None,
) -> None:
    if variable is not None:
        monkeypatch.setenv("ESL_LAVA_DATA", variable)
    assert (len(load("mnist", "train")), len(load("mnist", "test"))) == (60_000, 10_000)
    assert internet == [f"/{name}.gz" for name in FILES]
    assert capsys.readouterr().out == ""
    assert not caplog.records
    # Only the missing file is downloaded again.
    (cache / "MNIST" / "raw" / f"{FILES[1]}.gz").unlink()
    assert len(load("mnist", "test")) == 10_000
    assert internet[4:] == [f"/{FILES[1]}.gz"]


def answer(monkeypatch: pytest.MonkeyPatch, content: bytes | Exception) -> None:
    def urlopen(address: str, timeout: float) -> io.BytesIO:
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no route to host"),
        PermissionError(13, "Permission denied"),
        http.client.IncompleteRead(b"half"),
    ],
)
def test_a_failed_download_tells_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    answer(monkeypatch, failure)
    place = cache / "MNIST" / "raw"
    with refused(DataError, "failed", key="ESL_LAVA_DATA", value=None, file=place) as caught:
        load("mnist", "train")
    assert str(failure) in str(caught.value)


def test_what_is_not_the_published_mnist_is_not_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, gzip.compress(idx_bytes(small_mnist()[FILES[0]])))
    with refused(DataError, "failed", key="ESL_LAVA_DATA") as caught:
        load("mnist", "train")
    assert f"{FILES[0]}.gz is not the published file" in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_made_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.write_bytes(b"a file")
    answer(monkeypatch, b"")
    with refused(DataError, "failed", file=cache / "MNIST" / "raw"):
        load("mnist", "train")


# --- the real MNIST ----------------------------------------------------------------------


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize(
    ("split", "samples", "first_labels", "per_class"),
    [
        # Counts of the two splits per class, as published with the data set.
        (
            "train",
            60_000,
            [5, 0, 4, 1, 9],
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        ),
        ("test", 10_000, [7, 2, 1, 0, 4], [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_real_mnist(
    split: str,
    samples: int,
    first_labels: list[int],
    per_class: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    half = load("mnist", split)
    assert half.images.shape == (samples, 784)
    assert (half.classes, half.image_shape) == (10, (28, 28))
    assert half.labels[:5].tolist() == first_labels
    assert np.bincount(half.labels).tolist() == per_class
    assert (half.images.min(), half.images.max()) == (0, 255)
    assert not caplog.records  # it is the published one


@pytest.mark.slow
@needs_mnist
def test_unzipped_mnist_is_recognised_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mnist").mkdir()
    for name in FILES:
        content = gzip.decompress((Path(str(DATA)) / "mnist" / f"{name}.gz").read_bytes())
        (tmp_path / "mnist" / name).write_bytes(content)
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    assert len(load("mnist", "test")) == 10_000
    assert not caplog.records


# --- split_validation --------------------------------------------------------------------


@pytest.mark.slow
@given(
    n=st.integers(0, 200),
    fraction=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**32),
)
def test_validation_is_a_part_in_order(n: int, fraction: float, seed: int) -> None:
    dataset = numbered(n)
    if 0 < round(fraction * n) == n:
        with refused(DataError, "range", key="data.validation", value=fraction):
            split_validation(dataset, fraction, seed)
        return
    train, validation = split_validation(dataset, fraction, seed)
    assert len(validation) == round(fraction * n)
    numbers = [half.images[:, 0].tolist() for half in (train, validation)]
    assert numbers == [sorted(part) for part in numbers]
    assert sorted(numbers[0] + numbers[1]) == list(range(n))
    for half in (train, validation):
        np.testing.assert_array_equal(half.labels, half.images[:, 0] % 3)
        assert (half.name, half.classes, half.image_shape) == ("numbered", 3, (6,))


def test_validation_is_drawn_by_the_seed() -> None:
    def drawn(seed: int) -> list[int]:
        return [int(x) for x in split_validation(numbered(100), 0.2, seed)[1].images[:, 0]]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    expected = np.sort(np.random.default_rng(1).choice(100, 20, replace=False))
    assert drawn(1) == expected.tolist()


@pytest.mark.parametrize("n", [1, 4])
def test_a_fraction_that_leaves_nothing_is_refused(n: int) -> None:
    with refused(DataError, "range", key="data.validation", value=0.9) as caught:
        split_validation(numbered(n), 0.9, 0)
    assert f"all {n} samples" in str(caught.value)


def test_fraction_zero_keeps_everything() -> None:
    train, validation = split_validation(numbered(7), 0, 0)
    assert (len(train), len(validation)) == (7, 0)
    assert validation.images.shape == (0, 6)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5])
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    with refused(DataError, "range", key="data.validation", value=fraction, limit=1):
        split_validation(numbered(7), fraction, 0)


def test_a_fraction_that_is_no_number_is_refused() -> None:
    with refused(DataError, "not-finite", key="data.validation", limit=1):
        split_validation(numbered(7), float("nan"), 0)
