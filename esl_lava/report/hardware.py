"""Tables of devices, of mapped networks and of what a training took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esl_lava.devices import Device
from esl_lava.energy.training import PHASES, TrainingCost
from esl_lava.mapping import CoreMap
from esl_lava.report.tables import facts, joules, number_table, percent, text_table
from esl_lava.results.mapped import Flow
from esl_lava.results.price import PARTS, Disagreement, Price, stated

MAIN = ("sop", "operation", "mac", "add")
"""Energy keys by which a device is listed, whichever it states."""


def device_overview(devices: Sequence[Device]) -> RenderableType:
    """A line for each device: what it is, how it is charged and its main constant."""
    table = text_table("devices", "name", "title", "charges", "main constant", "kind")
    for device in devices:
        named = {one.key[7:]: one for one in stated(device)}
        first = next((named[key] for key in MAIN if key in named), None)
        table.add_row(
            device.name,
            device.title,
            device.charges or "nothing",
            "unknown" if first is None else f"{first.key[7:]} {first.value.split(' = ')[0]}",
            "" if first is None else first.kind,
        )
    return table


def device_details(device: Device) -> RenderableType:
    """All constants and limits of a device with their sources, and its notes."""
    table = text_table("", "constant", "value", "kind", "operating point", "source")
    for one in stated(device):
        table.add_row(one.key, one.value, one.kind, one.operating_point, one.source)
    head = f"{device.name}: {device.title} ({device.maker})"
    return Group(Text(head), table, *(Text(f"- {note}") for note in device.notes))


def core_map(found: CoreMap) -> RenderableType:
    """Cores per layer, what binds, formats, and what would save a core."""
    table = number_table(
        f"{found.cores} cores, {found.chips} of {found.chip} (packing {found.packing})",
        "layer",
        "neurons",
        "connections",
        "weights",
        "not 0",
        "weight bits",
        "cores",
        "format",
        "binds",
    )
    table.padding = (0, 1, 0, 0)  # nine columns in the hundred of a file
    for layer in found.layers:
        table.add_row(
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
    return Group(table, _formats(found), _used(found), *map(Text, _hints(found)))


def _formats(found: CoreMap) -> Table:
    table = number_table(
        "synapse memory by format; each beats dense below its break-even density",
        "layer",
        "format",
        "words",
        "cores",
        "break-even",
    )
    for layer in found.layers:
        for form, (words, cores) in layer.words.items():
            even = percent(layer.break_even[form]) if form in layer.break_even else "-"
            table.add_row(layer.name, form, f"{words:,}", f"{cores}", even)
    return table


def _used(found: CoreMap) -> Table:
    names = [name.replace("_", " ") for name in found.limits]
    table = number_table("used, in the layer's fullest core", "layer", *names)
    for layer in found.layers:
        cells = [f"{used:,}" for used, _ in found.utilisation(layer).values()]
        table.add_row(layer.name, *cells)
    table.add_section()
    table.add_row("limit of a core", *(f"{limit:,}" for limit in found.limits.values()))
    return table


def _hints(found: CoreMap) -> list[str]:
    lines = []
    for layer in found.layers:
        fit = layer.fit
        if fit is None:
            continue
        line = (
            f"- {layer.name}: on {fit.cores} {'core' if fit.cores == 1 else 'cores'} "
            f"{fit.resource.replace('_', ' ')} would be "
            f"{fit.used:,} of {fit.limit:,}"
        )
        ways = []
        if fit.width is not None:
            ways.append(f"{fit.width:,} neurons")
        if fit.density is not None:
            ways.append(f"a density of about {percent(fit.density)}")
        lines.append(line + (f"; {' or '.join(ways)} would fit" if ways else ""))
    return lines


def flow(found: Flow) -> RenderableType:
    """The floor of every layer, what bounds it, and messages per sample."""
    table = number_table(
        "a mean step of the core that decides; messages per sample of the layer",
        "layer",
        "core",
        "SOPs",
        "updates",
        "messages in",
        "memory ns",
        "compute ns",
        "traffic ns",
        "bound by",
        "messages out",
    )
    messages = found.messages_per_sample
    for bound in found.bounds:
        spent = bound.nanoseconds or {}
        table.add_row(
            bound.name,
            "most" if bound.core is None else f"{bound.core}",
            f"{bound.load['sop']:,.1f}",
            f"{bound.load['neuron_update']:,.0f}",
            f"{bound.load['message_in']:,.1f}",
            *(f"{spent[s]:,.0f}" if spent else "-" for s in ("memory", "compute", "traffic")),
            bound.state or "unknown",
            f"{messages[bound.name]:,.1f}",
        )
    said = (
        "A step takes an unknown time: the device states none."
        if found.step_nanoseconds is None
        else f"A step takes at least {found.step_nanoseconds:,.0f} ns, synchronisation included: "
        "a floor, with nothing queueing and no hops between cores."
    )
    return Group(table, Text(said))


def training(cost: TrainingCost) -> RenderableType:
    """Operations and bytes of a training by phase, beside its dense twin."""
    table = number_table(
        "training, all epochs: a machine that profits from every zero, and the dense twin",
        "phase",
        "operations",
        "spikes only",
        "dense twin",
        "bytes",
        "dense twin",
    )
    for phase in PHASES:
        table.add_row(
            phase,
            *(
                f"{work[phase]:.2E}"
                for work in (
                    cost.sparse.operations,
                    cost.sparse.event_operations,
                    cost.dense.operations,
                    cost.sparse.bytes,
                    cost.dense.bytes,
                )
            ),
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
    table = number_table(title, "device", *shown)
    for name, *row in zip(prices, *shown.values()):
        table.add_row(name, *("-" if value is None else joules(value) for value in row))
    return Group(table, *remarks)


def disagreement(apart: Disagreement) -> Text:
    """A sentence on how far the files of a chip are apart."""
    span = f"{joules(apart.least)} to {joules(apart.most)} J a sample"
    return Text(f"- {apart.chip}: {span} by {', '.join(apart.devices)}.")
