"""A cluster of Dask or Ray that does the runs of a sweep, through joblib."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import joblib
from joblib._dask import DaskDistributedBackend

from esl_lava.errors import BackendError, PackageError
from esl_lava.packages import is_installed, needed

CONNECT_SECONDS = 10.0
"""How long a scheduler of Dask is waited for."""

RAY = "ray"
"""The address of the Ray cluster that this machine is part of; others begin with ray://."""


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Within it the runs of a sweep go to the workers of a cluster.

    Args:
        address: of a Dask scheduler, e.g. "tcp://host:8786"; or of a Ray cluster, "ray" or e.g.
            "ray://host:10001".

    Raises:
        BackendError: when no cluster answers there, or it has no workers.
        PackageError: when Dask or Ray is not installed.
    """
    with _ray(address) if address.partition("://")[0] == RAY else _dask(address):
        yield


class _Dask(DaskDistributedBackend):
    """Joblib's, but for two things."""

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """At least 2: with one joblib would do the runs in this process."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Future[Any]:
        """Also say when Dask gives a task up; joblib's would wait for ever."""
        job: Future[Any] = super().submit(func, callback)

        def given_up(done: Future[Any]) -> None:
            if (error := done.exception()) is not None:
                callback(error)

        job.add_done_callback(given_up)
        return job


@contextlib.contextmanager
def _dask(address: str) -> Iterator[None]:
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
        with joblib.parallel_config(backend=_Dask(client=client)):
            yield


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    if not is_installed("ray"):
        raise PackageError("the package ray is not installed: pip install 'ray[client]'")
    import ray
    from ray.util.joblib import register_ray

    try:
        ray.init("auto" if address == RAY else address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(f"--cluster {address}: no Ray cluster answers there ({error})") from None
    try:
        count = int(ray.cluster_resources().get("CPU", 0))
        if count < 2:  # of one, joblib would do the runs here
            raise BackendError(f"--cluster {address}: it has {count} CPUs, at least 2 are needed")
        register_ray()
        with joblib.parallel_config("ray", n_jobs=count):
            yield
    finally:
        ray.shutdown()
