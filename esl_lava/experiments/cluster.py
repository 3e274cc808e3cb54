"""Distribute the runs of a sweep to a Dask or Ray cluster, through joblib."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import joblib
from joblib._dask import DaskDistributedBackend

from esl_lava.errors import BackendError, PackageError
from esl_lava.packages import is_installed, needed

CONNECT_SECONDS = 10.0
"""Timeout for the connection to a Dask scheduler."""

RAY = "ray"
"""Address of the Ray cluster that this machine belongs to; other addresses begin with ray://."""


@contextlib.contextmanager
def use_cluster(address: str) -> Iterator[None]:
    """Send the runs of a sweep to the workers of a cluster while the context is open.

    Args:
        address: of a Dask scheduler, e.g. "tcp://host:8786", or of a Ray cluster, "ray" or e.g.
            "ray://host:10001".

    Raises:
        BackendError: if no cluster answers at the address, a Dask cluster has no workers, or a Ray
            cluster has fewer than 2 CPUs.
        PackageError: if Dask or Ray is not installed.
    """
    with _ray(address) if address.partition("://")[0] == RAY else _dask(address):
        yield


class _DaskBackend(DaskDistributedBackend):
    """The Dask backend of joblib with two changes."""

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of jobs, at least 2. With 1, joblib would not use the cluster."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Future[Any]:
        """Submit a task and report it if Dask gives it up; joblib would wait for ever."""
        job: Future[Any] = super().submit(func, callback)

        def report_error(finished: Future[Any]) -> None:
            if (error := finished.exception()) is not None:
                callback(error)

        job.add_done_callback(report_error)
        return job


@contextlib.contextmanager
def _dask(address: str) -> Iterator[None]:
    if not is_installed("distributed"):
        raise needed("distributed")
    from distributed import Client

    failure: str | None = None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:
        failure = _first_line(error)
    if failure is not None:
        # Dask's finaliser of the failed client takes the lock under which loops are started. The
        # client is collected here, before the finaliser can run in the thread of a starting loop.
        gc.collect()
        raise BackendError(
            f"--cluster {address}: no Dask scheduler answers at this address ({failure})",
            "failed",
            key="--cluster",
            value=address,
        )
    with client:
        if not client.scheduler_info()["workers"]:
            raise BackendError(
                f"--cluster {address}: the scheduler has no workers; start them with "
                f"dask worker {address}",
                "failed",
                key="--cluster",
                value=address,
            )
        with joblib.parallel_config(backend=_DaskBackend(client=client)):
            yield


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    if not is_installed("ray"):
        raise PackageError(
            "the package ray is not installed; install it with pip install 'ray[client]'",
            "package",
            key="ray",
        )
    import ray
    from ray.util.joblib import register_ray

    try:
        ray.init("auto" if address == RAY else address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"--cluster {address}: cannot connect to a Ray cluster at this address "
            f"({_first_line(error)})",
            "failed",
            key="--cluster",
            value=address,
        ) from None
    try:
        count = int(ray.cluster_resources().get("CPU", 0))
        if count < 2:  # with 1 CPU, joblib would do the runs in this process
            raise BackendError(
                f"--cluster {address}: the Ray cluster has {count} CPUs; at least 2 are needed",
                "range",
                key="--cluster",
                value=count,
                limit=2,
            )
        register_ray()
        with joblib.parallel_config("ray", n_jobs=count):
            yield
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
