"""Operations on tensors. On a CPU they use numpy where torch takes several times as long."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def list_true(mask: Tensor) -> Tensor:
    """Return the (n,) int64 flat positions where a contiguous bool tensor is true, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.view(-1).nonzero().view(-1)


def count(mask: Tensor) -> int:
    """Count the true elements of a bool tensor."""
    if mask.device.type == "cpu":
        return int(np.count_nonzero(mask.numpy()))
    return int(mask.count_nonzero())


def count_nonfinite(values: Tensor) -> int:
    """Count the values that are NaN or infinite."""
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return values.numel() - int(np.count_nonzero(np.isfinite(values.numpy())))
    return values.numel() - count(values.isfinite())


def widen(values: Tensor) -> Tensor:
    """Return the values in at least single precision, which holds half precision exactly."""
    return values if values.dtype == torch.float64 else values.float()


def are_positions(where: Tensor, size: int) -> bool:
    """Check whether (k,) integers are strictly ascending within 0..size-1."""
    if where.numel() == 0:
        return True
    ascending = bool((where[1:] > where[:-1]).all())
    return ascending and int(where[0]) >= 0 and int(where[-1]) < size


def find_smallest(values: Tensor, n: int) -> Tensor:
    """Find the `n` smallest values; ties: lower index first.

    Args:
        values: (k,) without NaN, any floating dtype.
        n: 0 <= n <= k.

    Returns:
        (n,) int64 indices of these values, ascending.
    """
    if n == 0:
        return torch.empty(0, dtype=torch.int64, device=values.device)
    values = widen(values)
    threshold = values.kthvalue(n).values
    chosen = values < threshold
    ties = list_true(values == threshold)
    chosen[ties[: n - count(chosen)]] = True
    return list_true(chosen)


def find_above(scores: Tensor, taken: Tensor, bound: float) -> tuple[Tensor, Tensor, int]:
    """Find the indices, except taken ones, where the magnitude of a score exceeds a bound.

    Args:
        scores: (k,), any floating dtype.
        taken: (k,) bool, true at the indices to skip.
        bound: the bound.

    Returns:
        (n,) int64 indices, ascending; (n,) magnitudes at these indices; the number of
        scores that are NaN or infinite at indices that are not taken.
    """
    magnitudes = widen(scores).abs()
    indices = list_true(magnitudes > bound)
    indices = indices[~taken[indices]]
    broken = count_nonfinite(magnitudes) and count(~magnitudes.isfinite() & ~taken)
    return indices, magnitudes[indices], broken


def set_zero(tensor: Tensor, where: Tensor) -> None:
    """Set elements of a tensor to 0, in place.

    Args:
        tensor: any memory layout, for example channels last.
        where: (n,) int64 flat positions in row-major order of the tensor's dimensions, whatever
            its layout.
    """
    if tensor.is_contiguous():
        tensor.view(-1).index_fill_(0, where, 0)
    else:
        tensor[torch.unravel_index(where, tensor.shape)] = 0


def apply_mask(tensor: Tensor, mask: Tensor) -> None:
    """Set the elements that a mask of the tensor's shape excludes to +0.0, in place.

    The function multiplies bit patterns. A product of floats would leave -0.0 and NaN, and
    filling takes five times as long.
    """
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    tensor.view(bits).mul_(mask)
