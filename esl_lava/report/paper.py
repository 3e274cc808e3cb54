"""Tables of the ESL-SNNs paper beside our networks, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from esl_lava.energy.table1 import PAPER, MeasuredNetwork, Table1, changes
from esl_lava.report.tables import hundredths, joules, render_table
from esl_lava.results.table2 import PublishedRow, TrainedRow


def render_table1(result: Table1) -> RenderableType:
    """Render Table 1, recomputed from connection counts, beside the printed numbers."""
    rows = (
        (
            row.paper.model,
            f"{row.connections:,}",
            f"{row.density:.4f}",
            row.paper.operations,
            joules(row.gpu_joules),
            row.paper.gpu,
            joules(row.truenorth_joules),
            row.paper.truenorth,
        )
        for row in result.rows
    )
    table = render_table(
        "Table 1 of ESL-SNNs, recomputed from its connection counts (784-800-10, MNIST)",
        "network, connections, density, paper's 'FLOPS', GPU (J), paper, TrueNorth (J), paper",
        rows,
    )
    return Group(table, *(Text(f"- {remark}") for remark in result.remarks))


def render_measured_table1(rows: Sequence[MeasuredNetwork], seeds: int) -> RenderableType:
    """Render our trained networks beside Table 1, with the energy of the counted operations.

    Args:
        rows: one network for each method; "dense" and "esl" must be among them.
        seeds: number of seeds of each mean.
    """
    accuracies, energies = [], []
    for row in rows:
        paper = row.paper
        loss = "" if paper is None else f"{float(PAPER[0].accuracy) - float(paper.accuracy):.2f}"
        accuracies.append(
            (
                row.method,
                f"{100 * row.accuracy:.2f}",
                paper.accuracy if paper else "",
                f"{100 * row.loss:.2f}",
                loss,
                f"{row.density:.4f}",
                paper.density if paper else "",
                f"{row.connections:,}",
            )
        )
        energies.append(
            (
                row.method,
                joules(row.gpu),
                paper.gpu if paper else "",
                joules(row.gpu_by_sops),
                joules(row.truenorth),
                paper.truenorth if paper else "",
                joules(row.truenorth_by_sops),
                f"{row.sops:,.0f}",
                f"{row.most_sops:,}",
            )
        )
    return Group(
        render_table(
            f"test accuracy of the exported integer networks, mean of {seeds} seeds",
            "network, test %, paper, loss, paper, density, paper, connections",
            accuracies,
        ),
        render_table(
            "joules of an inference, by connections (the convention of the paper) and by counted "
            "operations",
            "network, GPU, paper, counted, TrueNorth, paper, counted, SOPs, most",
            energies,
            narrow=True,
        ),
        *(Text(f"- {sentence}") for sentence in changes(rows)),
    )


def render_table2(
    trained: Sequence[TrainedRow], published: Sequence[PublishedRow], title: str
) -> RenderableType:
    """Render our networks in the columns of Table 2, and below them the rows of the paper."""
    ours = (
        (
            row.part,
            row.layers,
            f"{row.steps}",
            f"{row.epochs}",
            f"{row.density:g}",
            f"{row.weights:,}",
            hundredths(row.accuracy),
            hundredths(row.spread),
            hundredths(row.loss),
        )
        for row in trained
    )
    printed = (
        (
            row.dataset,
            row.network or "",
            row.method,
            "" if row.density is None else f"{row.density:g}",
            hundredths(row.accuracy),
            hundredths(row.loss),
        )
        for row in published
    )
    headings = "part, network, T, epochs, density, weights, test %, +-, loss"
    return Group(
        Text(title),
        render_table("", headings, ours, numbers=slice(2, None), narrow=True),
        Text("Table 2 as printed in the paper"),
        render_table(
            "", "data, network, method, density, test %, loss", printed, numbers=slice(3, None)
        ),
    )
