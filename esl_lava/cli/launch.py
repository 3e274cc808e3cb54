"""A command in several processes: joining those that torchrun has started."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec

import typer

from esl_lava.cli.output import INTERRUPTED, complain
from esl_lava.errors import ConfigError, UserError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Parameters = ParamSpec("Parameters")

LAST_WORDS = timedelta(seconds=10)
"""How long a rank that fails waits for the others to fail too, as they should."""


def ranked(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make a command one rank of several where torchrun started it, of which one speaks.

    The ranks form a process group while the command runs: gloo's, and NCCL's between GPUs. All
    but rank 0 print nothing; an error that all of them have is told once.
    """

    @functools.wraps(command)
    def program(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        ranks = os.environ.get("WORLD_SIZE", "1")  # torchrun's name for their number
        if ranks == "1":
            command(*args, **kwargs)
            return
        from torch import cuda, distributed
        from torch.distributed.rendezvous import rendezvous

        from esl_lava.training.ranks import leave

        try:
            store, rank, count = next(rendezvous("env://"))
        except ValueError as error:
            raise ConfigError(f"WORLD_SIZE is {ranks}, but not set by torchrun: {error}") from None
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
        finally:
            leave()

    return program


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _all_failed(store: Store, rank: int, count: int) -> bool:
    """Wait for every rank to come here: torchrun kills the rest once one has exited.

    Not a barrier of the process group, where the others may be in the midst of something.
    """
    store.set(f"failed/{rank}", "")
    try:
        store.wait([f"failed/{other}" for other in range(count)], LAST_WORDS)
    except RuntimeError:  # the time is up
        return False
    return True
