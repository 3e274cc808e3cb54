"""All data sets by name: of images (`datasets`), of recordings (`events.sets`), and `own`."""

from __future__ import annotations

import difflib
import os

from esl_lava.data import datasets
from esl_lava.data.config import OWN, Data, Encoding
from esl_lava.data.events.sets import EVENT_LOADERS
from esl_lava.data.own import NEEDED, Own, of_folder
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import DataError

NAMES = (*datasets.LOADERS, *EVENT_LOADERS, OWN)


def samples_of(
    data: Data, split: str, encoding: Encoding, own: Own | None = None
) -> TrainingSamples:
    """The half `split` of what an experiment says.

    Args:
        data: the experiment's section.
        split, encoding: as `load`.
        own: where the user's own samples come from; None: from the folder that `data` names. Of
            data sets by name it says nothing.

    Raises:
        DataError, FileError: as `load`.
    """
    if own is None and data.folder is not None:
        own = of_folder(data.folder)
    return load(data.name, split, encoding, own)


def load(
    name: str, split: str, encoding: Encoding | None = None, own: Own | None = None
) -> TrainingSamples:
    """The half `split` of a data set.

    Args:
        name: one of `NAMES`.
        split: "train" or "test".
        encoding: how recordings become frames; images are read as they are.
        own: where the samples of the name `own` come from.

    Raises:
        DataError: unknown name or split; files are missing or do not fit each other; recordings
            without an encoding of frames; nobody says where own samples come from, or they do
            not fit the encoding.
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
    if name == OWN:
        if own is None:
            raise DataError(NEEDED)
        return own.samples(split, encoding)
    if encoding is None or encoding.kind != "frames":
        raise DataError(f"{name} holds recordings: they need encoding.kind 'frames'")
    return EVENT_LOADERS[name].load(name, split, encoding)


def shape_and_classes(name: str, encoding: Encoding) -> tuple[tuple[int, int, int], int]:
    """(channels, rows, columns) of a data set's samples, and its number of classes.

    It is known before anything is read, but of `own`.

    Raises:
        DataError: as `Framing.shape_of`.
    """
    if name in datasets.SHAPES:
        return datasets.SHAPES[name]
    found = EVENT_LOADERS[name]
    return found.shape(encoding), found.classes
