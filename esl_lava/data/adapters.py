"""Training samples from the user's own arrays or torch `Dataset`."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.datasets import Images
from esl_lava.data.frames import LARGEST, Frames
from esl_lava.errors import Code, DataError
from esl_lava.topology import MAX_WIDTH

PICTURES_LIMIT = 8 << 30
"""Largest number of bytes of pictures, or of the items of a `Dataset`: they are held in memory."""

MOST_SAMPLES = 1 << 28
"""Largest number of samples of a split; their labels alone take 2 GiB."""

_FULL_SCALE = 255
_PICTURE_AXES = {2: "features", 3: "rows, columns", 4: "channels, rows, columns"}
_AXES = (
    "(samples, features), (samples, rows, columns) or (samples, channels, rows, columns) of "
    "pictures, or (samples, T, channels, rows, columns) of frames"
)


class Items(Protocol):
    """The part of a torch `Dataset` that is used: its length and its items."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return a pair of a sample (a tensor or an array) and its label."""


@dataclass(frozen=True)
class Source:
    """Where an array comes from, for errors.

    Attributes:
        place: the data set or the file that holds the array.
        key: name of the array or of an item, for example "samples", "labels" or "item 3".
        file: the file that holds the array; None if it is in no file.
    """

    place: str
    key: str
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.key}"

    def refusal(
        self, reason: str, code: Code, value: object = None, limit: object = None
    ) -> DataError:
        """Return the error for the array. Its sentence is `place: key`, then `reason`."""
        sentence = f"{self}{reason}"
        return DataError(sentence, code, key=self.key, value=value, limit=limit, file=self.file)


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """The user's own arrays of samples and labels, not checked yet.

    Attributes:
        samples: pictures or frames.
        labels: labels of the samples.
        samples_source, labels_source: where the arrays come from, for errors.
    """

    samples: Array
    labels: Array
    samples_source: Source
    labels_source: Source


def from_arrays(
    samples: Array,
    labels: Array,
    *,
    name: str = "own",
    classes: int | None = None,
    split: str | None = None,
) -> Images | Frames:
    """Return training samples that share memory with two arrays.

    Args:
        samples: pictures, uint8 of shape (samples, rows, columns), (samples, channels, rows,
            columns) or (samples, features), where 255 is full scale; or frames, integers in 0..255
            of shape (samples, T, channels, rows, columns), which the network gets unchanged.
        labels: (samples,) integers from 0.
        name: name under which accuracies on these samples are reported.
        classes: number of classes; None: 1 + the largest label.
        split: "train" or "test", if the samples are a split.

    Raises:
        DataError: an array has another type or shape, or values out of range.
    """
    arrays = LabelledArrays(samples, labels, Source(name, "samples"), Source(name, "labels"))
    return as_samples(arrays, name=name, classes=classes, split=split)


