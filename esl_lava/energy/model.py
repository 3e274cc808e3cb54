"""Energy of a run: counts times the constants of a device file, nothing hidden.

Two conventions, not to be mixed: `by_connections` is the paper's (Table 1 of ESL-SNNs,
AAAI 2023), which knows neither time nor activity; `per_sample` charges what a run did.
"""

from __future__ import annotations

from dataclasses import dataclass

from esl_lava.counts import Counts
from esl_lava.devices import Device
from esl_lava.errors import DataError

_PER_CONNECTION = {"events": "sop", "dense": "operation"}
"""The constant that a device cannot do without: what it charges for a connection."""


@dataclass(frozen=True)
class EnergyBreakdown:
    """Energy of one sample in joules, the mean over a run.

    A part the device has no constant for is 0: unknown, or included in another
    constant, as the device's notes say. `used` tells which constants were charged.

    Attributes:
        device: the device's name.
        synapses: synaptic operations, or all operations of a dense machine.
        neurons: neuron updates.
        spikes: spikes emitted by the network's neurons.
        used: the energy keys of the device that were charged.
    """

    device: str
    synapses: float
    neurons: float
    spikes: float
    used: tuple[str, ...]

    @property
    def total(self) -> float:
        """All parts together, in joules."""
        return self.synapses + self.neurons + self.spikes


def by_connections(connections: int, device: Device) -> float:
    """Joules of an inference by the paper's convention: each connection costs once.

    No time steps and no activity enter. For a network whose neurons fire at most once
    it is an upper bound on the synaptic operations. On a dense machine it assumes that
    absent connections cost nothing, which `per_sample` does not.

    Args:
        connections: connections of the network (positions the masks allow).
        device: charges its `sop`, or its `operation` where it is dense.

    Raises:
        ConfigError: when the device does not state that constant.
    """
    return device.constant(_PER_CONNECTION[device.charges]).joules(connections)


def per_sample(counts: Counts, device: Device) -> EnergyBreakdown:
    """Energy of one sample, from what a run really did.

    An event-driven device is charged SOPs x `sop`, and neuron updates x
    `neuron_update` and spikes x `spike` where it states these. Spikes are those the
    network's neurons emit: input spikes come from outside, at a cost no device file
    states, and are charged only for the synapses they cross. A dense device is charged
    every possible connection at every step, spikes or not.

    Args:
        counts: of at least one sample.
        device: needs `sop`, or `operation` where it is dense.

    Raises:
        ConfigError: when the device does not state that constant.
        DataError: when the counts cover no sample.
    """
    if counts.samples < 1:
        raise DataError(f"energy per sample needs at least 1 sample, not {counts.samples}")
    main = _PER_CONNECTION[device.charges]
    device.constant(main)  # refuses where it is unknown
    events = {
        "sop": counts.sops,
        "neuron_update": counts.neuron_updates,
        "spike": counts.spikes,
        "operation": counts.possible * counts.steps * counts.samples,
    }
    joules = {
        key: constant.joules(events[key]) / counts.samples
        for key, constant in device.constants.items()
    }
    return EnergyBreakdown(
        device=device.name,
        synapses=joules[main],
        neurons=joules.get("neuron_update", 0.0),
        spikes=joules.get("spike", 0.0),
        used=tuple(joules),
    )
