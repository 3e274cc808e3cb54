"""A single-spike network on the chip's grid of times, in float64 and without a chip's integers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from esl_lava.models.single_spike import SingleSpikeMLP, firing_times, window_end

GRID_TOLERANCE = 1e-6
"""Share of a step by which a time may exceed a point of the grid and count as on it."""


def rounded_up(z: Tensor, step: float) -> Tensor:
    """The first times on the grid that are not earlier: exp(ceil(ln z / step) step).

    Args:
        z: exp of times, any shape, infinity stays.
        step: of the grid, as `grid_step`.
    """
    # Times on the grid already come back from logarithms with a rounding error.
    return torch.exp(torch.ceil(torch.log(z) / step - GRID_TOLERANCE) * step)


@torch.no_grad()
def grid_times(model: SingleSpikeMLP, z: Tensor, step: float, steps: int) -> list[Tensor]:
    """What `layer_times` becomes on the chip's grid, but for the truncation of its currents.

    Weights are rounded to 8 bits (the largest of a layer is 254), firing times up to the grid,
    and what fires after the sample's last step stays silent.

    Args:
        model: as trained.
        z: (batch, inputs) exp of input times on the grid.
        step: of the grid, as `grid_step`.
        steps: T of a sample.

    Returns:
        As `layer_times`, float64.
    """
    outputs = []
    z = z.double()
    for place, layer in enumerate(model.layers(), 1):
        z = rounded_up(firing_times(z, rounded_weight(layer.weight)), step)
        # Half a step later, lest a rounding error makes the last step too late.
        z = torch.where(z <= window_end(step, steps, place) * math.exp(step / 2), z, math.inf)
        outputs.append(z)
    return outputs


def rounded_weight(weight: Tensor) -> Tensor:
    """Weights of 8 bits: multiples of a 127th of the largest, float64."""
    unit = weight.detach().double().abs().max() / 127  # 254 in steps of 2
    return torch.round(weight.detach().double() / unit) * unit


@torch.no_grad()
def grid_decisions(model: SingleSpikeMLP, times: Sequence[Tensor]) -> Tensor:
    """The class that fires first on the grid; of several the one of the highest potential.

    Args:
        model: as trained.
        times: as `grid_times` returns them.

    Returns:
        (batch,) int64, -1 where no class fires.
    """
    *_, z_in, z_out = times
    first = z_out.min(dim=1, keepdim=True).values
    silent = first.isinf()
    arrived = torch.relu(1 - z_in / torch.where(silent, 1, first))
    potential = arrived @ rounded_weight(model.readout.weight).T  # Eq. 3
    potential[z_out > first] = -math.inf
    return torch.where(silent[:, 0], -1, potential.argmax(dim=1))
