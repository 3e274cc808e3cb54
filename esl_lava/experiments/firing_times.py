"""Networks whose neurons fire once: chip and training compared by firing times.

Given the same inputs on the grid and the same integer weights, a layer has to fire at the
step that Eq. 5's exact time falls into, but for the truncation of the chip's current, whose
effect is bounded (`export.time_grid`). Over layers, and from trained to integer weights,
the differences add up: those are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from esl_lava.chip import DECAY_UNITY
from esl_lava.export.time_grid import firing_band, unit_weights
from esl_lava.models.single_spike import SingleSpikeMLP, firing_times, grid_step
from esl_lava.network import INPUT, Layer, Network
from esl_lava.results.verification import LayerTimes, TimeComparison, TimeDifference

Steps = npt.NDArray[np.int64]

ROUNDING = 1e-9
"""Steps by which a time may exceed a point of the grid and count as on it: float64's."""


def compare(
    model: SingleSpikeMLP,
    network: Network,
    inputs: npt.NDArray[np.uint8],
    spikes: Mapping[str, npt.NDArray[np.uint8]],
) -> TimeComparison:
    """Compare the steps in which neurons fire with the times of training.

    Args:
        model: as trained.
        network: what it lowers to, whose integers the exact times are of.
        inputs: (samples, T, inputs), at most one spike of an input in a sample.
        spikes: of every layer when the network of a file ran on them.
    """
    steps = inputs.shape[1]
    outside = 0
    first = None
    layers = []
    trained = list(_trained(model, network, inputs))
    before = {INPUT: inputs, **spikes}
    for place, layer in enumerate(network.layers, 1):
        arriving = before[INPUT if place == 1 else network.layers[place - 2].name]
        found = first_steps(spikes[layer.name])
        exact = exact_steps(layer, place, arriving)
        earliest, latest = firing_band(layer, arriving)
        wrong = (found < earliest) | (found > latest) | (exact < earliest) | (exact > latest)
        outside += int(wrong.sum())
        if first is None and wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            values = (int(steps[at]) for steps in (found, exact, earliest, latest))
            first = TimeDifference(layer.name, *at, *values)
        float_steps = trained[place - 1]
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


def first_steps(spikes: npt.NDArray[np.uint8]) -> Steps:
    """(samples, neurons) step of the first spike of (samples, T, neurons), T for none."""
    return np.where(spikes.any(axis=1), spikes.argmax(axis=1), spikes.shape[1])


def exact_steps(layer: Layer, place: int, arriving: npt.NDArray[np.uint8]) -> Steps:
    """Into which steps the exact firing times of Eq. 5 fall.

    Args:
        layer: of the grid; its integer weights are used.
        place: of it, 1 for the first.
        arriving: (samples, T, n_pre) spikes.

    Returns:
        (samples, neurons), T where a neuron is silent or fires after the sample.
    """
    step = grid_step(int(layer.neuron.current_decay) / DECAY_UNITY)
    z = _as_times(arriving, place - 1, step)
    z_out = firing_times(torch.from_numpy(z), torch.from_numpy(unit_weights(layer)))
    return _as_steps(z_out, place, step, arriving.shape[1])


def _trained(model: SingleSpikeMLP, network: Network, inputs: Any) -> Iterator[Steps]:
    """Into which steps the times of training fall, layer by layer."""
    step = grid_step(int(network.layers[0].neuron.current_decay) / DECAY_UNITY)
    z = torch.from_numpy(_as_times(inputs, 0, step)).to(next(model.parameters()).dtype)
    with torch.no_grad():
        for place, times in enumerate(model.layer_times(z), 1):
            yield _as_steps(times.double(), place, step, inputs.shape[1])


def _as_times(spikes: npt.NDArray[np.uint8], place: int, step: float) -> npt.NDArray[np.float64]:
    """Exp of the times of spikes of a layer, infinity for none."""
    steps = first_steps(spikes)
    return np.where(steps < spikes.shape[1], np.exp((steps + place) * step), np.inf)


def _as_steps(z: torch.Tensor, place: int, step: float, steps: int) -> Steps:
    with np.errstate(invalid="ignore"):
        late = np.ceil(np.log(z.numpy()) / step - ROUNDING) - place
    return np.where(late < steps, late, steps).astype(np.int64)
