"""Communication between the ranks (processes) that train one model together.

If `torch.distributed` is not initialised, there is one rank, and nothing is sent or changed. All
functions but `count` are collective: every rank of the default process group calls them in the same
order, with the `device` from which the group communicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from esl_lava.arrays import Floats
from esl_lava.errors import UserError


def count() -> int:
    """Return the number of ranks; 1 if `torch.distributed` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def broadcast_first(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor of rank 0.

    Args:
        tensor: contiguous, of a numeric dtype or bool, on any device; the same shape and dtype
            on every rank.
        device: the device from which the process group communicates.
    """
    if count() == 1:
        return tensor
    # Not every process group transports bool, but all transport bytes.
    sent = tensor.to(device, copy=True).view(torch.uint8)
    dist.broadcast(sent, 0)
    return sent.view(tensor.dtype).to(tensor.device)


def average(tensor: Tensor) -> Tensor:
    """Return the mean over all ranks, with the same bits on every rank."""
    if count() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / count()


def sum_over_ranks(values: Floats) -> None:
    """Replace an array by its sum over all ranks, with the same bits on every rank.

    Args:
        values: contiguous; the group communicates from the CPU.
    """
    if count() > 1:
        dist.all_reduce(torch.from_numpy(values))


def find_any(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each flag whether it is true on any rank. All ranks pass the same number."""
    if count() == 1:
        return list(flags)
    numbers = torch.tensor([int(flag) for flag in flags], device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return [number > 0 for number in numbers.tolist()]


def check_agreement(tensors: Iterable[Tensor], subject: str, iteration: int) -> None:
    """Check that tensors are the same on all ranks, by a checksum.

    Args:
        tensors: bool or integer, on the device from which the process group communicates.
        subject: the name of the tensors in the error, for example "masks".
        iteration: the iteration in the error.

    Raises:
        UserError: on every rank, with the ranks that differ from rank 0.
    """
    if count() == 1:
        return
    digest = hashlib.sha256()
    device = torch.device("cpu")
    for tensor in tensors:
        device = tensor.device
        digest.update(tensor.contiguous().view(torch.uint8).cpu().numpy().data)
    checksum = torch.tensor(list(digest.digest()), dtype=torch.uint8, device=device)
    checksums = [torch.empty_like(checksum) for _ in range(count())]
    dist.all_gather(checksums, checksum)
    different = [
        rank for rank, other in enumerate(checksums) if not torch.equal(other, checksums[0])
    ]
    if different:
        raise UserError(
            f"the {subject} of rank {', '.join(map(str, different))} differ from those of rank 0 "
            f"at iteration {iteration}: all ranks must have the same weights and optimiser state "
            "(DistributedDataParallel ensures this)",
            "mismatch",
            value=tuple(different),
        )
