"""All data sets by name: images (`datasets`), recordings (`events.sets`) and `own`."""

from __future__ import annotations

import difflib
import os

from esl_lava.data import datasets
from esl_lava.data.config import OWN, Data, Encoding
from esl_lava.data.events.sets import EVENT_LOADERS
from esl_lava.data.own import SOURCE_NEEDED, OwnData, own_from_folder
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import DataError

NAMES = (*datasets.LOADERS, *EVENT_LOADERS, OWN)


def load_configured(
    data: Data, split: str, encoding: Encoding, own: OwnData | None = None
) -> TrainingSamples:
    """Return a split of the data set that an experiment's configuration names.

    Args:
        data: the section `data` of the configuration.
        split, encoding: as in `load`.
        own: source of the user's own samples; None: the folder `data.folder`. Data sets with
            another name than `own` ignore it.

    Raises:
        DataError, FileError: as in `load`.
    """
    if own is None and data.folder is not None:
        own = own_from_folder(data.folder)
    return load(data.name, split, encoding, own)


def load(
    name: str, split: str, encoding: Encoding | None = None, own: OwnData | None = None
) -> TrainingSamples:
    """Return a split of a data set.

    Args:
        name: one of `NAMES`.
        split: "train" or "test".
        encoding: how recordings become frames; images do not depend on it.
        own: source of the samples if `name` is `own`.

    Raises:
        DataError: the name or the split is unknown; files are missing or do not fit together;
            recordings need an encoding of frames; the source of own samples is not known, or they
            do not fit the encoding.
        FileError: a file is malformed or too large.
        ModuleNotFoundError: a package that reads the files is not installed: Pillow, aedat or
            tonic.
    """
    if name not in NAMES:
        known = ", ".join(NAMES)
        if "." in name or os.sep in name:
            sentence = f"{name}: this is the name of a file, but a data set is needed: {known}"
        else:
            nearest = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0)[0]
            sentence = (
                f"unknown data set {name!r}: the data sets are {known}; the nearest is {nearest!r}"
            )
        raise DataError(sentence, "unknown", key="data set", value=name, limit=NAMES)
    if name in datasets.LOADERS:
        return datasets.load(name, split)
    if split not in datasets.SPLITS:
        raise datasets.unknown_split(name, split)
    if name == OWN:
        if own is None:
            raise DataError(SOURCE_NEEDED, "missing", key="--data-folder")
        return own.samples(split, encoding)
    if encoding is None or encoding.kind != "frames":
        raise DataError(
            f"{name} holds recordings: they need encoding.kind 'frames'",
            "conflict",
            key="encoding.kind",
            value=None if encoding is None else encoding.kind,
            limit="frames",
        )
    return EVENT_LOADERS[name].load(name, split, encoding)


def shape_and_classes(name: str, encoding: Encoding) -> tuple[tuple[int, int, int], int]:
    """Return (channels, rows, columns) of a data set's samples, and its number of classes.

    Both are known before anything is read. `own` is not allowed here.

    Raises:
        DataError: as in `Framing.shape_of`.
    """
    if name in datasets.SHAPES:
        return datasets.SHAPES[name]
    event_set = EVENT_LOADERS[name]
    return event_set.shape(encoding), event_set.classes
