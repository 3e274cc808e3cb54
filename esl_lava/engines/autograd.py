"""`torch.autograd.Function` for a strict type checker, which torch 2.3 leaves untyped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.autograd import function

Context: TypeAlias = Any
"""What a forward pass leaves for its backward pass: attributes of any name and type."""

Backward = TypeVar("Backward", bound=Callable[..., object])


def once_differentiable(backward: Backward) -> Backward:
    """Refuse to differentiate a backward pass, which kernels cannot be."""
    refusing: Any = function.once_differentiable(backward)  # type: ignore[no-untyped-call]
    found: Backward = refusing
    return found


def apply(passes: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """What the forward pass of a function makes of its arguments."""
    made: Tensor = passes.apply(*arguments)  # type: ignore[no-untyped-call]
    return made
