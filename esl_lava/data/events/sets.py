"""Data sets of recordings, by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from esl_lava.arrays import Bytes
from esl_lava.data import datasets
from esl_lava.data.archives import read_members
from esl_lava.data.config import Encoding
from esl_lava.data.events import atis
from esl_lava.data.events.camera import record, saccades
from esl_lava.data.events.frames import Framing
from esl_lava.data.events.prepare import prepare
from esl_lava.data.events.recording import EventFile, EventRecording
from esl_lava.data.events.samples import EventFrames
from esl_lava.data.folders import DATA_VARIABLE, own_folder, own_path
from esl_lava.errors import DataError, FileError

SUBSET = "nmnist_small.tar.gz"
_SUBSET_LABELS = {"train": "train1K.txt", "test": "test100.txt"}
_MEMBER = re.compile(r"nmnist_small/(?:([1-9][0-9]{0,5})\.bs2|train1K\.txt|test100\.txt)")
_MEMBER_LIMIT, _SUBSET_LIMIT = 1 << 20, 1 << 28

_FOLDERS = {"train": "Train", "test": "Test"}
DIGITS = 10


@dataclass(frozen=True)
class EventSet:
    """A data set of recordings.

    Attributes:
        rows, columns: of its sensor.
        classes: number of classes.
        load: (split, encoding) -> its samples.
    """

    rows: int
    columns: int
    classes: int
    load: Callable[[str, Encoding], EventFrames]

    def shape(self, encoding: Encoding) -> tuple[int, int, int]:
        """(polarities, rows, columns) of a frame.

        Raises:
            DataError: as `Framing.shape_of`.
        """
        return framing_of(encoding).shape_of(self.rows, self.columns)


def framing_of(encoding: Encoding) -> Framing:
    """How the encoding `frames` makes them."""
    return Framing(
        steps=encoding.steps,
        split=encoding.split or "time",
        crop=encoding.crop or 0,
        side=encoding.side,
        most=encoding.input_range[1],
    )


def _nmnist(split: str, encoding: Encoding) -> EventFrames:
    folder = own_folder("nmnist")
    root = None if folder is None else folder / _FOLDERS[split]
    if root is None or not root.is_dir():
        raise DataError(
            f"data set nmnist needs {_FOLDERS[split]}/0 to {_FOLDERS[split]}/9 with .bin files in "
            f"the folder nmnist of ${DATA_VARIABLE}, as its archives hold them"
        )
    files: list[Path] = []
    labels: list[int] = []
    for digit in range(DIGITS):
        found = sorted((root / str(digit)).glob("*.bin"))
        if not found:
            raise DataError(f"{root / str(digit)} holds no .bin file")
        files += found
        labels += [digit] * len(found)
    # Files are sorted by class: a fixed order mixes them, as parts are taken from the front.
    order = np.random.default_rng(len(files)).permutation(len(files))
    files = [files[place] for place in order]
    key = tuple((str(file), *_state(file)) for file in files)
    frames = prepare(
        "nmnist",
        key,
        len(files),
        lambda: (atis.open_atis(EventFile.of_path(file)) for file in files),
        framing_of(encoding),
    )
    return EventFrames("nmnist", frames, np.array(labels)[order], DIGITS, encoding)


def _nmnist_subset(split: str, encoding: Encoding) -> EventFrames:
    path = own_path(SUBSET)
    if path is None:
        raise DataError(f"data set nmnist_subset needs {SUBSET} in the folder ${DATA_VARIABLE}")
    key = (*_state(path), split)
    content = functools.cache(lambda: _members(path))
    numbers, labels = _labels(path, split, content())
    frames = prepare(
        "nmnist_subset",
        key,
        len(numbers),
        lambda: _recordings(path, numbers, content()),
        framing_of(encoding),
    )
    return EventFrames("nmnist_subset", frames, np.array(labels), DIGITS, encoding)


def _state(path: Path) -> tuple[int, int]:
    """What changes with a file's content: bytes, and the time of the last change."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _members(path: Path) -> dict[str, bytes]:
    """Name without its folder -> content."""

    def limit_of(name: str) -> int | None:
        return _MEMBER_LIMIT if _MEMBER.fullmatch(name) else None

    found = read_members(path, limit_of, _SUBSET_LIMIT)
    return {name.rpartition("/")[2]: content for name, content in found}


def _labels(path: Path, split: str, content: Mapping[str, bytes]) -> tuple[list[int], list[int]]:
    """Numbers of a split's recordings, and their classes."""
    name = _SUBSET_LABELS[split]
    if name not in content:
        raise FileError(f"{path} lacks the file {name}")
    lines = [
        line for line in content[name].decode("ascii", "replace").split("\n")[1:] if line.strip()
    ]
    pairs = [re.fullmatch(r"([0-9]{1,6})\s+([0-9])\s*", line) for line in lines]
    if not pairs or None in pairs:
        wrong = lines[pairs.index(None)][:40] if pairs else ""
        raise FileError(f"{path}: {name} needs lines of a number and a digit, not {wrong!r}")
    numbers, labels = zip(*((int(pair[1]), int(pair[2])) for pair in pairs if pair))
    return list(numbers), list(labels)


def _recordings(
    path: Path, numbers: list[int], content: Mapping[str, bytes]
) -> Iterator[EventRecording]:
    for number in numbers:
        name = f"{number}.bs2"
        if name not in content:
            raise FileError(f"{path} lacks the file {name}")
        yield atis.open_atis(EventFile.of_bytes(f"{path}: {name}", content[name]))


def _moving_digits(split: str, encoding: Encoding) -> EventFrames:
    digits = datasets.load("digits", split)
    frames = prepare(
        "moving_digits",
        (split, *MOVING),
        len(digits),
        lambda: (_moved(image, split, place) for place, image in enumerate(digits.images)),
        framing_of(encoding),
    )
    return EventFrames("moving_digits", frames, digits.labels, DIGITS, encoding)


def _moved(image: Bytes, split: str, place: int) -> EventRecording:
    """An image of `digits`, twice as large, that moves along three lines in front of a camera."""
    generator = np.random.default_rng((datasets.SPLITS.index(split), place))
    large = np.pad(image.reshape(8, 8).repeat(2, axis=0).repeat(2, axis=1), MOVING.reach + 1)
    events = record(
        large,
        saccades(MOVING.reach, generator),
        MOVING.interval,
        threshold=MOVING.threshold,
        noise=MOVING.noise,
        generator=generator,
    )
    rows, columns = large.shape
    return EventRecording(f"moving_digits {split} {place}", rows, columns, lambda: iter([events]))


class Moving(NamedTuple):
    """How `moving_digits` moves.

    Attributes:
        reach: pixels of a move along an axis.
        interval: microseconds for 1/16 of a move.
        threshold: of the logarithm of the brightness.
        noise: events per pixel and second by chance.
    """

    reach: int = 3
    interval: int = 2_000
    threshold: float = 0.3
    noise: float = 2.0


MOVING = Moving()

EVENT_LOADERS: Mapping[str, EventSet] = MappingProxyType(
    {
        "nmnist": EventSet(atis.SIDE, atis.SIDE, DIGITS, _nmnist),
        "nmnist_subset": EventSet(atis.SIDE, atis.SIDE, DIGITS, _nmnist_subset),
        "moving_digits": EventSet(24, 24, DIGITS, _moving_digits),
    }
)
"""The data sets by name."""
