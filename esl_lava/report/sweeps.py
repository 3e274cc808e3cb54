"""Pictures of sweeps: matplotlib figures with means over seeds, and single runs as dots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from esl_lava.report import canvas
from esl_lava.report.canvas import INK
from esl_lava.report.pictures import SHADES, legend, plain, shades, whole_numbers
from esl_lava.results.sweep import NO_RULE, Sweep, SweepRow
from esl_lava.results.table2 import PublishedRow, TrainedRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_by_eps(rows: Sequence[SweepRow]) -> Figure:
    """Draw accuracy and connections against the setting "eps" (ESL-SNNs, Fig. 2)."""
    picture, ((top,), (bottom,)) = canvas.panels(6, 5, rows=2, heights=[3, 2])
    ordered = sorted(rows, key=lambda row: row.settings["eps"])
    eps = [row.settings["eps"] for row in ordered]
    _line(top, eps, ordered, color=canvas.BLUE)
    top.set_ylabel("test accuracy (%)")
    gap = min((float(b) - float(a) for a, b in pairwise(eps)), default=1.0)
    connections = [row.connections for row in ordered]
    bars = bottom.bar(eps, connections, width=0.6 * gap, color=canvas.GREY)
    bottom.bar_label(bars, [f"{n:,}" for n in connections], fontsize=7, color=INK)
    bottom.set_ylabel("connections")
    bottom.set_xlabel("eps (Eq. 1)")
    bottom.set_xticks(eps)
    return picture


def draw_by_rules(rows: Sequence[SweepRow]) -> Figure:
    """Draw accuracy against growth rules: a line for each prune rule, a panel for each density.

    The picture is like ESL-SNNs, Fig. 4, but every density has its own scale. So rules can be
    distinguished even if all of them are good.

    Args:
        rows: rows with the settings "density", "prune" and "growth". The dense network has no
            rules and is a line across all panels.
    """
    ruled = [row for row in rows if row.settings["growth"] != NO_RULE]
    dense = [row for row in rows if row.settings["growth"] == NO_RULE]
    densities, prunes, growths = (
        list(dict.fromkeys(row.settings[key] for row in ruled))
        for key in ("density", "prune", "growth")
    )
    width = 1.5 + max(2.0, 0.8 * len(growths)) * max(1, len(densities))
    picture, [panels] = canvas.panels(width, 4, columns=max(1, len(densities)))
    for panel, density in zip(panels, densities):
        panel.set_title(f"density {100 * float(density):g} %", fontsize=9, color=INK)
        panel.set_xticks(range(len(growths)), map(str, growths), rotation=30, ha="right")
        panel.margins(x=0.15)
        for prune, colour in zip(prunes, SHADES):
            line = [
                row
                for row in ruled
                if (row.settings["density"], row.settings["prune"]) == (density, prune)
            ]
            places = [growths.index(row.settings["growth"]) for row in line]
            _line(panel, places, line, color=colour, label=prune, linewidth=0.8)
    for row in dense:
        for panel in panels:
            panel.axhline(100 * row.accuracy, color=canvas.GREY, linestyle="--", label="dense")
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend(title="prune", fontsize=8, title_fontsize=8, frameon=False)
    return picture


def draw_by_density(sweep: Sweep) -> Figure:
    """Draw accuracy against density, and densities of layers over epochs (ESL-SNNs, Fig. 3).

    Args:
        sweep: a sweep with rows of the settings "density" and "redistribution". Its `densities`
            are those of a run that redistributes connections between layers; None if it failed.
    """
    picture, [[left, right]] = canvas.panels(9, 3.6, columns=2)
    fixed = [row for row in sweep.rows if row.settings["redistribution"] == "none"]
    ordered = sorted(fixed, key=lambda row: float(row.settings["density"]))
    _line(left, [row.settings["density"] for row in ordered], ordered, color=canvas.BLUE)
    left.set(xlabel="density of the sparse layers", ylabel="test accuracy (%)")
    epochs = range(1, len(sweep.densities or ()) + 1)
    names = list(sweep.densities[0]) if sweep.densities else []
    for name, shade in zip(names, shades(len(names))):
        shares = [100 * epoch[name] for epoch in sweep.densities or ()]
        right.plot(epochs, shares, color=shade, marker=".", linewidth=1.2, label=plain(name))
    right.set(ylim=(0, 105), xlabel="epoch", ylabel="density of a layer (%)")
    right.xaxis.set_major_locator(whole_numbers())
    if names:
        legend(right)
    return picture


def draw_table2(sweep: Sweep) -> Figure:
    """Draw the dense and the sparse networks of Table 2: ours, and below them the paper's."""
    pairs: list[tuple[str, PublishedRow | TrainedRow, PublishedRow | TrainedRow]] = []
    dense = {row.part: row for row in sweep.trained or () if row.density == 1}
    for row in sweep.trained or ():
        if row.density < 1 and row.part in dense:
            pairs.append((row.part, dense[row.part], row))
    printed = {(row.dataset, row.network): row for row in sweep.published or () if row.density == 1}
    for one in sweep.published or ():
        whole = printed.get((one.dataset, one.network))
        if one.method == "ESL-SNNs" and whole is not None:
            pairs.append((f"the paper's {one.dataset}", whole, one))
    picture, axis = canvas.figure(6.4, 1 + 0.5 * len(pairs))
    for height, (_, whole_row, sparse) in enumerate(pairs):
        ours = isinstance(sparse, TrainedRow)
        ends = [100 * whole_row.accuracy, 100 * sparse.accuracy]
        axis.plot(ends, [height] * 2, "-", color=canvas.GREY, linewidth=1)
        for place, colour in zip(ends, (canvas.BLUE, canvas.ORANGE)):
            axis.plot(place, height, "o", color=colour, fillstyle="full" if ours else "none")
        # As in the table: the difference of the rounded accuracies may differ from this loss.
        label = f"{-100 * (sparse.loss or 0.0):+.2f} at a density of {sparse.density:g}"
        for end in (whole_row, sparse):
            if isinstance(end, TrainedRow):
                seeds = [100 * value for value in end.accuracies]
                axis.plot(seeds, [height] * len(seeds), ".", color=INK, markersize=3)
        above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": 8}
        axis.annotate(label, (sum(ends) / 2, height), (0, 7), **above)
    axis.set_yticks(range(len(pairs)), [plain(name) for name, *_ in pairs])
    axis.set_ylim(len(pairs) - 0.5, -0.5)
    axis.margins(x=0.2)  # the labels are wider than the lines below them
    axis.set_xlabel("test accuracy (%); blue: dense, orange: sparse, black: seeds")
    return picture


