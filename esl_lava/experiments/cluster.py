"""A Dask cluster that does the runs of a sweep, through joblib."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import joblib
from joblib._dask import DaskDistributedBackend

from esl_lava.errors import BackendError
from esl_lava.packages import is_installed, needed

CONNECT_SECONDS = 10.0
"""How long a scheduler is waited for."""


class _Cluster(DaskDistributedBackend):
    """Joblib's, but that a cluster of a single thread serves too, in place of this process."""

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return max(2, super().effective_n_jobs(n_jobs))


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Within it the runs of a sweep go to the workers of a Dask scheduler.

    Args:
        address: of the scheduler, e.g. "tcp://host:8786".

    Raises:
        BackendError: when no scheduler answers there, or it has no workers.
        PackageError: when Dask is not installed.
    """
    if not is_installed("distributed"):
        raise needed("distributed")
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:
        raise BackendError(
            f"--cluster {address}: no Dask scheduler answers there ({error})"
        ) from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise BackendError(
                f"--cluster {address}: the scheduler has no workers; "
                f"dask worker {address} starts some"
            )
        with joblib.parallel_config(backend=_Cluster(client=client)):
            yield
