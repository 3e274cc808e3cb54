"""The look all pictures share, and how they are written."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava.files import replace_file

INK = "#1f2933"
BLUE = "#2a6f97"
ORANGE = "#d1602b"
GREY = "#9aa5b1"
GREEN = "#3a7d44"

THEME = {INK: "ink", "#000000": "ink", BLUE: "blue", ORANGE: "orange", GREY: "grey", GREEN: "green"}
"""Colours of pictures within a page -> the page's name of them."""


def figure(width: float, height: float, **grid: Any) -> tuple[Any, Any]:
    """A figure that needs no display, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(picture)
    axes = picture.subplots(**grid)
    for axis in np.ravel(np.array(axes, dtype=object)):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=8)
    return picture, axes


def save(picture: Any, path: Path) -> None:
    """Write a figure as PNG; the same figure gives the same bytes.

    Raises:
        FileError: when it cannot be written.
    """
    content = io.BytesIO()
    # Without this, matplotlib writes its version into the file.
    picture.savefig(content, format="png", metadata={"Software": None})
    replace_file(path, content.getvalue())


def svg(picture: Any, name: str) -> str:
    """A figure as an `<svg>` element to stand within a page; the same figure, the same text.

    Colours of `THEME` become variables of the page's style sheet, so that the picture goes
    with a light or a dark page. Text stays text, in the page's font.

    Args:
        picture: as `figure` makes it.
        name: unique within the page: a prefix of all ids in the element.
    """
    from matplotlib import rc_context

    content = io.StringIO()
    # Without salt and date, ids and the clock would differ from run to run.
    absent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": "esl-lava", "svg.fonttype": "none"}):
        picture.savefig(content, format="svg", transparent=True, metadata=absent)
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r" <metadata>.*?</metadata>\n", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = re.sub(r" <defs>\n  <style.*?</defs>\n", "", text, count=1, flags=re.DOTALL)
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var(--{variable})")
    return text
