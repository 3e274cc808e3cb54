"""Samples of the user's own: from a folder of arrays, or whatever gives them split by split."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from esl_lava.arrays import Array
from esl_lava.data.adapters import (
    Items,
    Labelled,
    as_array,
    as_samples,
    checked_labels,
    classes_of,
    collect,
)
from esl_lava.data.arrays import read_array
from esl_lava.data.config import OWN, Encoding
from esl_lava.data.datasets import Images
from esl_lava.data.frames import Frames
from esl_lava.data.npz import read_member
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import DataError

ARCHIVE_LIMIT = 2 << 30
"""Most bytes of an array in a .npz file, which is held in memory; those of .npy files are not."""

NEEDED = (
    f"data.name {OWN!r}: the samples were a user's own, and no file says where they are: give "
    "--data-folder FOLDER, or --data-module FILE.py:FUNCTION again"
)

_ASKED = tuple(name for name in dir(TrainingSamples) if not name.startswith("_"))


@dataclass(frozen=True)
class Own:
    """Where samples of the user's own come from.

    Attributes:
        name: labels accuracies on them, unless they bring a name along.
        give: "train" or "test" -> that split: an object that has all of `TrainingSamples`, a torch
            `Dataset` as `adapters.from_torch` takes it, or a pair of arrays or tensors (samples,
            labels) as `adapters.from_arrays` does. It is asked for each split once at most.
        count: the number of classes, where it is known without the samples of the training split.
    """

    name: str
    give: Callable[[str], object]
    count: Callable[[], int] | None = None
    _given: dict[str, TrainingSamples | Labelled] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def samples(self, split: str, encoding: Encoding | None) -> TrainingSamples:
        """A split.

        Args:
            split: "train" or "test".
            encoding: under which they are wanted; None: any.

        Raises:
            DataError: when it is not what is said above, or the encoding does not fit.
        """
        found = self._settled(split)
        if isinstance(found, Labelled):
            classes = None if split == "train" else self._classes()
            made = as_samples(found, name=self.name, classes=classes, split=split)
            if encoding is not None:
                _refuse_encoding(made, encoding)
            return made
        return found

    def _settled(self, split: str) -> TrainingSamples | Labelled:
        if split not in self._given:
            self._given[split] = settled(self.give(split), f"{self.name}: {split}")
        return self._given[split]

    def _classes(self) -> int:
        if self.count is not None:
            return self.count()
        found = self._settled("train")
        if isinstance(found, Labelled):
            return classes_of(checked_labels(found.labels, found.labels_from))
        return found.classes


def of_folder(folder: str | Path) -> Own:
    """The data set in a folder.

    It holds `train.npz` and `test.npz`, each of arrays `samples` and `labels`, or
    `train_samples.npy`, `train_labels.npy`, `test_samples.npy` and `test_labels.npy`: arrays as
    `adapters.from_arrays` takes them. Those of .npy files are mapped into memory. The classes are
    those of the training split. Accuracies are labelled "own (NAME)" by the folder's name.
    """
    place = Path(folder)
    name = "".join(c if c.isprintable() else "?" for c in os.path.basename(os.path.abspath(place)))
    return Own(f"{OWN} ({name})", lambda split: _read(place, split), lambda: _classes_in(place))


def settled(found: object, where: str) -> TrainingSamples | Labelled:
    """What the user gives for a split, with all items of a torch `Dataset` asked for.

    Args:
        found: as `Own.give` returns it.
        where: names it in errors.

    Raises:
        DataError: when it is none of these.
    """
    if isinstance(found, Labelled):
        return found
    if isinstance(found, (tuple, list)):
        if len(found) != 2:
            raise DataError(f"{where}: a pair (samples, labels) is needed, not {len(found)} values")
        names = f"{where}: samples", f"{where}: labels"
        samples, labels = (as_array(values, name) for values, name in zip(found, names))
        return Labelled(samples, labels, *names)
    if hasattr(found, "spikes"):
        _refuse_incomplete(found, where)
        return cast(TrainingSamples, found)
    if hasattr(found, "__getitem__") and hasattr(found, "__len__"):
        return collect(cast(Items, found), where)
    raise DataError(
        f"{where}: is of type {type(found).__name__}; needed is a pair of arrays (samples, "
        "labels), a torch Dataset with a length, or an object that has all of "
        "esl_lava.data.samples.TrainingSamples"
    )


def _refuse_incomplete(found: object, where: str) -> None:
    """Refuse an object that is not what `TrainingSamples` says, with a DataError."""
    missing = [name for name in _ASKED if not hasattr(found, name)]
    if missing or not hasattr(found, "__len__"):
        raise DataError(
            f"{where}: a {type(found).__name__} lacks {', '.join(missing or ['__len__'])} of "
            "esl_lava.data.samples.TrainingSamples"
        )
    samples = cast(TrainingSamples, found)
    shape, labels = samples.shape, samples.labels
    if len(shape) != 3 or any(type(n) is not int or n < 1 for n in shape):
        raise DataError(
            f"{where}: needs shape (channels, rows, columns) of positive integers, not {shape}"
        )
    if not isinstance(labels, np.ndarray):
        raise DataError(f"{where}: labels are of type {type(labels).__name__}, not an array")
    checked = checked_labels(labels, f"{where}: labels", len(samples))
    if classes_of(checked) > samples.classes:
        raise DataError(
            f"{where}: label {checked.max()} is not in 0..{samples.classes - 1}, its classes"
        )


def _refuse_encoding(samples: Images | Frames, encoding: Encoding) -> None:
    if isinstance(samples, Frames):
        samples.refuse_other(encoding)
    elif encoding.kind == "frames":
        raise DataError(
            f"{samples.name} holds pictures of shape {samples.image_shape}, and encoding.kind "
            "'frames' takes samples of shape (T, channels, rows, columns)"
        )


# --- folders -----------------------------------------------------------------------------


def _read(folder: Path, split: str) -> Labelled:
    (samples, samples_from), (labels, labels_from) = (
        _part(folder, split, what) for what in ("samples", "labels")
    )
    return Labelled(samples, labels, samples_from, labels_from)


def _classes_in(folder: Path) -> int:
    return classes_of(checked_labels(*_part(folder, "train", "labels")))


def _part(folder: Path, split: str, what: str) -> tuple[Array, str]:
    """One array of a split, and what names it."""
    archive, file = folder / f"{split}.npz", folder / f"{split}_{what}.npy"
    # Unlike those of Path, false for an impossible name.
    there = [path for path in (archive, file) if os.path.isfile(path)]
    if len(there) == 2:
        raise DataError(f"{folder} holds {archive.name} and {file.name}: one of them is needed")
    if there == [archive]:
        return read_member(archive, what, ARCHIVE_LIMIT), f"{archive}: {what}"
    if there == [file]:
        return read_array(file, what), f"{file}: {what}"
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; it is to hold arrays of samples and labels")
    raise DataError(f"{folder} holds neither {file.name} nor {archive.name}")
