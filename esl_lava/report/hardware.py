"""Tables of devices, of mapped networks and of what a training took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esl_lava.devices import DenseOperation, Device
from esl_lava.energy import EnergyBreakdown
from esl_lava.energy.training import PHASES, TrainingCost
from esl_lava.mapping import CoreMap, LayerBound
from esl_lava.report.tables import facts, joules, number_table, percent

MAIN = ("sop", "operation", "mac", "add")
"""Energy keys by which a device is listed, whichever it states."""


@dataclass(frozen=True)
class Stated:
    """A number a device file states.

    Attributes:
        key: where it stands in the file.
        value: with its unit.
        kind, operating_point, source: as the file says; a limit has no operating point.
    """

    key: str
    value: str
    kind: str
    operating_point: str
    source: str


def stated(device: Device) -> list[Stated]:
    """Everything a device file states, in the file's order."""
    found = []
    for key, constant in device.constants.items():
        value = f"{constant.joules(1) * 1e12:,.6g} pJ"
        if isinstance(constant, DenseOperation):
            value += (
                f" = {constant.watts:g} W / {constant.peak_ops_per_second:.4g} op/s, "
                f"{constant.ops_per_connection} op, {100 * constant.utilisation:g} % of the peak"
            )
        elif constant.least < constant.most:
            value += f" ({constant.least:g} to {constant.most:g})"
        found.append(_sourced(f"energy.{key}", value, constant))
    if device.memory is not None:
        price = device.memory
        line = f"{price.pj:g} pJ + {price.pj_per_bit:g} pJ/bit" if price.pj is not None else ""
        points = ", ".join(
            f"{pj:g} pJ at {size:,.0f} bytes"
            for size, pj in zip(price.at_bytes or (), price.pj_at or ())
        )
        found.append(_sourced("memory", f"{line or points} an access", price))
    if device.static is not None:
        power = device.static
        found.append(_sourced("static", f"{power.watts:g} W per {power.per}", power))
    for key, time in device.time:
        if time is not None:
            found.append(_sourced(f"time.{key}", f"{time.value:g} ns", time))
    if device.capacity is not None:
        for key, limit in device.capacity:
            if hasattr(limit, "source"):
                value = f"{limit.value:,}"
                found.append(Stated(f"capacity.{key}", value, limit.kind, "", limit.source))
    return found


def device_overview(devices: Sequence[Device]) -> RenderableType:
    """A line for each device: what it is, how it is charged and its main constant."""
    table = _texts("devices", "name", "title", "charges", "main constant", "kind")
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
    table = _texts("", "constant", "value", "kind", "operating point", "source")
    for one in stated(device):
        table.add_row(one.key, one.value, one.kind, one.operating_point, one.source)
    head = f"{device.name}: {device.title} ({device.maker})"
    return Group(Text(head), table, *(Text(f"- {note}") for note in device.notes))


def device_document(device: Device) -> dict[str, object]:
    """A device as plain values, for scripts."""
    return {
        "title": device.title,
        "maker": device.maker,
        "process": device.process,
        "chip": device.chip,
        "charges": device.charges,
        "notes": list(device.notes),
        "constants": {one.key: {**vars(one)} for one in stated(device)},
        "file": device.model_dump(exclude_none=True, mode="json"),
    }


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


def bounds(found: Sequence[LayerBound], step: float | None, messages: Mapping[str, float]) -> Group:
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
    for bound in found:
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
        if step is None
        else f"A step takes at least {step:,.0f} ns, synchronisation included: a floor, with "
        "nothing queueing and no hops between cores."
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


def training_document(cost: TrainingCost) -> dict[str, object]:
    """What a training took as plain values, for scripts."""
    return {
        "sparse": {name: dict(values) for name, values in vars(cost.sparse).items()},
        "dense_twin": {name: dict(values) for name, values in vars(cost.dense).items()},
        "neuron_updates": cost.neuron_updates,
        "operations_ratio": cost.operations_ratio,
        "event_ratio": cost.event_ratio,
        "bytes_ratio": cost.bytes_ratio,
    }


class Priced(Protocol):
    """A network on one device, as `experiments.price.Price` has it."""

    @property
    def measured(self) -> EnergyBreakdown:
        """Joules per sample."""

    @property
    def as_ann(self) -> float | None:
        """Joules of a dense network that runs once."""


def further(prices: Mapping[str, Priced]) -> RenderableType:
    """What a measured energy is made of, its span, and a dense network's beside it.

    What no device has has no column.
    """
    parts = ("synapses", "neurons", "spikes", "messages", "static")
    headings = (*parts, "least", "most", "as an ANN")
    cells: dict[str, list[float | None]] = {heading: [] for heading in headings}
    remarks = []
    for name, priced in prices.items():
        found = priced.measured
        for part in parts:
            cells[part].append(getattr(found, part) or None)
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


def disagreement(chip: str, devices: Sequence[str], least: float, most: float) -> Text:
    """A sentence on how far the files of a chip are apart."""
    return Text(f"- {chip}: {joules(least)} to {joules(most)} J a sample by {', '.join(devices)}.")


def _sourced(key: str, value: str, constant: object) -> Stated:
    said = (str(getattr(constant, name)) for name in ("kind", "operating_point", "source"))
    return Stated(key, value, *said)


def _texts(title: str, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
