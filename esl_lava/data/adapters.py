"""Samples that training takes, of a user's own arrays or torch `Dataset`."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.datasets import Images
from esl_lava.data.frames import LARGEST, Frames
from esl_lava.errors import DataError
from esl_lava.topology import MAX_WIDTH

PICTURES_LIMIT = 8 << 30
"""Most bytes of pictures, and of what a `Dataset` holds: a training has them in memory."""

MOST_SAMPLES = 1 << 28
"""Of a split; their labels alone take 2 GiB."""

_FULL_SCALE = 255
_PICTURE_AXES = {2: "features", 3: "rows, columns", 4: "channels, rows, columns"}
_AXES = (
    "(samples, rows, columns) or (samples, channels, rows, columns) of pictures, or (samples, T, "
    "channels, rows, columns) of frames"
)


class Items(Protocol):
    """What is asked of a torch `Dataset`: a number of items, and each by its place."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> Any:
        """A pair of a sample, a tensor or an array, and its label."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Arrays of a user's own, not looked at yet.

    Attributes:
        samples: pictures or frames.
        labels: of them.
        samples_from, labels_from: what names them in errors.
    """

    samples: Array
    labels: Array
    samples_from: str
    labels_from: str


def from_arrays(
    samples: Array,
    labels: Array,
    *,
    name: str = "own",
    classes: int | None = None,
    split: str | None = None,
) -> Images | Frames:
    """Samples of two arrays, which they share memory with.

    Args:
        samples: pictures, uint8 of shape (samples, rows, columns), (samples, channels, rows,
            columns) or (samples, features), 255 is full scale; or frames, integers in 0..255 of
            shape (samples, T, channels, rows, columns), which a network is given as they are.
        labels: (samples,) integers from 0.
        name: what accuracies on them are labelled.
        classes: number of classes; None: 1 + the largest label.
        split: "train" or "test", of which they are.

    Raises:
        DataError: for arrays that are not of these types, shapes and ranges.
    """
    given = Labelled(samples, labels, f"{name}: samples", f"{name}: labels")
    return as_samples(given, name=name, classes=classes, split=split)


def from_torch(
    dataset: Items,
    *,
    name: str = "own",
    classes: int | None = None,
    split: str | None = None,
) -> Images | Frames:
    """Samples of a torch `Dataset`, all of which are asked for here, once, and held in memory.

    Args:
        dataset: of items (tensor, label), all tensors of one shape: pictures, (rows, columns),
            (channels, rows, columns) or (features,), uint8 or of floats in 0..1, which become
            `floor(255 * x + 1/2)`; or frames, (T, channels, rows, columns), whole numbers in
            0..255 of any type. A label is an integer from 0.
        name, classes, split: as `from_arrays`. Of a test split say `classes`: it need not hold a
            sample of every class.

    Raises:
        DataError: for items of other kinds, naming the first.

    Example:
        Pictures of a bright left or right half, for a training as `experiments.train.train` does
        it with `own=Own("halves", splits.__getitem__)`.

        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from esl_lava.data.config import Encoding
        >>> pictures = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.0]]])
        >>> halves = TensorDataset(pictures, torch.tensor([0, 1, 0]))
        >>> samples = from_torch(halves, name="halves", classes=2)
        >>> splits = {"train": samples, "test": samples.take(2)}
        >>> samples.shape, samples.classes, len(samples)
        ((1, 1, 2), 2, 3)
        >>> samples.spikes(Encoding(kind="rate", steps=4))[2].tolist()
        [[1, 0], [0, 0], [1, 0], [0, 0]]
    """
    return as_samples(collect(dataset, name), name=name, classes=classes, split=split)


def as_samples(
    given: Labelled, *, name: str, classes: int | None, split: str | None
) -> Images | Frames:
    """Samples of arrays by the rules of `from_arrays`; `given` names them in errors."""
    samples, where = given.samples, given.samples_from
    if samples.ndim not in (*_PICTURE_AXES, 5):
        raise DataError(f"{where} need shape {_AXES}, not {samples.shape}")
    if samples.size == 0:
        raise DataError(f"{where} of shape {samples.shape} hold nothing")
    if len(samples) > MOST_SAMPLES:
        raise DataError(f"{where} are {len(samples)}, the limit is {MOST_SAMPLES}")
    labels = checked_labels(given.labels, given.labels_from, len(samples))
    if classes is None:
        classes = classes_of(labels)
    outside = np.flatnonzero(labels >= classes)
    if outside.size:
        raise DataError(
            f"{given.labels_from}: label {labels[outside[0]]} of sample {outside[0]} is not in "
            f"0..{classes - 1}, the classes of the training split"
        )
    if samples.ndim == 5:
        if samples.dtype.kind not in "iub":
            raise DataError(
                f"{where} have to be integers where they are frames, not {samples.dtype}"
            )
        # Looked through once, under the name that an error is to say.
        return replace(Frames(where, samples, labels, classes, split), name=name)
    if samples.dtype != np.uint8:
        raise DataError(
            f"{where} of shape {samples.shape} are pictures, which need uint8, 0..255, not "
            f"{samples.dtype}"
        )
    if samples.nbytes > PICTURES_LIMIT:
        raise DataError(f"{where} have {samples.nbytes} bytes, the limit is {PICTURES_LIMIT}")
    shape = samples.shape[1:]
    return Images(name, samples.reshape(len(samples), -1), labels, classes, shape, split)


