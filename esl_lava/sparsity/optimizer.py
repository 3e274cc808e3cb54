"""What the evolver knows about optimisers: their per-weight state, and momentum in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from esl_lava.errors import ConfigError
from esl_lava.sparsity.growth import Scores

_ADAM = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

MOMENTS: Mapping[type[torch.optim.Optimizer], tuple[str, ...]] = MappingProxyType(
    {
        torch.optim.SGD: ("momentum_buffer",),
        torch.optim.Adam: _ADAM,
        torch.optim.AdamW: _ADAM,
    }
)
"""Per-weight state of each supported optimiser; zeroed where a connection grows."""


def check_optimizer(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimiser whose state is unknown, or that does not train the weights.

    Args:
        optimizer: any.
        weights: name -> weight of the layers to make sparse.

    Raises:
        ConfigError: naming the optimiser and the known ones, or the layer.
    """
    if _kind(optimizer) not in MOMENTS:
        raise ConfigError(
            f"optimiser {type(optimizer).__name__} keeps state we do not know; "
            f"known: {', '.join(known.__name__ for known in MOMENTS)}"
        )
    for name, weight in weights.items():
        if _group(optimizer, weight) is None:
            raise ConfigError(f"layer {name}: its weight is not among the optimiser's parameters")


def check_momentum(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimiser that keeps no momentum of some weight (SGD with momentum 0).

    Raises:
        ConfigError: naming the layer.
    """
    for name, weight in weights.items():
        group = _group(optimizer, weight)
        if group is not None and group.get("momentum") == 0:
            raise ConfigError(
                f"layer {name}: {type(optimizer).__name__} with momentum 0 keeps no momentum "
                "to grow or redistribute by"
            )


def moments(optimizer: torch.optim.Optimizer, name: str, weight: nn.Parameter) -> dict[str, Tensor]:
    """The optimiser's tensors of the weight's shape, by their key in its state.

    Raises:
        ConfigError: when there is one of an unknown kind.
    """
    known = MOMENTS[_kind(optimizer)]
    found = {}
    for key, value in optimizer.state.get(weight, {}).items():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            if key not in known:
                raise ConfigError(
                    f"layer {name}: optimiser state {key!r} is unknown; "
                    f"known for {type(optimizer).__name__}: {', '.join(known)}"
                )
            found[key] = value
    return found


def momentum(optimizer: torch.optim.Optimizer, name: str, weight: nn.Parameter) -> Scores:
    """Momentum scores of a weight's flat positions.

    |momentum_buffer| of SGD; |exp_avg| / (sqrt(exp_avg_sq) + eps) of Adam and AdamW, with
    the optimiser's own eps: the size of Adam's step without learning rate and bias
    correction, which are the same for all positions.

    Raises:
        ConfigError: when the optimiser has none, because it made no step with the weight.
    """
    group = _group(optimizer, weight)
    state = optimizer.state.get(weight, {})
    if group is None or state.get(MOMENTS[_kind(optimizer)][0]) is None:
        raise ConfigError(
            f"layer {name}: {type(optimizer).__name__} holds no momentum of its weight; "
            "step it before the masks are updated"
        )
    return _MOMENTUM[_kind(optimizer)](state, group)


def _buffer(state: Mapping[str, Any], group: Mapping[str, Any]) -> Scores:
    buffer = state["momentum_buffer"].reshape(-1)
    return lambda where: buffer[where].abs()


def _adam_step(state: Mapping[str, Any], group: Mapping[str, Any]) -> Scores:
    mean, square = state["exp_avg"].reshape(-1), state["exp_avg_sq"].reshape(-1)
    eps = group["eps"]
    return lambda where: mean[where].abs() / (square[where].sqrt() + eps)


_MOMENTUM: Mapping[
    type[torch.optim.Optimizer], Callable[[Mapping[str, Any], Mapping[str, Any]], Scores]
] = MappingProxyType(
    {torch.optim.SGD: _buffer, torch.optim.Adam: _adam_step, torch.optim.AdamW: _adam_step}
)


def _group(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Any] | None:
    """The parameter group that holds the weight."""
    for group in optimizer.param_groups:
        if any(weight is parameter for parameter in group["params"]):
            return group
    return None


def _kind(optimizer: torch.optim.Optimizer) -> type[torch.optim.Optimizer]:
    """The class whose state an optimiser keeps: its own, or the one it says (`keeps_state_of`)."""
    kind: type[torch.optim.Optimizer] = getattr(optimizer, "keeps_state_of", type(optimizer))
    return kind
