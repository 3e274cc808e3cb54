"""Torch operations that numpy does several times faster on a CPU, with equal results."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def positions(mask: Tensor) -> Tensor:
    """(n,) int64 flat positions where a contiguous bool is true, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.view(-1).nonzero().view(-1)


def count(mask: Tensor) -> int:
    """How many elements of a bool are true."""
    if mask.device.type == "cpu":
        return int(np.count_nonzero(mask.numpy()))
    return int(mask.count_nonzero())


def are_positions(where: Tensor, size: int) -> bool:
    """Whether (k,) integers are strictly ascending within 0..size-1."""
    if where.numel() == 0:
        return True
    ascending = bool((where[1:] > where[:-1]).all())
    return ascending and int(where[0]) >= 0 and int(where[-1]) < size


def nth_smallest(values: Tensor, n: int) -> Tensor:
    """The n-th smallest of some numbers, counted from 1; duplicates count.

    Args:
        values: (k,) without NaN, any floating dtype.
        n: 1 <= n <= k.
    """
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return values.new_tensor(np.partition(values.numpy(), n - 1)[n - 1])
    return values.kthvalue(n).values


def set_zero(tensor: Tensor, where: Tensor) -> None:
    """Set elements to 0, in place.

    Args:
        tensor: any memory layout (channels last, for one).
        where: (n,) int64 positions, flat in the order of the tensor's dimensions.
    """
    if tensor.is_contiguous():
        tensor.view(-1).index_fill_(0, where, 0)
    else:
        tensor[torch.unravel_index(where, tensor.shape)] = 0


def keep(tensor: Tensor, mask: Tensor) -> None:
    """Set to +0.0 what a mask of the tensor's shape excludes, in place.

    A product of bit patterns: one of floats would leave -0.0 and NaN behind, and filling
    takes five times as long.
    """
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    tensor.view(bits).mul_(mask)
