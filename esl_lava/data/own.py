"""The user's own samples: from a folder of arrays, or from a function that returns each split."""

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
    LabelledArrays,
    Source,
    as_array,
    as_samples,
    check_labels,
    collect_items,
    number_of_classes,
)
from esl_lava.data.arrays import read_array
from esl_lava.data.config import OWN, Encoding
from esl_lava.data.datasets import Images
from esl_lava.data.frames import Frames
from esl_lava.data.npz import read_member
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import DataError

ARCHIVE_LIMIT = 2 << 30
"""Largest number of bytes of an array in a .npz file, which is held in memory.

Arrays in .npy files are mapped into memory and do not have this limit.
"""

SOURCE_NEEDED = (
    f"data.name {OWN!r}: these are the user's own samples, and no file records where they are: "
    "give --data-folder FOLDER or --data-module FILE.py:FUNCTION again; in Python, the argument own"
)

_PROTOCOL = tuple(name for name in dir(TrainingSamples) if not name.startswith("_"))


@dataclass(frozen=True)
class OwnData:
    """The source of the user's own samples.

    Attributes:
        name: name under which accuracies on the samples are reported, unless the samples have a
            name themselves.
        give: "train" or "test" -> that split: an object with all attributes of `TrainingSamples`, a
            torch `Dataset` as in `adapters.from_torch`, or a pair of arrays or tensors (samples,
            labels) as in `adapters.from_arrays`. It is called at most once for each split.
        count: function that returns the number of classes without reading the training samples;
            None if they must be read.
    """

    name: str
    give: Callable[[str], object]
    count: Callable[[], int] | None = None
    _splits: dict[str, TrainingSamples | LabelledArrays] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def samples(self, split: str, encoding: Encoding | None) -> TrainingSamples:
        """Return a split.

        Args:
            split: "train" or "test".
            encoding: the encoding that the samples have to fit; None: any.

        Raises:
            DataError: what `give` returned is of no such kind, or the encoding does not fit.
        """
        content = self._checked_split(split)
        if isinstance(content, LabelledArrays):
            classes = None if split == "train" else self._classes()
            samples = as_samples(content, name=self.name, classes=classes, split=split)
            if encoding is not None:
                _refuse_encoding(samples, encoding)
            return samples
        return content

    def _checked_split(self, split: str) -> TrainingSamples | LabelledArrays:
        if split not in self._splits:
            self._splits[split] = check_split(self.give(split), f"{self.name}: {split}")
        return self._splits[split]

    def _classes(self) -> int:
        if self.count is not None:
            return self.count()
        content = self._checked_split("train")
        if isinstance(content, LabelledArrays):
            return number_of_classes(check_labels(content.labels, content.labels_source))
        return content.classes


def own_from_folder(folder: str | Path) -> OwnData:
    """Return the data set in a folder.

    The folder holds `train.npz` and `test.npz`, each with the arrays `samples` and `labels`, or
    `train_samples.npy`, `train_labels.npy`, `test_samples.npy` and `test_labels.npy`: arrays as in
    `adapters.from_arrays`. Arrays in .npy files are mapped into memory. The labels of the training
    split determine the classes. Accuracies are reported under the name "own (FOLDER)". Nothing is
    read before a split is needed, so errors in the folder appear then.
    """
    place = Path(folder)
    name = "".join(c if c.isprintable() else "?" for c in os.path.basename(os.path.abspath(place)))
    return OwnData(f"{OWN} ({name})", lambda split: _read(place, split), lambda: _classes_in(place))


