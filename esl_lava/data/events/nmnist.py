"""N-MNIST: the published archives, unpacked, and an archive of a part of their recordings."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from esl_lava.data.archives import read_members
from esl_lava.data.events import atis
from esl_lava.data.events.eventset import state_of
from esl_lava.data.events.prepare import Recordings
from esl_lava.data.events.recording import EventFile, EventRecording
from esl_lava.data.folders import DATA_VARIABLE, own_folder, own_path
from esl_lava.errors import DataError, FileError

DIGITS = 10
SUBSET = "nmnist_small.tar.gz"
_SUBSET_LABELS = {"train": "train1K.txt", "test": "test100.txt"}
_MEMBER = re.compile(r"nmnist_small/(?:([1-9][0-9]{0,5})\.bs2|train1K\.txt|test100\.txt)")
_MEMBER_LIMIT, _SUBSET_LIMIT = 1 << 20, 1 << 28

_FOLDERS = {"train": "Train", "test": "Test"}


def find_whole(split: str) -> Recordings:
    """The recordings in the folder `nmnist` of the user's data, in a fixed mixed order.

    Raises:
        DataError: where the folders are not there.
    """
    folder = own_folder("nmnist") or own_folder("NMNIST")  # as tonic calls it
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
    key = tuple((str(file), *state_of(file)) for file in files)
    openers = [functools.partial(_open, file) for file in files]
    return Recordings(key, openers, np.array(labels)[order])


def _open(path: Path) -> EventRecording:
    return atis.open_atis(EventFile.of_path(path))


def find_subset(split: str) -> Recordings:
    """The recordings in the archive `nmnist_small.tar.gz`, in the order of its lists.

    Raises:
        DataError, FileError: where it is not there, or lacks what it has to hold.
    """
    path = own_path(SUBSET)
    if path is None:
        raise DataError(f"data set nmnist_subset needs {SUBSET} in the folder ${DATA_VARIABLE}")
    content = _members(path)
    numbers, labels = _labels(path, split, content)
    openers = [functools.partial(_open_member, path, f"{n}.bs2", content) for n in numbers]
    return Recordings((*state_of(path), split), openers, np.array(labels))


def _open_member(path: Path, name: str, content: Mapping[str, bytes]) -> EventRecording:
    if name not in content:
        raise FileError(f"{path} lacks the file {name}")
    return atis.open_atis(EventFile.of_bytes(f"{path}: {name}", content[name]))


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
