"""Compute the energy of a run: its counts times the constants of a device file.

There are three conventions, whose results must not be mixed. `by_connections` is the convention of
the paper (Table 1 of ESL-SNNs, AAAI 2023), which ignores time and activity. `per_sample` adds up
the energy of the events of a run, and `as_ann` that of one pass of a dense network of the same
shape. To charge an event means to add its energy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from esl_lava.counts import Counts
from esl_lava.devices import Device, EventEnergy
from esl_lava.energy import lemaire
from esl_lava.errors import ConfigError, DataError

_MAIN: Mapping[str | None, tuple[str, ...]] = {
    "events": ("sop",),
    "dense": ("operation", "mac"),
    "memory": ("add",),
    None: ("sop",),
}
"""`charges` of a device -> its main energy keys, of which it must state one.

An error names the first key.
"""


@dataclass(frozen=True)
class EnergyBreakdown:
    """The energy of one sample in joules, as the mean over a run.

    A part without a constant of the device is 0: its energy is unknown, or included in another
    constant, as the device's notes say. `used` lists the constants that were charged.

    Attributes:
        device: name of the device.
        synapses: energy of synaptic operations, or of all operations of a dense machine. If
            memory is charged, it includes accesses to weights, and addressing.
        neurons: energy of neuron updates. If memory is charged, it is the energy of accesses to
            potentials and biases.
        spikes: energy of the spikes that the network's neurons emit. If memory is charged, it is
            the energy to read and write spikes.
        used: the energy keys of the device that were charged.
        messages: energy of the spikes that a mapped network sends to their destination cores.
        static: static power times the requested time.
        span: (least, most) total, if the sources of a constant disagree or it is unknown which
            updates were active; otherwise None.
        remarks: notes on the figure.
    """

    device: str
    synapses: float
    neurons: float
    spikes: float
    used: tuple[str, ...]
    messages: float = 0.0
    static: float = 0.0
    span: tuple[float, float] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Sum of all parts, in joules."""
        return self.synapses + self.neurons + self.spikes + self.messages + self.static


def by_connections(connections: int, device: Device) -> float:
    """Compute the joules of an inference by the paper's convention: each connection costs once.

    Time steps and activity are ignored. If inputs and neurons fire at most once in a sample, the
    result is an upper bound of the energy of the synaptic operations, because a spike crosses each
    of its connections once. For a dense machine it assumes that absent connections cost nothing,
    which `per_sample` does not assume.

    Args:
        connections: number of connections between two neurons (`Network.connections`). A kernel
            counts with the connections that its weights make, not with its weights.
        device: a device with the constant `sop`, or `operation` or `mac` if it is dense.

    Raises:
        ConfigError: if the device does not state that constant, or is charged for memory.
    """
    if device.charges == "memory":
        raise ConfigError(
            f'device {device.name} has charges = "memory", but a count of one operation per '
            "connection does not include accesses to memory",
            "unsupported",
            key="charges",
            value=device.charges,
        )
    return device.constant(_main(device)).joules(connections)


def as_ann(counts: Counts, device: Device) -> float | None:
    """Compute the joules of one pass of a dense artificial network of the same shape.

    Every possible connection is one multiply-accumulate.

    Args:
        counts: counts of a run. They need details if the device is charged for memory.
        device: a device with the constant `operation` or `mac`, or charged for memory.

    Returns:
        The energy, or None if the device states neither and therefore does not multiply.

    Raises:
        DataError: if the device is charged for memory, but the counts lack details.
        ConfigError: if the device is charged for memory, but states no `add` or `multiply`.
    """
    if device.charges == "memory":
        layers = [lemaire.ann(load, device) for load in lemaire.loads(counts)]
        return sum(layer.total for layer in layers)
    keys = [key for key in ("operation", "mac") if key in device.constants]
    return device.constant(keys[0]).joules(counts.possible_connections) if keys else None


def per_sample(
    counts: Counts, device: Device, *, seconds: float | None = None, chips: int = 1, cores: int = 1
) -> EnergyBreakdown:
    """Compute the mean energy of one sample from the counts of a run.

    An event-driven device is charged SOPs x `sop`, neuron updates x `neuron_update` and spikes x
    `spike`, as far as it states these constants. If the counts include active updates, inactive
    updates are charged `neuron_update_inactive`. If they include messages, these are charged
    `message`. Spikes are those that the network's neurons, and the neurons that a mapping adds,
    emit. Input spikes come from outside, at a cost that no device file states. They are charged
    only for the synapses that they cross, and as messages. A dense device is charged for every
    possible connection at every step, whether or not a spike arrives. A device that is charged for
    memory is charged as in `lemaire.snn`.

    Args:
        counts: counts of at least one sample. They need details if the device is charged for
            memory.
        device: a device with the constant `sop`, or `operation` or `mac` if it is dense, or `add`
            and `multiply` if it is charged for memory.
        seconds: duration of a sample; None leaves static power out.
        chips, cores: numbers of chips and cores that draw static power.

    Raises:
        ConfigError: if the device does not state a constant that is needed, or no static power
            although `seconds` is given.
        DataError: if the counts cover no sample, or lack the details.
    """
    if counts.samples < 1:
        raise DataError(
            f"samples {counts.samples}: the energy per sample needs at least 1 sample",
            "range",
            key="samples",
            value=counts.samples,
            limit=1,
        )
    device.constant(_main(device))  # raises if it is unknown
    energy = _CHARGE[device.charges](counts, device)
    if seconds is None:
        return energy
    if device.static is None:
        raise ConfigError(
            f"device {device.name} states no [static] power, so the energy cannot include it",
            "unsupported",
            key="static",
            value=device.name,
        )
    units = {"chip": chips, "core": cores}[device.static.per]
    static = device.static.watts * seconds * units
    span = None if energy.span is None else (energy.span[0] + static, energy.span[1] + static)
    return replace(energy, static=static, span=span)