def check_split(content: object, where: str) -> TrainingSamples | LabelledArrays:
    """Check what the user returned for a split, and read all items of a torch `Dataset`.

    Args:
        content: the return value of `OwnData.give`.
        where: names the split in errors.

    Raises:
        DataError: the content is of another kind.
    """
    if isinstance(content, LabelledArrays):
        return content
    if isinstance(content, (tuple, list)):
        if len(content) != 2:
            raise DataError(
                f"{where}: a pair (samples, labels) is needed, not {len(content)} values",
                "type",
                value=len(content),
                limit=2,
            )
        sources = Source(where, "samples"), Source(where, "labels")
        samples, labels = (as_array(values, source) for values, source in zip(content, sources))
        return LabelledArrays(samples, labels, *sources)
    if hasattr(content, "spikes"):
        _refuse_incomplete(content, where)
        return cast(TrainingSamples, content)
    if hasattr(content, "__getitem__") and hasattr(content, "__len__"):
        return collect_items(cast(Items, content), where)
    kind = type(content).__name__
    raise DataError(
        f"{where}: is of type {kind}; needed is a pair of arrays (samples, labels), a torch "
        "Dataset with a length, or an object that has all attributes of "
        "esl_lava.data.samples.TrainingSamples",
        "type",
        value=kind,
    )


def _refuse_incomplete(content: object, where: str) -> None:
    """Refuse an object that does not fulfil `TrainingSamples`, with a DataError."""
    missing = [name for name in _PROTOCOL if not hasattr(content, name)]
    if missing or not hasattr(content, "__len__"):
        missing = missing or ["__len__"]
        raise DataError(
            f"{where}: a {type(content).__name__} lacks {', '.join(missing)} of "
            "esl_lava.data.samples.TrainingSamples",
            "missing",
            key=missing[0],
        )
    samples = cast(TrainingSamples, content)
    shape, labels = samples.shape, samples.labels
    if len(shape) != 3 or any(type(n) is not int or n < 1 for n in shape):
        raise DataError(
            f"{where}: needs shape (channels, rows, columns) of positive integers, not {shape}",
            "shape",
            key="shape",
            value=shape,
        )
    source = Source(where, "labels")
    if not isinstance(labels, np.ndarray):
        kind = type(labels).__name__
        raise source.refusal(f" are of type {kind}, not an array", "type", kind)
    largest = int(check_labels(labels, source, len(samples)).max())
    if largest >= samples.classes:
        raise source.refusal(
            f": label {largest} is not in 0..{samples.classes - 1}, the classes of the samples",
            "range",
            largest,
            samples.classes - 1,
        )


def _refuse_encoding(samples: Images | Frames, encoding: Encoding) -> None:
    if isinstance(samples, Frames):
        samples.refuse_other(encoding)
    elif encoding.kind == "frames":
        raise DataError(
            f"{samples.name} holds pictures of shape {samples.image_shape}, but encoding.kind "
            "'frames' needs samples of shape (T, channels, rows, columns)",
            "conflict",
            key="encoding.kind",
            value=encoding.kind,
        )


# --- folders -----------------------------------------------------------------------------


def _read(folder: Path, split: str) -> LabelledArrays:
    """Return the arrays of a split."""
    samples, samples_source = _read_part(folder, split, "samples")
    labels, labels_source = _read_part(folder, split, "labels")
    return LabelledArrays(samples, labels, samples_source, labels_source)


def _classes_in(folder: Path) -> int:
    """Return the number of classes of the data set in a folder."""
    return number_of_classes(check_labels(*_read_part(folder, "train", "labels")))


def _read_part(folder: Path, split: str, key: str) -> tuple[Array, Source]:
    """Return the samples or the labels of a split, and the file that they come from."""
    archive, file = folder / f"{split}.npz", folder / f"{split}_{key}.npy"
    # os.path.isfile returns False for an impossible name, for which Path.is_file raises an error.
    existing = [path for path in (archive, file) if os.path.isfile(path)]
    if len(existing) == 2:
        raise DataError(
            f"{folder} holds both {archive.name} and {file.name}: remove one of them",
            "conflict",
            file=folder,
        )
    if existing == [archive]:
        return read_member(archive, key, ARCHIVE_LIMIT), Source(str(archive), key, archive)
    if existing == [file]:
        return read_array(file, key), Source(str(file), key, file)
    if not os.path.isdir(folder):
        raise DataError(
            f"{folder}: no such folder; a folder with arrays of samples and labels is needed",
            "not-found",
            file=folder,
        )
    sentence = f"{folder} holds neither {file.name} nor {archive.name}"
    raise DataError(sentence, "not-found", file=folder)
