"""Functions for several processes (ranks) that train one model: shares of a batch, sums, errors.

Without a process group of `torch.distributed` there is one rank: nothing is divided, sent or
changed, and `leave` must not be called. Every rank of the default process group must call the
functions marked "Collective", in the same order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import distributed as dist

from esl_lava.arrays import Array
from esl_lava.errors import UserError
from esl_lava.sparsity.ranks import count

SETTLING = 0.1
"""Seconds after which gloo's threads have released the tensors of the last exchange."""


def first() -> bool:
    """Return whether this rank writes files: it is rank 0 or the only rank."""
    return count() == 1 or dist.get_rank() == 0


def share(batch: Array) -> Array:
    """Return this rank's consecutive part of a batch, along the first axis.

    The sizes of the ranks' parts differ by at most 1 and may be 0.
    """
    return batch if count() == 1 else np.array_split(batch, count())[dist.get_rank()]


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum over all ranks, bit for bit the same on each rank. Collective."""
    if count() == 1:
        return tensor
    summed = tensor.clone()
    dist.all_reduce(summed)
    return summed


def sum_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace every gradient by its sum over all ranks. Collective.

    Args:
        parameters: the same parameters in the same order on every rank. A missing gradient
            counts as 0, because the share of a rank may be empty.
    """
    if count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def is_true_on_any(answer: bool) -> bool:
    """Return on every rank whether the answer of at least one rank is true. Collective."""
    return bool(total(torch.tensor(int(answer))))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Raise a user's error of one rank on every rank, so that no rank waits forever.

    Leaving the context is collective. Inside, no collective function may be called.

    Raises:
        UserError: on every rank, with the faults of the lowest rank that has an error.
    """
    if count() == 1:
        yield
        return
    own: UserError | None = None
    try:
        yield
    except UserError as error:
        own = UserError.of(error.faults)
    errors: list[UserError | None] = [None] * count()
    dist.all_gather_object(errors, own)
    for of_rank in errors:
        if of_rank is not None:
            raise of_rank


def leave() -> None:
    """Destroy the default process group, which must exist, whatever the other ranks do."""
    # The group's destructor waits for gloo's threads and keeps Python's lock. A thread that still
    # has to release a tensor waits for the lock (pytorch issue 56297). So wait for it first.
    time.sleep(SETTLING)
    dist.destroy_process_group()
