"""What the evolver knows about optimisers: their per-weight state, and momentum in it."""

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
"""Per-weight state of each supported optimiser; zeroed where a connection grows."""


def check_optimizer(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], *, by_momentum: bool
) -> None:
    """Refuse an optimiser whose state is unknown, or that does not train the weights.

    Args:
        weights: name -> weight of the layers to make sparse.
        by_momentum: whether it is to keep momentum of them (SGD with momentum 0 does not).

    Raises:
        ConfigError: naming the optimiser and the known ones, or the layers.
    """
    if type(optimizer) not in MOMENTS:
        raise ConfigError(
            f"optimiser {type(optimizer).__name__} keeps state we do not know; "
            f"known: {', '.join(known.__name__ for known in MOMENTS)}"
        )
    groups = {name: _group(optimizer, weight) for name, weight in weights.items()}
    strangers = [name for name, group in groups.items() if group is None]
    if strangers:
        raise ConfigError(
            f"layer {strangers[0]}: its weight is not among the optimiser's parameters"
            f"{_likewise(strangers)}; keep_dense leaves a layer as it is"
        )
    frozen = [name for name, weight in weights.items() if not weight.requires_grad]
    if frozen:
        raise ConfigError(
            f"layer {frozen[0]}: its weight is frozen (requires_grad is False), and a mask would "
            f"destroy it{_likewise(frozen)}; keep_dense leaves a layer as it is, and one that is "
            "frozen after the evolver was built keeps its mask"
        )
    for name, group in groups.items():
        settings = group or {}
        if settings.get("differentiable"):
            raise ConfigError(
                f"layer {name}: the optimiser is to be differentiable, and masks are set in "
                "place, which no gradient follows"
            )
        if by_momentum and settings.get("momentum") == 0:
            raise ConfigError(
                f"layer {name}: {type(optimizer).__name__} with momentum 0 keeps no momentum "
                "to grow or redistribute by"
            )


def has_momentum(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> bool:
    """Whether the optimiser keeps momentum of a weight by now: it made a step with it."""
    return optimizer.state.get(weight, {}).get(MOMENTS[type(optimizer)][0]) is not None


def gradients(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """What the last backward pass left of parameters the optimiser trains, on this rank."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None:
                dense = gradient.layout == torch.strided
                yield (gradient if dense else gradient.coalesce().values()).detach()


def moments(optimizer: torch.optim.Optimizer, name: str, weight: nn.Parameter) -> dict[str, Tensor]:
    """The optimiser's tensors of the weight's shape, by their key in its state.

    Raises:
        ConfigError: when there is one of an unknown kind.
    """
    known = MOMENTS[type(optimizer)]
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
    if group is None or not has_momentum(optimizer, weight):
        raise _without_momentum(optimizer, name)
    return _scores(optimizer, group, state)


class DenseMoments:
    """The moments that a weight would have at every position if it were not stored sparsely.

    Those of connections go on here as if these did not exist, and are not to be asked for.

    Attributes:
        tensors: by their key in the optimiser's state, (size,) float32; none before a step.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.tensors: dict[str, Tensor] = {}

    def step(self, optimizer: torch.optim.Optimizer, weight: nn.Parameter, by: Scores) -> None:
        """Make the step that the optimiser made with a weight, here with zeros.

        The optimiser's own code makes it, block by block, so moments have a dense weight's bits.

        Args:
            by: the gradient at any position.
        """
        known = MOMENTS[type(optimizer)]
        others = {k: v for k, v in optimizer.state[weight].items() if k not in known}
        still = {"lr": 0.0, "weight_decay": 0.0, "amsgrad": False}
        group = {k: still.get(k, v) for k, v in (_group(optimizer, weight) or {}).items()}
        kept: dict[str, list[Tensor]] = {}
        for start in range(0, self.size, BLOCK):
            part = slice(start, min(self.size, start + BLOCK))
            zeros = nn.Parameter(torch.zeros(part.stop - part.start))
            zeros.grad = by(part)
            twin = type(optimizer)([{**group, "params": [zeros]}], lr=0.0)  # type: ignore[call-arg]
            if self.tensors:
                moments = {key: tensor[part] for key, tensor in self.tensors.items()}
                twin.state[zeros] = {**copy.deepcopy(others), **moments}
            twin.step()
            for key, moment in twin.state[zeros].items():
                if key not in others:
                    kept.setdefault(key, []).append(moment)
        if not self.tensors:
            self.tensors = {key: torch.cat(blocks) for key, blocks in kept.items()}

    def exchange(self, drop: Tensor, dropped: Mapping[str, Tensor], grow: Tensor) -> None:
        """Take in the moments of connections that go, and let those that grow begin at 0.

        Args:
            drop, grow: int64 positions.
            dropped: moments of the first.
        """
        for key, tensor in self.tensors.items():
            tensor[drop] = dropped[key]
            tensor[grow] = 0

    def momentum(self, optimizer: torch.optim.Optimizer, name: str, weight: nn.Parameter) -> Scores:
        """As the function `momentum`, at any position without a connection."""
        if not self.tensors:
            raise _without_momentum(optimizer, name)
        return _scores(optimizer, _group(optimizer, weight) or {}, self.tensors)


def _scores(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Scores:
    mean = state[MOMENTS[type(optimizer)][0]].reshape(-1)
    if "exp_avg_sq" not in state:
        return lambda where: mean[where].abs()
    square, eps = state["exp_avg_sq"].reshape(-1), group["eps"]
    # In half precision eps would be 0, and a score of what never had a gradient 0 / 0.
    return lambda where: widen(mean[where]).abs() / (widen(square[where]).sqrt() + eps)


def _without_momentum(optimizer: torch.optim.Optimizer, name: str) -> ConfigError:
    return ConfigError(
        f"layer {name}: {type(optimizer).__name__} holds no momentum of its weight; "
        "step it before the masks are updated"
    )


def _group(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Mapping[str, Any] | None:
    """The parameter group that holds the weight."""
    for group in optimizer.param_groups:
        if any(weight is parameter for parameter in group["params"]):
            return group
    return None


def _likewise(names: Sequence[str]) -> str:
    """The names behind the first, as the rest of a sentence about it."""
    return f" (likewise {', '.join(names[1:])})" if len(names) > 1 else ""
