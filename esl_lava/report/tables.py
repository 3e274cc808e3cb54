"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esl_lava.counts import Counts
from esl_lava.energy.table1 import PAPER, Measured, Table1, changes, contradiction
from esl_lava.results.account import Account
from esl_lava.results.evaluation import NetworkRun
from esl_lava.results.price import Price
from esl_lava.results.verification import LayerTimes, Verification


def joules(value: float) -> str:
    """As the paper prints them: 1.13E-05."""
    return f"{value:.2E}"


def percent(share: float) -> str:
    """A share of 1 with two decimals."""
    return f"{100 * share:.2f} %"


def facts(rows: Iterable[tuple[str, str]], title: str) -> RenderableType:
    """A title, unbroken as it names files, and two columns: what, and its value."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, value)
    return Group(Text(title, no_wrap=True, overflow="ignore"), table)


def account(found: Account, title: str) -> RenderableType:
    """The main figures of a finished run."""
    verified = found.verification
    rows = [
        ("accuracy of the integer network", percent(found.evaluation.accuracy or 0.0)),
        ("on held-back test samples", f"{found.evaluation.samples:,}"),
        ("density, all layers", percent(found.network.density)),
        ("connections", f"{found.network.connections:,}"),
        ("samples verified on Lava", f"{verified.samples:,}"),
        ("spikes compared", f"{verified.spikes:,}"),
        ("differences", f"{verified.total:,}"),
        ("SOPs per sample", f"{found.evaluation.sops_per_sample:,.1f}"),
    ]
    rows += [
        (f"joules per sample, {name}", joules(priced.measured.total))
        for name, priced in found.prices.items()
    ]
    return facts(rows, title)


def network_run(found: NetworkRun, net: str) -> RenderableType:
    """What a network of a file did on samples."""
    done = found.evaluation
    known = [] if done.accuracy is None else [("accuracy", percent(done.accuracy))]
    split = f" ({done.split})" if done.split else ""
    return facts(
        [
            *known,
            ("samples", f"{done.samples:,}"),
            ("density, all layers", percent(found.network.density)),
            ("SOPs per sample", f"{done.sops_per_sample:,.1f}"),
            ("seconds", f"{done.seconds:.2f}"),
        ],
        f"{net} on {done.dataset}{split}, backend {done.backend}",
    )


def verification(found: Verification, title: str) -> RenderableType:
    """How much was compared, and how much differs."""
    return facts(
        [
            ("integers compared", f"{found.integers.compared:,}"),
            ("integers that differ", f"{found.integers.total:,}"),
            ("samples verified", f"{found.samples:,}"),
            ("spikes compared", f"{found.spikes:,}"),
            ("positions compared (silent and readout too)", f"{found.positions:,}"),
            *((f"differences, {name}", f"{n:,}") for name, n in found.differences.items()),
        ],
        f"{title}, on {found.dataset}",
    )


def layer_counts(counts: Counts) -> Table:
    """Weights, connections, SOPs, spikes and neuron updates per layer; run figures per sample."""
    table = number_table(
        "per layer; run figures per sample",
        "layer",
        "neurons",
        "weights",
        "density",
        "connections",
        "synapses",
        "SOPs",
        "spikes",
        "updates",
    )
    table.padding = (0, 1, 0, 0)  # nine columns in the hundred of a file
    for layer in counts.layers:
        table.add_row(
            layer.name,
            f"{layer.neurons:,}",
            f"{layer.weights:,}",
            percent(layer.density) if layer.possible else "",
            f"{layer.connections:,}",
            f"{layer.synapses:,}",
            f"{layer.sops / counts.samples:,.1f}",
            f"{layer.spikes / counts.samples:,.1f}",
            f"{layer.neuron_updates // counts.samples:,}",
        )
    return table


def devices(prices: Mapping[str, Price]) -> RenderableType:
    """Joules per device, measured beside the paper's convention, and what to think of it."""
    table = number_table("joules per sample", "device", "measured", "by connections")
    table.add_column("measured is charged for")
    for name, priced in prices.items():
        paper = "-" if priced.by_connections is None else joules(priced.by_connections)
        charged = ", ".join(priced.measured.used)
        table.add_row(name, joules(priced.measured.total), paper, charged)
    return Group(table, Text(contradiction()))


