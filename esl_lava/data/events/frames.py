"""Frames of a recording: the number of events in each of T portions, by polarity and pixel.

A count is at most `Framing.most`, and a pixel of a frame may cover several pixels of the sensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.data.events.recording import EventRecording, Events, no_event
from esl_lava.errors import DataError

CELLS = 1 << 26
"""Largest number of values in the frames of a recording. Their 32-bit counts take 256 MiB."""


@dataclass(frozen=True)
class Framing:
    """How a recording becomes frames.

    Attributes:
        steps: T, the number of frames, at least 1.
        split: key of `SPLITS`: whether portions have equal durations or equal numbers of events.
        crop: pixels left out along each border of the sensor.
        side: rows and columns of a frame; None: all that the crop leaves. Pixel i of the n that the
            crop leaves along an axis lies in row or column i * side // n of the frame.
        most: largest count; 1 makes binary spikes.
    """

    steps: int
    split: str = "time"
    crop: int = 0
    side: int | None = None
    most: int = 1

    def shape_of(self, rows: int, columns: int, polarities: int) -> tuple[int, int, int]:
        """Return (polarities, rows, columns) of a sensor's frame. A single row stays one row.

        Raises:
            DataError: the crop leaves no pixel, or the frames would be larger than the sensor.
        """
        high, wide = self.left_of(rows), self.left_of(columns)
        if min(high, wide) < 1:
            raise DataError(
                f"a crop of {self.crop} leaves nothing of {rows} x {columns} pixels",
                "range",
                key="crop",
                value=self.crop,
            )
        if self.side is None:
            return polarities, high, wide
        if self.side > wide or 1 < high < self.side:
            raise DataError(
                f"frames of side {self.side} are larger than the {high} x {wide} pixels that the "
                f"crop of {self.crop} leaves",
                "range",
                key="side",
                value=self.side,
                limit=min(wide, high) if high > 1 else wide,
            )
        return polarities, min(high, self.side), self.side

    def left_of(self, pixels: int) -> int:
        """Return how many pixels along an axis the crop leaves. A single pixel is not cropped."""
        return pixels - 2 * self.crop if pixels > 1 else pixels


def _split_by_time(events: Events, before: int, span: Span, steps: int) -> Ints:
    length = max(1, (span.last - span.first) // steps)
    return np.minimum((events.times - span.first) // length, steps - 1)


def _split_by_number(events: Events, before: int, span: Span, steps: int) -> Ints:
    number = span.events // steps
    return np.minimum((before + np.arange(len(events))) // number, steps - 1)


SPLITS: Mapping[str, Callable[[Events, int, Span, int], Ints]] = MappingProxyType(
    {"time": _split_by_time, "number": _split_by_number}
)
"""Name of a split -> function (events, number of events before, span, T) -> portion of each event.

The splits are SpikingJelly's `split_by`: portions of equal duration, or of equal number of events,
rounded down. The last portion takes the rest.
"""


@dataclass(frozen=True)
class Span:
    """Number of events of a recording, and its first and last time.

    Attributes:
        events: number of events.
        first, last: times of the first and the last event in microseconds.
    """

    events: int
    first: int
    last: int


def measure(recording: EventRecording) -> Span:
    """Read a recording once and return its number of events and its first and last time.

    Raises:
        FileError: the file is damaged.
        DataError: the recording holds no event.
    """
    events = first = last = 0
    for chunk in recording.chunks():
        first = first if events else int(chunk.times[0])
        events, last = events + len(chunk), int(chunk.times[-1])
    if not events:
        raise no_event(recording)
    return Span(events, first, last)


def make_frames(recording: EventRecording, framing: Framing) -> Bytes:
    """Return the frames of a recording, (T, polarities, rows, columns) uint8, OFF events first.

    The file is read twice, in portions.

    Raises:
        FileError: the file is damaged.
        DataError: there are fewer events than frames, the frames have too many values, or crop
            and side do not fit the sensor.
    """
    steps = framing.steps
    shape = framing.shape_of(recording.rows, recording.columns, recording.polarities)
    counts = np.zeros(_number_of_cells(recording, steps, shape), np.uint32)
    span = measure(recording)
    if span.events < steps:
        raise DataError(
            f"{recording.name} holds {span.events} events, fewer than {steps} frames",
            "range",
            key="frames",
            value=span.events,
            limit=steps,
            file=recording.name,
        )
    portion_of, before = SPLITS[framing.split], 0
    polarities, rows, columns = shape
    high, wide = framing.left_of(recording.rows), framing.left_of(recording.columns)
    # A single row is not cropped, so rows may have another margin than columns.
    top_margin = (recording.rows - high) // 2
    for events in recording.chunks():
        portion = portion_of(events, before, span, steps)
        before += len(events)
        row = (events.rows - top_margin) * rows // high
        column = (events.columns - framing.crop) * columns // wide
        plane = portion if polarities == 1 else portion * 2 + events.on
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        cell = (plane * rows + row) * columns + column
        np.add.at(counts, cell[inside], 1)
    return np.minimum(counts, framing.most).astype(np.uint8).reshape(steps, *shape)


def _number_of_cells(recording: EventRecording, steps: int, shape: tuple[int, int, int]) -> int:
    """Return the number of values in the frames; raise a DataError if it exceeds `CELLS`."""
    cells = steps * shape[0] * shape[1] * shape[2]
    if cells > CELLS:
        raise DataError(
            f"{recording.name}: {steps} frames of {shape[0]} x {shape[1]} x {shape[2]} hold "
            f"{cells:,} values, more than {CELLS:,}",
            "too-large",
            key="frames",
            value=cells,
            limit=CELLS,
            file=recording.name,
        )
    return cells
