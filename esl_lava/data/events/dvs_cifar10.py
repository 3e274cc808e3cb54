"""DVS-CIFAR10: 1,000 recordings of each of ten classes (H. Li and others, 2017).

The set has no split of its own. `dvs_cifar10` has ours: of each class the hundred recordings that
`dvs_cifar10_test.txt` names are the test split. They come first where the SHA-256 of "class/number"
orders the recordings. `dvs_cifar10_tet` has the one that TET's code and SpikingJelly take: of each
class the first nine tenths, by number, train.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from esl_lava.data.events.eventset import state_of
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
"""By label."""

EACH, TESTED = 1000, 100
"""Recordings of a class, and how many of them are tested on."""

FOLDERS = ("dvs_cifar10", "CIFAR10DVS")
"""Where the recordings may lie; the second name is tonic's."""

SPLIT_SHA256 = "d43fd3442fdda7ee3de70647e0719007c6f62148c95521865ae73be026480de0"
"""Of the file that names the test split: it can only be changed with this line."""

_SPLIT = resources.files("esl_lava.data.events").joinpath("dvs_cifar10_test.txt")
_NAME = re.compile(r"cifar10_([a-z]+)_([0-9]{1,3})\.aedat4?")


def test_numbers() -> Mapping[str, frozenset[int]]:
    """Class -> numbers of the recordings in the test split.

    Raises:
        DataError: where the file that comes along is not the one that was published.
    """
    content = _SPLIT.read_bytes()
    if hashlib.sha256(content).hexdigest() != SPLIT_SHA256:
        raise DataError(f"{_SPLIT} is not the published split of DVS-CIFAR10: install anew")
    lines = (line.split() for line in content.decode().splitlines() if not line.startswith("#"))
    return {name: frozenset(map(int, numbers)) for name, *numbers in lines}


def find_fixed(split: str) -> Recordings:
    """The recordings of our split.

    Raises:
        DataError: where they are not all there.
    """
    tested = test_numbers()
    return _find("dvs_cifar10", split, lambda name, number: number in tested[name])


def find_tet(split: str) -> Recordings:
    """The recordings of the split that takes nine tenths by number.

    Raises:
        DataError: where they are not all there.
    """
    return _find("dvs_cifar10_tet", split, lambda name, number: number >= EACH - TESTED)


def _find(dataset: str, split: str, tested: Callable[[str, int], bool]) -> Recordings:
    """Recordings of a split in a fixed mixed order: they lie by class, and parts come first."""
    root = next((found for name in FOLDERS if (found := own_folder(name)) is not None), None)
    if root is None:
        raise DataError(
            f"data set {dataset} needs the folders {CLASSES[0]} to {CLASSES[-1]}, each with "
            f"{EACH:,} .aedat or .aedat4 files, in the folder {FOLDERS[0]} of ${DATA_VARIABLE}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(CLASSES):
        by_number = _numbered(root / name, name)
        chosen = [n for n in range(EACH) if tested(name, n) == (split == "test")]
        files += [by_number[number] for number in chosen]
        labels += [label] * len(chosen)
    order = np.random.default_rng(len(files)).permutation(len(files))
    files = [files[place] for place in order]
    key = (dataset, split, *((str(file), *state_of(file)) for file in files))
    openers = [functools.partial(open_recording, file) for file in files]
    return Recordings(key, openers, np.array(labels)[order])


def _numbered(folder: Path, name: str) -> dict[int, Path]:
    """Number -> file, of all recordings of a class."""
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("*.aedat*")):
        match = _NAME.fullmatch(file.name)
        if match and match[1] == name:
            found.setdefault(int(match[2]), file)
    if len(found) < EACH:
        raise DataError(
            f"{folder} holds {len(found):,} of the {EACH:,} recordings cifar10_{name}_0.aedat to "
            f"cifar10_{name}_{EACH - 1}.aedat (or .aedat4)"
        )
    return found
