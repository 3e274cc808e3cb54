"""Compare chip and training by firing times, for networks whose neurons fire once.

With the same inputs on the grid and the same integer weights, a neuron must fire at the step that
contains its exact time of Eq. 5. Only the truncation of the chip's current may move it, by a
bounded number of steps (`export.time_grid`). Differences between trained and integer weights, and
over several layers, have no bound: they are measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.chip import DECAY_UNITY
from esl_lava.export.time_grid import firing_band, unit_weights
from esl_lava.models.one_spike import (
    firing_times,
    first_spikes,
    grid_step,
    spikes_to_times,
    times_to_steps,
)
from esl_lava.models.reference import TimeReference
from esl_lava.network import INPUT, Layer, Network
from esl_lava.results.verification import LayerTimes, TimeComparison, TimeDifference


def compare(
    trained: TimeReference, network: Network, inputs: Bytes, spikes: Mapping[str, Array]
) -> TimeComparison:
    """Compare the firing steps of neurons with the firing times of training.

    Args:
        trained: the steps that contain the firing times of training.
        network: the integer network of the model, from which exact times are computed.
        inputs: (samples, T, inputs), at most one spike per input and sample.
        spikes: layer name -> spikes of the network of the file on these inputs.
    """
    steps = inputs.shape[1]
    outside = 0
    first = None
    layers = []
    all_spikes = {INPUT: inputs, **spikes}
    for place, layer in enumerate(network.layers, 1):
        arriving = all_spikes[INPUT if place == 1 else network.layers[place - 2].name]
        grid = first_spikes(spikes[layer.name])
        exact = exact_steps(layer, place, arriving)
        earliest, latest = firing_band(layer, arriving)
        wrong = (grid < earliest) | (grid > latest) | (exact < earliest) | (exact > latest)
        outside += int(wrong.sum())
        if first is None and wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            values = (int(steps[at]) for steps in (grid, exact, earliest, latest))
            first = TimeDifference(layer.name, *at, *values)
        float_steps = trained.steps[layer.name]
        both = (grid < steps) & (float_steps < steps)
        layers.append(
            LayerTimes(
                layer=layer.name,
                fired=int((grid < steps).sum()),
                moved=int((grid != exact).sum()),
                furthest=int(np.abs(grid - exact).max()),
                lost=int(((grid < steps) != (float_steps < steps)).sum()),
                drift=float(np.abs(grid - float_steps)[both].mean()) if both.any() else 0.0,
            )
        )
    return TimeComparison(tuple(layers), outside, first)


def exact_steps(layer: Layer, place: int, arriving: Array) -> Ints:
    """Compute the steps that contain the exact firing times of Eq. 5.

    Args:
        layer: a layer of the integer network; its integer weights are used.
        place: its place in the network, 1 for the first layer.
        arriving: (samples, T, n_pre) spikes that the layer receives.

    Returns:
        (samples, neurons) steps; T if a neuron is silent or fires after the sample.
    """
    step = grid_step(int(layer.neuron.current_decay) / DECAY_UNITY)
    z = torch.from_numpy(spikes_to_times(arriving, step, place - 1))
    z_out = firing_times(z, torch.from_numpy(unit_weights(layer)))
    return times_to_steps(z_out, step, place, arriving.shape[1])
