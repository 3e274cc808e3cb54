"""The style of all pictures, and the functions that save them."""

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
"""Pixels per inch of PNG files."""

INK = "#1f2933"
BLUE = "#2a6f97"
ORANGE = "#d1602b"
GREY = "#9aa5b1"
GREEN = "#3a7d44"

THEME = {INK: "ink", "#000000": "ink", BLUE: "blue", ORANGE: "orange", GREY: "grey", GREEN: "green"}
"""Colour of a picture -> its name in the style sheet of the page."""


def panels(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure that needs no display, and its axes by rows.

    The axes of a column share their x axis.

    Args:
        width, height: size in inches.
        rows, columns: numbers of rows and columns of axes.
        heights: relative heights of the rows; None makes them equal.
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
    """Return a figure as `panels` with a single pair of axes."""
    picture, [[axis]] = panels(width, height)
    return picture, axis


def save_png(picture: Figure, path: Path) -> None:
    """Write a figure as PNG. Equal figures give equal bytes.

    Raises:
        FileError: when the file cannot be written.
    """
    content = io.BytesIO()
    # By default matplotlib writes its version into the file.
    picture.savefig(content, format="png", dpi=PNG_DPI, metadata={"Software": None})
    replace_file(path, content.getvalue())


def svg(picture: Figure, name: str) -> str:
    """Return a figure as an `<svg>` element for a page. Equal figures give equal texts.

    Colours of `THEME` become variables of the page's style sheet, so that the picture suits a
    light and a dark page. Text stays text, in the font of the page.

    Args:
        picture: a figure as `figure` returns it.
        name: prefix of all ids in the element, unique in the page.
    """
    from matplotlib import rc_context

    content = io.StringIO()
    # A random salt and the date would make the text differ from run to run.
    omitted = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": "esl-lava", "svg.fonttype": "none"}):
        picture.savefig(content, format="svg", transparent=True, metadata=omitted)
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