def _main(device: Device) -> str:
    """Return the main energy key of a device, even if the device does not state it."""
    keys = _MAIN[device.charges]
    return next((key for key in keys if key in device.constants), keys[0])


def _events(counts: Counts, device: Device) -> EnergyBreakdown:
    """Compute the energy on an event-driven chip, which is charged for each event."""
    charged = _event_counts(counts, device)
    constants = {key: device.event(key) for key in charged}

    def joules(*keys: str) -> float:
        present = [key for key in keys if key in charged]
        return sum(constants[key].joules(charged[key]) / counts.samples for key in present)

    return EnergyBreakdown(
        device=device.name,
        synapses=joules("sop"),
        neurons=joules("neuron_update", "neuron_update_inactive"),
        spikes=joules("spike"),
        used=tuple(key for key in device.constants if key in charged),
        messages=joules("message"),
        span=_span(counts, device, charged, constants),
    )


def _event_counts(counts: Counts, device: Device) -> dict[str, int]:
    """Return energy key -> number of events, for the events that can be charged."""
    added = counts.added
    events = {"sop": counts.sops, "neuron_update": counts.neuron_updates, "spike": counts.spikes}
    active, messages = counts.active_updates, counts.messages
    if active is not None and "neuron_update_inactive" in device.constants:
        events["neuron_update"] = active
        events["neuron_update_inactive"] = counts.neuron_updates - active
    for key, further in (
        ("sop", added.sops),
        ("neuron_update", added.neuron_updates),  # a spike reaches them in nearly every step
        ("spike", added.spikes),
    ):
        events[key] += further
    if messages is not None:
        events["message"] = messages + added.messages + (counts.input_messages or 0)
    return {key: number for key, number in events.items() if key in device.constants}


def _span(
    counts: Counts, device: Device, charged: Mapping[str, int], constants: Mapping[str, EventEnergy]
) -> tuple[float, float] | None:
    """Return the bounds (least, most) of the mean joules per sample, or None if they are equal.

    The constants of the device, and the unknown number of active updates, leave this range.
    """
    least = sum(constants[key].least * number for key, number in charged.items())
    most = sum(constants[key].most * number for key, number in charged.items())
    idle = device.energy.neuron_update_inactive
    if idle is not None and "neuron_update_inactive" not in charged:
        # Active updates were not counted: all updates may have been inactive.
        least += (idle.least - constants["neuron_update"].least) * charged["neuron_update"]
    if least == most:
        return None
    return least / 1e12 / counts.samples, most / 1e12 / counts.samples


def _dense(counts: Counts, device: Device) -> EnergyBreakdown:
    """Compute the energy on a machine that executes every possible connection at every step."""
    main = _main(device)
    runs = counts.steps * counts.samples
    joules = {main: device.constant(main).joules(counts.possible_connections * runs)}
    if "neuron_update" in device.constants:
        joules["neuron_update"] = device.constant("neuron_update").joules(counts.neuron_updates)
    return EnergyBreakdown(
        device=device.name,
        synapses=joules[main] / counts.samples,
        neurons=joules.get("neuron_update", 0.0) / counts.samples,
        spikes=0.0,
        used=tuple(key for key in device.constants if key in joules),
    )


def _memory(counts: Counts, device: Device) -> EnergyBreakdown:
    """Compute the energy of operations and memory (Lemaire et al. 2022), in the cheaper storage."""
    layers = [lemaire.snn(load, device) for load in lemaire.loads(counts)]
    stored = ", ".join(f"{layer.name} {layer.storage}" for layer in layers)
    remarks = [f"storage of the weights: {stored}"]
    beyond = [layer.name for layer in layers if layer.extrapolated]
    if beyond and device.memory is not None:
        remarks.append(
            f"layers with a memory of more than {device.memory.known_to_bytes:,} bytes, for which "
            f"the price of an access is extrapolated: {', '.join(beyond)}"
        )
    return EnergyBreakdown(
        device=device.name,
        synapses=sum(part.weights + part.operations + part.addressing for part in layers),
        neurons=sum(part.potential + part.bias for part in layers),
        spikes=sum(part.io for part in layers),
        used=(*device.constants, "memory"),
        remarks=tuple(remarks),
    )


_CHARGE: Mapping[str | None, Callable[[Counts, Device], EnergyBreakdown]] = {
    "events": _events,
    "dense": _dense,
    "memory": _memory,
}
