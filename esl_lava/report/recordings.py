"""Pictures of recordings: frames beside one another, and one after another."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from esl_lava.arrays import Bytes
from esl_lava.files import replace_file

GROUND = (16, 20, 26)
ON, OFF = (255, 176, 80), (80, 160, 255)
"""Red, green and blue of nothing, of ON and of OFF events."""

SIDE = 256
"""Pixels are repeated so that a frame has about so many rows."""

GAP = 4
"""Pixels between two frames of a sheet."""

MILLISECONDS = 100
"""That a frame is shown."""


def paint(frames: Bytes) -> Bytes:
    """(T, rows, columns, 3) uint8 of frames (T, 2, rows, columns): the brighter, the more events.

    A counter at the 99th percentile of those that are not 0 is as bright as can be.
    """
    used = frames[frames > 0]
    most = max(1.0, float(np.percentile(used, 99))) if used.size else 1.0
    share = np.minimum(frames / most, 1)
    off, on = share[:, 0, ..., None], share[:, 1, ..., None]
    ground, colours = np.array(GROUND), (np.array(OFF), np.array(ON))
    mixed = ground + off * (colours[0] - ground) + on * (colours[1] - ground)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def save_sheet(frames: Bytes, path: Path) -> None:
    """Write frames beside one another, line by line, as a PNG.

    Raises:
        FileError: when it cannot be written.
    """
    painted = _enlarged(paint(frames))
    number, rows, columns, _ = painted.shape
    wide = math.ceil(math.sqrt(number))
    high = math.ceil(number / wide)
    shape = high * (rows + GAP) - GAP, wide * (columns + GAP) - GAP, 3
    sheet = np.full(shape, 255, np.uint8)
    for place, frame in enumerate(painted):
        top, left = place // wide * (rows + GAP), place % wide * (columns + GAP)
        sheet[top : top + rows, left : left + columns] = frame
    _save(path, [sheet], "PNG")


def save_animation(frames: Bytes, path: Path) -> None:
    """Write frames one after another as a GIF that begins again.

    Raises:
        FileError: when it cannot be written.
    """
    moving = {"save_all": True, "duration": MILLISECONDS, "loop": 0}
    _save(path, list(_enlarged(paint(frames))), "GIF", **moving)


def _enlarged(painted: Bytes) -> Bytes:
    times = max(1, SIDE // painted.shape[1])
    return painted.repeat(times, axis=1).repeat(times, axis=2)


def _save(path: Path, pictures: list[Bytes], form: str, **options: object) -> None:
    from PIL import Image

    first, *others = [Image.fromarray(picture) for picture in pictures]
    content = io.BytesIO()
    if others:
        options["append_images"] = others
    first.save(content, form, **options)
    replace_file(path, content.getvalue())
