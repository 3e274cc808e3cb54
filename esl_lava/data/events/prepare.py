"""Frames of many recordings: made once, kept in the user's cache, and read from there in place."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from esl_lava.arrays import Bytes, Ints
from esl_lava.data.events.frames import Framing, make_frames
from esl_lava.data.events.recording import EventRecording
from esl_lava.data.folders import cache_folder
from esl_lava.errors import DataError, FileError
from esl_lava.progress import tell_progress

VERSION = 2
"""Of the rules by which frames are made: kept frames of another one are made anew."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Recordings:
    """The recordings of a data set's half, none of which is read yet.

    Attributes:
        key: what tells these recordings from others.
        openers: opens each of them.
        labels: (recordings,) int64, their classes.
    """

    key: tuple[object, ...]
    openers: Sequence[Callable[[], EventRecording]]
    labels: Ints


def prepare(
    name: str, recordings: Recordings, framing: Framing, skip_damaged: bool = False
) -> tuple[Bytes, Ints]:
    """Frames of all recordings, (samples, T, polarities, rows, columns) uint8, and their labels.

    They are kept in a file of the user's cache, and the array is that file, which the system reads
    where it is needed. Where the cache cannot be written they are held in memory.

    Args:
        name: of the data set and its half.
        recordings: what frames are made of; none is opened where frames are kept.
        framing: how frames are made.
        skip_damaged: leave damaged recordings out, with a warning.

    Raises:
        FileError, DataError: as `make_frames`, of the first recording that is damaged; with
            `skip_damaged` DataError where all of them are.
    """
    facts = repr((VERSION, name, recordings.key, astuple(framing), skip_damaged))
    path = cache_folder() / "frames" / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()}.npy"
    kept = _kept(path, recordings, framing)
    if kept is not None:
        return kept
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path.parent))
    except OSError as error:
        _logger.warning("%s cannot be written (%s): frames are not kept", path.parent, error)
        frames, whole = _made(None, name, recordings, framing, skip_damaged)
        return frames[: len(whole)], recordings.labels[whole]
    try:
        _, whole = _made(folder / path.name, name, recordings, framing, skip_damaged)
        np.save(folder / "whole.npy", whole)
        os.replace(folder / "whole.npy", _whole_of(path))
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = _kept(path, recordings, framing)
    assert found is not None
    return found


def _whole_of(path: Path) -> Path:
    """The file that says beside kept frames which recordings they are of."""
    return path.with_name(f"{path.stem}-whole.npy")


def _kept(path: Path, recordings: Recordings, framing: Framing) -> tuple[Bytes, Ints] | None:
    """Frames and labels in files of the cache; None where there are none of these recordings."""
    try:
        whole: Ints = np.load(_whole_of(path), allow_pickle=False)
        frames: Bytes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    number, steps = len(recordings.labels), framing.steps
    if whole.dtype != np.int64 or whole.ndim != 1 or ((whole < 0) | (whole >= number)).any():
        return None
    fits = frames.dtype == np.uint8 and frames.ndim == 5 and frames.shape[1] == steps
    return (frames, recordings.labels[whole]) if fits and len(frames) == len(whole) else None


def _made(
    path: Path | None, name: str, recordings: Recordings, framing: Framing, skip_damaged: bool
) -> tuple[Bytes, Ints]:
    """The frames, in a new file or in memory, and (frames,) which recordings they are of."""
    number = len(recordings.openers)
    frames: Bytes | None = None
    whole: list[int] = []
    for place, opened in enumerate(recordings.openers):
        try:
            one = make_frames(opened(), framing)
        except (DataError, FileError) as error:
            if not skip_damaged:
                raise
            _logger.warning("%s: a recording is left out: %s", name, error)
            continue
        if frames is None:
            frames = _room(path, (number, *one.shape))
        frames[len(whole)] = one
        whole.append(place)
        tell_progress(f"{name}: frames", place + 1, number)
    if frames is None:
        raise DataError(f"{name}: all of its {number:,} recordings are damaged")
    if path is not None:
        frames.flush()  # type: ignore[attr-defined]
        if len(whole) < number:
            _shorten(path, len(whole))
    return frames, np.array(whole, np.int64)


def _room(path: Path | None, shape: tuple[int, ...]) -> Bytes:
    if path is None:
        return np.empty(shape, np.uint8)
    room: Bytes = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    return room


def _shorten(path: Path, number: int) -> None:
    """Keep the first arrays of a file alone."""
    frames: Bytes = np.load(path, mmap_mode="r")
    shorter = path.with_name("shorter.npy")
    kept = np.lib.format.open_memmap(shorter, "w+", np.uint8, (number, *frames.shape[1:]))
    for place in range(number):
        kept[place] = frames[place]
    kept.flush()
    os.replace(shorter, path)
