"""A network's activity on samples, and where it lies on a chip's cores."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava.arrays import Array, Ints
from esl_lava.arrivals import by_steps_left, latest
from esl_lava.counts import Counts
from esl_lava.devices import Device, load_device
from esl_lava.energy import active_updates, detailed, with_activity, with_messages
from esl_lava.mapping import (
    CoreMap,
    LayerBound,
    Traffic,
    layer_bounds,
    map_network,
    step_nanoseconds,
    traffic,
)
from esl_lava.network import INPUT, Network
from esl_lava.simulate import Result
from esl_lava.simulate.result import joined

TRAFFIC_SAMPLES = 100
"""Test samples on which messages between cores are counted where nobody says how many."""


@dataclass(frozen=True, eq=False)
class Activity:
    """What a network's neurons did in a run.

    Attributes:
        counts: with details and active updates.
        spikes: layer name, and `network.INPUT` -> (rows, neurons) spikes, of all samples, by
            the steps that are left to them (`arrivals.by_steps_left`).
    """

    counts: Counts
    spikes: dict[str, Ints]


@dataclass(frozen=True, eq=False)
class Mapped:
    """A network on a chip.

    Attributes:
        device: the chip.
        core_map: which cores hold it.
        activity: of the run that was measured, its messages counted; None without one.
        traffic: of that run.
        bounds: floor of every layer.
        step_nanoseconds: floor of a step of the network, where the device states times.
    """

    device: Device
    core_map: CoreMap
    activity: Activity | None = None
    traffic: Traffic | None = None
    bounds: tuple[LayerBound, ...] = ()
    step_nanoseconds: float | None = None


class Meter:
    """Adds up what neurons do, portion by portion of the samples.

    Args:
        network: whose neurons they are.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._rows = latest(network) + 1
        self._results: list[Result] = []
        self._active: Counter[str] = Counter()
        self._spikes: dict[str, Ints] = {}

    def add(self, inputs: Array, result: Result) -> None:
        """Add a run whose spikes were recorded in all firing layers.

        Args:
            inputs: (samples, T, inputs) integers; what is not 0 is a spike.
            result: of the run.
        """
        self._active.update(active_updates(self._network, inputs, result.spikes))
        emitted = {INPUT: np.count_nonzero(inputs, axis=0)}
        emitted |= {name: s.sum(axis=0, dtype=np.int64) for name, s in result.spikes.items()}
        for name, by_step in emitted.items():
            spikes = by_steps_left(by_step, self._rows)
            self._spikes[name] = self._spikes[name] + spikes if name in self._spikes else spikes
        # Counts are all that is joined.
        self._results.append(replace(result, spikes={}, readout=None))

    def activity(self) -> Activity:
        """Of all that was added."""
        counts = detailed(self._network, joined(self._results).counts)
        return Activity(with_activity(counts, self._active), self._spikes)


def place(
    network: Network,
    chip: str | Path,
    *,
    packing: str | None = None,
    chips: int | None = None,
    activity: Activity | None = None,
) -> Mapped:
    """Map a network to a chip and, where its activity is known, say what flows there.

    Raises:
        ConfigError: for an unknown chip or packing, or one that holds nothing.
        LimitError: where the network does not fit.
    """
    device = load_device(chip)
    core_map = map_network(network, device, packed=packing, chips=chips)
    if activity is None:
        return Mapped(device, core_map)
    flow = traffic(network, core_map, activity.spikes)
    counts = activity.counts
    bounds = layer_bounds(core_map, flow, device, counts.samples * counts.steps)
    return Mapped(
        device,
        core_map,
        Activity(with_messages(counts, flow.sent), activity.spikes),
        flow,
        bounds,
        step_nanoseconds(bounds, device),
    )


def mapped_values(mapped: Mapped) -> dict[str, Any]:
    """A mapped network as plain values, for scripts."""
    core_map = mapped.core_map
    values: dict[str, Any] = {
        "chip": core_map.chip,
        "packing": core_map.packing,
        "cores": core_map.cores,
        "chips": core_map.chips,
        "layers": [
            {
                "name": layer.name,
                "neurons": layer.neurons,
                "cores": len(layer.cores),
                "format": layer.form,
                "weight_bits": layer.weight_bits,
                "weights": layer.weights,
                "connections": layer.connections,
                "density": layer.density,
                "by_format": {
                    form: {"words": words, "cores": cores}
                    for form, (words, cores) in layer.words.items()
                },
                "break_even_density": dict(layer.break_even),
                "utilisation": core_map.utilisation(layer),
                "binding": layer.binding,
                "one_core_fewer": None if layer.fit is None else vars(layer.fit),
                "regions": [
                    {
                        "core": core.number,
                        "chip": core.chip,
                        "channels": core.region.channels,
                        "rows": core.region.rows,
                        "columns": core.region.columns,
                        "used": dict(core.used),
                    }
                    for core in layer.cores
                ],
            }
            for layer in core_map.layers
        ],
    }
    if mapped.activity is not None and mapped.traffic is not None:
        counts = mapped.activity.counts
        values["samples"] = counts.samples
        values["messages_per_sample"] = {
            name: sent / counts.samples for name, sent in mapped.traffic.sent.items()
        }
        values["traffic_per_step"] = (
            mapped.traffic.messages / (counts.samples * counts.steps)
        ).tolist()
        values["step_nanoseconds"] = mapped.step_nanoseconds
        values["bounds"] = [
            {
                "layer": bound.name,
                "core": bound.core,
                "per_step": {key: float(value) for key, value in bound.load.items()},
                "nanoseconds": None if bound.nanoseconds is None else dict(bound.nanoseconds),
                "bound": bound.state,
            }
            for bound in mapped.bounds
        ]
    return values
