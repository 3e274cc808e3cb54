"""Operations on tensors: on a CPU by numpy where torch takes several times as long."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def list_true(mask: Tensor) -> Tensor:
    """(n,) int64 flat positions where a contiguous bool is true, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.view(-1).nonzero().view(-1)


def count(mask: Tensor) -> int:
    """How many elements of a bool are true."""
    if mask.device.type == "cpu":
        return int(np.count_nonzero(mask.numpy()))
    return int(mask.count_nonzero())


def count_broken(values: Tensor) -> int:
    """How many numbers are NaN or infinite."""
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return values.numel() - int(np.count_nonzero(np.isfinite(values.numpy())))
    return values.numel() - count(values.isfinite())


def widen(values: Tensor) -> Tensor:
    """The same numbers in at least single precision, in which half ones are exact."""
    return values if values.dtype == torch.float64 else values.float()


def are_positions(where: Tensor, size: int) -> bool:
    """Whether (k,) integers are strictly ascending within 0..size-1."""
    if where.numel() == 0:
        return True
    ascending = bool((where[1:] > where[:-1]).all())
    return ascending and int(where[0]) >= 0 and int(where[-1]) < size


def find_smallest(values: Tensor, n: int) -> Tensor:
    """(n,) int64 indices of the smallest of some numbers, ascending; ties to the lower index.

    Args:
        values: (k,) without NaN, any floating dtype.
        n: 0 <= n <= k.
    """
    if n == 0:
        return torch.empty(0, dtype=torch.int64, device=values.device)
    values = widen(values)
    threshold = values.kthvalue(n).values
    chosen = values < threshold
    ties = list_true(values == threshold)
    chosen[ties[: n - count(chosen)]] = True
    return list_true(chosen)


def find_above(scores: Tensor, taken: Tensor, least: float) -> tuple[Tensor, Tensor, int]:
    """Where a score's magnitude is above a bound, and how large it is there.

    Args:
        scores: (k,), any floating dtype.
        taken: (k,) bool, which scores do not count.
        least: the bound.

    Returns:
        (n,) int64 indices, ascending; (n,) magnitudes there; the number of scores not taken
        that are NaN or infinite.
    """
    sizes = widen(scores).abs()
    found = list_true(sizes > least)
    found = found[~taken[found]]
    broken = count_broken(sizes) and count(~sizes.isfinite() & ~taken)
    return found, sizes[found], broken


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
