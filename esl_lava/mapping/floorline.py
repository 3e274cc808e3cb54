"""A lower bound of the time that a step takes on a mapped network, and its bottleneck.

The bound follows the floorline model (Yik et al., "Modeling and Optimizing Performance Bottlenecks
for Neuromorphic Accelerators", arXiv 2511.21549, 2025). All cores wait for each other in every
step, so the slowest core decides. A core fetches weights, computes neurons and moves messages.
The longest of the three times is the floor of the core. Imperfect overlap of the three and queues
of messages add to it: the floor is a bound, not an estimate. Loads are means over the steps of a
run, and the mean of a maximum is never below the maximum of the means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from esl_lava.devices import Device
from esl_lava.mapping.placement import Core, CoreMap
from esl_lava.mapping.traffic import Traffic
from esl_lava.values import Keys, keys

STATES: Mapping[str, tuple[str, ...]] = {
    "memory": ("sop",),
    "compute": ("neuron_update", "spike"),
    "traffic": ("message_in", "message_out"),
}
"""Bottleneck of a core -> the events that make up its time: keys of a device's `[time]`."""


@dataclass(frozen=True)
class LayerBound:
    """The least time of a step on the slowest core of a layer (its floor), and that core's load.

    Attributes:
        name: name of the layer.
        core: number of the slowest core; None if the device states no times.
        load: event -> events of that core in a mean step. The events are `sop`, `neuron_update`,
            `spike`, `message_in` and `message_out`. Without times, each is the largest of any core.
        nanoseconds: "memory", "compute", "traffic" -> time of that core; None if the device states
            no times.
        state: the key of the longest of these times, or None.
    """

    KEYS: ClassVar[Keys] = keys("layer=name core per_step=load nanoseconds bound=state")

    name: str
    core: int | None
    load: Mapping[str, float]
    nanoseconds: Mapping[str, float] | None
    state: str | None

    @property
    def floor(self) -> float | None:
        """The least nanoseconds that a step takes, or None."""
        return None if self.nanoseconds is None else max(self.nanoseconds.values())


def layer_bounds(
    core_map: CoreMap, traffic: Traffic, device: Device, steps: int
) -> tuple[LayerBound, ...]:
    """Compute the floor of every layer: the least time of a step on its slowest core.

    Args:
        core_map: where the network lies.
        traffic: the events of a run.
        device: the device whose times count. A time that is absent counts as 0. If all are absent,
            the floor is unknown.
        steps: steps of that run, summed over samples.
    """
    return tuple(
        _bound(layer.name, layer.cores, traffic, device, steps) for layer in core_map.layers
    )


def step_nanoseconds(bounds: tuple[LayerBound, ...], device: Device) -> float | None:
    """Compute the least nanoseconds of a step of the whole network, with its synchronisation.

    Return None if the device states no times.
    """
    floors = [bound.floor for bound in bounds if bound.floor is not None]
    if len(floors) != len(bounds):
        return None
    return max(floors) + (device.time.step.value if device.time.step is not None else 0.0)


def _bound(
    name: str, cores: tuple[Core, ...], traffic: Traffic, device: Device, steps: int
) -> LayerBound:
    loads = {core.number: _load(core, traffic, steps) for core in cores}
    times = {key: time.value for key, time in device.time if time is not None}
    if not times:
        events = next(iter(loads.values())).keys()
        most = {event: max(load[event] for load in loads.values()) for event in events}
        return LayerBound(name, None, most, None, None)
    durations = {
        number: {
            state: sum(load[event] * times.get(event, 0.0) for event in events)
            for state, events in STATES.items()
        }
        for number, load in loads.items()
    }
    number = max(durations, key=lambda number: max(durations[number].values()))
    slowest = durations[number]
    return LayerBound(name, number, loads[number], slowest, max(slowest, key=lambda s: slowest[s]))


def _load(core: Core, traffic: Traffic, steps: int) -> dict[str, float]:
    number = core.number
    return {
        "sop": traffic.sops[number] / steps,
        "neuron_update": float(core.region.neurons),
        "spike": traffic.spikes[number] / steps,
        "message_in": traffic.messages[:, number].sum() / steps,
        "message_out": traffic.messages[number].sum() / steps,
    }
