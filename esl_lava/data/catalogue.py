"""All data sets by name: of images (`datasets`) and of recordings (`events.sets`)."""

from __future__ import annotations

import difflib
import os

from esl_lava.data import datasets
from esl_lava.data.config import Encoding
from esl_lava.data.events.sets import EVENT_LOADERS
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import DataError

NAMES = (*datasets.LOADERS, *EVENT_LOADERS)


def load(name: str, split: str, encoding: Encoding | None = None) -> TrainingSamples:
    """The half `split` of a data set.

    Args:
        name: one of `NAMES`.
        split: "train" or "test".
        encoding: how recordings become frames; images are read as they are.

    Raises:
        DataError: unknown name or split; files are missing or do not fit each other; recordings
            without an encoding of frames.
        FileError: a file is malformed or too large.
    """
    if name not in NAMES:
        known = ", ".join(NAMES)
        if "." in name or os.sep in name:
            raise DataError(f"{name}: a file's name, where a data set's is needed: {known}")
        nearest = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0)[0]
        raise DataError(f"unknown data set {name!r}: there are {known}; nearest is {nearest!r}")
    if name in datasets.LOADERS:
        return datasets.load(name, split)
    if split not in datasets.SPLITS:
        raise DataError(
            f"unknown split {split!r} of {name}: there are {', '.join(datasets.SPLITS)}"
        )
    if encoding is None or encoding.kind != "frames":
        raise DataError(f"{name} holds recordings: they need encoding.kind 'frames'")
    return EVENT_LOADERS[name].load(name, split, encoding)


def shape_and_classes(name: str, encoding: Encoding) -> tuple[tuple[int, int, int], int]:
    """(channels, rows, columns) of a data set's samples, and its number of classes.

    It is known before anything is read.

    Raises:
        DataError: as `Framing.shape_of`.
    """
    if name in datasets.SHAPES:
        return datasets.SHAPES[name]
    found = EVENT_LOADERS[name]
    return found.shape(encoding), found.classes
