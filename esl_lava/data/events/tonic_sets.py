"""Data sets that the package tonic has downloaded and reads. Nothing is downloaded here.

tonic (1.7.0): G. Lenz and others, "Tonic: event-based datasets and transformations", 2021.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from esl_lava.arrays import Ints
from esl_lava.data.events.eventset import file_state
from esl_lava.data.events.prepare import Recordings
from esl_lava.data.events.recording import EventRecording, Events, check_times, outside_sensor
from esl_lava.data.folders import DATA_VARIABLE, own_folder
from esl_lava.errors import DataError, FileError
from esl_lava.files import open_regular

_UNREADABLE = (OSError, ValueError, IndexError, KeyError, EOFError)
"""Exceptions of tonic, and of numpy and h5py within it, for damaged files."""


@dataclass(frozen=True)
class TonicSet:
    """A class of tonic's data sets whose items are (events, label).

    Attributes:
        class_name: name of the class in `tonic.datasets`, and of the folder with its files.
        rows, columns: rows and columns of the sensor.
        contents: tonic's data set -> labels of all items, without their events, and the files that
            hold the items.
    """

    class_name: str
    rows: int
    columns: int
    contents: Callable[[Any], tuple[Ints, list[Path]]]


def _contents_of_files(dataset: Any) -> tuple[Ints, list[Path]]:
    """Return labels and files of a data set with one file for each item."""
    return np.array(dataset.targets, np.int64), [Path(path) for path in dataset.data]


def _contents_of_hdf5(dataset: Any) -> tuple[Ints, list[Path]]:
    """Return labels and file of a data set in one HDF5 file."""
    path = Path(dataset.location_on_system, dataset.data_filename)
    with open_regular(path), h5py.File(path, "r") as file:
        return np.asarray(file["labels"][()], np.int64), [path]


GESTURE = TonicSet("DVSGesture", 128, 128, _contents_of_files)
SHD = TonicSet("SHD", 1, 700, _contents_of_hdf5)


def find(name: str, tonic_set: TonicSet, split: str) -> Recordings:
    """Return the recordings of a split in a fixed shuffled order.

    tonic's own order is by person or by class.

    Raises:
        DataError: the recordings are not in the user's folder of data sets as tonic stores them.
        FileError: tonic cannot read the list of recordings.
        ModuleNotFoundError: tonic is not installed.
    """
    import tonic.datasets  # the import is slow, and only these data sets need it

    class_name = tonic_set.class_name
    folder = own_folder(class_name)
    tonic_class = getattr(tonic.datasets, class_name)
    call = f"tonic.datasets.{class_name}(save_to=FOLDER, train={split == 'train'})"
    if folder is None:
        raise DataError(
            f"data set {name} needs the folder {class_name} of ${DATA_VARIABLE}: {call} downloads "
            f"it, where FOLDER is the value of ${DATA_VARIABLE}",
            "not-found",
            key=DATA_VARIABLE,
            value=os.environ.get(DATA_VARIABLE),
        )

    def refuse(self: Any) -> None:
        raise DataError(
            f"data set {name} is incomplete in {folder}: {call} downloads it, where FOLDER is "
            f"{folder.parent}",
            "not-found",
            file=folder,
        )

    # tonic would download missing files. It takes the name of the folder from the class.
    offline = type(class_name, (tonic_class,), {"download": refuse})
    try:
        dataset = offline(save_to=str(folder.parent), train=split == "train")
        labels, files = tonic_set.contents(dataset)
    except _UNREADABLE as error:
        sentence = f"data set {name} in {folder} cannot be read by tonic: {error}"
        raise FileError(sentence, "damaged", file=folder) from None
    order = np.random.default_rng(len(labels)).permutation(len(labels))
    key = (split, *((str(file), *file_state(file)) for file in files))
    openers = [functools.partial(_open, name, tonic_set, dataset, int(item)) for item in order]
    return Recordings(key, openers, labels[order])


def _open(name: str, tonic_set: TonicSet, dataset: Any, item: int) -> EventRecording:
    """Return the recording of an item.

    Raises:
        FileError: tonic cannot read the item, or the item is not a recording of the sensor.
    """
    title = f"{name}, item {item} of {tonic_set.class_name}"
    try:
        events, _ = dataset[item]
    except _UNREADABLE as error:
        sentence = f"{title} cannot be read by tonic: {error}"
        raise FileError(sentence, "damaged", file=title) from None
    return EventRecording(
        title,
        tonic_set.rows,
        tonic_set.columns,
        lambda: _check_events(title, tonic_set, events),
        polarities=2 if tonic_set.rows > 1 else 1,
    )


def _check_events(title: str, tonic_set: TonicSet, events: Any) -> Iterator[Events]:
    """Yield the events of an item in one portion, if they are inside the sensor and in order."""
    sensor = tonic_set.rows, tonic_set.columns
    columns = np.asarray(events["x"], np.int64)
    has_rows = tonic_set.rows > 1
    rows = np.asarray(events["y"], np.int64) if has_rows else np.zeros(len(columns), np.int64)
    outside = (columns < 0) | (columns >= sensor[1]) | (rows < 0) | (rows >= sensor[0])
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise outside_sensor(title, first + 1, (int(rows[first]), int(columns[first])), sensor)
    times = np.asarray(events["t"], np.int64)
    check_times(title, times, None, np.arange(1, len(times) + 1))
    if len(times):
        yield Events(times, rows, columns, np.asarray(events["p"]) > 0)