def table1(result: Table1) -> RenderableType:
    """The paper's Table 1 by its convention, the printed figures beside ours."""
    table = number_table(
        "Table 1 of ESL-SNNs from its connection counts (784-800-10, MNIST)",
        "network",
        "connections",
        "density",
        "paper's 'FLOPS'",
        "GPU (J)",
        "paper",
        "TrueNorth (J)",
        "paper",
    )
    for row in result.rows:
        table.add_row(
            row.paper.model,
            f"{row.connections:,}",
            f"{row.density:.4f}",
            row.paper.operations,
            joules(row.gpu_joules),
            row.paper.gpu,
            joules(row.truenorth_joules),
            row.paper.truenorth,
        )
    return Group(table, *(Text(f"- {remark}") for remark in result.remarks))


def table1_measured(rows: Sequence[Measured], seeds: int) -> RenderableType:
    """The paper's Table 1 beside networks trained here, and what counting changes.

    Args:
        rows: of the methods, the dense one first.
        seeds: over which they are means.
    """
    found = number_table(
        f"test accuracy of the exported integer networks, mean of {seeds} seeds",
        *("network", "test %", "paper", "loss", "paper", "density", "paper", "connections"),
    )
    energy = number_table(
        "joules of an inference: by connections (the paper's convention), by operations counted",
        *("network", "GPU", "paper", "counted", "TrueNorth", "paper", "counted", "SOPs", "most"),
    )
    energy.padding = (0, 1, 0, 0)  # nine columns in the hundred of a file
    for row in rows:
        paper = row.paper
        loss = "" if paper is None else f"{float(PAPER[0].accuracy) - float(paper.accuracy):.2f}"
        found.add_row(
            row.method,
            f"{100 * row.accuracy:.2f}",
            paper.accuracy if paper else "",
            f"{100 * row.loss:.2f}",
            loss,
            f"{row.density:.4f}",
            paper.density if paper else "",
            f"{row.connections:,}",
        )
        energy.add_row(
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
    return Group(found, energy, *(Text(f"- {sentence}") for sentence in changes(rows)))


def firing_times(layers: Sequence[LayerTimes]) -> RenderableType:
    """How far the steps of spikes lie from training's exact times."""
    table = number_table(
        "firing steps against exact times",
        *("layer", "spikes", "moved", "by steps", "lost or new", "mean drift"),
    )
    for layer in layers:
        table.add_row(
            layer.layer,
            f"{layer.fired:,}",
            f"{layer.moved:,}",
            f"{layer.furthest}",
            f"{layer.lost:,}",
            f"{layer.drift:.3f}",
        )
    return Group(
        table,
        Text(
            "moved: not the exact time rounded up, given the same inputs and weights; lost, drift: "
            "against training with its own weights, through all layers, in steps"
        ),
    )


def sources(prices: Mapping[str, Price]) -> Table:
    """Every constant of the devices, with its value, kind and source."""
    table = text_table("constants", "device", "charge", "pJ", "kind", "source")
    table.columns[2].justify = "right"
    for name, priced in prices.items():
        for key, constant in priced.device.constants.items():
            picojoules = f"{constant.joules(1) * 1e12:.3f}"
            table.add_row(name, key, picojoules, constant.kind, constant.source)
    return table


def text_table(title: str, *headings: str) -> Table:
    """A table of text, folded where it is narrow: a source that ends in an ellipsis is none."""
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def number_table(title: str, first: str, *numbers: str) -> Table:
    """A table whose first column is text, and whose other columns are numbers."""
    table = text_table(title, first, *numbers)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
