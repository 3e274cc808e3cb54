import gzip
import io
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from esl_lava.data import jpegs
from esl_lava.data.jpegs import CLASSES, read_split, shuffled_order
from esl_lava.errors import DataError, FileError
from esl_lava.packages import EXTRAS, missing
from tests.data.test_archives import tar_bytes
from tests.faults import refused

Pixels = npt.NDArray[np.uint8]


def colours(label: int, number: int) -> Pixels:
    """Return (3, 32, 32) an image that encodes its class and number, even after JPEG.

    Each half has one colour: red in the upper half is the class, green in the lower the number.
    """
    planes = np.full((3, 32, 32), 128, np.uint8)
    planes[0, :16] = 25 * label
    planes[1, 16:] = 25 * number
    planes[2, :, :16] = 250
    return planes


def encoded(planes: Pixels, form: str = "JPEG", **options: Any) -> bytes:
    content = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    image.save(content, form, **({"quality": 95, "subsampling": 0} | options))
    return content.getvalue()


def tree(train: int = 3, test: int = 2, **others: bytes) -> dict[str, bytes]:
    """Return path -> content of this many images of each class in the splits."""
    files = {
        f"{split}/{name}/{number:04}.jpg": encoded(colours(label, number))
        for split, images in (("test", test), ("train", train))
        for label, name in enumerate(CLASSES)
        for number in range(images)
    }
    return files | others


def unpacked(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def packed(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "images.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes(files), compresslevel=1))
    return path


PLACES = {"archive": packed, "folder": unpacked}
Make = Callable[[Path, Mapping[str, bytes]], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "esl-lava" / "cifar10-jpeg"


def told(images: Pixels) -> list[tuple[int, int]]:
    """Return (class, number) that the images encode."""
    planes = images.reshape(-1, 3, 32, 32).astype(float)
    red, green = planes[:, 0, :16].mean((1, 2)), planes[:, 1, 16:].mean((1, 2))
    return [(round(r / 25), round(g / 25)) for r, g in zip(red, green)]


@pytest.mark.slow
@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("split", "number"), [("train", 3), ("test", 2)])
def test_images_are_read_in_the_shuffled_order(
    tmp_path: Path, make: Make, split: str, number: int
) -> None:
    images, labels = read_split(make(tmp_path / "tree", tree()), split)
    assert (images.shape, images.dtype) == ((10 * number, 3072), np.dtype("u1"))
    assert (labels.shape, labels.dtype) == ((10 * number,), np.dtype("i8"))
    by_class = [(label, n) for label in range(10) for n in range(number)]
    assert told(images) == [by_class[place] for place in shuffled_order(10 * number)]
    assert labels.tolist() == [label for label, _ in told(images)]
    first = colours(*told(images)[0]).reshape(-1).astype(int)
    assert abs(images[0].astype(int) - first).max() <= 40  # at edges, where JPEG is lossy
    assert abs(images[0].astype(int) - first).mean() < 2


def test_an_archive_and_its_folder_hold_the_same(tmp_path: Path) -> None:
    files = dict(reversed(tree().items()))  # in whatever order a tar has them
    both = [read_split(make(tmp_path / name, files), "train") for name, make in PLACES.items()]
    np.testing.assert_array_equal(both[0][0], both[1][0])
    np.testing.assert_array_equal(both[0][1], both[1][1])


def test_the_shuffled_order_is_the_same_everywhere() -> None:
    """The order has recorded values: it is the same on every machine and with every numpy."""
    assert shuffled_order(12).tolist() == RECORDED
    for samples in (1, 20, 1000):
        assert sorted(shuffled_order(samples).tolist()) == list(range(samples))
    shares = np.bincount(shuffled_order(10_000)[:2000] // 1000)
    assert shares.min() > 150  # sorted by class the first 2,000 would be of two


RECORDED = [1, 3, 11, 9, 2, 4, 7, 10, 5, 6, 0, 8]


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_what_was_decoded_is_mapped_into_memory_afterwards(
    tmp_path: Path, make: Make, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make(tmp_path / "tree", tree())
    images, labels = read_split(place, "test")
    (kept,) = cache.iterdir()
    assert kept.name.endswith("-test.npy")
    monkeypatch.setitem(sys.modules, "PIL", None)  # which nobody needs any more
    again, labels_again = read_split(place, "test")
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, images)
    assert labels_again.tolist() == labels.tolist()
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0] = 1


@pytest.mark.slow
@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_other_files_are_decoded_anew(tmp_path: Path, make: Make, cache: Path) -> None:
    files = tree()
    read_split(make(tmp_path / "tree", files), "test")
    files["test/truck/0000.jpg"] = encoded(colours(9, 7))
    images, _ = read_split(make(tmp_path / "tree", files), "test")
    assert (9, 7) in told(images)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path, np.zeros((20, 3073), np.int8)),
        lambda path: np.save(path, np.zeros((20, 3072), np.uint8)),
        lambda path: np.save(path, np.zeros((0, 3073), np.uint8)),
        lambda path: np.save(path, np.full((20, 3073), 10, np.uint8)),
    ],
)
def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, cache: Path, damage: Callable[[Path], None]
) -> None:
    place = packed(tmp_path, tree())
    images = np.array(read_split(place, "test")[0])
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    damage(kept)
    np.testing.assert_array_equal(read_split(place, "test")[0], images)
    assert kept.read_bytes() == whole