def checked_labels(labels: Array, where: str, samples: int | None = None) -> Ints:
    """Labels as int64, from 0.

    Args:
        labels: of anything.
        where: names them in errors.
        samples: how many there are to be; None: at least one.

    Raises:
        DataError: for what is no such labels.
    """
    if labels.dtype.kind not in "iub":
        raise DataError(f"{where} have to be integers, not {labels.dtype}")
    if labels.ndim != 1 or len(labels) != (samples or len(labels)) or len(labels) == 0:
        wanted = "samples" if samples is None else samples
        raise DataError(f"{where} need shape ({wanted},), one for each sample, not {labels.shape}")
    # Compared before they become int64, in which the largest of uint64 would be below 0.
    outside = np.flatnonzero((labels < 0) | (labels >= MAX_WIDTH))
    if outside.size:
        raise DataError(
            f"{where}: label {labels[outside[0]]} of sample {outside[0]} is not in "
            f"0..{MAX_WIDTH - 1}"
        )
    return labels.astype(np.int64)


def classes_of(labels: Ints) -> int:
    """Number of classes of a training split: 1 + the largest label."""
    return 1 + int(labels.max())


def collect(dataset: Items, where: str) -> Labelled:
    """All items of a torch `Dataset` as two arrays; see `from_torch`.

    Args:
        where: names it in errors.

    Raises:
        DataError: naming the first item that is not of the kind of the others.
    """
    number = len(dataset)
    if not 1 <= number <= MOST_SAMPLES:
        raise DataError(f"{where}: has {number} items; 1 to {MOST_SAMPLES} can be taken")
    labels = np.empty(number, np.int64)
    kept: Bytes | None = None
    for index in range(number):
        item = f"{where}: item {index}"
        sample, labels[index] = _item(dataset[index], item)
        if kept is None:
            if sample.ndim not in (1, 2, 3, 4):
                raise DataError(
                    f"{item} has shape {sample.shape}, which is no picture and no frames"
                )
            if number * math.prod(sample.shape) > PICTURES_LIMIT:
                raise DataError(
                    f"{where}: {number} items of shape {sample.shape} have more bytes than the "
                    f"limit, {PICTURES_LIMIT}"
                )
            kept = np.empty((number, *sample.shape), np.uint8)
        if sample.shape != kept.shape[1:]:
            raise DataError(f"{item} has shape {sample.shape}, item 0 has {kept.shape[1:]}")
        kept[index] = _counts(sample, item) if sample.ndim == 4 else _pixels(sample, item)
    assert kept is not None
    return Labelled(kept, labels, f"{where}: samples", f"{where}: labels")


def as_array(values: object, where: str) -> Array:
    """A tensor, wherever it lies, or an array as an array.

    Raises:
        DataError: for what is neither.
    """
    if isinstance(values, np.ndarray):
        return values
    if all(hasattr(values, name) for name in ("detach", "cpu", "numpy")):  # of torch
        found: Array = values.detach().cpu().numpy()  # type: ignore[attr-defined]
        return found
    raise DataError(
        f"{where} is of type {type(values).__name__}, not a tensor or an array"
        + ("; torchvision's ToTensor makes one of it" if hasattr(values, "getbands") else "")
    )


def _item(item: object, where: str) -> tuple[Array, int]:
    """Sample and label of an item."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(f"{where} is of type {type(item).__name__}, not a pair (tensor, label)")
    sample, label = item
    try:
        number = operator.index(label)
    except TypeError:
        raise DataError(
            f"{where} has a label of type {type(label).__name__}, not an integer"
        ) from None
    if not 0 <= number < MAX_WIDTH:
        raise DataError(f"{where} has label {number}, which is not in 0..{MAX_WIDTH - 1}")
    return as_array(sample, f"{where}: its sample"), number


def _pixels(picture: Array, where: str) -> Array:
    """A picture as uint8."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype.kind != "f":
        raise DataError(f"{where} is a picture of {picture.dtype}; uint8 or floats are needed")
    if not bool(((picture >= 0) & (picture <= 1)).all()):  # nor NaN
        outside = picture[~((picture >= 0) & (picture <= 1))].flat[0]
        raise DataError(f"{where} has a pixel of {outside}; a picture of floats has 0..1")
    return np.floor(picture * _FULL_SCALE + 0.5).astype(np.uint8)


def _counts(frames: Array, where: str) -> Array:
    """Frames as uint8."""
    if frames.dtype.kind not in "fiub":
        raise DataError(f"{where} has frames of {frames.dtype}; numbers are needed")
    fits = (frames >= 0) & (frames <= LARGEST) & (np.floor(frames) == frames)
    if not bool(fits.all()):
        raise DataError(
            f"{where} has a value of {frames[~fits].flat[0]} in its frames, which are whole "
            f"numbers in 0..{LARGEST}"
        )
    return frames.astype(np.uint8)
