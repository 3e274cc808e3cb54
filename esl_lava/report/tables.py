"""Tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esl_lava.counts import Counts
from esl_lava.devices import Device
from esl_lava.energy.table1 import PAPER, Measured, Table1, changes, contradiction
from esl_lava.energy.training import PHASES, TrainingCost
from esl_lava.mapping import CoreMap, LayerMap
from esl_lava.results.account import Account
from esl_lava.results.evaluation import NetworkRun
from esl_lava.results.firing import LayerFiring
from esl_lava.results.mapped import Flow
from esl_lava.results.price import PARTS, Disagreement, Price, stated
from esl_lava.results.recording import HOT, Recorded
from esl_lava.results.sweep import RunState, Stage, SweepRow
from esl_lava.results.table2 import Published, Trained
from esl_lava.results.verification import LayerTimes, Verification

MAIN = ("sop", "operation", "mac", "add")
"""Energy keys by which a device is listed, whichever it states."""


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


def table_of(
    title: str,
    headings: str,
    rows: Iterable[Iterable[str]],
    numbers: slice = slice(1, None),
    narrow: bool = False,
) -> Table:
    """A table; text is folded where it is narrow: a source that ends in an ellipsis is none.

    Args:
        title: above it, or "".
        headings: of its columns, with ", " between them.
        rows: the cells of each.
        numbers: which columns stand at the right.
        narrow: whether columns stand close, so that nine fit the hundred of a file.
    """
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    if narrow:
        table.padding = (0, 1, 0, 0)
    for heading in headings.split(", "):
        table.add_column(heading, overflow="fold")
    for column in table.columns[numbers]:
        column.justify = "right"
    for cells in rows:
        table.add_row(*cells)
    return table


def account(found: Account, title: str) -> RenderableType:
    """The main figures of a finished run."""
    verified = found.verification
    rows = [
        ("accuracy of the integer network", percent(found.evaluation.accuracy or 0.0)),
        ("on held-back test samples", f"{found.evaluation.samples:,}"),
        ("density, all layers", percent(found.network.density)),
        ("connections", f"{found.network.connections:,}"),
    ]
    if verified is not None:
        rows += [
            ("samples verified on Lava", f"{verified.samples:,}"),
            ("spikes compared", f"{verified.spikes:,}"),
            ("differences", f"{verified.total:,}"),
        ]
    rows.append(("SOPs per sample", f"{found.evaluation.sops_per_sample:,.1f}"))
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
    return table_of("per layer; run figures per sample", headings, rows, narrow=True)


def layer_firing(firing: Sequence[LayerFiring]) -> Table:
    """How many neurons of every layer are silent or saturated, and how often they fire.

    Maps have a column where a layer has any.
    """
    maps = any(found.silent_maps is not None for found in firing)
    rows = (
        (
            found.layer,
            f"{found.neurons:,}",
            _of(found.silent, found.neurons),
            *([f"{found.silent_maps:,}" if found.silent_maps is not None else ""] if maps else []),
            "" if found.saturated is None else _of(found.saturated, found.neurons),
            f"{found.rate:.4f}",
            f"{found.largest_rate:.4f}",
            f"{found.spikes_per_sample:,.1f}",
        )
        for found in firing
    )
    shown = "silent, silent maps" if maps else "silent"
    headings = f"layer, neurons, {shown}, saturated, mean rate, largest rate, spikes"
    return table_of(
        "what neurons fire; rates by neuron and step, spikes per sample",
        headings,
        rows,
        narrow=True,
    )


def _of(number: int, total: int) -> str:
    return f"{number:,} ({percent(number / total)})" if number else "0"


def devices(prices: Mapping[str, Price]) -> RenderableType:
    """Joules per device, measured beside the paper's convention, and what to think of it."""
    rows = (
        (
            name,
            joules(priced.measured.total),
            "-" if priced.by_connections is None else joules(priced.by_connections),
            ", ".join(priced.measured.used),
        )
        for name, priced in prices.items()
    )
    headings = "device, measured, by connections, measured is charged for"
    return Group(table_of("joules per sample", headings, rows, slice(1, 3)), Text(contradiction()))


def table1(result: Table1) -> RenderableType:
    """The paper's Table 1 by its convention, the printed figures beside ours."""
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
    table = table_of(
        "Table 1 of ESL-SNNs from its connection counts (784-800-10, MNIST)",
        "network, connections, density, paper's 'FLOPS', GPU (J), paper, TrueNorth (J), paper",
        rows,
    )
    return Group(table, *(Text(f"- {remark}") for remark in result.remarks))


