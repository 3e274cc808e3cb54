"""Losses on the output of the readout: on O(t) over time, or on the times of its spikes."""

from collections.abc import Iterable

import torch
from torch.nn import functional


def tet(
    outputs: torch.Tensor, labels: torch.Tensor, share: float = 0.0, target: float = 1.0
) -> torch.Tensor:
    """Compute the loss of temporal efficient training, Eq. 10: the mean over t of CE(O(t), y).

    If lambda (`share`) is above 0, it is the whole loss of Deng et al. (ICLR 2022, Eq. 11 to 13):
    (1 - lambda) times Eq. 10, plus lambda times the mean of (O(t) - target)**2.

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
"""A spike with a larger z counts as late. `first_spike` bounds z at twice this value."""

SHARPNESS = 5.0
"""Factor of z in the softmax of `first_spike`. With a larger factor, a smaller lead of the first
spike makes the decision certain."""

SUM_COST = 0.1
"""K, the cost of each unit by which the weights of a neuron sum to less than 1."""


def first_spike(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the loss of Eq. 6, which is low if the neuron of the right class fires first.

    It is the cross entropy of softmax(-z), here of softmax(-SHARPNESS z). Late times z > LATE are
    replaced by a smooth bound, 2 LATE - LATE**2 / z, which is 2 LATE for a silent neuron. The
    gradient of the bound falls as 1 / z**2. The gradient of z with respect to the weights grows
    as z**2 when the sum of the weights comes near 1. So the product of both stays bounded.

    Args:
        z: (batch, classes) exp of firing times, infinity for no spike.
        labels: (batch,) int64.

    Returns:
        Scalar, the mean over the batch.
    """
    bounded = torch.where(z <= LATE, z, 2 * LATE - LATE**2 / z)
    return functional.cross_entropy(-SHARPNESS * bounded, labels)


def weight_sum_cost(weights: Iterable[torch.Tensor]) -> torch.Tensor:
    """Compute K sum_j max(0, 1 - sum_i w_ji) over the neurons j of all layers; K is `SUM_COST`.

    A neuron whose weights sum to 1 or less may never fire.

    Args:
        weights: (n_post, n_pre) of each layer, 0 where pruned.
    """
    deficits = [torch.relu(1 - weight.sum(1)).sum() for weight in weights]
    return SUM_COST * torch.stack(deficits).sum()
