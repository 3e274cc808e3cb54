from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset

from esl_lava.data import own as module
from esl_lava.data.catalogue import load, load_configured
from esl_lava.data.config import Data, Encoding
from esl_lava.data.datasets import Images
from esl_lava.data.frames import Frames
from esl_lava.data.own import OwnData, own_from_folder
from esl_lava.errors import DataError, UserError
from tests.faults import refused

RATE, FRAMED = Encoding(steps=2), Encoding(kind="frames", steps=2)
PICTURES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([0, 2, 1, 0])


def write(folder: Path, archives: bool = False, **arrays: npt.NDArray) -> Path:
    """Write a folder of arrays; `arrays` replaces some of them, and None leaves an array out."""
    given: dict[str, Any] = {
        "train_samples": PICTURES,
        "train_labels": LABELS,
        "test_samples": PICTURES[:2],
        "test_labels": LABELS[2:],
        **arrays,
    }
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        parts = {what: given[f"{split}_{what}"] for what in ("samples", "labels")}
        parts = {what: array for what, array in parts.items() if array is not None}
        if archives:
            np.savez(folder / f"{split}.npz", **parts)
        else:
            for what, array in parts.items():
                np.save(folder / f"{split}_{what}.npy", array)
    return folder


@pytest.mark.parametrize("archives", [False, True])
def test_a_folder_of_pictures(tmp_path: Path, archives: bool) -> None:
    folder = write(tmp_path / "flowers", archives)
    data = Data(name="own", folder=str(folder))
    train, test = (load_configured(data, split, RATE) for split in ("train", "test"))
    assert isinstance(train, Images)
    assert isinstance(test, Images)
    assert (train.name, train.split, train.classes) == ("own (flowers)", "train", 3)
    assert (test.name, test.split, test.classes) == ("own (flowers)", "test", 3)
    assert train.shape == test.shape == (1, 2, 3)
    assert train.images.tolist() == PICTURES.reshape(4, 6).tolist()
    assert (test.labels.dtype, test.labels.tolist()) == (np.int64, [1, 0])


def test_files_are_mapped_into_memory(tmp_path: Path) -> None:
    kept = np.arange(24, dtype=np.int16).reshape(2, 2, 1, 2, 3) % 2
    folder = write(tmp_path, train_samples=kept, train_labels=LABELS[:2])
    found = own_from_folder(folder).samples("train", FRAMED)
    assert isinstance(found, Frames)
    assert isinstance(found.stored, np.memmap)
    assert found.frames.tolist() == kept.tolist()


@pytest.mark.parametrize("archives", [False, True])
@pytest.mark.parametrize(
    ("wrong", "array", "split", "code", "value"),
    [
        ("train_labels", LABELS[:3], "train", "shape", (3,)),
        ("train_labels", LABELS[:, None], "test", "shape", (4, 1)),
        ("train_labels", LABELS - 1, "train", "range", -1),
        ("train_labels", LABELS * 1.0, "train", "type", "float64"),
        ("train_labels", LABELS * 1.0, "test", "type", "float64"),
        ("test_labels", LABELS[:2] + 1, "test", "range", 3),
        ("test_samples", PICTURES[:2, 0, 0], "test", "shape", (2,)),
        ("test_samples", PICTURES[:2] * 1.0, "test", "type", "float64"),
        ("test_samples", np.full((2, 2, 3), np.nan), "test", "type", "float64"),
        ("test_samples", PICTURES[:2].astype(int), "test", "type", "int64"),
    ],
)
def test_other_arrays_are_one_sentence_with_their_file(
    tmp_path: Path,
    archives: bool,
    wrong: str,
    array: npt.NDArray,
    split: str,
    code: str,
    value: object,
) -> None:
    folder = write(tmp_path / "flowers", archives, **{wrong: array})
    part, _, key = wrong.partition("_")
    file = folder / (f"{part}.npz" if archives else f"{wrong}.npy")
    with refused(UserError, code, key=key, value=value, file=file):
        own_from_folder(folder).samples(split, RATE)


