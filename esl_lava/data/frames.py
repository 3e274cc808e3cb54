"""The user's own samples of T frames each, which hold counts or spikes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.config import Encoding
from esl_lava.data.moves import mirror, shift
from esl_lava.data.samples import Selection, check_labels, check_number, digest
from esl_lava.errors import DataError

LARGEST = 255
"""Largest value in a frame: graded input has at most 8 bits."""

_CHUNK = 1 << 26  # values checked at a time


@dataclass(frozen=True, eq=False)
class Frames:
    """Labelled samples of T frames each.

    Attributes:
        name: name under which accuracies on these samples are reported.
        stored: (recordings, T, channels, rows, columns) integers in 0..`LARGEST`; the array may
            lie in a file, and is read only where it is needed.
        labels: (samples,) int64, 0..classes-1.
        classes: number of classes.
        split: "train" or "test"; None if it is not known.
        indices: (samples,) the recording of each sample; None: all recordings, in order.
        largest: largest value in `stored`; None: it is computed.

    Raises:
        DataError: an array has another type or shape, or values out of range.
    """

    name: str
    stored: Array
    labels: Ints
    classes: int
    split: str | None = None
    indices: Ints | None = None
    largest: int | None = None

    def __post_init__(self) -> None:
        shape = self.stored.shape
        if self.stored.dtype.kind not in "iub" or len(shape) != 5 or 0 in shape[1:]:
            is_integer = self.stored.dtype.kind in "iub"
            raise DataError(
                f"frames of {self.name} need integers of shape (samples, T, channels, rows, "
                f"columns), not {self.stored.dtype} of {shape}",
                "shape" if is_integer else "type",
                key="frames",
                value=shape if is_integer else str(self.stored.dtype),
            )
        samples = len(self.stored) if self.indices is None else len(self.indices)
        check_labels(self.name, self.labels, samples, self.classes)
        if self.largest is None:
            object.__setattr__(self, "largest", self._largest())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frames(self) -> Bytes:
        """The frames of the samples, (samples, T, channels, rows, columns) uint8."""
        return self._selected().astype(np.uint8, copy=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a frame, (channels, rows, columns)."""
        channels, rows, columns = self.stored.shape[2:]
        return channels, rows, columns

    @property
    def steps(self) -> int:
        """The number of frames T of a sample."""
        return int(self.stored.shape[1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of frames, labels and their shapes, hexadecimal."""
        return digest(self.shape, self._selected(), self.labels.astype("<i8", copy=False))

    def take(self, n: int) -> Frames:
        """Return the first `n` samples, which share memory with these; see `Samples`."""
        check_number(self.name, n, len(self))
        return self.choose(slice(n))

    def choose(self, selection: Selection) -> Frames:
        """Return the selected samples. No frame is read yet."""
        indices = np.arange(len(self)) if self.indices is None else self.indices
        return replace(self, labels=self.labels[selection], indices=indices[selection])

    def refuse_other(self, encoding: Encoding) -> None:
        """Refuse an encoding that does not describe these frames.

        Raises:
            DataError: a field of the encoding does not fit the frames.
        """
        if encoding.kind != "frames":
            raise DataError(
                f"{self.name} holds frames: they need encoding.kind 'frames', not "
                f"{encoding.kind!r}",
                "conflict",
                key="encoding.kind",
                value=encoding.kind,
                limit="frames",
            )
        if encoding.steps != self.steps:
            raise DataError(
                f"{self.name} has samples of {self.steps} frames, but encoding.steps is "
                f"{encoding.steps}",
                "mismatch",
                key="encoding.steps",
                value=encoding.steps,
                limit=self.steps,
            )
        limit = encoding.input_range[1]
        assert self.largest is not None
        if self.largest > limit:
            raise DataError(
                f"{self.name} has a value of {self.largest} in its frames, but the encoding allows "
                f"0..{limit}: encoding.bits {self.largest.bit_length()} allows this value",
                "range",
                key="encoding.bits",
                value=self.largest,
                limit=limit,
            )

    def spikes(self, encoding: Encoding | None) -> Array:
        """Return (samples, T, inputs) uint8: the frames unchanged.

        Raises:
            DataError: as in `refuse_other`.
        """
        if encoding is not None:
            self.refuse_other(encoding)
        return self.frames.reshape(len(self), self.steps, -1)

    def first_steps(self, encoding: Encoding) -> Ints:
        """Return (samples, inputs) the first frame in which an input is not 0; T if all are 0."""
        is_active = self.spikes(encoding) > 0
        return np.where(is_active.any(axis=1), is_active.argmax(axis=1), self.steps)

    def shifted(self, pixels: int, generator: np.random.Generator) -> Frames:
        """Return the samples with all frames of a sample shifted alike; see `moves.shift`."""
        return self._with_planes(shift(self._planes(), pixels, generator))

    def flipped(self, generator: np.random.Generator) -> Frames:
        """Return the samples, each mirrored with a probability of one half; see `moves.mirror`."""
        return self._with_planes(mirror(self._planes(), generator))

    def picture(self, index: int) -> Bytes | None:
        """Return (rows, columns) uint8: the sum of all frames and channels, the largest sum as 255.

        A sample of one row and one column has no picture: None.
        """
        recording = index if self.indices is None else self.indices[index]
        sums = self.stored[recording].astype(np.int64).sum(axis=(0, 1))
        return None if sums.size == 1 else (sums * 255 // max(1, int(sums.max()))).astype(np.uint8)

    def _selected(self) -> Array:
        """Return the recordings of the samples."""
        return self.stored if self.indices is None else self.stored[self.indices]

    def _planes(self) -> Bytes:
        """Return the frames as (samples, T * channels, rows, columns), for `moves`."""
        return self.frames.reshape(len(self), -1, *self.shape[1:])

    def _with_planes(self, planes: Bytes) -> Frames:
        stored = planes.reshape(len(self), self.steps, *self.shape)
        return replace(self, stored=stored, indices=None)

    def _largest(self) -> int:
        """Return the largest value; raise a DataError if a value is out of range."""
        largest = 0
        for part in _portions(self.stored):
            low, high = int(part.min()), int(part.max())
            if low < 0 or high > LARGEST:
                value = low if low < 0 else high
                raise DataError(
                    f"{self.name} has the value {value} in its frames; they hold numbers in "
                    f"0..{LARGEST}",
                    "range",
                    key="frames",
                    value=value,
                    limit=LARGEST,
                )
            largest = max(largest, high)
        return largest


def _portions(array: Array) -> Iterator[Array]:
    """Yield portions of an array along its samples, so that one at a time is in memory."""
    if len(array):
        size = max(1, _CHUNK * len(array) // array.size)
        for start in range(0, len(array), size):
            yield array[start : start + size]
