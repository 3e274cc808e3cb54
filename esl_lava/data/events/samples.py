"""Frames of labelled recordings as samples that a network can be trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.config import Encoding
from esl_lava.data.moves import mirrored, moved
from esl_lava.data.samples import Chosen, digest
from esl_lava.errors import DataError


@dataclass(frozen=True, eq=False)
class EventFrames:
    """A data set of recordings, each as T frames.

    Attributes:
        name: what accuracies on it are labelled.
        kept: (recordings, T, polarities, rows, columns) uint8, OFF events first; it may lie in a
            file, and is read where it is needed.
        labels: (samples,) int64, 0..classes-1.
        classes: number of classes.
        encoding: how the frames were made.
        split: "train" or "test", of which they are.
        places: (samples,) which of the recordings are the samples; None: all, in order.

    Raises:
        DataError: when the arrays are not of these types, shapes and ranges.
    """

    name: str
    kept: Bytes
    labels: Ints
    classes: int
    encoding: Encoding
    split: str | None = None
    places: Ints | None = None

    def __post_init__(self) -> None:
        shape, steps = self.kept.shape, self.encoding.steps
        if self.kept.dtype != np.uint8 or len(shape) != 5 or shape[1] != steps:
            raise DataError(
                f"frames of {self.name} need type uint8 and shape (samples, {steps}, 2, rows, "
                f"columns), not {self.kept.dtype} and {shape}"
            )
        samples = len(self.kept) if self.places is None else len(self.places)
        if self.labels.shape != (samples,):
            raise DataError(
                f"{self.name} has {samples} recordings but labels of shape {self.labels.shape}"
            )
        outside = self.labels[(self.labels < 0) | (self.labels >= self.classes)]
        if outside.size:
            raise DataError(f"label {outside[0]} of {self.name} is not in 0..{self.classes - 1}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frames(self) -> Bytes:
        """(samples, T, polarities, rows, columns) uint8, OFF events first."""
        return self.kept if self.places is None else self.kept[self.places]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of frames, labels and their shapes, hexadecimal."""
        return digest(self.shape, self.frames, self.labels.astype("<i8", copy=False))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(polarities, rows, columns)."""
        polarities, rows, columns = self.kept.shape[2:]
        return polarities, rows, columns

    @property
    def steps(self) -> None:
        """The encoding says how many frames there are."""

    def take(self, n: int) -> EventFrames:
        """The first `n` samples, sharing memory with these; see `Samples`."""
        if not 1 <= n <= len(self):
            raise DataError(
                f"cannot take {n} samples of {self.name}: 1 to {len(self)} can be taken"
            )
        return self.choose(slice(n))

    def choose(self, chosen: Chosen) -> EventFrames:
        """Some of them, of which no frame is read yet."""
        places = np.arange(len(self)) if self.places is None else self.places
        return replace(self, labels=self.labels[chosen], places=places[chosen])

    def spikes(self, encoding: Encoding | None) -> Array:
        """(samples, T, inputs) uint8, as they were made.

        Raises:
            DataError: of another encoding, which would need the recordings.
        """
        self._refuse_other(encoding)
        return self.frames.reshape(len(self), self.encoding.steps, -1)

    def first_steps(self, encoding: Encoding) -> Ints:
        """(samples, inputs) the first frame in which an input is not 0; T where there is none."""
        there = self.spikes(encoding) > 0
        return np.where(there.any(axis=1), there.argmax(axis=1), self.encoding.steps)

    def shifted(self, pixels: int, generator: np.random.Generator) -> EventFrames:
        """All frames of a recording moved by the same numbers of pixels; see `moves.moved`."""
        return self._changed(moved(self._planes(), pixels, generator))

    def flipped(self, generator: np.random.Generator) -> EventFrames:
        """Every recording as it is or mirrored, with equal chances; see `moves.mirrored`."""
        return self._changed(mirrored(self._planes(), generator))

    def picture(self, index: int) -> Bytes:
        """(rows, columns) uint8: 128 where nothing happened, brighter for ON, darker for OFF.

        Where events have one polarity, all of them count as ON.
        """
        place = index if self.places is None else self.places[index]
        *off, on = self.kept[place].astype(np.int64).sum(axis=0)
        balance = on - sum(off)
        most = max(1, int(np.abs(balance).max()))
        return (128 + balance * 127 // most).astype(np.uint8)

    def _planes(self) -> Bytes:
        """(samples, T * polarities, rows, columns)."""
        return self.frames.reshape(len(self), -1, *self.shape[1:])

    def _changed(self, planes: Bytes) -> EventFrames:
        kept = planes.reshape(len(self), *self.kept.shape[1:])
        return replace(self, kept=kept, places=None)

    def _refuse_other(self, encoding: Encoding | None) -> None:
        if encoding != self.encoding:
            raise DataError(
                f"{self.name}: these frames were made by another encoding than the one asked for"
            )
