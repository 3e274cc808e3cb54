"""Frames of labelled recordings, as samples that a network can be trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.config import Encoding
from esl_lava.data.moves import mirror, shift
from esl_lava.data.samples import Selection, check_labels, check_number, digest
from esl_lava.errors import DataError


@dataclass(frozen=True, eq=False)
class EventFrames:
    """A data set of recordings, each as T frames.

    Attributes:
        name: name under which accuracies on these samples are reported.
        stored: (recordings, T, polarities, rows, columns) uint8, OFF events first; the array may
            lie in a file, and is read only where it is needed.
        labels: (samples,) int64, 0..classes-1.
        classes: number of classes.
        encoding: how the frames were made.
        split: "train" or "test"; None if it is not known.
        indices: (samples,) the recording of each sample; None: all recordings, in order.

    Raises:
        DataError: an array has another type or shape, or values out of range.
    """

    name: str
    stored: Bytes
    labels: Ints
    classes: int
    encoding: Encoding
    split: str | None = None
    indices: Ints | None = None

    def __post_init__(self) -> None:
        shape, steps = self.stored.shape, self.encoding.steps
        if self.stored.dtype != np.uint8 or len(shape) != 5 or shape[1] != steps:
            has_type = self.stored.dtype == np.uint8
            raise DataError(
                f"frames of {self.name} need type uint8 and shape (samples, {steps}, polarities, "
                f"rows, columns), not {self.stored.dtype} and {shape}",
                "shape" if has_type else "type",
                key="frames",
                value=shape if has_type else str(self.stored.dtype),
            )
        samples = len(self.stored) if self.indices is None else len(self.indices)
        check_labels(self.name, self.labels, samples, self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frames(self) -> Bytes:
        """The frames of the samples, (samples, T, polarities, rows, columns) uint8, OFF first."""
        return self.stored if self.indices is None else self.stored[self.indices]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of frames, labels and their shapes, hexadecimal."""
        return digest(self.shape, self.frames, self.labels.astype("<i8", copy=False))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a frame, (polarities, rows, columns)."""
        polarities, rows, columns = self.stored.shape[2:]
        return polarities, rows, columns

    @property
    def steps(self) -> None:
        """None, because the encoding sets the number of frames."""

    def take(self, n: int) -> EventFrames:
        """Return the first `n` samples, which share memory with these; see `Samples`."""
        check_number(self.name, n, len(self))
        return self.choose(slice(n))

    def choose(self, selection: Selection) -> EventFrames:
        """Return the selected samples. No frame is read yet."""
        indices = np.arange(len(self)) if self.indices is None else self.indices
        return replace(self, labels=self.labels[selection], indices=indices[selection])

    def spikes(self, encoding: Encoding | None) -> Array:
        """Return (samples, T, inputs) uint8: the frames unchanged.

        Raises:
            DataError: the encoding is another one, which would need the recordings.
        """
        self._refuse_other(encoding)
        return self.frames.reshape(len(self), self.encoding.steps, -1)

    def first_steps(self, encoding: Encoding) -> Ints:
        """Return (samples, inputs) the first frame in which an input is not 0; T if all are 0."""
        is_active = self.spikes(encoding) > 0
        return np.where(is_active.any(axis=1), is_active.argmax(axis=1), self.encoding.steps)

    def shifted(self, pixels: int, generator: np.random.Generator) -> EventFrames:
        """Return the samples with all frames of a recording shifted alike; see `moves.shift`."""
        return self._with_planes(shift(self._planes(), pixels, generator))

    def flipped(self, generator: np.random.Generator) -> EventFrames:
        """Return the samples, each mirrored with a probability of one half; see `moves.mirror`."""
        return self._with_planes(mirror(self._planes(), generator))

    def picture(self, index: int) -> Bytes:
        """Return (rows, columns) uint8: 128 without events, brighter for ON, darker for OFF.

        If events have one polarity, all of them count as ON.
        """
        recording = index if self.indices is None else self.indices[index]
        *off, on = self.stored[recording].astype(np.int64).sum(axis=0)
        balance = on - sum(off)
        most = max(1, int(np.abs(balance).max()))
        return (128 + balance * 127 // most).astype(np.uint8)

    def _planes(self) -> Bytes:
        """Return the frames as (samples, T * polarities, rows, columns), for `moves`."""
        return self.frames.reshape(len(self), -1, *self.shape[1:])

    def _with_planes(self, planes: Bytes) -> EventFrames:
        stored = planes.reshape(len(self), *self.stored.shape[1:])
        return replace(self, stored=stored, indices=None)

    def _refuse_other(self, encoding: Encoding | None) -> None:
        if encoding != self.encoding:
            raise DataError(
                f"{self.name}: the encoding of these frames differs from the requested encoding",
                "mismatch",
                key="encoding",
            )
