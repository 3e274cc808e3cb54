import re
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
from esl_lava.data.catalogue import load, samples_of
from esl_lava.data.config import Data, Encoding
from esl_lava.data.datasets import Images
from esl_lava.data.frames import Frames
from esl_lava.data.own import Own, of_folder
from esl_lava.errors import DataError, UserError

RATE, FRAMED = Encoding(steps=2), Encoding(kind="frames", steps=2)
PICTURES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([0, 2, 1, 0])


def write(folder: Path, archives: bool = False, **arrays: npt.NDArray) -> Path:
    """A folder of arrays; those of `arrays` in place of their names' own, None leaves one out."""
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
    train, test = (samples_of(data, split, RATE) for split in ("train", "test"))
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
    found = of_folder(folder).samples("train", FRAMED)
    assert isinstance(found, Frames)
    assert isinstance(found.kept, np.memmap)
    assert found.frames.tolist() == kept.tolist()


@pytest.mark.parametrize("archives", [False, True])
@pytest.mark.parametrize(
    ("wrong", "array", "split", "sentence"),
    [
        ("train_labels", LABELS[:3], "train", "need shape (4,), one for each sample, not (3,)"),
        ("train_labels", LABELS[:, None], "test", "need shape (samples,), one for each sample"),
        ("train_labels", LABELS - 1, "train", ": label -1 of sample 0 is not in 0..1048575"),
        ("train_labels", LABELS * 1.0, "train", "have to be integers, not float64"),
        ("train_labels", LABELS * 1.0, "test", "have to be integers, not float64"),
        ("test_labels", LABELS[:2] + 1, "test", ": label 3 of sample 1 is not in 0..2, the class"),
        ("test_samples", PICTURES[:2, 0, 0], "test", "need shape (samples, rows, columns) or (s"),
        ("test_samples", PICTURES[:2] * 1.0, "test", "of shape (2, 2, 3) are pictures, which need"),
        ("test_samples", np.full((2, 2, 3), np.nan), "test", "of shape (2, 2, 3) are pictures, wh"),
        ("test_samples", PICTURES[:2].astype(int), "test", "of shape (2, 2, 3) are pictures, whic"),
        ("test_samples", np.full((2, 2, 1, 2, 3), -3), "test", "has a value of -3 in its frames,"),
    ],
)
def test_other_arrays_are_one_sentence_with_their_file(
    tmp_path: Path, archives: bool, wrong: str, array: npt.NDArray, split: str, sentence: str
) -> None:
    folder = write(tmp_path / "flowers", archives, **{wrong: array})
    with pytest.raises(UserError) as caught:
        of_folder(folder).samples(split, RATE)
    part, _, what = wrong.partition("_")
    file = folder / (f"{part}.npz" if archives else f"{wrong}.npy")
    if not archives and what == "samples" and array.dtype.kind == "f":
        sentence = "have to be integers, not float64"  # said before anything is read
    glue = "" if sentence.startswith(":") else " "
    assert str(caught.value).startswith(f"{file}: {what}{glue}{sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        (["train_samples.npy"], "{} holds neither train_samples.npy nor train.npz"),
        (["train_labels.npy"], "{} holds neither train_labels.npy nor train.npz"),
        (["train_samples.npy", "train_labels.npy"], "{} holds neither train_samples.npy nor tra"),
    ],
)
def test_missing_files(tmp_path: Path, left_out: list[str], sentence: str) -> None:
    write(tmp_path)
    for name in left_out:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"^{re.escape(sentence.format(tmp_path))}"):
        of_folder(tmp_path).samples("train", RATE)


def test_missing_folders_and_arrays_and_too_many(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}/none: no such folder"):
        of_folder(tmp_path / "none").samples("train", RATE)
    with pytest.raises(DataError, match="no such folder"):
        of_folder("a\0b").samples("train", RATE)
    with pytest.raises(DataError, match="no such folder"):
        of_folder("a" * 9999).samples("train", RATE)
    np.savez(tmp_path / "train.npz", samples=PICTURES)
    with pytest.raises(UserError, match=r"train\.npz: holds no array labels"):
        of_folder(tmp_path).samples("train", RATE)
    np.save(tmp_path / "train_samples.npy", PICTURES)
    sentence = rf"^{tmp_path} holds train\.npz and train_samples\.npy: one of them is needed$"
    with pytest.raises(DataError, match=sentence):
        of_folder(tmp_path).samples("train", RATE)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return pytest.fail, ("an array was unpickled",)

    trap = np.array([Trap()], object)
    write(tmp_path / "a", train_samples=trap)
    with pytest.raises(UserError, match=r"train_samples\.npy: not a \.npy file of plain numbers"):
        of_folder(tmp_path / "a").samples("train", RATE)
    write(tmp_path / "b", archives=True, train_labels=trap)
    with pytest.raises(UserError, match="labels holds Python objects, which are never read"):
        of_folder(tmp_path / "b").samples("test", RATE)


def test_an_archive_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, archives=True)
    monkeypatch.setattr(module, "ARCHIVE_LIMIT", 128 + 23)
    with pytest.raises(UserError, match=r"train\.npz: samples has 152 bytes, the limit is 151"):
        of_folder(tmp_path).samples("train", RATE)


