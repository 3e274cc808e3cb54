"""A data set of recordings: how its recordings are found, and how their frames become samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esl_lava.data.config import Encoding
from esl_lava.data.events.frames import Framing
from esl_lava.data.events.prepare import Recordings, prepare
from esl_lava.data.events.samples import EventFrames


@dataclass(frozen=True)
class EventSet:
    """A data set of recordings.

    Attributes:
        rows, columns: rows and columns of the sensor.
        classes: number of classes.
        find: split, "train" or "test" -> its recordings; raises DataError or FileError if
            recordings are missing.
        polarities: 2, or 1 if events have no polarity.
    """

    rows: int
    columns: int
    classes: int
    find: Callable[[str], Recordings]
    polarities: int = 2

    def shape(self, encoding: Encoding) -> tuple[int, int, int]:
        """Return (polarities, rows, columns) of a frame.

        Raises:
            DataError: as in `Framing.shape_of`.
        """
        return framing_of(encoding).shape_of(self.rows, self.columns, self.polarities)

    def load(self, name: str, split: str, encoding: Encoding) -> EventFrames:
        """Return the samples of a split; `name` is the name of the data set.

        Raises:
            DataError, FileError: as in `find` and `prepare`.
        """
        skip = bool(encoding.skip_damaged)
        recordings, framing = self.find(split), framing_of(encoding)
        frames, labels = prepare(f"{name}-{split}", recordings, framing, skip)
        return EventFrames(name, frames, labels, self.classes, encoding, split)


def framing_of(encoding: Encoding) -> Framing:
    """Return the framing of the encoding `frames`."""
    return Framing(
        steps=encoding.steps,
        split=encoding.split or "time",
        crop=encoding.crop or 0,
        side=encoding.side,
        most=encoding.input_range[1],
    )


def file_state(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the time of the last change, which reveal a changed file."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns
