"""Losses on the readout's output over time."""

import torch
from torch.nn import functional


def tet(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Temporal efficient training, Eq. 10: the mean over t of CE(O(t), y).

    Args:
        outputs: (batch, classes, T) float, O(t) at each step.
        labels: (batch,) int64.

    Returns:
        Scalar, the mean over batch and steps.
    """
    steps = outputs.shape[-1]
    return functional.cross_entropy(outputs, labels[:, None].expand(-1, steps))