@pytest.mark.parametrize("archives", [False, True])
def test_a_value_of_frames_is_refused_with_their_file(tmp_path: Path, archives: bool) -> None:
    folder = write(tmp_path, archives, test_samples=np.full((2, 2, 1, 2, 3), -3))
    with refused(DataError, "range", key="frames", value=-3, limit=255) as caught:
        own_from_folder(folder).samples("test", RATE)
    file = folder / ("test.npz" if archives else "test_samples.npy")
    assert str(caught.value).startswith(f"{file}: samples")


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        (["train_samples.npy"], "train_samples.npy"),
        (["train_labels.npy"], "train_labels.npy"),
        (["train_samples.npy", "train_labels.npy"], "train_samples.npy"),
    ],
)
def test_missing_files(tmp_path: Path, left_out: list[str], missing: str) -> None:
    write(tmp_path)
    for name in left_out:
        (tmp_path / name).unlink()
    with refused(DataError, "not-found", file=tmp_path) as caught:
        own_from_folder(tmp_path).samples("train", RATE)
    assert missing in str(caught.value)
    assert "train.npz" in str(caught.value)


def test_missing_folders_and_arrays_and_too_many(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", Path("a\0b"), Path("a" * 9999)):
        with refused(DataError, "not-found", file=folder):
            own_from_folder(folder).samples("train", RATE)
    np.savez(tmp_path / "train.npz", samples=PICTURES)
    with refused(UserError, "missing", key="labels", file=tmp_path / "train.npz"):
        own_from_folder(tmp_path).samples("train", RATE)
    np.save(tmp_path / "train_samples.npy", PICTURES)
    with refused(DataError, "conflict", file=tmp_path) as caught:
        own_from_folder(tmp_path).samples("train", RATE)
    assert "train.npz" in str(caught.value)
    assert "train_samples.npy" in str(caught.value)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return pytest.fail, ("an array was unpickled",)

    trap = np.array([Trap()], object)
    write(tmp_path / "a", train_samples=trap)
    with refused(UserError, "damaged", file=tmp_path / "a" / "train_samples.npy"):
        own_from_folder(tmp_path / "a").samples("train", RATE)
    write(tmp_path / "b", archives=True, train_labels=trap)
    file = tmp_path / "b" / "train.npz"
    with refused(UserError, "type", key="labels", value="object", file=file):
        own_from_folder(tmp_path / "b").samples("test", RATE)


def test_an_archive_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, archives=True)
    monkeypatch.setattr(module, "ARCHIVE_LIMIT", 128 + 23)
    file = tmp_path / "train.npz"
    with refused(UserError, "too-large", key="samples", value=152, limit=151, file=file):
        own_from_folder(tmp_path).samples("train", RATE)


def test_names_are_printable(tmp_path: Path) -> None:
    assert own_from_folder(tmp_path / "mnist").name == "own (mnist)"
    assert own_from_folder(tmp_path / "a\nb\x1b").name == "own (a?b?)"


def test_an_encoding_has_to_fit() -> None:
    pictures = OwnData("mine", {"train": (PICTURES, LABELS)}.__getitem__)
    with refused(DataError, "conflict", key="encoding.kind", value="frames"):
        pictures.samples("train", FRAMED)
    frames = OwnData("mine", {"train": (PICTURES[:, None, None].repeat(2, 1), LABELS)}.__getitem__)
    with refused(DataError, "range", key="encoding.bits", value=23, limit=1):
        frames.samples("train", FRAMED)
    assert len(frames.samples("train", Encoding(kind="frames", steps=2, bits=5))) == 4
    assert len(frames.samples("train", None)) == 4


class Calls(dict):
    """Splits, which record each request."""

    def __init__(self, **splits: Any) -> None:
        super().__init__(splits)
        self.asked: list[str] = []

    def __getitem__(self, split: str) -> Any:
        self.asked.append(split)
        return super().__getitem__(split)


@pytest.mark.parametrize(
    "made", [lambda *pair: pair, lambda *pair: TensorDataset(*map(torch.from_numpy, pair))]
)
def test_classes_are_those_of_the_training_split(made: Any) -> None:
    splits = Calls(train=made(PICTURES, LABELS), test=made(PICTURES[:1], LABELS[:1]))
    own = OwnData("mine", splits.__getitem__)
    test = own.samples("test", RATE)
    assert (test.classes, test.labels.tolist(), test.split) == (3, [0], "test")
    assert own.samples("train", RATE).classes == 3
    assert sorted(splits.asked) == ["test", "train"]
    beyond = OwnData(
        "mine", {"train": made(PICTURES[:1], LABELS[:1]), "test": made(PICTURES, LABELS)}.get
    )
    with refused(DataError, "range", key="labels", value=2, limit=0) as caught:
        beyond.samples("test", RATE)
    assert str(caught.value).startswith("mine: test: labels")


