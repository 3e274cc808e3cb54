"""Losses on what the readout puts out: over time, or by the times of its spikes."""

from collections.abc import Iterable

import torch
from torch.nn import functional


def tet(
    outputs: torch.Tensor, labels: torch.Tensor, share: float = 0.0, target: float = 1.0
) -> torch.Tensor:
    """Temporal efficient training, Eq. 10: the mean over t of CE(O(t), y).

    With a share lambda above 0 the whole loss of Deng et al. (ICLR 2022, Eq. 11 to 13):
    (1 - lambda) times that and lambda times the mean of (O(t) - target)**2.

    Args:
        outputs: (batch, classes, T) float, O(t) at each step.
        labels: (batch,) int64.
        share: lambda, 0..1.
        target: phi, the firing threshold in the units of O(t).

    Returns:
        Scalar, the mean over batch and steps.
    """
    steps = outputs.shape[-1]
    loss = functional.cross_entropy(outputs, labels[:, None].expand(-1, steps))
    if not share:
        return loss
    return (1 - share) * loss + share * (outputs - target).square().mean()


LATE = 8.0
"""z from which on a spike counts as late; `first_spike` bounds times at twice it."""

SHARPNESS = 5.0
"""Factor on z in the softmax of `first_spike`: how early a class must be to be sure."""

SUM_COST = 0.1
"""K, price of what a neuron's weights lack to sum to 1."""


def first_spike(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Eq. 6, cross entropy of softmax(-z), here softmax(-SHARPNESS z): the right class first.

    Of late times z > LATE a smooth bound is taken, 2 LATE - LATE**2 / z, which is 2 LATE for a
    silent neuron. Its gradient falls as 1 / z**2, while that of z by the weights grows as z**2
    where their sum comes down to 1: the product stays bounded.

    Args:
        z: (batch, classes) exp of firing times, infinity for no spike.
        labels: (batch,) int64.

    Returns:
        Scalar, the mean over the batch.
    """
    bounded = torch.where(z <= LATE, z, 2 * LATE - LATE**2 / z)
    return functional.cross_entropy(-SHARPNESS * bounded, labels)


def weight_sum_cost(weights: Iterable[torch.Tensor]) -> torch.Tensor:
    """K sum_j max(0, 1 - sum_i w_ji): a neuron whose weights sum to 1 or less may never fire.

    Args:
        weights: (n_post, n_pre) of each layer, pruned ones 0.
    """
    lacking = [torch.relu(1 - weight.sum(1)).sum() for weight in weights]
    return SUM_COST * torch.stack(lacking).sum()
