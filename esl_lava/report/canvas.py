"""The look all pictures share, and how they are written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava.files import replace_file

INK = "#1f2933"
BLUE = "#2a6f97"
ORANGE = "#d1602b"
GREY = "#9aa5b1"


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