def from_torch(
    dataset: Items,
    *,
    name: str = "own",
    classes: int | None = None,
    split: str | None = None,
) -> Images | Frames:
    """Return training samples from a torch `Dataset`. All items are read once into memory.

    Args:
        dataset: items (tensor, label), all tensors of one shape: pictures, (rows, columns),
            (channels, rows, columns) or (features,), uint8 or floats in 0..1, which become
            `floor(255 * x + 1/2)`; or frames, (T, channels, rows, columns), whole numbers in
            0..255 of any type. A label is an integer from 0.
        name, classes, split: as in `from_arrays`. For a test split give `classes`, because a test
            split need not have a sample of every class.

    Raises:
        DataError: an item is of another kind; the first such item is named.

    Example:
        Pictures of a bright left or right half. `esl_lava.train` trains on them with
        `own=OwnSamples("halves", splits.__getitem__)`.

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
    return as_samples(collect_items(dataset, name), name=name, classes=classes, split=split)


def as_samples(
    arrays: LabelledArrays, *, name: str, classes: int | None, split: str | None
) -> Images | Frames:
    """Return training samples of arrays, checked by the rules of `from_arrays`."""
    samples, source = arrays.samples, arrays.samples_source
    if samples.ndim not in (*_PICTURE_AXES, 5):
        reason = f" need shape {_AXES}, not {samples.shape}"
        raise source.refusal(reason, "shape", samples.shape)
    if samples.size == 0:
        raise source.refusal(f" of shape {samples.shape} are empty", "shape", samples.shape)
    if len(samples) > MOST_SAMPLES:
        reason = f" are {len(samples)} in number, the limit is {MOST_SAMPLES}"
        raise source.refusal(reason, "too-large", len(samples), MOST_SAMPLES)
    labels = check_labels(arrays.labels, arrays.labels_source, len(samples))
    if classes is None:
        classes = number_of_classes(labels)
    outside = np.flatnonzero(labels >= classes)
    if outside.size:
        first = outside[0]
        raise arrays.labels_source.refusal(
            f": label {labels[first]} of sample {first} is not in 0..{classes - 1}, the classes of "
            "the training split",
            "range",
            int(labels[first]),
            classes - 1,
        )
    if samples.ndim == 5:
        if samples.dtype.kind not in "iub":
            reason = f" have to be integers if they are frames, not {samples.dtype}"
            raise source.refusal(reason, "type", str(samples.dtype))
        # The constructor checks all values; its errors begin with the source of the array.
        return replace(Frames(str(source), samples, labels, classes, split), name=name)
    if samples.dtype != np.uint8:
        raise source.refusal(
            f" of shape {samples.shape} are pictures, which need the type uint8, not "
            f"{samples.dtype}",
            "type",
            str(samples.dtype),
            "uint8",
        )
    if samples.nbytes > PICTURES_LIMIT:
        reason = f" have {samples.nbytes} bytes, the limit is {PICTURES_LIMIT}"
        raise source.refusal(reason, "too-large", samples.nbytes, PICTURES_LIMIT)
    shape = samples.shape[1:]
    return Images(name, samples.reshape(len(samples), -1), labels, classes, shape, split)


def check_labels(labels: Array, source: Source, samples: int | None = None) -> Ints:
    """Check that labels are integers in 0..`MAX_WIDTH` - 1, and return them as int64.

    Args:
        labels: any array.
        source: where the labels come from, for errors.
        samples: required number of labels; None: at least one.

    Raises:
        DataError: the array does not hold such labels.
    """
    if labels.dtype.kind not in "iub":
        reason = f" have to be integers, not {labels.dtype}"
        raise source.refusal(reason, "type", str(labels.dtype))
    if labels.ndim != 1 or len(labels) != (samples or len(labels)) or len(labels) == 0:
        number = "samples" if samples is None else samples
        reason = f" need shape ({number},), one for each sample, not {labels.shape}"
        raise source.refusal(reason, "shape", labels.shape, samples)
    # Compared before the conversion to int64, in which large values of uint64 would be negative.
    outside = np.flatnonzero((labels < 0) | (labels >= MAX_WIDTH))
    if outside.size:
        first = outside[0]
        reason = f": label {labels[first]} of sample {first} is not in 0..{MAX_WIDTH - 1}"
        raise source.refusal(reason, "range", int(labels[first]), MAX_WIDTH - 1)
    return labels.astype(np.int64)


def number_of_classes(labels: Ints) -> int:
    """Return the number of classes of a training split: 1 + the largest label."""
    return 1 + int(labels.max())


def collect_items(dataset: Items, where: str) -> LabelledArrays:
    """Read all items of a torch `Dataset` into two arrays; see `from_torch`.

    Args:
        dataset: the data set.
        where: names the data set in errors.

    Raises:
        DataError: an item is not of the kind of the others; the first such item is named.
    """
    number = len(dataset)
    if not 1 <= number <= MOST_SAMPLES:
        raise DataError(
            f"{where}: has {number} items; 1 to {MOST_SAMPLES} are allowed",
            "range",
            value=number,
            limit=MOST_SAMPLES,
        )
    labels = np.empty(number, np.int64)
    samples: Bytes | None = None
    for index in range(number):
        place, item = Source(where, f"item {index}"), dataset[index]
        sample, labels[index] = _sample_and_label(item, place)
        if samples is None:
            if sample.ndim not in (1, 2, 3, 4):
                reason = f" has shape {sample.shape}; a picture has 1 to 3 axes, and frames have 4"
                raise place.refusal(reason, "shape", sample.shape)
            size = number * math.prod(sample.shape)
            if size > PICTURES_LIMIT:
                raise DataError(
                    f"{where}: {number} items of shape {sample.shape} have {size} bytes, the limit "
                    f"is {PICTURES_LIMIT}",
                    "too-large",
                    value=size,
                    limit=PICTURES_LIMIT,
                )
            samples = np.empty((number, *sample.shape), np.uint8)
        if sample.shape != samples.shape[1:]:
            reason = f" has shape {sample.shape}, but item 0 has {samples.shape[1:]}"
            raise place.refusal(reason, "mismatch", sample.shape, samples.shape[1:])
        samples[index] = _frame_bytes(sample, place) if sample.ndim == 4 else _pixels(sample, place)
    assert samples is not None
    return LabelledArrays(samples, labels, Source(where, "samples"), Source(where, "labels"))


def as_array(values: object, source: Source) -> Array:
    """Return a torch tensor (on any device) as a numpy array; an array is returned unchanged.

    Raises:
        DataError: `values` is neither a tensor nor an array.
    """
    if isinstance(values, np.ndarray):
        return values
    # A torch tensor; torch itself is not imported here.
    if all(hasattr(values, name) for name in ("detach", "cpu", "numpy")):
        array: Array = values.detach().cpu().numpy()  # type: ignore[attr-defined]
        return array
    hint = "; torchvision's ToTensor makes a tensor of it" if hasattr(values, "getbands") else ""
    kind = type(values).__name__
    raise source.refusal(f" is of type {kind}, not a tensor or an array{hint}", "type", kind)


def _sample_and_label(item: object, place: Source) -> tuple[Array, int]:
    """Return sample and label of an item."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        kind = type(item).__name__
        raise place.refusal(f" is of type {kind}, not a pair (tensor, label)", "type", kind)
    sample, label = item
    try:
        number = operator.index(label)
    except TypeError:
        kind = type(label).__name__
        reason = f" has a label of type {kind}, not an integer"
        raise place.refusal(reason, "type", kind) from None
    if not 0 <= number < MAX_WIDTH:
        reason = f" has label {number}, which is not in 0..{MAX_WIDTH - 1}"
        raise place.refusal(reason, "range", number, MAX_WIDTH - 1)
    return as_array(sample, Source(str(place), "its sample")), number


