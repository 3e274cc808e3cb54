"""Supported optimisers: their per-weight state, and the momentum scores that it gives."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from esl_lava.errors import ConfigError
from esl_lava.sparsity.arrays import widen
from esl_lava.sparsity.growth import Scores
from esl_lava.sparsity.sets import BLOCK

_ADAM = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

MOMENTS: Mapping[type[torch.optim.Optimizer], tuple[str, ...]] = MappingProxyType(
    {
        torch.optim.SGD: ("momentum_buffer",),
        torch.optim.Adam: _ADAM,
        torch.optim.AdamW: _ADAM,
    }
)
"""Optimiser -> keys of its per-weight state, which is set to 0 where a connection grows."""


def check_optimizer(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], *, uses_momentum: bool
) -> None:
    """Check that the state of the optimiser is known, and that the optimiser trains the weights.

    Args:
        optimizer: the optimiser.
        weights: layer name -> weight of the layers to make sparse.
        uses_momentum: whether a rule needs momentum, which SGD with momentum 0 does not have.

    Raises:
        ConfigError: if the class of the optimiser is not in `MOMENTS`, if it does not train one of
            the weights, has differentiable=True or lacks a momentum that a rule needs, or if a
            weight is frozen.
    """
    if type(optimizer) not in MOMENTS:
        raise ConfigError(
            f"optimizer {type(optimizer).__name__}: its per-weight state is not known; use "
            f"{', '.join(known.__name__ for known in MOMENTS)}",
            "unsupported",
            key="optimizer",
            value=type(optimizer).__name__,
            limit=tuple(known.__name__ for known in MOMENTS),
        )
    groups = {name: _find_group(optimizer, weight) for name, weight in weights.items()}
    foreign = [name for name, group in groups.items() if group is None]
    if foreign:
        raise ConfigError(
            f"layer {foreign[0]}: its weight is not a parameter of the optimiser"
            f"{_list_others(foreign)}; name a layer in keep_dense to leave it dense",
            "mismatch",
            layer=foreign[0],
        )
    frozen = [name for name, weight in weights.items() if not weight.requires_grad]
    if frozen:
        raise ConfigError(
            f"layer {frozen[0]}: its weight is frozen (requires_grad is False), and a mask would "
            f"set trained weights to 0{_list_others(frozen)}; name a layer in keep_dense to leave "
            "it dense, or freeze it after building the evolver",
            "conflict",
            layer=frozen[0],
        )
    for name, group in groups.items():
        settings = group or {}
        if settings.get("differentiable"):
            raise ConfigError(
                f"layer {name}: the optimiser has differentiable=True, and the evolver changes "
                "weights in place, through which no gradient flows",
                "unsupported",
                layer=name,
            )
        if uses_momentum and settings.get("momentum") == 0:
            raise ConfigError(
                f"layer {name}: {type(optimizer).__name__} with momentum 0 has no momentum, which "
                "growth or redistribution needs",
                "conflict",
                value=0,
                layer=name,
            )


def has_momentum(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> bool:
    """Check whether the optimiser has momentum of a weight, which its first step creates."""
    return optimizer.state.get(weight, {}).get(MOMENTS[type(optimizer)][0]) is not None


def gradients(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Yield the gradients of the optimiser's parameters after a backward pass, on this rank."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None:
                dense = gradient.layout == torch.strided
                yield (gradient if dense else gradient.coalesce().values()).detach()


def moments(optimizer: torch.optim.Optimizer, name: str, weight: nn.Parameter) -> dict[str, Tensor]:
    """Return the optimiser's tensors of the weight's shape, by their key in its state.

    Raises:
        ConfigError: if a tensor has an unknown key.
    """
    known = MOMENTS[type(optimizer)]
    tensors = {}
    for key, value in optimizer.state.get(weight, {}).items():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            if key not in known:
                raise ConfigError(
                    f"layer {name}: the optimiser has the unknown state {key!r}; known for "
                    f"{type(optimizer).__name__} are {', '.join(known)}",
                    "unknown",
                    value=key,
                    limit=known,
                    layer=name,
                )
            tensors[key] = value
    return tensors


def momentum(optimizer: torch.optim.Optimizer, name: str, weight: nn.Parameter) -> Scores:
    """Return the momentum scores of a weight by flat position.

    The score is |momentum_buffer| for SGD, and |exp_avg| / (sqrt(exp_avg_sq) + eps) for Adam and
    AdamW, with the eps of the optimiser. That is the size of Adam's step without learning rate
    and bias correction, which are the same for all positions.

    Raises:
        ConfigError: if the optimiser has no momentum, because it has not updated the weight yet.
    """
    group = _find_group(optimizer, weight)
    state = optimizer.state.get(weight, {})
    if group is None or not has_momentum(optimizer, weight):
        raise _missing_momentum(optimizer, name)
    return _momentum_scores(optimizer, group, state)


class DenseMoments:
    """The moments that a dense weight would have at every position, for a `SparseWeight`.

    They are valid only at free positions. At a connection they continue with weight 0; the
    optimiser itself has the valid moments there.

    Attributes:
        tensors: key in the optimiser's state -> (size,) float32; empty before the first step.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.tensors: dict[str, Tensor] = {}

    def step(
        self, optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradient: Scores
    ) -> None:
        """Update the moments at all positions, after the optimiser updated a weight.

        A second optimiser of the same class makes the step for a dense weight of zeros, block by
        block. So the moments have the same bits as those of a dense weight. The zeros are not
        kept.

        Args:
            optimizer: the optimiser, after its step.
            weight: the weight.
            gradient: the gradient at any position.
        """
        known = MOMENTS[type(optimizer)]
        others = {k: v for k, v in optimizer.state[weight].items() if k not in known}
        no_change = {"lr": 0.0, "weight_decay": 0.0, "amsgrad": False}
        group = {k: no_change.get(k, v) for k, v in (_find_group(optimizer, weight) or {}).items()}
        blocks: dict[str, list[Tensor]] = {}
        for start in range(0, self.size, BLOCK):
            part = slice(start, min(self.size, start + BLOCK))
            zeros = nn.Parameter(torch.zeros(part.stop - part.start))
            zeros.grad = gradient(part)
            twin = type(optimizer)([{**group, "params": [zeros]}], lr=0.0)  # type: ignore[call-arg]
            if self.tensors:
                moments = {key: tensor[part] for key, tensor in self.tensors.items()}
                twin.state[zeros] = {**copy.deepcopy(others), **moments}
            twin.step()
            for key, moment in twin.state[zeros].items():
                if key not in others:
                    blocks.setdefault(key, []).append(moment)
        if not self.tensors:
            self.tensors = {key: torch.cat(parts) for key, parts in blocks.items()}

    def exchange(self, drop: Tensor, dropped: Mapping[str, Tensor], grow: Tensor) -> None:
        """Take over the moments of dropped connections; set those of grown connections to 0.

        Args:
            drop: int64 positions of the dropped connections.
            dropped: their moments, by key.
            grow: int64 positions of the grown connections.
        """
        for key, tensor in self.tensors.items():
            tensor[drop] = dropped[key]
            tensor[grow] = 0

    def momentum(self, optimizer: torch.optim.Optimizer, name: str, weight: nn.Parameter) -> Scores:
        """Return the momentum scores of free positions, as the function `momentum`."""
        if not self.tensors:
            raise _missing_momentum(optimizer, name)
        return _momentum_scores(optimizer, _find_group(optimizer, weight) or {}, self.tensors)


def _momentum_scores(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Scores:
    mean = state[MOMENTS[type(optimizer)][0]].reshape(-1)
    if "exp_avg_sq" not in state:
        return lambda where: mean[where].abs()
    square, eps = state["exp_avg_sq"].reshape(-1), group["eps"]
    # In half precision eps would be 0, and the score of a weight without any gradient 0 / 0.
    return lambda where: widen(mean[where]).abs() / (widen(square[where]).sqrt() + eps)


def _missing_momentum(optimizer: torch.optim.Optimizer, name: str) -> ConfigError:
    return ConfigError(
        f"layer {name}: {type(optimizer).__name__} has no momentum of its weight; call "
        "optimizer.step() before an update of the masks",
        "missing",
        layer=name,
    )


def _find_group(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Mapping[str, Any] | None:
    """Return the parameter group of the weight; None if there is none."""
    for group in optimizer.param_groups:
        if any(weight is parameter for parameter in group["params"]):
            return group
    return None


def _list_others(names: Sequence[str]) -> str:
    """Return the names after the first as a clause in parentheses; empty if there are none."""
    return f" (likewise in {', '.join(names[1:])})" if len(names) > 1 else ""
