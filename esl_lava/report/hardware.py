"""Tables of devices, energies and chips for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esl_lava.devices import Device
from esl_lava.energy.table1 import contradiction
from esl_lava.energy.training import PHASES, TrainingCost
from esl_lava.mapping import CoreMap, LayerMap
from esl_lava.report.tables import joules, percent, render_facts, render_table
from esl_lava.results.mapped import Flow
from esl_lava.results.price import PARTS, Disagreement, Price, device_numbers

MAIN_CONSTANTS = ("sop", "operation", "mac", "add")
"""Keys of energy constants. The overview of the devices shows the first one that a device has."""


def render_prices(prices: Mapping[str, Price], beside_table1: bool = False) -> RenderableType:
    """Render the energy per sample on each device, from counted operations and by connections.

    Args:
        prices: device -> price.
        beside_table1: whether the network is that of the paper's Table 1. If the devices of that
            table are priced, a remark names the contradiction in the paper.
    """
    rows = (
        (
            name,
            joules(price.measured.total),
            "-" if price.by_connections is None else joules(price.by_connections),
            ", ".join(price.measured.used),
        )
        for name, price in prices.items()
    )
    headings = "device, measured, by connections, charges in measured"
    table = render_table("joules per sample", headings, rows, slice(1, 3))
    applies = beside_table1 and {"v100_paper", "truenorth_paper"} <= prices.keys()
    return Group(table, *([Text(contradiction())] if applies else []))


def render_parts(prices: Mapping[str, Price]) -> RenderableType:
    """Render the parts of each energy, its span, and the energy of a dense network.

    A part that no device has gets no column.
    """
    headings = (*PARTS, "least", "most", "as an ANN")
    cells: dict[str, list[float | None]] = {heading: [] for heading in headings}
    remarks = []
    for name, price in prices.items():
        energy = price.measured
        for part, value in price.parts.items():
            cells[part].append(value or None)
        least, most = energy.span or (None, None)
        cells["least"].append(least)
        cells["most"].append(most)
        cells["as an ANN"].append(price.as_ann)
        remarks += [Text(f"- {name}: {remark}") for remark in energy.remarks]
    shown = {heading: column for heading, column in cells.items() if any(column)}
    title = "joules per sample: parts, span of the sources, one run of a dense ANN of this shape"
    rows = (
        (name, *("-" if value is None else joules(value) for value in row))
        for name, *row in zip(prices, *shown.values())
    )
    return Group(render_table(title, ", ".join(["device", *shown]), rows), *remarks)


def render_disagreement(disagreement: Disagreement) -> Text:
    """Render a sentence on the energies that the device files of one chip give."""
    span = f"{joules(disagreement.least)} to {joules(disagreement.most)} J per sample"
    names = ", ".join(disagreement.devices)
    return Text(f"- {disagreement.chip}: the device files give {span} ({names}).")


def render_sources(prices: Mapping[str, Price]) -> Table:
    """Render every energy constant of the devices with value, kind and source."""
    rows = (
        (name, key, f"{constant.joules(1) * 1e12:.3f}", constant.kind, constant.source)
        for name, price in prices.items()
        for key, constant in price.device.constants.items()
    )
    return render_table("constants", "device, charge, pJ, kind, source", rows, slice(2, 3))


def render_training(cost: TrainingCost) -> RenderableType:
    """Render operations and bytes of a training by phase, beside those of its dense twin.

    The dense twin is the same training with every layer dense.
    """
    sparse, dense = cost.sparse, cost.dense
    columns = (
        *(sparse.operations, sparse.event_operations, dense.operations),
        *(sparse.bytes, dense.bytes),
    )
    table = render_table(
        "training, all epochs, on a machine that skips every zero, and its dense twin",
        "phase, operations, for spikes, dense twin, bytes, dense twin",
        ((phase, *(f"{column[phase]:.2E}" for column in columns)) for phase in PHASES),
    )
    shares = render_facts(
        [
            ("operations", percent(cost.operations_ratio)),
            ("operations, if only spikes cost", percent(cost.event_ratio)),
            ("bytes", percent(cost.bytes_ratio)),
            ("neuron updates, forward (as many backward)", f"{cost.neuron_updates:,}"),
        ],
        "compared with the dense twin",
    )
    return Group(table, shares)


def render_overview(devices: Sequence[Device]) -> RenderableType:
    """Render one line for each device: title, what its energy is charged for, and main constant."""
    rows = []
    for device in devices:
        prefix = "energy."
        constants = {one.key[len(prefix) :]: one for one in device_numbers(device)}
        key = next((key for key in MAIN_CONSTANTS if key in constants), None)
        main, kind = "unknown", ""
        if key is not None:
            main, kind = f"{key} {constants[key].value.split(' = ')[0]}", constants[key].kind
        rows.append((device.name, device.title, device.charges or "nothing", main, kind))
    return render_table("devices", "name, title, charges, main constant, kind", rows, slice(0))


def render_device(device: Device) -> RenderableType:
    """Render all constants and limits of a device with their sources, and its notes."""
    rows = (
        (one.key, one.value, one.kind, one.operating_point, one.source)
        for one in device_numbers(device)
    )
    table = render_table("", "constant, value, kind, operating point, source", rows, slice(0))
    head = f"{device.name}: {device.title} ({device.maker})"
    return Group(Text(head), table, *(Text(f"- {note}") for note in device.notes))


def render_core_map(core_map: CoreMap) -> RenderableType:
    """Render the cores of each layer, their formats and used resources, and remarks.

    The column "binds" names the resource that decides the number of cores of a layer.
    """
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
        for layer in core_map.layers
    )
    cores = render_table(
        f"{core_map.cores} cores, {core_map.chips} of {core_map.chip} (packing {core_map.packing})",
        "layer, neurons, connections, weights, not 0, weight bits, cores, format, binds",
        rows,
        tight=True,
    )
    formats = render_table(
        "synapse memory by format; a format needs less than dense below its break-even density",
        "layer, format, words, cores, break-even",
        (
            (
                layer.name,
                form,
                f"{words:,}",
                f"{cores}",
                percent(layer.break_even[form]) if form in layer.break_even else "-",
            )
            for layer in core_map.layers
            for form, (words, cores) in layer.words.items()
        ),
    )
    used = render_table(
        "resources used in the fullest core of each layer",
        ", ".join(["layer", *(name.replace("_", " ") for name in core_map.limits)]),
        (
            (layer.name, *(f"{used:,}" for used, _ in core_map.utilisation(layer).values()))
            for layer in core_map.layers
        ),
    )
    used.add_section()
    used.add_row("limit of a core", *(f"{limit:,}" for limit in core_map.limits.values()))
    remarks = [_hint(layer) for layer in core_map.layers if layer.fit] + core_map.remarks
    return Group(cores, formats, used, *(Text(f"- {remark}") for remark in remarks))


def _hint(layer: LayerMap) -> str:
    """Return a sentence on how a layer would fit on one core fewer."""
    fit = layer.fit
    assert fit is not None
    ways = []
    if fit.width is not None:
        ways.append(f"{fit.width:,} neurons")
    if fit.density is not None:
        ways.append(f"a density of about {percent(fit.density)}")
    return (
        f"{layer.name}: on {fit.cores} {'core' if fit.cores == 1 else 'cores'} the fullest core "
        f"would need {fit.used:,} {fit.resource.replace('_', ' ')} of {fit.limit:,}"
    ) + (f"; {' or '.join(ways)} would fit" if ways else "")


def render_flow(flow: Flow) -> RenderableType:
    """Render the minimum time of a step in each layer, what bounds it, and messages per sample."""
    messages = flow.messages_per_sample
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
        for bound in flow.bounds
    )
    table = render_table(
        "mean step of each layer's slowest core; messages out: of the layer per sample",
        "layer, core, SOPs, updates, messages in, memory ns, compute ns, traffic ns, bound by, "
        "messages out",
        rows,
        tight=True,
    )
    sentence = (
        "The time of a step is unknown, because the device file states no times."
        if flow.step_nanoseconds is None
        else f"A step takes at least {flow.step_nanoseconds:,.0f} ns, with synchronisation, but "
        "without queues and without hops between cores."
    )
    if flow.counts.added.messages:
        sentence += " The parts of a fan-in are counted as if they sent their sums at every step."
    return Group(table, Text(sentence))
