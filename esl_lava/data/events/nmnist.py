"""N-MNIST: the unpacked published archives, and an archive of some of their recordings."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from esl_lava.data.archives import read_members
from esl_lava.data.events import atis
from esl_lava.data.events.eventset import file_state
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
    """Return the recordings in the user's folder `nmnist`, in a fixed shuffled order.

    Raises:
        DataError: a folder does not exist or is empty.
    """
    folder = own_folder("nmnist") or own_folder("NMNIST")  # tonic's name of the folder
    root = None if folder is None else folder / _FOLDERS[split]
    if root is None or not root.is_dir():
        raise DataError(
            f"data set nmnist needs {_FOLDERS[split]}/0 to {_FOLDERS[split]}/9 with .bin files in "
            f"the folder nmnist of ${DATA_VARIABLE}, as in the published archives",
            "not-found",
            key=DATA_VARIABLE,
            value=os.environ.get(DATA_VARIABLE),
        )
    files: list[Path] = []
    labels: list[int] = []
    for digit in range(DIGITS):
        place = root / str(digit)
        files_of_digit = sorted(place.glob("*.bin"))
        if not files_of_digit:
            raise DataError(f"{place} holds no .bin file", "not-found", file=place)
        files += files_of_digit
        labels += [digit] * len(files_of_digit)
    # The files are sorted by class. Shuffled, the first n samples are of all classes.
    order = np.random.default_rng(len(files)).permutation(len(files))
    files = [files[index] for index in order]
    key = tuple((str(file), *file_state(file)) for file in files)
    openers = [functools.partial(_open_file, file) for file in files]
    return Recordings(key, openers, np.array(labels)[order])


def _open_file(path: Path) -> EventRecording:
    return atis.open_atis(EventFile.of_path(path))


def find_subset(split: str) -> Recordings:
    """Return the recordings in the archive `nmnist_small.tar.gz`, in the order of its lists.

    Raises:
        DataError, FileError: the archive does not exist, is damaged or lacks a file.
    """
    path = own_path(SUBSET)
    if path is None:
        raise DataError(
            f"data set nmnist_subset needs {SUBSET} in the folder ${DATA_VARIABLE}",
            "not-found",
            key=DATA_VARIABLE,
            value=os.environ.get(DATA_VARIABLE),
        )
    contents = _read_members(path)
    numbers, labels = _read_labels(path, split, contents)
    openers = [functools.partial(_open_member, path, f"{n}.bs2", contents) for n in numbers]
    return Recordings((*file_state(path), split), openers, np.array(labels))


def _open_member(path: Path, name: str, contents: Mapping[str, bytes]) -> EventRecording:
    if name not in contents:
        raise _missing_member(path, name)
    return atis.open_atis(EventFile.of_bytes(f"{path}: {name}", contents[name]))


def _missing_member(path: Path, name: str) -> FileError:
    """Return the error for an archive that lacks a file."""
    return FileError(f"{path} lacks the file {name}", "not-found", value=name, file=path)


def _read_members(path: Path) -> dict[str, bytes]:
    """Return name (without its folder) -> content of the files in the archive."""

    def limit_of(name: str) -> int | None:
        return _MEMBER_LIMIT if _MEMBER.fullmatch(name) else None

    members = read_members(path, limit_of, _SUBSET_LIMIT)
    return {name.rpartition("/")[2]: content for name, content in members}


def _read_labels(
    path: Path, split: str, contents: Mapping[str, bytes]
) -> tuple[list[int], list[int]]:
    """Return the numbers of a split's recordings, and their classes."""
    name = _SUBSET_LABELS[split]
    if name not in contents:
        raise _missing_member(path, name)
    text = contents[name].decode("ascii", "replace")
    lines = [line for line in text.split("\n")[1:] if line.strip()]
    pairs = [re.fullmatch(r"([0-9]{1,6})\s+([0-9])\s*", line) for line in lines]
    if not pairs or None in pairs:
        wrong = lines[pairs.index(None)][:40] if pairs else ""
        raise FileError(
            f"{path}: {name} needs lines of a number and a digit, not {wrong!r}",
            "damaged",
            value=wrong,
            file=path,
        )
    numbers, labels = zip(*((int(pair[1]), int(pair[2])) for pair in pairs if pair))
    return list(numbers), list(labels)
