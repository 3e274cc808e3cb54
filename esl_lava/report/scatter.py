"""The picture that compares runs: accuracy over costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from esl_lava.report import canvas
from esl_lava.report.canvas import INK
from esl_lava.report.pictures import WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tick(value: float) -> str:
    """Format a number of an axis with three digits: 2e-07, 1.25e-06, 0.5, 12."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.3g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{exponent}"


def draw_scatter(
    costs: Sequence[float],
    accuracies: Sequence[float],
    axis_label: str,
    *,
    front: Sequence[bool] | None = None,
    joined: bool = False,
) -> Figure:
    """Draw the accuracy of numbered runs over their costs, on a logarithmic axis if needed.

    Args:
        costs: positive cost of each run, at least one.
        accuracies: accuracy of each run, 0..1.
        axis_label: name of the costs.
        front: whether each run is on the Pareto front, whose runs are marked.
        joined: join the runs of the Pareto front by a line.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    picture, axis = canvas.figure(WIDTH, 2.9)
    shares = [100 * accuracy for accuracy in accuracies]
    marked = front if front is not None else [False] * len(costs)
    best = sorted((x, y) for x, y, first in zip(costs, shares, marked) if first)
    if joined and len(best) > 1:
        axis.step(*zip(*best), where="post", color=canvas.GREY, linewidth=1)
    for number, (x, y, first) in enumerate(zip(costs, shares, marked), 1):
        axis.plot(x, y, "o", color=canvas.ORANGE if first else canvas.BLUE, markersize=5)
        axis.annotate(
            f"{number}", (x, y), (0, 6), textcoords="offset points", ha="center", size=8, color=INK
        )
    if max(costs) > 3 * min(costs):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
    axis.margins(x=0.2, y=0.25)
    axis.set(xlabel=axis_label, ylabel="accuracy (%)")
    return picture
