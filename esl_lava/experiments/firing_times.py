"""Networks whose neurons fire once: chip and training compared by firing times.

Given the same inputs on the grid and the same integer weights, a layer has to fire at the
step that Eq. 5's exact time falls into, but for the truncation of the chip's current, whose
effect is bounded (`export.time_grid`). Over layers, and from trained to integer weights,
the differences add up: those are measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.chip import DECAY_UNITY
from esl_lava.export.time_grid import firing_band, unit_weights
from esl_lava.models.one_spike import firing_times, first_spikes, grid_step, steps_of, times_of
from esl_lava.models.reference import TimeReference
from esl_lava.network import INPUT, Layer, Network
from esl_lava.results.verification import LayerTimes, TimeComparison, TimeDifference


def compare(
    trained: TimeReference, network: Network, inputs: Bytes, spikes: Mapping[str, Array]
) -> TimeComparison:
    """Compare the steps in which neurons fire with the times of training.

    Args:
        trained: into which steps the times of training fall.
        network: what the model lowers to, whose integers the exact times are of.
        inputs: (samples, T, inputs), at most one spike of an input in a sample.
        spikes: of every layer when the network of a file ran on them.
    """
    steps = inputs.shape[1]
    outside = 0
    first = None
    layers = []
    before = {INPUT: inputs, **spikes}
    for place, layer in enumerate(network.layers, 1):
        arriving = before[INPUT if place == 1 else network.layers[place - 2].name]
        found = first_spikes(spikes[layer.name])
        exact = exact_steps(layer, place, arriving)
        earliest, latest = firing_band(layer, arriving)
        wrong = (found < earliest) | (found > latest) | (exact < earliest) | (exact > latest)
        outside += int(wrong.sum())
        if first is None and wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            values = (int(steps[at]) for steps in (found, exact, earliest, latest))
            first = TimeDifference(layer.name, *at, *values)
        float_steps = trained.steps[layer.name]
        both = (found < steps) & (float_steps < steps)
        layers.append(
            LayerTimes(
                layer=layer.name,
                fired=int((found < steps).sum()),
                moved=int((found != exact).sum()),
                furthest=int(np.abs(found - exact).max()),
                lost=int(((found < steps) != (float_steps < steps)).sum()),
                drift=float(np.abs(found - float_steps)[both].mean()) if both.any() else 0.0,
            )
        )
    return TimeComparison(tuple(layers), outside, first)


def exact_steps(layer: Layer, place: int, arriving: Array) -> Ints:
    """Into which steps the exact firing times of Eq. 5 fall.

    Args:
        layer: of the grid; its integer weights are used.
        place: of it, 1 for the first.
        arriving: (samples, T, n_pre) spikes.

    Returns:
        (samples, neurons), T where a neuron is silent or fires after the sample.
    """
    step = grid_step(int(layer.neuron.current_decay) / DECAY_UNITY)
    z = torch.from_numpy(times_of(arriving, step, place - 1))
    z_out = firing_times(z, torch.from_numpy(unit_weights(layer)))
    return steps_of(z_out, step, place, arriving.shape[1])
