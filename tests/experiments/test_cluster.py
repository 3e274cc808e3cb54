"""Runs of a sweep on a cluster: of Dask, on this machine; of Ray, where it is installed."""

import contextlib
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
from esl_lava.experiments.cluster import joined
from esl_lava.experiments.sweep import Cell, sweep
from tests.folders import contents


@pytest.fixture(scope="module")
def cells(experiment: Experiment) -> list[Cell]:
    """One density, three seeds, an epoch each."""
    base = override(experiment, {"training.epochs": 1, "sparsity.t_iter": 4})
    return [Cell({"kind": "tiny"}, override(base, {"seed": seed})) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Of two workers, each a process of one thread."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made:
        yield made.scheduler_address


@pytest.mark.timeout(600)
def test_the_same_bits_come_from_a_cluster(
    cells: list[Cell], scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun from a relative directory; a worker may stand elsewhere."""
    monkeypatch.chdir(tmp_path)
    here = sweep(cells, Path("here"), lambda line: None)
    assert here[1] == []
    with joined(scheduler):
        assert sweep(cells, Path("far"), lambda line: None) == here
    assert contents(tmp_path / "far") == contents(tmp_path / "here")


@contextlib.contextmanager
def attempting(scheduler: str, attempt: Callable[[Cell, Any], Any]) -> Iterator[None]:
    """Within it a cluster's workers do something else with each cell."""
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:
        client.run(setattr, sweeps, "_attempt", attempt)
        try:
            yield
        finally:
            client.run(setattr, sweeps, "_attempt", sweeps._attempt)


def _in_a_worker(cell: Cell, place: Any) -> str:
    """Which process does a run, and which keeps it."""
    return f"{os.getpid()} {os.getppid()}"


def _killed(cell: Cell, place: Any) -> str:
    """One run is killed always, the others never."""
    if cell.name.endswith("seed-2"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _in_a_worker(cell, place)


def test_runs_are_done_by_the_clusters_workers(
    cells: list[Cell], scheduler: str, tmp_path: Path
) -> None:
    from distributed import Client

    with attempting(scheduler, _in_a_worker), joined(scheduler):
        _, faults = sweep(cells, tmp_path, lambda line: None)
    with Client(scheduler, set_as_default=False) as client:
        workers = set(client.run(os.getpid).values())
    assert len(workers) == 2
    processes, keepers = zip(*(map(int, fault.split()[1:]) for fault in faults))
    assert set(keepers) <= workers
    assert not set(processes) & workers


def test_a_run_that_is_always_killed_fails_and_the_others_go_on(
    cells: list[Cell], scheduler: str, tmp_path: Path
) -> None:
    with attempting(scheduler, _killed), joined(scheduler):
        _, faults = sweep(cells, tmp_path, lambda line: None)
    assert ["SIGKILL, 3 times" in fault for fault in faults] == [False, True, False]


def _kills_what_keeps_it(cell: Cell, place: Any) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def test_a_cluster_that_loses_its_workers_is_one_sentence(
    cells: list[Cell], tmp_path: Path
) -> None:
    """One of Dask's own; it gives up after several losses, here after the first."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as made,
        attempting(made.scheduler_address, _kills_what_keeps_it),
        joined(made.scheduler_address),
        pytest.raises(UserError, match=r"the cluster lost .* goes on where it was \(KilledWorker"),
    ):
        sweep(cells[:1], tmp_path, lambda line: None)
    assert not (tmp_path / ".states").exists()


def test_a_directory_that_is_not_shared_is_named(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "MARKER_SECONDS", 1)
    place = sweeps._Place(tmp_path / "sweep", tmp_path / "sweep" / "marker", lines=True, far=True)
    assert sweeps._far(cells[0], place) == (
        cells[0].name,
        f"{tmp_path / 'sweep'}: is not seen on {socket.gethostname()}; the machines of a cluster "
        "must share the directory of a sweep",
    )


def test_a_run_far_away_ends_with_its_sweep(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However that ended: the file that says that it goes on is gone."""
    marker = tmp_path / "marker"
    marker.touch()
    monkeypatch.setattr(sweeps, "_attempt", _removes_its_marker)
    place = sweeps._Place(tmp_path, marker, lines=True, far=True)
    assert sweeps._far(cells[0], place) == (cells[0].name, "the sweep was ended")
    assert (tmp_path / "begun").read_text() == "once"


def _removes_its_marker(cell: Cell, place: Any) -> None:
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
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        with joined("ray"):
            assert sweep(cells, tmp_path / "far", lambda line: None) == here
        assert not ray.is_initialized()
    finally:
        made.shutdown()
    assert contents(tmp_path / "far") == contents(tmp_path / "here")


def test_where_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        with (
            pytest.raises(BackendError, match=f"--cluster {address}: no Dask scheduler answers"),
            joined(address),
        ):
            pass
    with pytest.raises(BackendError, match="--cluster what: no Dask scheduler"), joined("what"):
        pass


def test_a_scheduler_without_workers() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as made,
        pytest.raises(BackendError, match="the scheduler has no workers; dask worker tcp://"),
        joined(made.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://host:1", "the package distributed is not installed: pip install 'esl-lava"),
        ("ray", "the package ray is not installed: pip install 'ray"),
        ("ray://host:1", "the package ray is not installed: pip install 'ray"),
    ],
)
def test_what_installs_a_cluster_is_said(
    monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setattr(cluster, "is_installed", lambda package: False)
    with pytest.raises(PackageError) as refused, joined(address):
        pass
    assert str(refused.value).startswith(said)