def draw_methods(rows: Sequence[SweepRow]) -> Figure:
    """Draw the accuracy of each training method (the setting "method") and its connections."""
    picture, axis = canvas.figure(6, 1.2 + 0.5 * len(rows))
    for place, row in enumerate(rows):
        seeds = [100 * value for value in row.accuracies]
        axis.plot(seeds, [place] * len(seeds), ".", color=canvas.GREY)
        axis.plot(100 * row.accuracy, place, "|", color=canvas.BLUE, markersize=18)
        above = 100 * row.accuracy, place - 0.25
        axis.annotate(f"{above[0]:.2f} %", above, ha="center", fontsize=7, color=canvas.BLUE)
    names = [f"{row.settings['method']}\n{row.connections:,}" for row in rows]
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.7)
    axis.margins(x=0.1)
    axis.set_xlabel("test accuracy (%); dots are seeds, bars their mean")
    axis.set_title("method, connections", fontsize=8, loc="left", color=INK)
    return picture


def draw_table1(rows: Sequence[SweepRow]) -> Figure:
    """Draw the accuracy of each training method (the setting "method") against the operations.

    The operations of an inference are shown by connections and as counted. Grey dots are single
    seeds.
    """
    picture, axis = canvas.figure(6, 3.6)
    for row in rows:
        accuracy = 100 * row.accuracy
        seeds = [100 * value for value in row.accuracies]
        axis.plot([row.connections] * len(seeds), seeds, ".", color=canvas.GREY, markersize=4)
        axis.plot([row.sops, row.connections], [accuracy] * 2, "-", color=canvas.GREY, linewidth=1)
        axis.plot(row.connections, accuracy, "o", color=canvas.BLUE)
        axis.plot(row.sops, accuracy, "o", color=canvas.ORANGE)
        label, place = f"{row.settings['method']}, {accuracy:.2f} %", (row.connections, accuracy)
        axis.annotate(
            label, place, (10, 0), textcoords="offset points", va="center", size=8, color=INK
        )
    axis.plot([], [], "o", color=canvas.BLUE, label="connections (the paper's count)")
    axis.plot([], [], "o", color=canvas.ORANGE, label="synaptic operations, counted")
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.set_xscale("log")
    operations = [value for row in rows for value in (row.sops, row.connections)]
    axis.set_xlim(0.6 * min(operations), 3 * max(operations))  # room for the labels
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.margins(y=0.15)
    axis.set(xlabel="operations of an inference", ylabel="test accuracy (%)")
    return picture


def _line(axis: Axes, places: Sequence[Any], rows: Sequence[SweepRow], **style: Any) -> None:
    """Draw means as a line and single runs as dots."""
    axis.plot(places, [100 * row.accuracy for row in rows], marker="o", markersize=4, **style)
    for place, row in zip(places, rows):
        if len(row.accuracies) > 1:
            values = [100 * value for value in row.accuracies]
            axis.plot([place] * len(values), values, ".", color=style["color"], markersize=3)
