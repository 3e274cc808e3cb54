import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

from esl_lava import modelfile
from esl_lava.config import Experiment, from_toml, override
from esl_lava.data.config import Data
from esl_lava.data.datasets import Images, load
from esl_lava.errors import ConfigError, DataError, FileError, UserError
from esl_lava.experiments import sweep as sweeps
from esl_lava.experiments.evaluate import encoding_of, evaluate, load_samples
from esl_lava.experiments.preset import load_preset
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.states import is_running, read_states
from esl_lava.experiments.sweep import Cell, sweep
from esl_lava.experiments.train import train
from esl_lava.netfile import read
from esl_lava.results.sweep import RunState, SweepRow
from tests.faults import refused
from tests.folders import contents


@pytest.fixture(scope="module")
def cells(experiment: Experiment) -> list[Cell]:
    """Four runs of one epoch: two densities, two seeds."""
    base = override(experiment, {"training.epochs": 1, "sparsity.t_iter": 4})
    return [
        Cell({"density": density}, override(base, {"sparsity.density": density, "seed": seed}))
        for density in (0.2, 0.5)
        for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def finished(
    cells: list[Cell], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[SweepRow]]:
    """The directory of a finished sweep, which tests must not change, and its rows."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    lines: list[str] = []
    rows, failures = sweep(cells, folder, lines.append)
    assert lines == failures == []
    return folder, rows


def test_names_show_the_settings(cells: list[Cell]) -> None:
    assert [cell.name for cell in cells] == [
        "density-0.2_seed-1",
        "density-0.2_seed-2",
        "density-0.5_seed-1",
        "density-0.5_seed-2",
    ]


@pytest.mark.slow
def test_rows_hold_the_results_of_the_runs(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]]
) -> None:
    folder, rows = finished
    assert [row.settings for row in rows] == [{"density": 0.2}, {"density": 0.5}]
    for row, group in zip(rows, (cells[:2], cells[2:])):
        assert row.seeds == (1, 2)
        accuracies, explored = [], []
        for cell in group:
            run = RunDirectory(folder / cell.name)
            saved = modelfile.read(run.model)
            assert from_toml(saved.config) == cell.experiment
            network = read(run.net)
            data = load_samples(network, "digits", "test", None)
            accuracies.append(evaluate(network, data, encoding_of(network)).accuracy)
            explored.append(
                sum(int(e.sum()) for e in saved.ever.values())
                / sum(e.size for e in saved.ever.values())
            )
            assert row.connections == network.connections
            assert row.density == network.density
        assert row.accuracies == tuple(accuracies)
        assert row.accuracy == sum(accuracies) / 2
        assert row.exploration == sum(explored) / 2
        assert row.sparse_density == round(float(row.settings["density"]) * 1824) / 1824
        assert row.exploration > row.sparse_density


def test_finished_runs_are_not_repeated(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = finished
    before = contents(folder)
    for name in ("train", "resume", "export", "evaluate"):
        monkeypatch.setattr(sweeps, name, None)
    lines: list[str] = []
    assert sweep(cells, folder, lines.append) == (rows, [])
    assert lines == ["4 of 4 runs are already finished"]
    assert contents(folder) == before


@pytest.mark.slow
def test_a_resumed_sweep_has_the_same_bits(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One run is finished, one is only trained, one has begun and one has not begun."""
    folder, rows = finished
    shutil.copytree(folder / cells[0].name, tmp_path / cells[0].name)
    trained = tmp_path / cells[1].name
    shutil.copytree(folder / cells[1].name, trained)
    (trained / "outcome.json").unlink()
    (trained / "net.h5").write_bytes(b"half")

    def interrupt(progress: Any) -> None:
        if progress.iteration == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("esl_lava.experiments.train.CHECKPOINT_SECONDS", 0.0)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with pytest.raises(KeyboardInterrupt):
            train(cells[2].experiment, tmp_path / cells[2].name, interrupt)
        torch.set_num_threads(threads)
    assert sweep(cells, tmp_path, lambda line: None) == (rows, [])
    assert contents(tmp_path) == contents(folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_give_the_same_bits(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path, backend: str
) -> None:
    """`joblib.parallel_config` selects the workers, as it selects a cluster."""
    folder, rows = finished
    with joblib.parallel_config(backend, n_jobs=2):
        assert sweep(cells, tmp_path, lambda line: None) == (rows, [])
    assert contents(tmp_path) == contents(folder)


def test_a_run_trains_on_one_thread_and_restores_the_number(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def train(*_: Any) -> None:
        seen.append(torch.get_num_threads())
        raise UserError("enough", "failed")

    monkeypatch.setattr(sweeps, "train", train)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sweep(cells[:1], tmp_path, lambda line: None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == [1]


@pytest.mark.slow
def test_a_relative_directory_is_relative_to_the_caller(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, rows = finished
    joblib.Parallel(2)(
        joblib.delayed(os.getcwd)() for _ in range(4)
    )  # these workers keep this working directory
    monkeypatch.chdir(tmp_path)
    assert sweep(cells[:2], Path("sweep"), lambda line: None, jobs=2) == (rows[:1], [])
    assert contents(tmp_path / "sweep" / cells[0].name) == contents(folder / cells[0].name)


@pytest.mark.parametrize("left", ["outcome.json", "model.pt", "checkpoint.pt"])
def test_runs_of_another_experiment_are_left_alone(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path, left: str
) -> None:
    """The error comes before any other run is trained in the same directory."""
    folder, _ = finished
    begun = cells[1].name
    shutil.copytree(folder / begun, tmp_path / begun)
    if left != "outcome.json":
        (tmp_path / begun / "outcome.json").unlink()
    if left == "checkpoint.pt":
        (tmp_path / begun / "model.pt").rename(tmp_path / begun / "checkpoint.pt")
    before = contents(tmp_path)
    others = [
        Cell(cell.settings, override(cell.experiment, {"training.epochs": 3})) for cell in cells
    ]
    expected = {"key": "training.epochs", "value": 1, "limit": 3, "file": tmp_path / begun}
    with refused(FileError, "mismatch", **expected):
        sweep(others, tmp_path, lambda line: None)
    assert contents(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("left", ["model.pt", "checkpoint.pt"])
def test_a_model_without_a_configuration_file_is_checked_too(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path, left: str
) -> None:
    folder, _ = finished
    name = cells[0].name
    (tmp_path / name).mkdir()
    shutil.copy(folder / name / "model.pt", tmp_path / name / left)
    other = Cell(cells[0].settings, override(cells[0].experiment, {"encoding.steps": 3}))
    rows, failures = sweep([other], tmp_path, lambda line: None)
    assert rows == []
    assert len(failures) == 1
    assert "encoding.steps = 4, not 3" in failures[0]


def test_a_damaged_outcome_is_named(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path
) -> None:
    folder, _ = finished
    name = cells[0].name
    shutil.copytree(folder / name, tmp_path / name)
    path = tmp_path / name / "outcome.json"
    values = json.loads(path.read_text())
    for content in ("", "[]", json.dumps(values | {"accuracy": "high"})):
        path.write_text(content)
        with refused(FileError, "damaged", file=path):
            sweep(cells[:1], tmp_path, lambda line: None)


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_finish(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, rows = finished
    bad = Cell(cells[0].settings, override(cells[0].experiment, {"sparsity.keep_dense": ["x"]}))
    (tmp_path / bad.name).mkdir()
    shutil.copy(folder / bad.name / "model.pt", tmp_path / bad.name)
    results, (failure,) = sweep([*cells[1:], bad], tmp_path, lambda line: None)
    assert failure.startswith(f"{bad.name}: {tmp_path / bad.name}: ")
    assert "sparsity.keep_dense = ('readout',), not ('x',)" in failure
    assert {row.settings["density"]: row.seeds for row in results} == {0.2: (2,), 0.5: (1, 2)}
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"{bad.name}: failed"
    assert lines[0] == f"{cells[1].name}: {100 * rows[0].accuracies[1]:.2f} % on the test split"


def test_a_finished_run_may_record_hidden_neurons(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path
) -> None:
    folder, rows = finished
    shutil.copytree(folder, tmp_path / "sweep")
    for cell in cells:
        config = RunDirectory(tmp_path / "sweep" / cell.name).config
        layers = 'layers = "24-12"'
        assert layers in config.read_text()
        config.write_text(config.read_text().replace(layers, "hidden = [24, 12]"))
    assert sweep(cells, tmp_path / "sweep", lambda line: None) == (rows, [])


def test_an_error_of_all_runs_is_raised_before_any_directory_exists(
    cells: list[Cell], tmp_path: Path
) -> None:
    bad = [
        Cell(cell.settings, override(cell.experiment, {"sparsity.keep_dense": ["x"]}))
        for cell in cells
    ]
    with pytest.raises(ConfigError, match="keep_dense"):
        sweep(bad, tmp_path / "new", lambda line: None)
    assert not (tmp_path / "new").exists()


def test_runs_of_other_data_are_not_mixed(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table has one data set, and a model is evaluated on the data of its training."""
    folder, rows = finished
    shutil.copytree(folder, tmp_path / "sweep")

    def other(data: Data, split: str, *_: object) -> Images:
        digits = load(data.name, split)
        return replace(digits, images=(255 - digits.images).astype(np.uint8))

    monkeypatch.setattr(sweeps, "load_configured", other)
    # All runs are finished, so no data are needed.
    assert sweep(cells, tmp_path / "sweep", lambda line: None) == (rows, [])
    run = RunDirectory(tmp_path / "sweep" / cells[0].name)
    run.outcome.unlink()
    stored = RunDirectory(tmp_path / "sweep" / cells[1].name).outcome
    with refused(DataError, "mismatch", key="train", file=stored):
        sweep(cells, tmp_path / "sweep", lambda line: None)
    _, (failure,) = sweep(cells[:1], tmp_path / "sweep", lambda line: None)
    assert failure.startswith(f"{cells[0].name}: {run.model}: ")
    assert "train split" in failure


def _killed_once(cell: Cell, place: Any) -> Any:
    """Kill the first process of each run during the training, after a checkpoint."""
    run = RunDirectory(place.directory / cell.name)
    if os.path.exists(run.checkpoint):
        return attempt(cell, place)

    def killed(progress: Any) -> None:
        if progress.iteration == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("esl_lava.experiments.train.CHECKPOINT_SECONDS", 0.0)
        patched.setattr(sweeps, "_reporter", lambda *_: killed)
        return attempt(cell, place)


def _always_killed(cell: Cell, place: Any) -> Any:
    """Kill every process of the first run, as the system does without memory; count them."""
    if cell.name == "density-0.2_seed-1":
        with (place.directory.parent / "begun").open("a") as file:
            file.write(".")
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt(cell, place)


attempt = sweeps._attempt


@pytest.mark.slow
def test_a_killed_run_continues_in_another_process(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, rows = finished
    monkeypatch.setattr(sweeps, "_attempt", _killed_once)
    assert sweep(cells[:2], tmp_path, lambda line: None, jobs=2) == (rows[:1], [])
    for cell in cells[:2]:
        assert contents(tmp_path / cell.name) == contents(folder / cell.name)
    lines = capsys.readouterr().err.splitlines()
    line = "the process was ended by SIGKILL; the run continues in another (2 tries left)"
    assert sorted(one for one in lines if "SIGKILL" in one) == [
        f"{cell.name}: {line}" for cell in cells[:2]
    ]


@pytest.mark.slow
def test_a_run_that_is_always_killed_fails_and_the_others_finish(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, rows = finished
    monkeypatch.setattr(sweeps, "_attempt", _always_killed)
    results, (failure,) = sweep(cells[:3], tmp_path / "sweep", lambda line: None, jobs=2)
    assert failure.startswith(f"{cells[0].name}: the process was ended by SIGKILL, 3 times")
    assert "--jobs" in failure
    assert (tmp_path / "begun").read_text() == "." * sweeps.TRIES
    assert [row.seeds for row in results] == [(2,), (1,)]
    assert [row.accuracies for row in results] == [rows[0].accuracies[1:], rows[1].accuracies[:1]]
    states = read_states(tmp_path / "sweep")
    assert [state.stage for state in states] == ["failed", "done", "done"]
    assert f"{cells[0].name}: {states[0].reason}" == failure
    monkeypatch.undo()
    assert sweep(cells, tmp_path / "sweep", lambda line: None) == (rows, [])
    assert contents(tmp_path / "sweep") == contents(folder)


def _broken(cell: Cell, place: Any) -> None:
    raise ZeroDivisionError("a bug of ours")


@pytest.mark.slow
def test_a_bug_in_a_worker_shows_its_traceback(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "_attempt", _broken)
    with pytest.raises(RuntimeError, match=r"in _broken[\s\S]*ZeroDivisionError: a bug of ours"):
        sweep(cells, tmp_path, lambda line: None, jobs=2)
    assert not (tmp_path / ".states").exists()


def _use_gpu(cell: Cell, place: Any) -> str:
    """Return the GPU of a run. Another run with the same GPU would raise an error."""
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    lock = place.directory / gpu
    lock.mkdir()
    time.sleep(0.3)
    lock.rmdir()
    return gpu


@pytest.mark.slow
def test_each_run_on_a_gpu_has_its_own(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPUs do not exist, but they are distributed to the runs."""
    monkeypatch.setattr(sweeps, "_gpus", lambda: ("2", "GPU-5"))
    monkeypatch.setattr(sweeps, "wants_gpu", lambda cell: True)
    monkeypatch.setattr(sweeps, "_attempt", _use_gpu)
    _, failures = sweep(cells, tmp_path, lambda line: None, jobs=4)
    assert [failure.partition(": ")[0] for failure in failures] == [cell.name for cell in cells]
    assert {failure.partition(": ")[2] for failure in failures} == {"2", "GPU-5"}


def test_which_runs_want_a_gpu(cells: list[Cell]) -> None:
    convolutional = load_preset("cifar10-small")
    assert not sweeps.wants_gpu(cells[0])
    for device in ("auto", "cpu", "cuda"):
        cell = Cell({}, override(convolutional, {"training.device": device}))
        assert sweeps.wants_gpu(cell) == (device != "cpu")
    stored = override(convolutional, {"training.engine": "sparse"})
    assert not sweeps.wants_gpu(Cell({}, stored))


@pytest.mark.slow
def test_states_are_written_during_the_sweep(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, rows = finished
    monkeypatch.setattr(sweeps, "STATE_SECONDS", -1.0)
    monkeypatch.setattr(sweeps, "SHOW_SECONDS", -1.0)
    shutil.copytree(folder / cells[0].name, tmp_path / cells[0].name)
    seen = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            if is_running(tmp_path):
                states = read_states(tmp_path)
                if is_running(tmp_path):  # it still runs, so all state files existed
                    seen.append(states)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        sweep(cells, tmp_path, lambda line: None, lines=False)
    finally:
        stop.set()
        watcher.join()
    assert capsys.readouterr().err == ""
    stages = [[state.stage for state in states] for states in seen]
    assert {row[0] for row in stages} == {"done before"}
    for index in (1, 2, 3):
        stages_of_run = [row[index] for row in stages]
        order = ["waiting", "running", "done"]
        assert stages_of_run == sorted(stages_of_run, key=order.index)
        assert "running" in stages_of_run
    running = [one for states in seen for one in states if one.stage == "running"]
    assert {one.epochs for one in running} == {None, 1}
    assert all(one.loss > 0 for one in running if one.epoch is not None)
    assert all(one.host == socket.gethostname() and one.began is not None for one in running)
    done = [one for states in seen for one in states if one.stage == "done"]
    assert all(one.ended >= one.began for one in done)
    assert {one.accuracy for one in done} <= {a for row in rows for a in row.accuracies}


def test_two_runs_with_one_name_are_refused(cells: list[Cell], tmp_path: Path) -> None:
    doubled: Sequence[Cell] = [*cells, cells[1]]
    with refused(ConfigError, "conflict", value="density-0.2_seed-2"):
        sweep(doubled, tmp_path / "new", lambda line: None)
    assert not (tmp_path / "new").exists()


def test_a_directory_that_cannot_be_created(cells: list[Cell], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(FileError, "unwritable", file=tmp_path / "file" / "new"):
        sweep(cells, tmp_path / "file" / "new", lambda line: None)


def test_progress_is_printed_at_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from esl_lava.training.trainer import TrainingProgress

    now = iter([0.0, 30.0, 61.0, 90.0, 130.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    monkeypatch.setattr(sweeps, "write_state", lambda *_: None)
    place = sweeps._Place(Path("nowhere"), Path("nothing"), lines=True)
    report = sweeps._reporter(RunState("eps-60_seed-1", "running"), place)
    for step in range(1, 5):
        report(TrainingProgress(step, 9, 1, 3, 0.5, None, 0.1, 10))
    line = "eps-60_seed-1: epoch 1/3, loss 0.5000\n"
    assert capsys.readouterr().err == line * 2
