"""Energy of a run: counts times the constants of a device file, nothing hidden.

Conventions, not to be mixed: `by_connections` is the paper's (Table 1 of ESL-SNNs,
AAAI 2023), which knows neither time nor activity; `per_sample` charges what a run did;
`as_ann` what a dense network of the same shape takes in one pass.
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
"""What a device cannot do without, by its way of charging: the first is asked for by name."""


@dataclass(frozen=True)
class EnergyBreakdown:
    """Energy of one sample in joules, the mean over a run.

    A part the device has no constant for is 0: unknown, or included in another
    constant, as the device's notes say. `used` tells which constants were charged.

    Attributes:
        device: the device's name.
        synapses: synaptic operations, or all operations of a dense machine; with their
            weights and addresses, where memory is charged.
        neurons: neuron updates; accesses to potentials and biases, where memory is charged.
        spikes: spikes emitted by the network's neurons; reading and writing spikes, where
            memory is charged.
        used: the energy keys of the device that were charged.
        messages: spikes sent to other cores, of a mapped network.
        static: power drawn whatever happens, over the time that was asked for.
        span: (least, most) total where a constant's sources disagree or an update may be
            active or not; None where there is nothing to disagree on.
        remarks: what to know about the figure.
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
        """All parts together, in joules."""
        return self.synapses + self.neurons + self.spikes + self.messages + self.static


def by_connections(connections: int, device: Device) -> float:
    """Joules of an inference by the paper's convention: each connection costs once.

    No time steps and no activity enter. Where inputs and neurons fire at most once in a
    sample, it is an upper bound on what the synaptic operations cost: a spike crosses each
    of its connections once. On a dense machine it assumes that absent connections cost
    nothing, which `per_sample` does not.

    Args:
        connections: of the network, between two neurons (`Network.connections`): of a
            kernel as many as its weights make, not its weights.
        device: charges its `sop`, or its `operation` or `mac` where it is dense.

    Raises:
        ConfigError: when the device does not state that constant, or is charged for memory,
            which this convention does not know.
    """
    if device.charges == "memory":
        raise ConfigError(
            f"device {device.name} is charged for memory, of which the convention of one "
            "operation per connection knows nothing"
        )
    return device.constant(_main(device)).joules(connections)


def as_ann(counts: Counts, device: Device) -> float | None:
    """Joules of a dense network of the same shape that runs once, without spikes or time.

    Every possible connection is one multiply-accumulate.

    Args:
        counts: with details for a device charged for memory.
        device: charges its `operation` or `mac`, or memory.

    Returns:
        None where the device states neither: it does not multiply.
    """
    if device.charges == "memory":
        layers = [lemaire.ann(load, device) for load in lemaire.loads(counts)]
        return sum(layer.total for layer in layers)
    keys = [key for key in ("operation", "mac") if key in device.constants]
    return device.constant(keys[0]).joules(counts.possible_connections) if keys else None


def per_sample(
    counts: Counts, device: Device, *, seconds: float | None = None, chips: int = 1, cores: int = 1
) -> EnergyBreakdown:
    """Energy of one sample, from what a run really did.

    An event-driven device is charged SOPs x `sop`, and neuron updates x
    `neuron_update` and spikes x `spike` where it states these; where the counts say how
    many updates were active, the others x `neuron_update_inactive`; where they say how
    many messages there were, these x `message`. Spikes are those the
    network's neurons emit, and those that a mapping adds: input spikes come from
    outside, at a cost no device file
    states, and are charged only for the synapses they cross, and as messages. A dense
    device is charged every possible connection at every step, spikes or not; a device
    charged for memory as `lemaire.snn` says.

    Args:
        counts: of at least one sample; with details for a device charged for memory.
        device: needs `sop`, or `operation` or `mac` where it is dense.
        seconds: a sample takes; None charges no static power.
        chips, cores: that draw static power.

    Raises:
        ConfigError: when the device does not state a constant that is needed.
        DataError: when the counts cover no sample, or lack the details.
    """
    if counts.samples < 1:
        raise DataError(f"energy per sample needs at least 1 sample, not {counts.samples}")
    device.constant(_main(device))  # refuses where it is unknown
    found = _CHARGE[device.charges](counts, device)
    if seconds is None:
        return found
    if device.static is None:
        raise ConfigError(f"device {device.name} states no static power: it is unknown")
    units = {"chip": chips, "core": cores}[device.static.per]
    static = device.static.watts * seconds * units
    span = None if found.span is None else (found.span[0] + static, found.span[1] + static)
    return replace(found, static=static, span=span)


def _main(device: Device) -> str:
    """The energy key of what a device cannot do without, whether or not it states one."""
    keys = _MAIN[device.charges]
    return next((key for key in keys if key in device.constants), keys[0])


def _events(counts: Counts, device: Device) -> EnergyBreakdown:
    """An event-driven chip."""
    charged = _event_counts(counts, device)
    constants = {key: device.event(key) for key in charged}

    def joules(*keys: str) -> float:
        given = [key for key in keys if key in charged]
        return sum(constants[key].joules(charged[key]) / counts.samples for key in given)

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
    """Energy key -> how many events of it there were, for those that can be charged."""
    added = counts.added
    events = {"sop": counts.sops, "neuron_update": counts.neuron_updates, "spike": counts.spikes}
    active, messages = counts.active_updates, counts.messages
    if active is not None and "neuron_update_inactive" in device.constants:
        events["neuron_update"] = active
        events["neuron_update_inactive"] = counts.neuron_updates - active
    for key, further in (
        ("sop", added.sops),
        ("neuron_update", added.neuron_updates),  # something reaches them in nearly every step
        ("spike", added.spikes),
    ):
        events[key] += further
    if messages is not None:
        events["message"] = messages + added.messages + (counts.input_messages or 0)
    return {key: number for key, number in events.items() if key in device.constants}


def _span(
    counts: Counts, device: Device, charged: Mapping[str, int], constants: Mapping[str, EventEnergy]
) -> tuple[float, float] | None:
    """(least, most) joules of a sample, or None where they are the same."""
    least = sum(constants[key].least * number for key, number in charged.items())
    most = sum(constants[key].most * number for key, number in charged.items())
    idle = device.energy.neuron_update_inactive
    if idle is not None and "neuron_update_inactive" not in charged:
        # Not counted: all updates may have been inactive.
        least += (idle.least - constants["neuron_update"].least) * charged["neuron_update"]
    if least == most:
        return None
    return least / 1e12 / counts.samples, most / 1e12 / counts.samples


def _dense(counts: Counts, device: Device) -> EnergyBreakdown:
    """A machine that executes every possible connection at every step."""
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
    """Operations and memory after Lemaire et al. 2022, weights stored the cheaper way."""
    layers = [lemaire.snn(load, device) for load in lemaire.loads(counts)]
    stored = ", ".join(f"{layer.name} {layer.storage}" for layer in layers)
    remarks = [f"weights stored: {stored}"]
    beyond = [layer.name for layer in layers if layer.extrapolated]
    if beyond and device.memory is not None:
        remarks.append(
            f"beyond the {device.memory.known_to_bytes:,} bytes of memory that the price of an "
            f"access is known for: {', '.join(beyond)}"
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
