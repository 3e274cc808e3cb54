"""`esl train` in several processes: joins the ranks that torchrun has started."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec

import typer

from esl_lava.cli.output import INTERRUPTED, TERMINATED, complain
from esl_lava.errors import ConfigError, UserError
from esl_lava.interrupts import Termination

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Parameters = ParamSpec("Parameters")

FAILURE_WAIT = timedelta(seconds=10)
"""A rank that fails waits at most this long for the other ranks, which should fail too."""


def join_ranks(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Let a command run as one rank of several if torchrun started the process.

    The ranks form a process group while the command runs: gloo, and NCCL between GPUs. Only
    rank 0 prints. An error of all ranks is printed once.
    """

    @functools.wraps(command)
    def program(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        world_size = os.environ.get("WORLD_SIZE", "1")  # torchrun's variable
        if world_size == "1":
            command(*args, **kwargs)
            return
        from torch import cuda, distributed
        from torch.distributed.rendezvous import rendezvous

        from esl_lava.training.ranks import leave

        try:
            store, rank, count = next(rendezvous("env://"))
        except ValueError as error:
            reason = " ".join(str(error).splitlines())
            raise ConfigError(
                f"WORLD_SIZE is {world_size}, but torchrun did not set it: {reason}",
                "conflict",
                key="WORLD_SIZE",
                value=world_size,
            ) from None
        transports = "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"
        distributed.init_process_group(transports, store=store, rank=rank, world_size=count)
        try:
            with _silence() if rank else contextlib.nullcontext():
                command(*args, **kwargs)
        except UserError as error:
            if rank == 0:
                complain(error)
            if not _all_failed(store, rank, count) and rank != 0:
                complain(error)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            if rank == 0:
                raise
            raise SystemExit(INTERRUPTED) from None
        except Termination:
            if rank == 0:
                raise
            raise SystemExit(TERMINATED) from None
        finally:
            leave()

    return program


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop everything that is printed within the context."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _all_failed(store: Store, rank: int, count: int) -> bool:
    """Wait until every rank has failed, because torchrun kills the others once one has exited.

    Returns:
        False if a rank did not fail in time.
    """
    # A barrier of the process group could meet a collective operation of another rank.
    store.set(f"failed/{rank}", "")
    try:
        store.wait([f"failed/{other}" for other in range(count)], FAILURE_WAIT)
    except RuntimeError:  # the time is up
        return False
    return True
