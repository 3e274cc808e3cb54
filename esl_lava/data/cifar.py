"""CIFAR-10 and CIFAR-100 in their common file formats, from `$ESL_LAVA_DATA`.

Images have 32 x 32 pixels of three colours. They are returned as (samples, 3072) uint8 in the
order of channel (red, green, blue), row and column. Nothing is downloaded.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.data import batches, jpegs
from esl_lava.data.archives import read_members
from esl_lava.data.folders import DATA_VARIABLE, own_folder, read_error
from esl_lava.data.npz import read_member
from esl_lava.errors import DataError, FileError
from esl_lava.files import open_regular

SHAPE = (3, jpegs.SIDE, jpegs.SIDE)
"""Shape of an image: channels, rows, columns."""

JPEG_ARCHIVE = "cifar10_jpeg_train_test.tar.gz"
SUBSET = "cifar10_lossless_subset.npz"
SUBSET_LIMIT = 192 << 20
"""Largest number of bytes of an array in the subset's file. All 60,000 images of CIFAR-10 have
184,320,000."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _PythonVersion:
    """Layout of the files of a data set that its authors call "python version".

    Attributes:
        folder, archive: folder or archive that holds the files.
        splits: split -> its files, in order.
        key: key of the labels in the files.
        classes: number of classes.
        published: file -> MD5 of the published file, as in torchvision 0.18.
    """

    folder: str
    archive: str
    splits: Mapping[str, Sequence[str]]
    key: str
    classes: int
    published: Mapping[str, str]


_CIFAR10 = _PythonVersion(
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    splits=MappingProxyType(
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
    ),
    key="labels",
    classes=10,
    published=MappingProxyType(
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        }
    ),
)
_CIFAR100 = _PythonVersion(
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    splits=MappingProxyType({"train": ("train",), "test": ("test",)}),
    key="fine_labels",
    classes=100,
    published=MappingProxyType(
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        }
    ),
)


def cifar10(split: str) -> tuple[str, Bytes, Ints]:
    """Return a split of CIFAR-10: from its "python version", else from a tree of JPEG files.

    Args:
        split: "train" or "test".

    Returns:
        The name under which accuracies on the images are reported, which differs for JPEG because
        it is lossy; images, (samples, 3072) uint8; labels, (samples,) int64 in 0..9, in
        alphabetical order: airplane is 0, truck 9.

    Raises:
        DataError: neither exists, or a file is missing.
        FileError: a file is damaged, too large, or of another kind.
        ModuleNotFoundError: as in `jpegs.read_split`.
    """
    folder = own_folder("cifar10")
    if folder is not None:
        place = _place(folder, _CIFAR10)
        if place is not None:
            return "cifar10", *_python_version(place, _CIFAR10, split)
        if (folder / JPEG_ARCHIVE).is_file():
            return jpegs.NAME, *jpegs.read_split(folder / JPEG_ARCHIVE, split)
        if (folder / split).is_dir():
            return jpegs.NAME, *jpegs.read_split(folder, split)
    raise _missing(
        "cifar10", f"{_CIFAR10.folder}/, {_CIFAR10.archive}, {JPEG_ARCHIVE}, or train/ and test/"
    )


def cifar100(split: str) -> tuple[Bytes, Ints]:
    """Return a split of CIFAR-100 from its "python version".

    Returns:
        Images, (samples, 3072) uint8, and fine labels, (samples,) int64 in 0..99.

    Raises:
        DataError, FileError: as in `cifar10`.
    """
    folder = own_folder("cifar100")
    place = None if folder is None else _place(folder, _CIFAR100)
    if place is None:
        raise _missing("cifar100", f"{_CIFAR100.folder}/ or {_CIFAR100.archive}")
    return _python_version(place, _CIFAR100, split)


