"""Gradient clipping by the norm over connections only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from esl_lava.sparsity.growth import Scores
from esl_lava.sparsity.weights import SparseWeight


def norms(gradients: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute for each layer the Euclidean norm of its gradient over its connections, a scalar.

    Args:
        gradients: layer name -> gradient of its weight, or of the connections it stores.
        masks: layer name -> bool of the gradient's shape. In a layer without a mask all positions
            are connections.
    """
    return {
        name: torch.linalg.vector_norm(_select_connections(gradient, masks.get(name)))
        for name, gradient in gradients.items()
    }


def _select_connections(gradient: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None or bool(mask.all()):
        return gradient
    return torch.where(mask, gradient, 0.0)  # ignores a NaN without a connection


def scale_down(
    gradients: Iterable[Tensor], stored: Iterable[SparseWeight], norm: Tensor, limit: float
) -> None:
    """Scale gradients down in place if their norm exceeds a limit.

    One factor scales all gradients, also at positions without a connection. Growth by gradient or
    momentum takes the largest of those. So their order stays, and growth sees the same gradients
    with every engine.

    Args:
        gradients: the gradients of all layers.
        stored: weights of the layers that store only connections. Growth asks for their gradient
            at other positions later.
        norm: the norm of all gradients over connections, a finite scalar.
        limit: the largest norm allowed, above 0.
    """
    factor = limit / (norm + 1e-6)  # as torch's clip_grad_norm_
    if factor >= 1:
        return
    for gradient in gradients:
        gradient.mul_(factor)
    for weight in stored:
        if weight.wants_dense_gradient and weight.dense_gradient is not None:
            weight.dense_gradient = _scale(weight.dense_gradient, factor)


def _scale(scores: Scores, factor: Tensor | int) -> Scores:
    return lambda where: scores(where) * factor


def scale_up(stored: Iterable[SparseWeight], ranks: int) -> None:
    """Multiply the gradients at positions without a connection by the number of ranks.

    The loss of a rank is its part of the batch's loss, so gradients have to be summed over ranks.
    This happens for connections, but the other gradients are later averaged over ranks.

    Args:
        stored: weights of the layers that store only connections.
        ranks: number of ranks.
    """
    for weight in stored:
        if ranks > 1 and weight.wants_dense_gradient and weight.dense_gradient is not None:
            weight.dense_gradient = _scale(weight.dense_gradient, ranks)
