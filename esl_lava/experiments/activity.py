"""The activity of a network on samples, and its mapping to the cores of a chip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from esl_lava.arrays import Array, Ints
from esl_lava.arrivals import count_by_steps_left, longest_delay
from esl_lava.counts import AddedCounts
from esl_lava.devices import load_device
from esl_lava.energy import active_updates, add_details, with_activity, with_messages
from esl_lava.mapping import (
    CoreMap,
    Traffic,
    layer_bounds,
    map_network,
    step_nanoseconds,
    traffic,
)
from esl_lava.network import INPUT, Network
from esl_lava.results.mapped import Activity, Flow, MappedNetwork
from esl_lava.simulate import Result
from esl_lava.simulate.result import join_results

TRAFFIC_SAMPLES = 100
"""Default number of test samples on which messages between cores are counted."""


class Meter:
    """Adds up the activity of the neurons of a network over portions of the samples."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._rows = longest_delay(network) + 1
        self._results: list[Result] = []
        self._active: Counter[str] = Counter()
        self._spikes: dict[str, Ints] = {}

    def add(self, inputs: Array, result: Result) -> None:
        """Add a run with recorded spikes of all firing layers.

        Args:
            inputs: (samples, T, inputs) integers; each value other than 0 is a spike.
            result: the result of the run.
        """
        self._active.update(active_updates(self._network, inputs, result.spikes))
        emitted = {INPUT: np.count_nonzero(inputs, axis=0)}
        emitted |= {name: s.sum(axis=0, dtype=np.int64) for name, s in result.spikes.items()}
        for name, by_step in emitted.items():
            spikes = count_by_steps_left(by_step, self._rows)
            self._spikes[name] = self._spikes[name] + spikes if name in self._spikes else spikes
        # Only the counts are needed later; recorded spikes would take memory.
        self._results.append(replace(result, spikes={}, fired={}, readout=None))

    def activity(self) -> Activity:
        """Return the activity of all runs added so far."""
        counts = add_details(self._network, join_results(self._results).counts)
        return Activity(with_activity(counts, self._active), self._spikes)


def place(
    network: Network,
    chip: str | Path,
    *,
    packing: str | None = None,
    chips: int | None = None,
    activity: Activity | None = None,
) -> MappedNetwork:
    """Map a network to a chip and, if its activity is given, compute the messages between cores.

    Raises:
        ConfigError: if the chip or packing is unknown, or the device file has no capacity.
        LimitError: if the network does not fit.
    """
    device = load_device(chip)
    core_map = map_network(network, device, packed=packing, chips=chips)
    if activity is None:
        return MappedNetwork(core_map)
    counts = activity.counts
    steps = counts.samples * counts.steps
    sent = traffic(core_map, activity.spikes, steps)
    bounds = layer_bounds(core_map, sent, device, steps)
    counted = replace(with_messages(counts, sent.sent), added=_added(core_map, sent, steps))
    flow = Flow(counted, sent, bounds, step_nanoseconds(bounds, device))
    return MappedNetwork(core_map, flow)


def _added(core_map: CoreMap, sent: Traffic, steps: int) -> AddedCounts:
    """Return the counts of the added neurons, which sum parts of a fan-in.

    They are assumed to send in every step, which is the most they can send.
    """
    spreads = [layer.spread for layer in core_map.layers if layer.spread is not None]
    spikes = steps * sum(spread.messages for spread in spreads)
    return AddedCounts(
        sops=spikes,
        neuron_updates=steps * sum(spread.neurons for spread in spreads),
        spikes=spikes,
        messages=sum(sent.sent[name] for name in core_map.sums),
    )
