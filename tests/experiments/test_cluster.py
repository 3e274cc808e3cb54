"""Runs of a sweep on a Dask cluster of this machine, and on a Ray cluster if Ray is installed."""

import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esl_lava.config import Experiment, override
from esl_lava.errors import BackendError, PackageError, UserError
from esl_lava.experiments import cluster
from esl_lava.experiments import sweep as sweeps
from esl_lava.experiments.cluster import use_cluster
from esl_lava.experiments.sweep import Cell, sweep
from tests.faults import refused
from tests.folders import contents

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _collected() -> None:
    """Run Dask's finalisers of earlier tests here: one in a starting loop's thread waits 10 s."""
    gc.collect()


@pytest.fixture(scope="module")
def cells(experiment: Experiment) -> list[Cell]:
    """Three runs of one epoch: one density, three seeds."""
    base = override(experiment, {"training.epochs": 1, "sparsity.t_iter": 4})
    return [Cell({"kind": "tiny"}, override(base, {"seed": seed})) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A scheduler with two workers, each a process of one thread."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local:
        yield local.scheduler_address


@pytest.mark.timeout(600)
def test_the_same_bits_come_from_a_cluster(
    cells: list[Cell], scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is relative, but workers have another working directory."""
    monkeypatch.chdir(tmp_path)
    here = sweep(cells, Path("here"), lambda line: None)
    assert here[1] == []
    with use_cluster(scheduler):
        assert sweep(cells, Path("cluster"), lambda line: None) == here
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")


@contextlib.contextmanager
def attempting(scheduler: str, attempt: Callable[[Cell, Any], Any]) -> Iterator[None]:
    """Replace `_attempt` in the workers of a cluster while the context is open."""
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:
        client.run(setattr, sweeps, "_attempt", attempt)
        try:
            yield
        finally:
            client.run(setattr, sweeps, "_attempt", sweeps._attempt)


def _in_a_worker(cell: Cell, place: Any) -> str:
    """Return the process that does a run, and its parent."""
    return f"{os.getpid()} {os.getppid()}"


def _killed(cell: Cell, place: Any) -> str:
    """Kill the process of one run always, those of the others never."""
    if cell.name.endswith("seed-2"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _in_a_worker(cell, place)


def test_runs_are_done_in_children_of_the_workers(
    cells: list[Cell], scheduler: str, tmp_path: Path
) -> None:
    from distributed import Client

    with attempting(scheduler, _in_a_worker), use_cluster(scheduler):
        _, failures = sweep(cells, tmp_path, lambda line: None)
    with Client(scheduler, set_as_default=False) as client:
        workers = set(client.run(os.getpid).values())
    assert len(workers) == 2
    processes, parents = zip(*(map(int, failure.split()[1:]) for failure in failures))
    assert set(parents) <= workers
    assert not set(processes) & workers


def test_a_run_that_is_always_killed_fails_and_the_others_finish(
    cells: list[Cell], scheduler: str, tmp_path: Path
) -> None:
    with attempting(scheduler, _killed), use_cluster(scheduler):
        _, failures = sweep(cells, tmp_path, lambda line: None)
    assert ["SIGKILL, 3 times" in failure for failure in failures] == [False, True, False]


def _kill_parent(cell: Cell, place: Any) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def test_a_cluster_that_loses_its_workers_is_one_sentence(
    cells: list[Cell], tmp_path: Path
) -> None:
    """Dask gives up after several losses, here after the first."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as local,
        attempting(local.scheduler_address, _kill_parent),
        use_cluster(local.scheduler_address),
        refused(UserError, "failed") as caught,
    ):
        sweep(cells[:1], tmp_path, lambda line: None)
    assert "KilledWorker" in str(caught.value)
    assert not (tmp_path / ".states").exists()


def test_a_directory_that_is_not_shared_is_named(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "MARKER_SECONDS", 1)
    directory = tmp_path / "sweep"
    place = sweeps._Place(directory, directory / "marker", lines=True, remote=True)
    name, reason = sweeps._do_on_cluster(cells[0], place)
    assert name == cells[0].name
    assert isinstance(reason, str)
    assert reason.startswith(f"{directory}: ")
    assert socket.gethostname() in reason


def test_a_run_of_a_cluster_ends_with_its_sweep(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep may end in any way: its marker file is then removed."""
    marker = tmp_path / "marker"
    marker.touch()
    monkeypatch.setattr(sweeps, "_attempt", _remove_marker)
    place = sweeps._Place(tmp_path, marker, lines=True, remote=True)
    assert sweeps._do_on_cluster(cells[0], place) == (cells[0].name, "the sweep was ended")
    assert (tmp_path / "begun").read_text() == "once"


def _remove_marker(cell: Cell, place: Any) -> None:
    with (place.directory / "begun").open("a") as file:
        file.write("once")
    place.marker.unlink()
    signal.pause()


@pytest.mark.timeout(600)
def test_the_same_bits_come_from_ray(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    here = sweep(cells, tmp_path / "here", lambda line: None)
    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        with use_cluster("ray"):
            assert sweep(cells, tmp_path / "cluster", lambda line: None) == here
        assert not ray.is_initialized()
    finally:
        head.shutdown()
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")


def test_an_address_without_a_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        with (
            refused(BackendError, "failed", key="--cluster", value=address),
            use_cluster(address),
        ):
            pass
    with refused(BackendError, "failed", key="--cluster", value="what"), use_cluster("what"):
        pass


def test_a_scheduler_without_workers_is_refused() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as local,
        refused(BackendError, "failed", key="--cluster", value=local.scheduler_address) as caught,
        use_cluster(local.scheduler_address),
    ):
        pass
    assert "dask worker tcp://" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "package", "command"),
    [
        ("tcp://host:1", "distributed", "pip install 'esl-lava"),
        ("ray", "ray", "pip install 'ray"),
        ("ray://host:1", "ray", "pip install 'ray"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str, command: str
) -> None:
    monkeypatch.setattr(cluster, "is_installed", lambda name: False)
    with pytest.raises(PackageError) as caught, use_cluster(address):
        pass
    assert package in str(caught.value)
    assert command in str(caught.value)
