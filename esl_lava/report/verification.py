"""Tables of verifications for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from esl_lava.report.tables import render_facts, render_table
from esl_lava.results.verification import LayerTimes, Verification


def render_verification(verification: Verification, title: str) -> RenderableType:
    """Render the numbers of compared integers, spikes and positions, and the differences."""
    return render_facts(
        [
            ("integers compared", f"{verification.integers.compared:,}"),
            ("integers that differ", f"{verification.integers.total:,}"),
            ("samples verified", f"{verification.samples:,}"),
            ("spikes compared", f"{verification.spikes:,}"),
            ("positions compared (sample, step, neuron)", f"{verification.positions:,}"),
            *((f"differences, {name}", f"{n:,}") for name, n in verification.differences.items()),
        ],
        f"{title}, on {verification.dataset}",
    )


def render_firing_times(layers: Sequence[LayerTimes]) -> RenderableType:
    """Render the distances between the steps of spikes and the exact times of the training."""
    rows = (
        (
            layer.layer,
            f"{layer.fired:,}",
            f"{layer.moved:,}",
            f"{layer.furthest}",
            f"{layer.lost:,}",
            f"{layer.drift:.3f}",
        )
        for layer in layers
    )
    headings = "layer, spikes, moved, most steps, lost or new, mean drift"
    return Group(
        render_table("firing steps on the chip and exact times of the training", headings, rows),
        Text(
            "moved: spikes whose step is not the exact time rounded up, for the same inputs and "
            "weights, and the most steps between them; lost or new: spikes that only the training "
            "or only the chip has; mean drift: steps between the spikes of both"
        ),
    )
