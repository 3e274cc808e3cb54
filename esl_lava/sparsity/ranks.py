"""Several processes that train one model: what they must share and must agree about.

Every function does nothing, or returns its argument, where `torch.distributed` is not
initialised. All are collective: every rank of the default process group calls them in
the same order, with the `device` from which the group communicates.
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
    """Number of ranks; 1 where `torch.distributed` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def take_first(tensor: Tensor, device: torch.device) -> Tensor:
    """Rank 0's tensor, of the same shape and dtype on every rank.

    Args:
        tensor: contiguous, of a dtype of numbers or bool, on any device.
        device: the group's.
    """
    if count() == 1:
        return tensor
    # No process group transports bool; bytes all do.
    sent = tensor.to(device, copy=True).view(torch.uint8)
    dist.broadcast(sent, 0)
    return sent.view(tensor.dtype).to(tensor.device)


def average(tensor: Tensor) -> Tensor:
    """The mean over all ranks: bit for bit the same on each."""
    if count() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / count()


def add_up(values: Floats) -> None:
    """Replace an array by its sum over all ranks: bit for bit the same on each.

    Args:
        values: contiguous; the group communicates from the CPU.
    """
    if count() > 1:
        dist.all_reduce(torch.from_numpy(values))


def find_any(truths: Sequence[bool], device: torch.device) -> list[bool]:
    """Which of some truths, as many on every rank, hold on any."""
    if count() == 1:
        return list(truths)
    numbers = torch.tensor([int(truth) for truth in truths], device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return [number > 0 for number in numbers.tolist()]


def agree(tensors: Iterable[Tensor], what: str, iteration: int) -> None:
    """Compare a checksum of tensors over all ranks.

    Args:
        tensors: bool or integer, on the device the process group communicates from.
        what: the subject of the error's sentence, e.g. "masks".
        iteration: for the error's sentence.

    Raises:
        UserError: on every rank, naming those that differ from rank 0.
    """
    if count() == 1:
        return
    digest = hashlib.sha256()
    device = torch.device("cpu")
    for tensor in tensors:
        device = tensor.device
        digest.update(tensor.contiguous().view(torch.uint8).cpu().numpy().data)
    mine = torch.tensor(list(digest.digest()), dtype=torch.uint8, device=device)
    every = [torch.empty_like(mine) for _ in range(count())]
    dist.all_gather(every, mine)
    differ = [str(rank) for rank, other in enumerate(every) if not torch.equal(other, every[0])]
    if differ:
        raise UserError(
            f"{what} of rank {', '.join(differ)} differ from those of rank 0 at iteration "
            f"{iteration}: ranks must hold the same weights and optimiser state "
            "(DistributedDataParallel sees to it)"
        )