def _pixels(picture: Array, place: Source) -> Array:
    """Return a picture as uint8."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype.kind != "f":
        reason = f" is a picture of {picture.dtype}; uint8 or floats are needed"
        raise place.refusal(reason, "type", str(picture.dtype))
    fits = (picture >= 0) & (picture <= 1)  # false for NaN
    if not bool(fits.all()):
        pixel = float(picture[~fits].flat[0])
        reason = f" has a pixel of {pixel}; pixels of type float have to be in 0..1"
        raise place.refusal(reason, _range_code(pixel), pixel, 1)
    return np.floor(picture * _FULL_SCALE + 0.5).astype(np.uint8)


def _frame_bytes(frames: Array, place: Source) -> Array:
    """Return frames as uint8."""
    if frames.dtype.kind not in "fiub":
        reason = f" has frames of {frames.dtype}; numbers are needed"
        raise place.refusal(reason, "type", str(frames.dtype))
    fits = (frames >= 0) & (frames <= LARGEST) & (np.floor(frames) == frames)
    if not bool(fits.all()):
        value = frames[~fits].flat[0]
        reason = f" has the value {value} in its frames; they hold whole numbers in 0..{LARGEST}"
        raise place.refusal(reason, _range_code(float(value)), float(value), LARGEST)
    return frames.astype(np.uint8)


def _range_code(value: float) -> Code:
    return "range" if math.isfinite(value) else "not-finite"
