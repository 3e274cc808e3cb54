"""The look all pictures share, and how they are written."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from esl_lava.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_DPI = 160
"""Pixels an inch of pictures that are no part of a page."""

INK = "#1f2933"
BLUE = "#2a6f97"
ORANGE = "#d1602b"
GREY = "#9aa5b1"
GREEN = "#3a7d44"

THEME = {INK: "ink", "#000000": "ink", BLUE: "blue", ORANGE: "orange", GREY: "grey", GREEN: "green"}
"""Colours of pictures within a page -> the page's name of them."""


def panels(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure that needs no display, and the axes of its rows; a column has one x axis.

    Args:
        width, height: in inches.
        rows, columns: of axes.
        heights: of the rows, relative to one another; None: all the same.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(picture)
    grid = picture.subplots(
        rows, columns, squeeze=False, sharex="col", gridspec_kw={"height_ratios": heights}
    )
    for axis in grid.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=8)
    return picture, grid.tolist()


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of `panels` with one pair of axes."""
    picture, [[axis]] = panels(width, height)
    return picture, axis


def save_png(picture: Figure, path: Path) -> None:
    """Write a figure as PNG; the same figure gives the same bytes.

    Raises:
        FileError: when it cannot be written.
    """
    content = io.BytesIO()
    # Without this, matplotlib writes its version into the file.
    picture.savefig(content, format="png", dpi=PNG_DPI, metadata={"Software": None})
    replace_file(path, content.getvalue())


def svg(picture: Figure, name: str) -> str:
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