def test_tensors_are_taken_as_a_pair() -> None:
    pair = torch.from_numpy(PICTURES), torch.from_numpy(LABELS)
    found = OwnData("mine", {"train": pair}.__getitem__).samples("train", RATE)
    assert isinstance(found, Images)
    assert found.images.tolist() == PICTURES.reshape(4, 6).tolist()


def test_objects_of_our_protocol_are_taken_as_they_are() -> None:
    digits = load("digits", "train")
    own = OwnData(
        "mine", {"train": digits, "test": (np.zeros((1, 8, 8), np.uint8), [9])}.__getitem__
    )
    assert own.samples("train", RATE) is digits
    with refused(DataError, "type", key="labels", value="list"):
        own.samples("test", RATE)
    own = OwnData("mine", {"train": digits, "test": (PICTURES[:1], LABELS[:1])}.__getitem__)
    assert own.samples("test", RATE).classes == 10


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        """Return nothing; it is never called."""


class Half:
    """An object that has only `spikes` of the protocol."""

    def spikes(self, encoding: Encoding) -> None:
        """Return no spikes."""


FEW = Images("few", PICTURES.reshape(4, 6), LABELS, 3, (2, 3))


class Odd:
    """Samples with some wrong properties."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def __getattr__(self, name: str) -> Any:
        return self.said[name] if name in self.said else getattr(FEW, name)

    def __len__(self) -> int:
        return len(FEW)


@pytest.mark.parametrize(
    ("found", "key", "code", "value"),
    [
        (None, None, "type", "NoneType"),
        (7, None, "type", "int"),
        (Endless(), None, "type", "Endless"),
        ((PICTURES,), None, "type", 1),
        ((PICTURES, LABELS, 3), None, "type", 3),
        (("a", "b"), "samples", "type", "str"),
        (PICTURES, "item 0", "type", "ndarray"),
        (Half(), "choose", "missing", None),
        (Odd(shape=(2, 3)), "shape", "shape", (2, 3)),
        (Odd(shape=(0, 2, 3)), "shape", "shape", (0, 2, 3)),
        (Odd(labels=[0, 1]), "labels", "type", "list"),
        (Odd(labels=LABELS[:2]), "labels", "shape", (2,)),
        (Odd(classes=2), "labels", "range", 2),
    ],
)
def test_what_else_is_given_is_refused(
    found: Any, key: str | None, code: str, value: object
) -> None:
    with refused(DataError, code, key=key, value=value) as caught:
        OwnData("mine", {"train": found}.__getitem__).samples("train", RATE)
    assert str(caught.value).startswith("mine: train: ")


def test_all_that_an_object_lacks_is_named() -> None:
    with pytest.raises(DataError) as caught:
        OwnData("mine", {"train": Half()}.__getitem__).samples("train", RATE)
    assert "choose, classes, digest, first_steps, flipped, labels" in str(caught.value)


def test_own_samples_are_asked_for_where_nobody_says_where_they_are() -> None:
    with refused(DataError, "missing", key="--data-folder") as caught:
        load_configured(Data(name="own"), "train", RATE)
    assert "--data-module FILE.py:FUNCTION" in str(caught.value)
    with refused(DataError, "unknown", key="split", value="all"):
        load("own", "all", RATE, OwnData("mine", {}.__getitem__))
    # Data sets with other names ignore the user's samples.
    assert load("digits", "test", RATE, OwnData("mine", {}.__getitem__)).name == "digits"


def test_what_is_given_now_takes_the_place_of_a_recorded_folder(tmp_path: Path) -> None:
    data = Data(name="own", folder=str(tmp_path / "gone"))
    own = OwnData("mine", {"train": replace(FEW, name="moved")}.__getitem__)
    assert load_configured(data, "train", RATE, own).name == "moved"
