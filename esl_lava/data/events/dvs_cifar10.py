"""DVS-CIFAR10: 1,000 recordings of each of ten classes (H. Li and others, 2017).

The data set has no published split. `dvs_cifar10` uses the split of esl-lava: the test split has
the hundred recordings of each class that `dvs_cifar10_test.txt` names. They are the first hundred
in the order of the SHA-256 of "class/number". `dvs_cifar10_tet` uses the split of TET's code and of
SpikingJelly: the first nine tenths of each class, by number, are the training split.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from esl_lava.data.events.eventset import file_state
from esl_lava.data.events.files import open_recording
from esl_lava.data.events.prepare import Recordings
from esl_lava.data.folders import DATA_VARIABLE, own_folder
from esl_lava.errors import DataError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Names of the classes by label."""

EACH, TESTED = 1000, 100
"""Number of recordings of a class, and how many of them are in the test split."""

FOLDERS = ("dvs_cifar10", "CIFAR10DVS")
"""Folders that may hold the recordings; the second name is tonic's."""

SPLIT_SHA256 = "d43fd3442fdda7ee3de70647e0719007c6f62148c95521865ae73be026480de0"
"""SHA-256 of the file that names the test split; the file cannot change without this line."""

_SPLIT = resources.files("esl_lava.data.events").joinpath("dvs_cifar10_test.txt")
_NAME = re.compile(r"cifar10_([a-z]+)_([0-9]{1,3})\.aedat4?")


def test_numbers() -> Mapping[str, frozenset[int]]:
    """Return class -> numbers of the recordings in the test split.

    Raises:
        DataError: the file of the package is not the published file.
    """
    content = _SPLIT.read_bytes()
    if hashlib.sha256(content).hexdigest() != SPLIT_SHA256:
        sentence = f"{_SPLIT} is not the published split of DVS-CIFAR10: reinstall esl-lava"
        raise DataError(sentence, "damaged", file=str(_SPLIT))
    lines = (line.split() for line in content.decode().splitlines() if not line.startswith("#"))
    return {name: frozenset(map(int, numbers)) for name, *numbers in lines}


def find_fixed(split: str) -> Recordings:
    """Return the recordings of a split, as esl-lava's own list of the test split divides them.

    Raises:
        DataError: recordings are missing.
    """
    tested = test_numbers()
    return _find("dvs_cifar10", split, lambda name, number: number in tested[name])


def find_tet(split: str) -> Recordings:
    """Return the recordings of a split, as TET divides them: the first nine tenths train.

    Raises:
        DataError: recordings are missing.
    """
    return _find("dvs_cifar10_tet", split, lambda name, number: number >= EACH - TESTED)


def _find(dataset: str, split: str, is_test: Callable[[str, int], bool]) -> Recordings:
    """Return the recordings of a split in a fixed shuffled order.

    The files are sorted by class. Shuffled, the first n samples are of all classes.
    """
    root = next((folder for name in FOLDERS if (folder := own_folder(name)) is not None), None)
    if root is None:
        raise DataError(
            f"data set {dataset} needs the folders {CLASSES[0]} to {CLASSES[-1]}, each with "
            f"{EACH:,} .aedat or .aedat4 files, in the folder {FOLDERS[0]} of ${DATA_VARIABLE}",
            "not-found",
            key=DATA_VARIABLE,
            value=os.environ.get(DATA_VARIABLE),
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(CLASSES):
        by_number = _files_by_number(root / name, name)
        numbers = [n for n in range(EACH) if is_test(name, n) == (split == "test")]
        files += [by_number[number] for number in numbers]
        labels += [label] * len(numbers)
    order = np.random.default_rng(len(files)).permutation(len(files))
    files = [files[index] for index in order]
    key = (dataset, split, *((str(file), *file_state(file)) for file in files))
    openers = [functools.partial(open_recording, file) for file in files]
    return Recordings(key, openers, np.array(labels)[order])


def _files_by_number(folder: Path, name: str) -> dict[int, Path]:
    """Return number -> file of all recordings of a class."""
    files: dict[int, Path] = {}
    for file in sorted(folder.glob("*.aedat*")):
        match = _NAME.fullmatch(file.name)
        if match and match[1] == name:
            files.setdefault(int(match[2]), file)
    if len(files) < EACH:
        raise DataError(
            f"{folder} holds {len(files):,} of the {EACH:,} recordings cifar10_{name}_0.aedat to "
            f"cifar10_{name}_{EACH - 1}.aedat (or .aedat4)",
            "not-found",
            value=len(files),
            limit=EACH,
            file=folder,
        )
    return files