def cifar10_subset(split: str) -> tuple[Bytes, Ints]:
    """Return some images of CIFAR-10, unchanged, with their labels 0..9, in the file's order.

    The file is a numpy archive with `x_train`, `y_train`, `x_test` and `y_test`: images of shape
    (samples, 32, 32, 3) uint8 and labels of shape (samples,), integers.

    Returns:
        Images, (samples, 3072) uint8, and labels, (samples,) int64.

    Raises:
        DataError: the file does not exist.
        FileError: the file is damaged, too large, or holds other arrays.
    """
    folder = own_folder("cifar10")
    if folder is None or not (folder / SUBSET).is_file():
        raise _missing("cifar10_subset", SUBSET, "cifar10")
    path = folder / SUBSET
    images, labels = (read_member(path, f"{part}_{split}", SUBSET_LIMIT) for part in "xy")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (*SHAPE[1:], 3):
        has_type = images.dtype == np.uint8
        raise FileError(
            f"{path}: x_{split} needs type uint8 and shape (samples, 32, 32, 3), "
            f"not {images.dtype} and {images.shape}",
            "shape" if has_type else "type",
            key=f"x_{split}",
            value=images.shape if has_type else str(images.dtype),
            file=path,
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or labels.size == 0:
        has_type = labels.dtype.kind in "iu"
        raise FileError(
            f"{path}: y_{split} needs integers of shape ({len(images)},), at least one, "
            f"not {labels.dtype} of {labels.shape}",
            "shape" if has_type else "type",
            key=f"y_{split}",
            value=labels.shape if has_type else str(labels.dtype),
            limit=len(images),
            file=path,
        )
    outside = labels[(labels < 0) | (labels >= len(jpegs.CLASSES))]
    if outside.size:
        raise FileError(
            f"{path}: label {outside[0]} of y_{split} is not in 0..9",
            "range",
            key=f"y_{split}",
            value=int(outside[0]),
            limit=9,
            file=path,
        )
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return planes.reshape(len(planes), math.prod(SHAPE)), labels.astype(np.int64)


def _missing(name: str, files: str, folder: str | None = None) -> DataError:
    """Return the error for a data set of which no file exists; `files` names them."""
    data = os.environ.get(DATA_VARIABLE)
    return DataError(
        f"{name} is not found, and is not downloaded: set {DATA_VARIABLE} (now {data!r}) to a "
        f"folder with a subfolder {folder or name}/ that holds {files}",
        "not-found",
        key=DATA_VARIABLE,
        value=data,
    )


def _place(folder: Path, version: _PythonVersion) -> Path | None:
    """Return the folder or the archive of the "python version", or None if neither exists."""
    if (folder / version.folder).is_dir():
        return folder / version.folder
    return folder / version.archive if (folder / version.archive).is_file() else None


def _python_version(place: Path, version: _PythonVersion, split: str) -> tuple[Bytes, Ints]:
    """Return images and labels of all files of a split, joined in the order of the files."""
    read = _in_archive if place.is_file() else _in_folder
    parts, foreign = {}, []
    for name, raw in read(place, version, version.splits[split]):
        where = f"{place}: {name}"
        features = math.prod(SHAPE)
        parts[name] = batches.read_batch(raw, where, version.key, features, version.classes)
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != version.published[name]:
            foreign.append(name)
    missing = [name for name in version.splits[split] if name not in parts]
    if missing:
        sentence = f"{place} lacks the file {missing[0]}"
        raise DataError(sentence, "not-found", value=missing[0], file=place)
    if foreign:
        _logger.warning(
            "%s in %s: not the published data set, but other data of the same format",
            *(" and ".join(foreign), place),
        )
    images, labels = zip(*(parts[name] for name in version.splits[split]))
    return np.concatenate(images), np.concatenate(labels)


def _in_folder(
    place: Path, version: _PythonVersion, names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of those of the files that exist in a folder."""
    for name in names:
        path = place / name
        if not path.exists():
            continue
        try:
            with open_regular(path) as file:
                raw = file.read(batches.MOST_BYTES + 1)
        except OSError as error:
            raise read_error(path, error) from None
        yield name, raw


def _in_archive(
    place: Path, version: _PythonVersion, names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files in the published archive, which holds other files too."""

    def limit_of(name: str) -> int | None:
        folder, _, file = name.removeprefix("./").rpartition("/")
        if folder != version.folder:
            return None
        return batches.MOST_BYTES if file in names else 0

    for name, raw in read_members(place, limit_of, 2 * batches.MOST_BYTES):
        yield name.rpartition("/")[2], raw
