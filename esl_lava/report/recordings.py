"""Pictures of recordings: all frames on one sheet, and an animation."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from esl_lava.arrays import Bytes
from esl_lava.files import replace_file

BACKGROUND = (16, 20, 26)
ON, OFF = (255, 176, 80), (80, 160, 255)
"""Colours (red, green, blue) of the background, of ON events and of OFF events."""

SIDE = 256
"""Largest number of rows to which frames are enlarged in a picture, by repeating pixels."""

GAP = 4
"""Number of pixels between two frames of a sheet."""

MILLISECONDS = 100
"""Duration of a frame in an animation."""


def paint(frames: Bytes) -> Bytes:
    """Return coloured frames. A pixel is the brighter, the more events it has.

    The brightest colour stands for the 99th percentile of the counts that are not 0.

    Args:
        frames: (T, 2, rows, columns) counts of events, OFF and ON.

    Returns:
        (T, rows, columns, 3) uint8.
    """
    positive = frames[frames > 0]
    most = max(1.0, float(np.percentile(positive, 99))) if positive.size else 1.0
    share = np.minimum(frames / most, 1)
    off, on = share[:, 0, ..., None], share[:, 1, ..., None]
    background, off_colour, on_colour = np.array(BACKGROUND), np.array(OFF), np.array(ON)
    mixed = background + off * (off_colour - background) + on * (on_colour - background)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def save_sheet(frames: Bytes, path: Path) -> None:
    """Write a PNG that shows the frames side by side, line by line.

    Raises:
        FileError: when the file cannot be written.
    """
    painted = _enlarge(paint(frames))
    number, rows, columns, _ = painted.shape
    across = math.ceil(math.sqrt(number))
    down = math.ceil(number / across)
    shape = down * (rows + GAP) - GAP, across * (columns + GAP) - GAP, 3
    sheet = np.full(shape, 255, np.uint8)
    for place, frame in enumerate(painted):
        top, left = place // across * (rows + GAP), place % across * (columns + GAP)
        sheet[top : top + rows, left : left + columns] = frame
    _save(path, [sheet], "PNG")


def save_animation(frames: Bytes, path: Path) -> None:
    """Write a GIF that plays the frames in a loop.

    Raises:
        FileError: when the file cannot be written.
    """
    options = {"save_all": True, "duration": MILLISECONDS, "loop": 0}
    _save(path, list(_enlarge(paint(frames))), "GIF", **options)


def _enlarge(painted: Bytes) -> Bytes:
    """Repeat the pixels of frames as often as `SIDE` rows allow; larger frames stay as they are."""
    times = max(1, SIDE // painted.shape[1])
    return painted.repeat(times, axis=1).repeat(times, axis=2)


def _save(path: Path, pictures: list[Bytes], form: str, **options: object) -> None:
    """Write pictures as one file in a format of Pillow."""
    from PIL import Image

    first, *others = [Image.fromarray(picture) for picture in pictures]
    content = io.BytesIO()
    if others:
        options["append_images"] = others
    first.save(content, form, **options)
    replace_file(path, content.getvalue())
