"""General tables for the terminal: facts, runs, layers and recordings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esl_lava.counts import Counts
from esl_lava.results.account import Account
from esl_lava.results.evaluation import NetworkRun
from esl_lava.results.firing import LayerFiring
from esl_lava.results.recording import HOT, RecordingSummary


def joules(value: float) -> str:
    """Format joules as the paper prints them: 1.13E-05."""
    return f"{value:.2E}"


def percent(share: float) -> str:
    """Format a share 0..1 as a percentage with two decimals: 95.24 %."""
    return f"{100 * share:.2f} %"


def hundredths(share: float | None) -> str:
    """Format a share 0..1 as a percentage without the sign %: 95.24; None becomes an empty text."""
    return "" if share is None else f"{100 * share:.2f}"


def render_facts(rows: Iterable[tuple[str, str]], title: str) -> RenderableType:
    """Render a table of two columns, names and values.

    Args:
        rows: name and value of each row.
        title: line above the table. It is not wrapped, so that file names can be copied.
    """
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, value)
    return Group(Text(title, no_wrap=True, overflow="ignore"), table)


def render_table(
    title: str,
    headings: str,
    rows: Iterable[Iterable[str]],
    numbers: slice = slice(1, None),
    narrow: bool = False,
    tight: bool = False,
) -> Table:
    """Render a table. A long text in a cell continues on the next line; none of it is lost.

    Args:
        title: line above the table, or "".
        headings: headings of the columns, with ", " between them.
        rows: cells of each row.
        numbers: columns that are aligned at the right.
        narrow: put the columns close together, so that nine of them fit 100 characters.
        tight: leave one character between columns, so that nine of them fit 80 characters.
            Each word of a heading then has a line of its own.
    """
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    if narrow:
        table.padding = (0, 1, 0, 0)
    if tight:
        table.padding, table.show_edge = (0, 0), False
    names, lines = headings.split(", "), [list(cells) for cells in rows]
    for heading in names:
        table.add_column(heading.replace(" ", "\n") if tight else heading, overflow="fold")
    for column in table.columns[numbers]:
        column.justify = "right"
    last_is_text = table.columns[-1] not in table.columns[numbers]
    if last_is_text or tight:
        # Texts are folded between words, and those of the last column anywhere: a name or a
        # number that is folded or cut is easily misread.
        for index, column in enumerate(table.columns[:-1] if last_is_text else table.columns):
            cells = [line[index] for line in lines]
            words = [
                word
                for cell in cells
                for word in ([cell] if cell[:1].isdigit() and not last_is_text else cell.split())
            ]
            column.min_width = max(map(len, [*names[index].split(), *words]), default=1)
            column.no_wrap = column.min_width >= max(map(len, [names[index], *cells]))
    for line in lines:
        table.add_row(*line)
    return table


def render_account(account: Account, title: str) -> RenderableType:
    """Render the main results of a finished run."""
    evaluation, verification = account.evaluation, account.verification
    rows = [
        ("accuracy of the integer network", percent(evaluation.accuracy or 0.0)),
        ("test samples", f"{evaluation.samples:,}"),
        ("density, all layers", percent(account.network.density)),
        ("connections", f"{account.network.connections:,}"),
    ]
    if verification is not None:
        rows += [
            ("samples verified on Lava", f"{verification.samples:,}"),
            ("spikes compared", f"{verification.spikes:,}"),
            ("differences", f"{verification.total:,}"),
        ]
    rows.append(("SOPs per sample", f"{evaluation.sops_per_sample:,.1f}"))
    rows += [
        (f"joules per sample, {name}", joules(price.measured.total))
        for name, price in account.prices.items()
    ]
    return render_facts(rows, title)


def render_run(run: NetworkRun, net: str) -> RenderableType:
    """Render the results of a network on samples.

    Args:
        run: the network and its evaluation.
        net: file of the network.
    """
    evaluation = run.evaluation
    accuracy = evaluation.accuracy
    split = f" ({evaluation.split})" if evaluation.split else ""
    return render_facts(
        [
            *([] if accuracy is None else [("accuracy", percent(accuracy))]),
            ("samples", f"{evaluation.samples:,}"),
            ("density, all layers", percent(run.network.density)),
            ("SOPs per sample", f"{evaluation.sops_per_sample:,.1f}"),
            ("seconds", f"{evaluation.seconds:.2f}"),
        ],
        f"{net} on {evaluation.dataset}{split}, backend {evaluation.backend}",
    )


def render_counts(counts: Counts) -> Table:
    """Render weights, connections, synapses and operations of each layer."""
    rows = (
        (
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
        for layer in counts.layers
    )
    headings = "layer, neurons, weights, density, connections, synapses, SOPs, spikes, updates"
    title = "layers; SOPs, spikes and neuron updates are means per sample"
    return render_table(title, headings, rows, tight=True)


def render_firing(firing: Sequence[LayerFiring]) -> Table:
    """Render the numbers of silent and saturated neurons of each layer, and its firing rates.

    Silent feature maps have a column if a layer has feature maps.
    """
    maps = any(layer.silent_maps is not None for layer in firing)
    rows = (
        (
            layer.layer,
            f"{layer.neurons:,}",
            _number_and_share(layer.silent, layer.neurons),
            *([f"{layer.silent_maps:,}" if layer.silent_maps is not None else ""] if maps else []),
            "" if layer.saturated is None else _number_and_share(layer.saturated, layer.neurons),
            f"{layer.rate:.4f}",
            f"{layer.largest_rate:.4f}",
            f"{layer.spikes_per_sample:,.1f}",
        )
        for layer in firing
    )
    silent = "silent, silent maps" if maps else "silent"
    headings = f"layer, neurons, {silent}, saturated, mean rate, largest rate, spikes"
    return render_table(
        "neuron activity; rates are per neuron and step, spikes per sample",
        headings,
        rows,
        narrow=True,
    )


def _number_and_share(number: int, total: int) -> str:
    """Format a number and its share of the total, for example 2 (50.00 %)."""
    return f"{number:,} ({percent(number / total)})" if number else "0"


def render_recording(recording: RecordingSummary, name: str) -> RenderableType:
    """Render the properties of a recording of an event camera.

    Args:
        recording: the properties.
        name: file of the recording.
    """
    contents = recording.contents
    rows, columns = recording.sensor
    steps, _, height, width = recording.shape
    properties = [
        ("events", f"{contents.events:,}"),
        ("seconds", f"{contents.seconds:.6f}"),
        ("events per second", "-" if contents.rate is None else f"{contents.rate:,.0f}"),
        ("ON events", percent(contents.on_share)),
        ("sensor", f"{rows} x {columns}"),
        ("pixels with an event", f"{recording.active_pixels:,}"),
        (f"hot pixels (at least {HOT} times the mean)", f"{recording.hot_pixels:,}"),
    ]
    properties += [
        (f"  row {row}, column {column}", f"{count:,} events")
        for row, column, count in recording.hottest
    ]
    properties.append(("frames", f"{steps} of {height} x {width}"))
    return render_facts(properties, name)
