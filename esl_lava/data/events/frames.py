"""Frames of a recording: the events of each of T portions, counted by polarity and place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.data.events.recording import EventRecording, Events
from esl_lava.errors import DataError

CELLS = 1 << 26
"""Counters that the frames of a recording may have at most: 256 MiB."""


@dataclass(frozen=True)
class Framing:
    """How a recording becomes frames.

    Attributes:
        steps: T, the number of frames, at least 1.
        split: key of `SPLITS`, what the portions have alike.
        crop: pixels that are left out along each border of the sensor.
        side: rows and columns of a frame; None: as many as are left of the sensor. Pixel i of n
            lies in row i * side // n.
        most: what a counter stops at: 1 makes binary spikes.
    """

    steps: int
    split: str = "time"
    crop: int = 0
    side: int | None = None
    most: int = 1

    def shape_of(self, rows: int, columns: int, polarities: int) -> tuple[int, int, int]:
        """(polarities, rows, columns) of a frame of a sensor; a single row stays one.

        Raises:
            DataError: where nothing is left of the sensor, or frames would be larger than it.
        """
        high, wide = self.left_of(rows), self.left_of(columns)
        if min(high, wide) < 1:
            raise DataError(f"a crop of {self.crop} leaves nothing of {rows} x {columns} pixels")
        if self.side is None:
            return polarities, high, wide
        if self.side > wide or 1 < high < self.side:
            raise DataError(f"frames of side {self.side} are larger than {high} x {wide}")
        return polarities, min(high, self.side), self.side

    def left_of(self, pixels: int) -> int:
        """What the crop leaves of the pixels along an axis; a single one is not cropped."""
        return pixels - 2 * self.crop if pixels > 1 else pixels


def _by_time(events: Events, before: int, span: Span, steps: int) -> Ints:
    length = max(1, (span.last - span.first) // steps)
    return np.minimum((events.times - span.first) // length, steps - 1)


def _by_number(events: Events, before: int, span: Span, steps: int) -> Ints:
    number = span.events // steps
    return np.minimum((before + np.arange(len(events))) // number, steps - 1)


SPLITS: Mapping[str, Callable[[Events, int, Span, int], Ints]] = MappingProxyType(
    {"time": _by_time, "number": _by_number}
)
"""What the T portions have alike -> (events, how many came before, span, T) -> portion of each.

As SpikingJelly's `split_by`: portions of one duration, or of one number of events, rounded down;
the last one takes what is left.
"""


@dataclass(frozen=True)
class Span:
    """Length of a recording.

    Attributes:
        events: how many it holds.
        first, last: microseconds, of the first and of the last event.
    """

    events: int
    first: int
    last: int


def measure(recording: EventRecording) -> Span:
    """Read a recording once, for its length.

    Raises:
        FileError: where the file is damaged.
        DataError: where it holds no event.
    """
    events = first = last = 0
    for chunk in recording.chunks():
        first = first if events else int(chunk.times[0])
        events, last = events + len(chunk), int(chunk.times[-1])
    if not events:
        raise DataError(f"{recording.name} holds no event")
    return Span(events, first, last)


def make_frames(recording: EventRecording, framing: Framing) -> Bytes:
    """Frames of a recording, (T, polarities, rows, columns) uint8; OFF events come first.

    The file is read twice, and never held.

    Raises:
        FileError: where the file is damaged.
        DataError: where there are fewer events than frames, or frames of this size are too many.
    """
    steps = framing.steps
    shape = framing.shape_of(recording.rows, recording.columns, recording.polarities)
    counts = np.zeros(_cells(recording, steps, shape), np.uint32)
    span = measure(recording)
    if span.events < steps:
        raise DataError(f"{recording.name} holds {span.events} events, fewer than {steps} frames")
    portion_of, before = SPLITS[framing.split], 0
    polarities, rows, columns = shape
    high, wide = framing.left_of(recording.rows), framing.left_of(recording.columns)
    above = (recording.rows - high) // 2
    for events in recording.chunks():
        portion = portion_of(events, before, span, steps)
        before += len(events)
        row = (events.rows - above) * rows // high
        column = (events.columns - framing.crop) * columns // wide
        plane = portion if polarities == 1 else portion * 2 + events.on
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        place = (plane * rows + row) * columns + column
        np.add.at(counts, place[inside], 1)
    return np.minimum(counts, framing.most).astype(np.uint8).reshape(steps, *shape)


def _cells(recording: EventRecording, steps: int, shape: tuple[int, int, int]) -> int:
    cells = steps * shape[0] * shape[1] * shape[2]
    if cells > CELLS:
        raise DataError(
            f"{recording.name}: {steps} frames of {shape[1]} x {shape[2]} have {cells:,} counters, "
            f"more than {CELLS:,}"
        )
    return cells
