"""A data set of recordings: where they are, and how their frames become samples."""

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
        rows, columns: of its sensor.
        classes: number of classes.
        find: split, "train" or "test" -> its recordings; raises DataError or FileError where
            they are not all there.
        polarities: 2, or 1 where events have none.
    """

    rows: int
    columns: int
    classes: int
    find: Callable[[str], Recordings]
    polarities: int = 2

    def shape(self, encoding: Encoding) -> tuple[int, int, int]:
        """(polarities, rows, columns) of a frame.

        Raises:
            DataError: as `Framing.shape_of`.
        """
        return framing_of(encoding).shape_of(self.rows, self.columns, self.polarities)

    def load(self, name: str, split: str, encoding: Encoding) -> EventFrames:
        """The samples of a split, by the name of the data set.

        Raises:
            DataError, FileError: as `find` and `prepare`.
        """
        skip = bool(encoding.skip_damaged)
        found, framing = self.find(split), framing_of(encoding)
        frames, labels = prepare(f"{name}-{split}", found, framing, skip)
        return EventFrames(name, frames, labels, self.classes, encoding, split)


def framing_of(encoding: Encoding) -> Framing:
    """How the encoding `frames` makes them."""
    return Framing(
        steps=encoding.steps,
        split=encoding.split or "time",
        crop=encoding.crop or 0,
        side=encoding.side,
        most=encoding.input_range[1],
    )


def state_of(path: Path) -> tuple[int, int]:
    """What changes with a file's content: bytes, and the time of the last change."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns
