"""Several processes that train one model: who takes which samples, and sums over all.

Without a process group of `torch.distributed` there is one rank, and every function
returns its argument or does nothing. Those that say so are collective: every rank of
the default process group calls them in the same order.
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
from esl_lava.sparsity.ranks import count, take_first

SETTLING = 0.1
"""Seconds in which gloo's threads drop what they hold of the last exchange."""


def first() -> bool:
    """Whether this is the rank that writes files: 0, or the only one."""
    return count() == 1 or dist.get_rank() == 0


def share(batch: Array) -> Array:
    """This rank's consecutive part of a batch, along the first axis.

    Sizes differ by at most 1 and may be 0.
    """
    return batch if count() == 1 else np.array_split(batch, count())[dist.get_rank()]


def total(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks, bit for bit the same on each. Collective."""
    if count() == 1:
        return tensor
    summed = tensor.clone()
    dist.all_reduce(summed)
    return summed


def sum_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace every gradient by its sum over all ranks. Collective.

    Args:
        parameters: the same ones in the same order on every rank; one without a gradient
            counts as 0, for a rank whose share of the batch is empty.
    """
    if count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def first_says(answer: bool) -> bool:
    """Rank 0's answer, on every rank. Collective."""
    return bool(take_first(torch.tensor(answer), torch.device("cpu")))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let a user's error of one rank be every rank's, so that none waits for it for ever.

    Leaving is collective; within, nothing may be.

    Raises:
        UserError: on every rank, the sentence of the lowest rank that had one.
    """
    if count() == 1:
        yield
        return
    fault = ""
    try:
        yield
    except UserError as error:
        fault = str(error)
    faults = [fault] * count()
    dist.all_gather_object(faults, fault)
    for sentence in filter(None, faults):
        raise UserError(sentence)


def leave() -> None:
    """Destroy the default process group, whatever the other ranks do."""
    # Its destructor waits for gloo's threads and keeps Python's lock; a thread that still has
    # a tensor to drop waits for the lock (pytorch issue 56297). Let it be first.
    time.sleep(SETTLING)
    dist.destroy_process_group()
