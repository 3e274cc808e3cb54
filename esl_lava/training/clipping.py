"""Gradients scaled down together, by a norm over connections alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from esl_lava.sparsity.growth import Scores
from esl_lava.sparsity.weights import SparseWeight


def norms(gradients: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layer name -> Euclidean norm of its gradient over its connections, a scalar.

    Args:
        gradients: layer name -> gradient of its weight, or of the connections it stores.
        masks: layer name -> bool of the gradient's shape; without one all are connections.
    """
    return {
        name: torch.linalg.vector_norm(_of_connections(gradient, masks.get(name)))
        for name, gradient in gradients.items()
    }


def _of_connections(gradient: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None or bool(mask.all()):
        return gradient
    return torch.where(mask, gradient, 0.0)  # a NaN where no connection is counts for nothing


def scale_down(
    gradients: Iterable[Tensor], stored: Iterable[SparseWeight], norm: Tensor, limit: float
) -> None:
    """Scale gradients of that norm down to a limit, in place; smaller ones stay.

    All of them by one factor, those of no connection too, of which growth by gradient or momentum
    takes the largest: their order stays, and every engine shows growth the same.

    Args:
        gradients: of all layers.
        stored: weights of layers that store only connections, whose gradient at other
            positions is asked for later.
        norm: scalar, finite.
        limit: above 0.
    """
    factor = limit / (norm + 1e-6)  # as torch's clip_grad_norm_
    if factor >= 1:
        return
    for gradient in gradients:
        gradient.mul_(factor)
    for weight in stored:
        if weight.wants_dense_gradient and weight.dense_gradient is not None:
            weight.dense_gradient = _scaled(weight.dense_gradient, factor)


def _scaled(scores: Scores, factor: Tensor | int) -> Scores:
    return lambda where: scores(where) * factor


def scale_up(stored: Iterable[SparseWeight], ranks: int) -> None:
    """Make gradients of no connection those of the whole batch, once they are averaged over ranks.

    Those of connections are summed, as each rank's loss is its part of the batch's.

    Args:
        stored: weights of layers that store only connections.
        ranks: how many there are.
    """
    for weight in stored:
        if ranks > 1 and weight.wants_dense_gradient and weight.dense_gradient is not None:
            weight.dense_gradient = _scaled(weight.dense_gradient, ranks)
