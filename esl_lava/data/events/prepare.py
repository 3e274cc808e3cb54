"""Frames of many recordings: made once, stored in the user's cache, and mapped from there."""

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
"""Version of the rules by which frames are made. Stored frames of another version are not used."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Recordings:
    """The recordings of a split, none of which is read yet.

    Attributes:
        key: identifies these recordings and the state of their files.
        openers: functions that open the recordings, one each.
        labels: (recordings,) int64, their classes.
    """

    key: tuple[object, ...]
    openers: Sequence[Callable[[], EventRecording]]
    labels: Ints


def prepare(
    name: str, recordings: Recordings, framing: Framing, skip_damaged: bool = False
) -> tuple[Bytes, Ints]:
    """Return frames of all recordings, (samples, T, polarities, rows, columns) uint8, and labels.

    The frames are stored in a file of the user's cache. The array is that file, mapped into memory.
    If the cache cannot be written, the frames are held in memory.

    Args:
        name: name of the data set and the split.
        recordings: the recordings; none is opened if their frames are in the cache.
        framing: how frames are made.
        skip_damaged: leave damaged recordings out, with a warning.

    Raises:
        FileError, DataError: as in `make_frames`, for the first damaged recording; with
            `skip_damaged` a DataError if all recordings are damaged.
    """
    facts = repr((VERSION, name, recordings.key, astuple(framing), skip_damaged))
    path = cache_folder() / "frames" / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()}.npy"
    cached = _read_cached(path, recordings, framing)
    if cached is not None:
        return cached
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path.parent))
    except OSError as error:
        _logger.warning("%s cannot be written (%s): frames are not stored", path.parent, error)
        frames, intact = _make_all(None, name, recordings, framing, skip_damaged)
        return frames[: len(intact)], recordings.labels[intact]
    try:
        _, intact = _make_all(folder / path.name, name, recordings, framing, skip_damaged)
        np.save(folder / "intact.npy", intact)
        os.replace(folder / "intact.npy", _intact_path(path))
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    cached = _read_cached(path, recordings, framing)
    assert cached is not None
    return cached


def _intact_path(path: Path) -> Path:
    """Return the path of the file, beside stored frames, with the numbers of their recordings."""
    return path.with_name(f"{path.stem}-whole.npy")


def _read_cached(path: Path, recordings: Recordings, framing: Framing) -> tuple[Bytes, Ints] | None:
    """Return frames and labels from the cache, or None if it has none of these recordings."""
    try:
        intact: Ints = np.load(_intact_path(path), allow_pickle=False)
        frames: Bytes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    number, steps = len(recordings.labels), framing.steps
    if intact.dtype != np.int64 or intact.ndim != 1 or ((intact < 0) | (intact >= number)).any():
        return None
    fits = frames.dtype == np.uint8 and frames.ndim == 5 and frames.shape[1] == steps
    return (frames, recordings.labels[intact]) if fits and len(frames) == len(intact) else None


def _make_all(
    path: Path | None, name: str, recordings: Recordings, framing: Framing, skip_damaged: bool
) -> tuple[Bytes, Ints]:
    """Return the frames, in a new file or in memory, and (frames,) the numbers of their recordings.

    Only intact recordings have frames. Without a file, the array may be longer than their number.
    """
    number = len(recordings.openers)
    frames: Bytes | None = None
    intact: list[int] = []
    for index, open_recording in enumerate(recordings.openers):
        try:
            frames_of_one = make_frames(open_recording(), framing)
        except (DataError, FileError) as error:
            if not skip_damaged:
                raise
            _logger.warning("%s: a damaged recording is left out: %s", name, error)
            continue
        if frames is None:
            frames = _allocate(path, (number, *frames_of_one.shape))
        frames[len(intact)] = frames_of_one
        intact.append(index)
        tell_progress(f"{name}: frames", index + 1, number)
    if frames is None:
        raise DataError(
            f"{name}: all of its {number:,} recordings are damaged", "damaged", value=number
        )
    if path is not None:
        frames.flush()  # type: ignore[attr-defined]
        if len(intact) < number:
            _shorten(path, len(intact))
    return frames, np.array(intact, np.int64)


def _allocate(path: Path | None, shape: tuple[int, ...]) -> Bytes:
    """Return a new array, in a file or in memory."""
    if path is None:
        return np.empty(shape, np.uint8)
    array: Bytes = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    return array


def _shorten(path: Path, number: int) -> None:
    """Shorten the array in a file to its first `number` entries."""
    frames: Bytes = np.load(path, mmap_mode="r")
    shorter_path = path.with_name("shorter.npy")
    shorter = np.lib.format.open_memmap(shorter_path, "w+", np.uint8, (number, *frames.shape[1:]))
    for index in range(number):
        shorter[index] = frames[index]
    shorter.flush()
    os.replace(shorter_path, path)