def table1_measured(rows: Sequence[Measured], seeds: int) -> RenderableType:
    """The paper's Table 1 beside networks trained here, and what counting changes.

    Args:
        rows: of the methods, the dense one first.
        seeds: over which they are means.
    """
    found, energy = [], []
    for row in rows:
        paper = row.paper
        loss = "" if paper is None else f"{float(PAPER[0].accuracy) - float(paper.accuracy):.2f}"
        found.append(
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
        energy.append(
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
        table_of(
            f"test accuracy of the exported integer networks, mean of {seeds} seeds",
            "network, test %, paper, loss, paper, density, paper, connections",
            found,
        ),
        table_of(
            "joules of an inference: by connections (the paper's convention), by operations "
            "counted",
            "network, GPU, paper, counted, TrueNorth, paper, counted, SOPs, most",
            energy,
            narrow=True,
        ),
        *(Text(f"- {sentence}") for sentence in changes(rows)),
    )


def firing_times(layers: Sequence[LayerTimes]) -> RenderableType:
    """How far the steps of spikes lie from training's exact times."""
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
    headings = "layer, spikes, moved, by steps, lost or new, mean drift"
    return Group(
        table_of("firing steps against exact times", headings, rows),
        Text(
            "moved: not the exact time rounded up, given the same inputs and weights; lost, drift: "
            "against training with its own weights, through all layers, in steps"
        ),
    )


def sources(prices: Mapping[str, Price]) -> Table:
    """Every constant of the devices, with its value, kind and source."""
    rows = (
        (name, key, f"{constant.joules(1) * 1e12:.3f}", constant.kind, constant.source)
        for name, priced in prices.items()
        for key, constant in priced.device.constants.items()
    )
    return table_of("constants", "device, charge, pJ, kind, source", rows, slice(2, 3))


def device_overview(devices: Sequence[Device]) -> RenderableType:
    """A line for each device: what it is, how it is charged and its main constant."""
    rows = []
    for device in devices:
        named = {one.key[7:]: one for one in stated(device)}
        first = next((named[key] for key in MAIN if key in named), None)
        main, kind = "unknown", ""
        if first is not None:
            main, kind = f"{first.key[7:]} {first.value.split(' = ')[0]}", first.kind
        rows.append((device.name, device.title, device.charges or "nothing", main, kind))
    return table_of("devices", "name, title, charges, main constant, kind", rows, slice(0))


def device_details(device: Device) -> RenderableType:
    """All constants and limits of a device with their sources, and its notes."""
    rows = (
        (one.key, one.value, one.kind, one.operating_point, one.source) for one in stated(device)
    )
    table = table_of("", "constant, value, kind, operating point, source", rows, slice(0))
    head = f"{device.name}: {device.title} ({device.maker})"
    return Group(Text(head), table, *(Text(f"- {note}") for note in device.notes))


def core_map(found: CoreMap) -> RenderableType:
    """Cores per layer, what binds, formats, and what would save a core."""
    rows = (
        (
            layer.name,
            f"{layer.neurons:,}",
            f"{layer.connections:,}",
            f"{layer.weights:,}",
            percent(layer.density),
            f"{layer.weight_bits}",
            f"{len(layer.cores)}",
            layer.form,
            layer.binding.replace("_", " "),
        )
        for layer in found.layers
    )
    cores = table_of(
        f"{found.cores} cores, {found.chips} of {found.chip} (packing {found.packing})",
        "layer, neurons, connections, weights, not 0, weight bits, cores, format, binds",
        rows,
        narrow=True,
    )
    formats = table_of(
        "synapse memory by format; each beats dense below its break-even density",
        "layer, format, words, cores, break-even",
        (
            (
                layer.name,
                form,
                f"{words:,}",
                f"{cores}",
                percent(layer.break_even[form]) if form in layer.break_even else "-",
            )
            for layer in found.layers
            for form, (words, cores) in layer.words.items()
        ),
    )
    used = table_of(
        "used, in the layer's fullest core",
        ", ".join(["layer", *(name.replace("_", " ") for name in found.limits)]),
        (
            (layer.name, *(f"{used:,}" for used, _ in found.utilisation(layer).values()))
            for layer in found.layers
        ),
    )
    used.add_section()
    used.add_row("limit of a core", *(f"{limit:,}" for limit in found.limits.values()))
    remarks = [_hint(layer) for layer in found.layers if layer.fit] + found.remarks
    return Group(cores, formats, used, *(Text(f"- {remark}") for remark in remarks))


def _hint(layer: LayerMap) -> str:
    """What would save a core of a layer."""
    fit = layer.fit
    assert fit is not None
    ways = []
    if fit.width is not None:
        ways.append(f"{fit.width:,} neurons")
    if fit.density is not None:
        ways.append(f"a density of about {percent(fit.density)}")
    return (
        f"{layer.name}: on {fit.cores} {'core' if fit.cores == 1 else 'cores'} "
        f"{fit.resource.replace('_', ' ')} would be {fit.used:,} of {fit.limit:,}"
    ) + (f"; {' or '.join(ways)} would fit" if ways else "")


def flow(found: Flow) -> RenderableType:
    """The floor of every layer, what bounds it, and messages per sample."""
    messages = found.messages_per_sample
    rows = (
        (
            bound.name,
            "most" if bound.core is None else f"{bound.core}",
            f"{bound.load['sop']:,.1f}",
            f"{bound.load['neuron_update']:,.0f}",
            f"{bound.load['message_in']:,.1f}",
            *(
                f"{bound.nanoseconds[part]:,.0f}" if bound.nanoseconds else "-"
                for part in ("memory", "compute", "traffic")
            ),
            bound.state or "unknown",
            f"{messages[bound.name]:,.1f}",
        )
        for bound in found.bounds
    )
    table = table_of(
        "a mean step of the core that decides; messages per sample of the layer",
        "layer, core, SOPs, updates, messages in, memory ns, compute ns, traffic ns, bound by, "
        "messages out",
        rows,
    )
    said = (
        "A step takes an unknown time: the device states none."
        if found.step_nanoseconds is None
        else f"A step takes at least {found.step_nanoseconds:,.0f} ns, synchronisation included: "
        "a floor, with nothing queueing and no hops between cores."
    )
    if found.counts.added.messages:
        said += " Sums of parts of a fan-in are counted as sent in every step: at most so often."
    return Group(table, Text(said))


def training(cost: TrainingCost) -> RenderableType:
    """Operations and bytes of a training by phase, beside its dense twin."""
    sparse, dense = cost.sparse, cost.dense
    works = (
        *(sparse.operations, sparse.event_operations, dense.operations),
        *(sparse.bytes, dense.bytes),
    )
    table = table_of(
        "training, all epochs: a machine that profits from every zero, and the dense twin",
        "phase, operations, spikes only, dense twin, bytes, dense twin",
        ((phase, *(f"{work[phase]:.2E}" for work in works)) for phase in PHASES),
    )
    shares = facts(
        [
            ("operations against the dense twin's", percent(cost.operations_ratio)),
            ("where only spikes cost", percent(cost.event_ratio)),
            ("bytes against the dense twin's", percent(cost.bytes_ratio)),
            ("neuron updates, forward and backward each", f"{cost.neuron_updates:,}"),
        ],
        "as a share",
    )
    return Group(table, shares)


def further(prices: Mapping[str, Price]) -> RenderableType:
    """What a measured energy is made of, its span, and a dense network's beside it.

    What no device has has no column.
    """
    headings = (*PARTS, "least", "most", "as an ANN")
    cells: dict[str, list[float | None]] = {heading: [] for heading in headings}
    remarks = []
    for name, priced in prices.items():
        found = priced.measured
        for part, share in priced.parts.items():
            cells[part].append(share or None)
        least, most = found.span or (None, None)
        cells["least"].append(least)
        cells["most"].append(most)
        cells["as an ANN"].append(priced.as_ann)
        remarks += [Text(f"- {name}: {remark}") for remark in found.remarks]
    shown = {heading: column for heading, column in cells.items() if any(column)}
    title = "joules per sample: parts, span where sources disagree, a dense network run once"
    rows = (
        (name, *("-" if value is None else joules(value) for value in row))
        for name, *row in zip(prices, *shown.values())
    )
    return Group(table_of(title, ", ".join(["device", *shown]), rows), *remarks)


def disagreement(apart: Disagreement) -> Text:
    """A sentence on how far the files of a chip are apart."""
    span = f"{joules(apart.least)} to {joules(apart.most)} J a sample"
    return Text(f"- {apart.chip}: {span} by {', '.join(apart.devices)}.")


def preferred(rows: Sequence[SweepRow]) -> list[str]:
    """What validation prefers at each density, in sentences.

    Args:
        rows: with the setting "density". Where a density has a single row, or a row without
            validation, nothing is said of it.
    """
    sentences = []
    for density in dict.fromkeys(row.settings["density"] for row in rows):
        group = [row for row in rows if row.settings["density"] == density]
        reached = [row.validation_accuracy for row in group]
        if len(group) < 2 or None in reached:
            continue
        best = [
            f"{', '.join(f'{k} {v}' for k, v in row.settings.items() if k != 'density')} "
            f"({_hundredths(row.accuracy)} % on the test split)"
            for row, value in zip(group, reached)
            if value == max(known for known in reached if known is not None)
        ]
        sentences.append(f"at density {density:g} validation prefers {' and '.join(best)}")
    return sentences


def sweep_table(rows: Sequence[SweepRow], title: str) -> RenderableType:
    """A line for each setting: means over its seeds, +- the sample standard deviation.

    "sparse" is the density of the sparse layers, as it came out.
    """
    varied = [name for name in rows[0].settings if name != "density"]
    measured = ("sparse %", "test %", "+-", "valid. %", "R_s %", "connections", "SOPs")
    cells = (
        (
            *(_setting(row.settings[name]) for name in varied),
            _hundredths(row.sparse_density),
            _hundredths(row.accuracy),
            _hundredths(row.spread),
            _hundredths(row.validation_accuracy),
            _hundredths(row.exploration),
            f"{row.connections:,}",
            f"{row.sops:,.0f}",
        )
        for row in rows
    )
    table = table_of("", ", ".join([*varied, *measured]), cells, narrow=True)
    return Group(Text(title), table)  # as a table's own, it would be broken at its width


SHOWN_FIRST: tuple[Stage, ...] = ("running", "failed", "waiting", "done", "done before")
"""Stages of runs in the order in which a table that cannot hold all runs takes them."""


def run_states(
    states: Sequence[RunState], now: float, title: str = "", most: int | None = None
) -> RenderableType:
    """Where each run of a sweep stands, in their order, under how many stand where.

    Args:
        states: of the runs.
        now: seconds since 1970.
        title: above it, or "".
        most: runs that are shown; None is all.
    """
    counted = Counter(state.stage for state in states)
    stages = ", ".join(f"{counted[stage]} {stage}" for stage in SHOWN_FIRST if counted[stage])
    places = sorted(range(len(states)), key=lambda n: SHOWN_FIRST.index(states[n].stage))
    shown = [states[place] for place in sorted(places[:most])]
    cells = (
        (state.name, state.stage, _stands(state), _elapsed(state, now), state.host or "")
        for state in shown
    )
    table = table_of("", "run, state, , elapsed, machine", cells, slice(3, 4), narrow=True)
    left = len(states) - len(shown)
    more = [Text(f"and {left} more")] if left else []
    head = Text(f"{title}: {stages}" if title else stages, no_wrap=True, overflow="ignore")
    return Group(head, table, *more)


def _stands(state: RunState) -> str:
    """How far a run has come, or why not."""
    if state.reason is not None:
        return state.reason
    if state.accuracy is not None:
        return f"{percent(state.accuracy)} on the test split"
    if state.epoch is None:
        return ""
    loss = "" if state.loss is None else f", loss {state.loss:.4f}"
    return f"epoch {state.epoch}/{state.epochs}{loss}"


def _elapsed(state: RunState, now: float) -> str:
    """Hours, minutes and seconds since a run began, or until it ended; clocks may differ."""
    if state.began is None:
        return ""
    seconds = max(0, round((now if state.ended is None else state.ended) - state.began))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def table2(
    trained: Sequence[Trained], published: Sequence[Published], title: str
) -> RenderableType:
    """Networks of ours by the columns of the paper's Table 2, and below them its own rows."""
    ours = (
        (
            row.part,
            row.layers,
            f"{row.steps}",
            f"{row.epochs}",
            f"{row.density:g}",
            f"{row.weights:,}",
            _hundredths(row.accuracy),
            _hundredths(row.spread),
            _hundredths(row.loss),
        )
        for row in trained
    )
    printed = (
        (
            row.dataset,
            row.network or "",
            row.method,
            "" if row.density is None else f"{row.density:g}",
            _hundredths(row.accuracy),
            _hundredths(row.loss),
        )
        for row in published
    )
    headings = "part, network, T, epochs, density, weights, test %, +-, loss"
    return Group(
        Text(title),
        table_of("", headings, ours, numbers=slice(2, None), narrow=True),
        Text("Table 2 as printed in the paper"),
        table_of(
            "", "data, network, method, density, test %, loss", printed, numbers=slice(3, None)
        ),
    )


def _hundredths(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _setting(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def recorded(found: Recorded, name: str) -> RenderableType:
    """What a recording holds."""
    contents = found.contents
    rows, columns = found.sensor
    steps, _, high, wide = found.shape
    described = [
        ("events", f"{contents.events:,}"),
        ("seconds", f"{contents.seconds:.6f}"),
        ("events a second", "-" if contents.rate is None else f"{contents.rate:,.0f}"),
        ("ON events", percent(contents.on_share)),
        ("sensor", f"{rows} x {columns}"),
        ("pixels with an event", f"{found.active_pixels:,}"),
        (f"hot pixels (from {HOT} times their mean)", f"{found.hot_pixels:,}"),
    ]
    described += [
        (f"  row {row}, column {column}", f"{count:,} events")
        for row, column, count in found.hottest
    ]
    described.append(("frames", f"{steps} of {high} x {wide}"))
    return facts(described, name)
