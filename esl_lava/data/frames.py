"""Frames of a user's own: samples that bring their T steps along, as counts or as spikes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.config import Encoding
from esl_lava.data.moves import mirrored, moved
from esl_lava.data.samples import Chosen, digest
from esl_lava.errors import DataError

LARGEST = 255
"""Of a value of a frame, as graded input of 8 bits has it."""

_CHUNK = 1 << 26  # values looked at together


@dataclass(frozen=True, eq=False)
class Frames:
    """Labelled samples of T frames each.

    Attributes:
        name: what accuracies on them are labelled.
        kept: (recordings, T, channels, rows, columns) integers in 0..`LARGEST`; it may lie in a
            file, and is read where it is needed.
        labels: (samples,) int64, 0..classes-1.
        classes: number of classes.
        split: "train" or "test", of which they are; None where that is not known.
        places: (samples,) which of the recordings are the samples; None: all, in order.
        largest: of all values of `kept`; None: it is looked for.

    Raises:
        DataError: when the arrays are not of these types, shapes and ranges.
    """

    name: str
    kept: Array
    labels: Ints
    classes: int
    split: str | None = None
    places: Ints | None = None
    largest: int | None = None

    def __post_init__(self) -> None:
        shape = self.kept.shape
        if self.kept.dtype.kind not in "iub" or len(shape) != 5 or 0 in shape[1:]:
            raise DataError(
                f"frames of {self.name} need integers of shape (samples, T, channels, rows, "
                f"columns), not {self.kept.dtype} of {shape}"
            )
        samples = len(self.kept) if self.places is None else len(self.places)
        if self.labels.shape != (samples,):
            raise DataError(
                f"{self.name} has {samples} samples but labels of shape {self.labels.shape}"
            )
        outside = self.labels[(self.labels < 0) | (self.labels >= self.classes)]
        if outside.size:
            raise DataError(f"label {outside[0]} of {self.name} is not in 0..{self.classes - 1}")
        if self.largest is None:
            object.__setattr__(self, "largest", self._largest())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frames(self) -> Bytes:
        """(samples, T, channels, rows, columns) uint8."""
        chosen = self.kept if self.places is None else self.kept[self.places]
        return chosen.astype(np.uint8, copy=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns)."""
        channels, rows, columns = self.kept.shape[2:]
        return channels, rows, columns

    @property
    def steps(self) -> int:
        """T."""
        return int(self.kept.shape[1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of frames, labels and their shapes, hexadecimal."""
        chosen = self.kept if self.places is None else self.kept[self.places]
        return digest(self.shape, chosen, self.labels.astype("<i8", copy=False))

    def take(self, n: int) -> Frames:
        """The first `n` samples, sharing memory with these; see `Samples`."""
        if not 1 <= n <= len(self):
            raise DataError(
                f"cannot take {n} samples of {self.name}: 1 to {len(self)} can be taken"
            )
        return self.choose(slice(n))

    def choose(self, chosen: Chosen) -> Frames:
        """Some of them, of which no frame is read yet."""
        places = np.arange(len(self)) if self.places is None else self.places
        return replace(self, labels=self.labels[chosen], places=places[chosen])

    def refuse_other(self, encoding: Encoding) -> None:
        """Refuse an encoding that does not say what these frames are.

        Raises:
            DataError: with the field of the encoding, its value and the frames'.
        """
        if encoding.kind != "frames":
            raise DataError(
                f"{self.name} holds frames: they need encoding.kind 'frames', not {encoding.kind!r}"
            )
        if encoding.steps != self.steps:
            raise DataError(
                f"{self.name} has samples of {self.steps} frames, and encoding.steps is "
                f"{encoding.steps}"
            )
        most = encoding.input_range[1]
        assert self.largest is not None
        if self.largest > most:
            raise DataError(
                f"{self.name} has a value of {self.largest} in its frames, and the encoding allows "
                f"0..{most}: encoding.bits {self.largest.bit_length()} would hold it"
            )

    def spikes(self, encoding: Encoding | None) -> Array:
        """(samples, T, inputs) uint8, as they are.

        Raises:
            DataError: as `refuse_other`.
        """
        if encoding is not None:
            self.refuse_other(encoding)
        return self.frames.reshape(len(self), self.steps, -1)

    def first_steps(self, encoding: Encoding) -> Ints:
        """(samples, inputs) the first frame in which an input is not 0; T where there is none."""
        there = self.spikes(encoding) > 0
        return np.where(there.any(axis=1), there.argmax(axis=1), self.steps)

    def shifted(self, pixels: int, generator: np.random.Generator) -> Frames:
        """All frames of a sample moved by the same whole numbers of pixels; see `moves.moved`."""
        return self._changed(moved(self._planes(), pixels, generator))

    def flipped(self, generator: np.random.Generator) -> Frames:
        """Every sample as it is or, with a chance of one half, mirrored; see `moves.mirrored`."""
        return self._changed(mirrored(self._planes(), generator))

    def picture(self, index: int) -> Bytes | None:
        """(rows, columns) uint8: the brighter, the more there is in all frames and channels.

        Of one row and one column, which are no picture, None.
        """
        place = index if self.places is None else self.places[index]
        sums = self.kept[place].astype(np.int64).sum(axis=(0, 1))
        return None if sums.size == 1 else (sums * 255 // max(1, int(sums.max()))).astype(np.uint8)

    def _planes(self) -> Bytes:
        """(samples, T * channels, rows, columns)."""
        return self.frames.reshape(len(self), -1, *self.shape[1:])

    def _changed(self, planes: Bytes) -> Frames:
        kept = planes.reshape(len(self), self.steps, *self.shape)
        return replace(self, kept=kept, places=None)

    def _largest(self) -> int:
        """The largest value, or a DataError where one is out of range."""
        largest = 0
        for part in _portions(self.kept):
            low, high = int(part.min()), int(part.max())
            if low < 0 or high > LARGEST:
                raise DataError(
                    f"{self.name} has a value of {low if low < 0 else high} in its frames, which "
                    f"are numbers in 0..{LARGEST}"
                )
            largest = max(largest, high)
        return largest


def _portions(array: Array) -> Iterator[Array]:
    """Parts of an array along its samples, of which one at a time is in memory."""
    if len(array):
        size = max(1, _CHUNK * len(array) // array.size)
        for start in range(0, len(array), size):
            yield array[start : start + size]
