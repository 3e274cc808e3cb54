"""Frames of many recordings: made once, kept in the user's cache, and read from there in place."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np

from esl_lava.arrays import Bytes
from esl_lava.data.events.frames import Framing, make_frames
from esl_lava.data.events.recording import EventRecording
from esl_lava.data.folders import cache_folder

VERSION = 1
"""Of the rules by which frames are made: kept frames of another one are made anew."""

_EVERY = 10.0
"""Seconds between two lines about the progress."""

_logger = logging.getLogger(__name__)


def prepare(
    name: str,
    key: tuple[object, ...],
    number: int,
    recordings: Callable[[], Iterator[EventRecording]],
    framing: Framing,
) -> Bytes:
    """Frames of all recordings, (samples, T, polarities, rows, columns) uint8.

    They are kept in a file of the user's cache, and the array is that file, which the system reads
    where it is needed. Where the cache cannot be written they are held in memory.

    Args:
        name: of the data set.
        key: what tells these recordings from others.
        number: of the recordings.
        recordings: opens them one after another; it is not called where frames are kept.
        framing: how frames are made.

    Raises:
        FileError, DataError: as `make_frames`, of the first recording that is damaged.
    """
    facts = repr((VERSION, name, key, number, astuple(framing)))
    path = cache_folder() / "frames" / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()}.npy"
    kept = _kept(path, number, framing)
    if kept is not None:
        return kept
    _logger.info("%s: frames of %s recordings are made once", name, f"{number:,}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path.parent))
    except OSError as error:
        _logger.warning("%s cannot be written (%s): frames are not kept", path.parent, error)
        return _made(None, name, number, recordings, framing)
    try:
        _made(folder / path.name, name, number, recordings, framing)
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = _kept(path, number, framing)
    assert found is not None
    return found


def _kept(path: Path, number: int, framing: Framing) -> Bytes | None:
    """The frames in a file of the cache; None where there are none of that number."""
    try:
        found: Bytes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    fits = (
        found.dtype == np.uint8 and found.ndim == 5 and found.shape[:2] == (number, framing.steps)
    )
    return found if fits else None


def _made(
    path: Path | None,
    name: str,
    number: int,
    recordings: Callable[[], Iterator[EventRecording]],
    framing: Framing,
) -> Bytes:
    """The frames, in a new file or in memory."""
    frames: Bytes | None = None
    told = time.monotonic()
    for place, recording in enumerate(recordings()):
        one = make_frames(recording, framing)
        if frames is None:
            shape = number, *one.shape
            frames = (
                np.empty(shape, np.uint8)
                if path is None
                else np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            )
        frames[place] = one
        if time.monotonic() - told > _EVERY:
            told = time.monotonic()
            _logger.info("%s: %s of %s recordings", name, f"{place + 1:,}", f"{number:,}")
    assert frames is not None
    if path is not None:
        frames.flush()  # type: ignore[attr-defined]
    return frames
