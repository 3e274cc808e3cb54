"""The least time a step takes on a mapped network, and what bounds it.

After the floorline model (Yik et al., "Modeling and Optimizing Performance Bottlenecks for
Neuromorphic Accelerators", arXiv 2511.21549, 2025): cores keep step with one another, so that
the fullest core decides; within it weights are fetched, neurons computed and messages
moved, and the longest of the three is the floor. What they overlap, and how messages
queue, comes on top: a bound, not an estimate. Loads are means over the steps of a run, and
the mean of a maximum is never below the maximum of means.
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
"""What bounds a core, and the events it is made of: keys of a device's `[time]`."""


@dataclass(frozen=True)
class LayerBound:
    """The floor of a layer's cores.

    Attributes:
        name: the layer's.
        core: number of the core that decides.
        load: event -> of that core in a mean step: `sop`, `neuron_update`, `spike`,
            `message_in`, `message_out`. Without times, the most of any core each.
        nanoseconds: "memory", "compute", "traffic" -> of that core; None where the device
            states no times.
        state: the longest of these, or None.
    """

    KEYS: ClassVar[Keys] = keys("layer=name core per_step=load nanoseconds bound=state")

    name: str
    core: int | None
    load: Mapping[str, float]
    nanoseconds: Mapping[str, float] | None
    state: str | None

    @property
    def floor(self) -> float | None:
        """Nanoseconds that a step takes at least."""
        return None if self.nanoseconds is None else max(self.nanoseconds.values())


def layer_bounds(
    core_map: CoreMap, traffic: Traffic, device: Device, steps: int
) -> tuple[LayerBound, ...]:
    """The floor of every layer.

    Args:
        core_map: where the network lies.
        traffic: of a run.
        device: whose times count; an absent one counts as 0, none at all as unknown.
        steps: of that run, all samples together.
    """
    return tuple(
        _bound(layer.name, layer.cores, traffic, device, steps) for layer in core_map.layers
    )


def step_nanoseconds(bounds: tuple[LayerBound, ...], device: Device) -> float | None:
    """The floor of a step of the whole network, synchronisation included, or None."""
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
    taken = {
        number: {
            state: sum(load[event] * times.get(event, 0.0) for event in events)
            for state, events in STATES.items()
        }
        for number, load in loads.items()
    }
    number = max(taken, key=lambda number: max(taken[number].values()))
    found = taken[number]
    return LayerBound(name, number, loads[number], found, max(found, key=lambda s: found[s]))


def _load(core: Core, traffic: Traffic, steps: int) -> dict[str, float]:
    number = core.number
    return {
        "sop": traffic.sops[number] / steps,
        "neuron_update": float(core.region.neurons),
        "spike": traffic.spikes[number] / steps,
        "message_in": traffic.messages[:, number].sum() / steps,
        "message_out": traffic.messages[number].sum() / steps,
    }
