"""A network's activity on samples, and where it lies on a chip's cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.arrivals import by_steps_left, latest
from esl_lava.config import Encoding
from esl_lava.data.datasets import Dataset
from esl_lava.devices import load_device
from esl_lava.energy import active_updates, detailed, with_activity, with_messages
from esl_lava.experiments.evaluate import (
    ENCODED_BYTES,
    data_name,
    encoded,
    encoding_of,
    load_samples,
)
from esl_lava.experiments.input_block import driven
from esl_lava.experiments.spikes import (
    PLAIN,
    Layout,
    read_spikes,
    refuse_others_options,
    spikes_file,
)
from esl_lava.mapping import layer_bounds, map_network, step_nanoseconds, traffic
from esl_lava.network import INPUT, Network
from esl_lava.results.mapped import Activity, Flow, Mapped
from esl_lava.simulate import Result, simulate
from esl_lava.simulate.result import joined

TRAFFIC_SAMPLES = 100
"""Test samples on which messages between cores are counted where nobody says how many."""


def measure(network: Network, data: Dataset, encoding: Encoding) -> Activity:
    """Run all of `data` and count spikes by neuron, and active updates.

    Raises:
        DataError, BackendError: as `simulate`.
    """

    def spikes(part: slice) -> npt.NDArray[Any]:
        some = replace(data, images=data.images[part], labels=data.labels[part])
        return driven(network, encoded(some, encoding))

    return _measured(network, spikes, len(data), encoding.steps)


def measure_samples(
    network: Network,
    data: str | None,
    samples: int | None,
    encoder: str | None,
    steps: int | None,
    *,
    layout: Layout = PLAIN,
    most: int | None = None,
) -> Activity:
    """`measure` on the first test samples of a data set, or on those of a file of spikes.

    Args:
        network: what to run.
        data: a data set, by default the one trained on, or the path of a .npy file.
        samples: how many; by default `most`, or all where there are fewer or it is None.
        encoder, steps: other than as trained; of a data set only.
        layout: of a file, as `read_spikes`.
        most: see `samples`.

    Raises:
        ConfigError: where options do not belong to such data.
        FileError, DataError, BackendError: as `read_spikes`, `load_samples`, `simulate`.
    """
    file = spikes_file(data)
    refuse_others_options(data, file, encoder=encoder, steps=steps, layout=layout)
    if file is not None:
        inputs = read_spikes(network, file, samples, layout=layout, most=most)
        return _measured(network, inputs, inputs.samples, inputs.steps)
    encoding = encoding_of(network, encoder, steps)
    test = load_samples(network, data_name(network, data), "test", samples, most)
    return measure(network, test, encoding)


def _measured(
    network: Network, inputs: Callable[[slice], npt.NDArray[Any]], samples: int, steps: int
) -> Activity:
    """Run (samples, T, inputs) spikes in portions that are small enough to record."""
    results = []
    active: Counter[str] = Counter()
    spikes: dict[str, Any] = {}
    rows = latest(network) + 1
    widest = max(network.inputs, *(layer.neurons for layer in network.layers))
    each = max(1, ENCODED_BYTES // (steps * widest * 4))
    for first in range(0, samples, each):
        given = inputs(slice(first, min(first + each, samples)))
        result = simulate(network, given, record="all")
        active.update(active_updates(network, given, result.spikes))
        by_step = {INPUT: np.count_nonzero(given, axis=0)}
        by_step |= {name: s.sum(axis=0, dtype=np.int64) for name, s in result.spikes.items()}
        for name, emitted in by_step.items():
            spikes[name] = spikes.get(name, 0) + by_steps_left(emitted, rows)
        results.append(_counted(result))
    counts = detailed(network, joined(results).counts)
    return Activity(with_activity(counts, active), spikes)


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
    sent = traffic(network, core_map, activity.spikes)
    counts = activity.counts
    bounds = layer_bounds(core_map, sent, device, counts.samples * counts.steps)
    counted = with_messages(counts, sent.sent)
    flow = Flow(counted, sent, bounds, step_nanoseconds(bounds, device))
    return Mapped(device, core_map, flow)


def _counted(result: Result) -> Result:
    """A result without what it recorded: counts are all that is joined."""
    return replace(result, spikes={}, readout=None)
