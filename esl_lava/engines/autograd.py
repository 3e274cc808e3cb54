"""`torch.autograd.Function` for a strict type checker, which torch 2.3 leaves untyped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import function

Context: TypeAlias = Any
"""What a forward pass leaves for its backward pass: attributes of any name and type."""

Backward = TypeVar("Backward", bound=Callable[..., object])


def once_differentiable(backward: Backward) -> Backward:
    """Refuse to differentiate a backward pass, which kernels cannot be."""
    refuse_twice: Any = function.once_differentiable
    return cast(Backward, refuse_twice(backward))


def apply(passes: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """What the forward pass of a function makes of its arguments."""
    compute: Any = passes.apply
    return cast(Tensor, compute(*arguments))