def test_where_nothing_can_be_kept_images_are_decoded_again(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"a file")
    images, labels = read_split(packed(tmp_path, tree()), "train")
    assert labels.tolist() == [label for label, _ in told(images)]
    assert "decoded images cannot be stored, and will be decoded again" in caplog.text


def test_progress_is_shown_and_a_part_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(jpegs, "_LOG_INTERVAL", 10)
    place = packed(tmp_path, tree())
    read_split(place, "train")
    read_split(place, "train")
    assert [record.getMessage() for record in caplog.records] == [
        f"{place}: 30 images of the split train, but CIFAR-10 (JPEG) has 50,000",
        f"decoding 30 images of {place}, once on this machine",
        "decoded 10 of 30",
        "decoded 20 of 30",
    ]


def small(side: int) -> bytes:
    return encoded(np.zeros((3, side, 32), np.uint8))


def grey() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(content, "JPEG")
    return content.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    ("content", "code", "value"),
    [
        (b"", "damaged", None),
        (b"text", "damaged", None),
        (encoded(colours(1, 1), "PNG"), "damaged", None),
        (encoded(colours(1, 1))[:-200], "damaged", None),
        (small(31), "shape", "32 x 31 pixels, RGB"),
        (small(64), "shape", "32 x 64 pixels, RGB"),
        (grey(), "shape", "32 x 32 pixels, L"),
    ],
)
def test_what_is_no_such_image_is_named(
    tmp_path: Path, cache: Path, make: Make, content: bytes, code: str, value: str | None
) -> None:
    place = make(tmp_path / "tree", tree() | {"test/cat/0007.jpg": content})
    with refused(FileError, code, value=value, file=f"{place}: cat/0007.jpg"):
        read_split(place, "test")
    assert not cache.exists()
    assert len(read_split(place, "train")[0]) == 30  # the other split is as it was


@pytest.mark.slow
@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    "name", ["test/cow/0000.jpg", "test/cat/0000.png", "test/cat/a/0000.jpg", "test/0000.jpg"]
)
def test_foreign_files_are_named(tmp_path: Path, make: Make, name: str) -> None:
    place = make(tmp_path / "tree", tree() | {name: encoded(colours(1, 1))})
    with pytest.raises(FileError) as caught:
        read_split(place, "test")
    assert caught.value.code in ("unknown", "unreadable")
    assert name.removesuffix("/0000.jpg") in str(caught.value)


def test_files_and_all_of_them_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tree(1, 1)
    places = [make(tmp_path / name, files) for name, make in PLACES.items()]
    largest = max(len(content) for content in files.values())
    together = sum(map(len, files.values()))
    for place in places:
        monkeypatch.setattr(jpegs, "FILE_LIMIT", largest)
        monkeypatch.setattr(jpegs, "TOTAL_LIMIT", together)
        read_split(place, "test")
        monkeypatch.setattr(jpegs, "TOTAL_LIMIT", together // 3)
        with refused(FileError, "too-large", limit=together // 3, file=place):
            read_split(place, "train")
        monkeypatch.setattr(jpegs, "TOTAL_LIMIT", together)
        monkeypatch.setattr(jpegs, "FILE_LIMIT", largest - 1)
        with refused(FileError, "too-large", limit=largest - 1):
            read_split(place, "train")


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    files = tree()
    place = packed(tmp_path, files | {"./test/cat/0000.jpg": files["test/cat/0000.jpg"]})
    with refused(FileError, "conflict", file=place) as caught:
        read_split(place, "test")
    assert "test/cat/0000.jpg" in str(caught.value)


def test_a_split_without_files_is_refused(tmp_path: Path) -> None:
    place = packed(tmp_path, tree(train=0))
    with refused(DataError, "not-found", file=place):
        read_split(place, "train")
    assert len(read_split(place, "test")[0]) == 20
    folder = unpacked(tmp_path / "tree", tree(train=0))
    with refused(FileError, "not-found", file=str(folder / "train")):
        read_split(folder, "train")


def test_without_pillow_a_sentence_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = packed(tmp_path, tree())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        read_split(place, "test")
    assert EXTRAS["PIL"] == "train"
    found = "the package PIL is not installed; install it with pip install 'esl-lava[train]'"
    assert str(missing(caught.value)) == found
