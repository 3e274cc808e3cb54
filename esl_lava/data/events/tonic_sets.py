"""Data sets as tonic lists and reads them, from where it downloads them to; nothing is downloaded.

tonic (1.7.0): G. Lenz and others, "Tonic: event-based datasets and transformations", 2021.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from esl_lava.arrays import Ints
from esl_lava.data.events.eventset import state_of
from esl_lava.data.events.prepare import Recordings
from esl_lava.data.events.recording import EventRecording, Events, check_times
from esl_lava.data.folders import DATA_VARIABLE, own_folder
from esl_lava.errors import DataError, FileError

_UNREADABLE = (OSError, ValueError, IndexError, KeyError, EOFError)
"""What tonic, and numpy and h5py within it, raise of files that are damaged."""


@dataclass(frozen=True)
class TonicSet:
    """A class of tonic's data sets whose items are (events, label).

    Attributes:
        kind: its name in `tonic.datasets`, which is also the folder's.
        rows, columns: of the sensor.
        contents: the labels of all items, without their events, and the files that hold them.
    """

    kind: str
    rows: int
    columns: int
    contents: Callable[[Any], tuple[Ints, list[Path]]]


def _a_file_each(given: Any) -> tuple[Ints, list[Path]]:
    return np.array(given.targets, np.int64), [Path(path) for path in given.data]


def _one_file(given: Any) -> tuple[Ints, list[Path]]:
    path = Path(given.location_on_system, given.data_filename)
    with h5py.File(path, "r") as file:
        return np.asarray(file["labels"][()], np.int64), [path]


GESTURE = TonicSet("DVSGesture", 128, 128, _a_file_each)
SHD = TonicSet("SHD", 1, 700, _one_file)


def find(name: str, known: TonicSet, split: str) -> Recordings:
    """The recordings of a split, in a fixed mixed order: tonic's is by person, or by class.

    Raises:
        DataError: where they are not in the user's folder of data as tonic leaves them.
        FileError: where tonic cannot read what lists them.
        PackageError: where tonic is not installed.
    """
    import tonic.datasets  # it takes a while, and only these sets need it

    folder = own_folder(known.kind)
    kind = getattr(tonic.datasets, known.kind)
    how = f"tonic.datasets.{known.kind}(save_to=FOLDER, train={split == 'train'}) downloads it"
    if folder is None:
        raise DataError(
            f"data set {name} needs the folder {known.kind} of ${DATA_VARIABLE}: {how} to FOLDER"
        )

    def refuse(self: Any) -> None:
        raise DataError(f"data set {name} is not whole in {folder}: {how} to FOLDER")

    # tonic would download what it misses; its folder has the name of the class.
    offline = type(known.kind, (kind,), {"download": refuse})
    try:
        given = offline(save_to=str(folder.parent), train=split == "train")
        labels, files = known.contents(given)
    except _UNREADABLE as error:
        raise FileError(f"data set {name} in {folder} cannot be read by tonic: {error}") from None
    order = np.random.default_rng(len(labels)).permutation(len(labels))
    key = (split, *((str(file), *state_of(file)) for file in files))
    openers = [functools.partial(_open, name, known, given, int(item)) for item in order]
    return Recordings(key, openers, labels[order])


def _open(name: str, known: TonicSet, given: Any, item: int) -> EventRecording:
    """The recording of an item.

    Raises:
        FileError: where tonic cannot read it, or what it read is no recording of the sensor.
    """
    called = f"{name}, item {item} of {known.kind}"
    try:
        events, _ = given[item]
    except _UNREADABLE as error:
        raise FileError(f"{called} cannot be read by tonic: {error}") from None
    return EventRecording(
        called,
        known.rows,
        known.columns,
        lambda: _events(called, known, events),
        polarities=2 if known.rows > 1 else 1,
    )


def _events(called: str, known: TonicSet, events: Any) -> Iterator[Events]:
    columns = np.asarray(events["x"], np.int64)
    rows = np.asarray(events["y"], np.int64) if known.rows > 1 else np.zeros(len(columns), np.int64)
    outside = (columns < 0) | (columns >= known.columns) | (rows < 0) | (rows >= known.rows)
    if outside.any():
        place = int(np.flatnonzero(outside)[0])
        raise FileError(
            f"{called} is damaged: event {place + 1} is in row {rows[place]}, column "
            f"{columns[place]} of a sensor of {known.rows} x {known.columns}"
        )
    times = np.asarray(events["t"], np.int64)
    check_times(called, times, None, 0)
    if len(times):
        yield Events(times, rows, columns, np.asarray(events["p"]) > 0)
