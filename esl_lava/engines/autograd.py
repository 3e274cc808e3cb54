"""Typed wrappers of `torch.autograd.Function`, which torch 2.3 leaves untyped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import function

Context: TypeAlias = Any
"""The context in which a forward pass stores values for its backward pass, under any names."""

Backward = TypeVar("Backward", bound=Callable[..., object])


def once_differentiable(backward: Backward) -> Backward:
    """Make a second derivative an error: autograd cannot differentiate the kernels."""
    refuse_twice: Any = function.once_differentiable
    return cast(Backward, refuse_twice(backward))


def apply(passes: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """Call an autograd function on its arguments and return the result."""
    compute: Any = passes.apply
    return cast(Tensor, compute(*arguments))