def test_names_are_printable(tmp_path: Path) -> None:
    assert of_folder(tmp_path / "mnist").name == "own (mnist)"
    assert of_folder(tmp_path / "a\nb\x1b").name == "own (a?b?)"


def test_an_encoding_has_to_fit() -> None:
    pictures = Own("mine", {"train": (PICTURES, LABELS)}.__getitem__)
    with pytest.raises(
        DataError, match=r"^mine holds pictures of shape \(2, 3\), and encoding\.kind"
    ):
        pictures.samples("train", FRAMED)
    frames = Own("mine", {"train": (PICTURES[:, None, None].repeat(2, 1), LABELS)}.__getitem__)
    with pytest.raises(DataError, match=r"^mine has a value of 23 in its frames"):
        frames.samples("train", FRAMED)
    assert len(frames.samples("train", Encoding(kind="frames", steps=2, bits=5))) == 4
    assert len(frames.samples("train", None)) == 4


class Calls(dict):
    """Splits, which remember how often they were asked for."""

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
    own = Own("mine", splits.__getitem__)
    test = own.samples("test", RATE)
    assert (test.classes, test.labels.tolist(), test.split) == (3, [0], "test")
    assert own.samples("train", RATE).classes == 3
    assert sorted(splits.asked) == ["test", "train"]
    beyond = Own(
        "mine", {"train": made(PICTURES[:1], LABELS[:1]), "test": made(PICTURES, LABELS)}.get
    )
    with pytest.raises(
        DataError, match=r"^mine: test: labels: label 2 of sample 1 is not in 0\.\.0"
    ):
        beyond.samples("test", RATE)


def test_tensors_are_taken_as_a_pair() -> None:
    pair = torch.from_numpy(PICTURES), torch.from_numpy(LABELS)
    found = Own("mine", {"train": pair}.__getitem__).samples("train", RATE)
    assert isinstance(found, Images)
    assert found.images.tolist() == PICTURES.reshape(4, 6).tolist()


def test_objects_of_our_protocol_are_taken_as_they_are() -> None:
    digits = load("digits", "train")
    own = Own("mine", {"train": digits, "test": (np.zeros((1, 8, 8), np.uint8), [9])}.__getitem__)
    assert own.samples("train", RATE) is digits
    with pytest.raises(DataError, match=r"^mine: test: labels is of type list, not a tensor or an"):
        own.samples("test", RATE)
    own = Own("mine", {"train": digits, "test": (PICTURES[:1], LABELS[:1])}.__getitem__)
    assert own.samples("test", RATE).classes == 10


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        """Never called."""


class Half:
    """Has spikes, and nothing else of the protocol."""

    def spikes(self, encoding: Encoding) -> None:
        """None at all."""


FEW = Images("few", PICTURES.reshape(4, 6), LABELS, 3, (2, 3))


class Odd:
    """Samples that say of themselves what is not so."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def __getattr__(self, name: str) -> Any:
        return self.said[name] if name in self.said else getattr(FEW, name)

    def __len__(self) -> int:
        return len(FEW)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "mine: train: is of type NoneType; needed is a pair of arrays (samples, labels), a"),
        (7, "mine: train: is of type int; needed is"),
        (Endless(), "mine: train: is of type Endless; needed is"),
        ((PICTURES,), "mine: train: a pair (samples, labels) is needed, not 1 values"),
        ((PICTURES, LABELS, 3), "mine: train: a pair (samples, labels) is needed, not 3 values"),
        (("a", "b"), "mine: train: samples is of type str, not a tensor or an array"),
        (PICTURES, "mine: train: item 0 is of type ndarray, not a pair (tensor, label)"),
        (Half(), "mine: train: a Half lacks choose, classes, digest, first_steps, flipped, labels"),
        (Odd(shape=(2, 3)), "mine: train: needs shape (channels, rows, columns) of positive inte"),
        (Odd(shape=(0, 2, 3)), "mine: train: needs shape (channels, rows, columns) of positive"),
        (Odd(labels=[0, 1]), "mine: train: labels are of type list, not an array"),
        (Odd(labels=LABELS[:2]), "mine: train: labels need shape (4,), one for each sample, not"),
        (Odd(classes=2), "mine: train: label 2 is not in 0..1, its classes"),
    ],
)
def test_what_else_is_given_is_refused(found: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(sentence)}"):
        Own("mine", {"train": found}.__getitem__).samples("train", RATE)


def test_own_samples_are_asked_for_where_nobody_says_where_they_are() -> None:
    with pytest.raises(
        DataError, match=r"--data-folder FOLDER, or --data-module FILE\.py:FUNCTION"
    ):
        samples_of(Data(name="own"), "train", RATE)
    with pytest.raises(DataError, match="unknown split 'all' of own"):
        load("own", "all", RATE, Own("mine", {}.__getitem__))
    # Data sets by name have nothing of the user's.
    assert load("digits", "test", RATE, Own("mine", {}.__getitem__)).name == "digits"


def test_what_is_given_now_takes_the_place_of_a_recorded_folder(tmp_path: Path) -> None:
    data = Data(name="own", folder=str(tmp_path / "gone"))
    own = Own("mine", {"train": replace(FEW, name="moved")}.__getitem__)
    assert samples_of(data, "train", RATE, own).name == "moved"
