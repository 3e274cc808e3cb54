"""Pictures of sweeps: means over seeds, with every single run as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from esl_lava.report import canvas
from esl_lava.results.sweep import SweepRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (canvas.BLUE, canvas.ORANGE, canvas.GREEN)


def draw_by_eps(rows: Sequence[SweepRow]) -> Figure:
    """Accuracy, and below it connections, over eps (ESL-SNNs, Fig. 2).

    Args:
        rows: with the setting "eps".
    """
    picture, ((top,), (bottom,)) = canvas.panels(6, 5, rows=2, heights=[3, 2])
    ordered = sorted(rows, key=lambda row: row.settings["eps"])
    eps = [row.settings["eps"] for row in ordered]
    _line(top, eps, ordered, color=canvas.BLUE)
    top.set_ylabel("test accuracy (%)")
    gap = min((float(b) - float(a) for a, b in pairwise(eps)), default=1.0)
    connections = [row.connections for row in ordered]
    bars = bottom.bar(eps, connections, width=0.6 * gap, color=canvas.GREY)
    bottom.bar_label(bars, [f"{n:,}" for n in connections], fontsize=7, color=canvas.INK)
    bottom.set_ylabel("connections")
    bottom.set_xlabel("eps (Eq. 1)")
    bottom.set_xticks(eps)
    return picture


def draw_by_rules(rows: Sequence[SweepRow]) -> Figure:
    """Accuracy over growth rules, a line for each prune rule, a panel for each density.

    As in ESL-SNNs, Fig. 4, but every density has its own scale, so that rules can be told
    apart where all of them do well.

    Args:
        rows: with the settings "density", "prune" and "growth".
    """
    densities, prunes, growths = (
        list(dict.fromkeys(row.settings[key] for row in rows))
        for key in ("density", "prune", "growth")
    )
    width = 1.5 + max(2.0, 0.8 * len(growths)) * len(densities)
    picture, [panels] = canvas.panels(width, 4, columns=len(densities))
    for panel, density in zip(panels, densities):
        panel.set_title(f"density {100 * float(density):g} %", fontsize=9, color=canvas.INK)
        panel.set_xticks(range(len(growths)), map(str, growths), rotation=30, ha="right")
        panel.margins(x=0.15)
        for prune, colour in zip(prunes, COLOURS):
            line = [
                row
                for row in rows
                if (row.settings["density"], row.settings["prune"]) == (density, prune)
            ]
            places = [growths.index(row.settings["growth"]) for row in line]
            _line(panel, places, line, color=colour, label=prune, linewidth=0.8)
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend(title="prune", fontsize=8, title_fontsize=8, frameon=False)
    return picture


def draw_methods(rows: Sequence[SweepRow]) -> Figure:
    """Accuracy of each way to train, beside its number of connections.

    Args:
        rows: with the setting "method".
    """
    picture, axis = canvas.figure(6, 1.2 + 0.5 * len(rows))
    for place, row in enumerate(rows):
        axis.plot(
            [100 * value for value in row.accuracies],
            [place] * len(row.seeds),
            ".",
            color=canvas.GREY,
        )
        axis.plot(100 * row.accuracy, place, "|", color=canvas.BLUE, markersize=18)
        axis.annotate(
            f"{100 * row.accuracy:.2f} %",
            (100 * row.accuracy, place - 0.25),
            ha="center",
            fontsize=7,
            color=canvas.BLUE,
        )
    names = [f"{row.settings['method']}\n{row.connections:,}" for row in rows]
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.7)
    axis.margins(x=0.1)
    axis.set_xlabel("test accuracy (%); dots are seeds, bars their mean")
    axis.set_title("method, connections", fontsize=8, loc="left", color=canvas.INK)
    return picture


def draw_table1(rows: Sequence[SweepRow]) -> Figure:
    """Accuracy over the operations of an inference, by connections and as counted.

    Grey dots are single seeds.

    Args:
        rows: with the setting "method".
    """
    picture, axis = canvas.figure(6, 3.6)
    for row in rows:
        accuracy = 100 * row.accuracy
        seeds = [100 * value for value in row.accuracies]
        axis.plot([row.connections] * len(seeds), seeds, ".", color=canvas.GREY, markersize=4)
        axis.plot([row.sops, row.connections], [accuracy] * 2, "-", color=canvas.GREY, linewidth=1)
        axis.plot(row.connections, accuracy, "o", color=canvas.BLUE)
        axis.plot(row.sops, accuracy, "o", color=canvas.ORANGE)
        axis.annotate(
            f"{row.settings['method']}, {accuracy:.2f} %",
            (row.connections, accuracy),
            textcoords="offset points",
            xytext=(10, 0),
            va="center",
            fontsize=8,
            color=canvas.INK,
        )
    axis.plot([], [], "o", color=canvas.BLUE, label="connections (the paper's count)")
    axis.plot([], [], "o", color=canvas.ORANGE, label="synaptic operations, counted")
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.set_xscale("log")
    operations = [value for row in rows for value in (row.sops, row.connections)]
    axis.set_xlim(0.6 * min(operations), 3 * max(operations))  # room for the names
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.margins(y=0.15)
    axis.set_xlabel("operations of an inference")
    axis.set_ylabel("test accuracy (%)")
    return picture


def _line(axis: Axes, places: Sequence[Any], rows: Sequence[SweepRow], **style: Any) -> None:
    """Means as a line, single runs as dots."""
    axis.plot(places, [100 * row.accuracy for row in rows], marker="o", markersize=4, **style)
    for place, row in zip(places, rows):
        if len(row.accuracies) > 1:
            values = [100 * value for value in row.accuracies]
            axis.plot([place] * len(values), values, ".", color=style["color"], markersize=3)
