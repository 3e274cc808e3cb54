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
from esl_lava.experiments.states import is_going, read_states
from esl_lava.experiments.sweep import Cell, sweep
from esl_lava.experiments.train import train
from esl_lava.netfile import read
from esl_lava.results.sweep import RunState, SweepRow
from tests.folders import contents


@pytest.fixture(scope="module")
def cells(experiment: Experiment) -> list[Cell]:
    """Two densities, two seeds, an epoch each."""
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
    """A sweep's directory, not to be written, and its rows."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    told: list[str] = []
    rows, faults = sweep(cells, folder, told.append)
    assert told == faults == []
    return folder, rows


def test_names_say_what_varies(cells: list[Cell]) -> None:
    assert [cell.name for cell in cells] == [
        "density-0.2_seed-1",
        "density-0.2_seed-2",
        "density-0.5_seed-1",
        "density-0.5_seed-2",
    ]


def test_rows_tell_what_the_runs_hold(
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
            found = evaluate(network, data, encoding_of(network))
            accuracies.append(found.accuracy)
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


def test_finished_runs_are_not_done_again(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = finished
    before = contents(folder)
    for name in ("train", "resume", "export", "evaluate"):
        monkeypatch.setattr(sweeps, name, None)
    told: list[str] = []
    assert sweep(cells, folder, told.append) == (rows, [])
    assert told == ["4 of 4 runs are finished already"]
    assert contents(folder) == before


def test_an_interrupted_sweep_goes_on_to_the_same_bits(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One run finished, one trained only, one begun, one not begun."""
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


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_find_the_same_bits(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path, backend: str
) -> None:
    """Through `joblib.parallel_config`, as a cluster's backend would be chosen."""
    folder, rows = finished
    with joblib.parallel_config(backend, n_jobs=2):
        assert sweep(cells, tmp_path, lambda line: None) == (rows, [])
    assert contents(tmp_path) == contents(folder)


def test_a_run_trains_on_one_thread_and_leaves_them_as_they_were(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def train(*given: Any) -> None:
        seen.append(torch.get_num_threads())
        raise UserError("enough")

    monkeypatch.setattr(sweeps, "train", train)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sweep(cells[:1], tmp_path, lambda line: None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == [1]


def test_a_relative_directory_is_the_callers(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, rows = finished
    joblib.Parallel(2)(joblib.delayed(os.getcwd)() for _ in range(4))  # workers stay here
    monkeypatch.chdir(tmp_path)
    assert sweep(cells[:2], Path("sweep"), lambda line: None, jobs=2) == (rows[:1], [])
    assert contents(tmp_path / "sweep" / cells[0].name) == contents(folder / cells[0].name)


@pytest.mark.parametrize("left", ["outcome.json", "model.pt", "checkpoint.pt"])
def test_runs_of_another_experiment_are_left_alone(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path, left: str
) -> None:
    """Noticed before any other cell is trained into the same directory."""
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
    with pytest.raises(FileError, match=r"holds a run with training\.epochs = 1, not 3; choose"):
        sweep(others, tmp_path, lambda line: None)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("left", ["model.pt", "checkpoint.pt"])
def test_a_model_tells_its_experiment_where_no_configuration_lies(
    cells: list[Cell], finished: tuple[Path, list[SweepRow]], tmp_path: Path, left: str
) -> None:
    folder, _ = finished
    name = cells[0].name
    (tmp_path / name).mkdir()
    shutil.copy(folder / name / "model.pt", tmp_path / name / left)
    other = Cell(cells[0].settings, override(cells[0].experiment, {"encoding.steps": 3}))
    rows, faults = sweep([other], tmp_path, lambda line: None)
    assert rows == []
    assert len(faults) == 1
    assert "holds a run with encoding.steps = 4, not 3" in faults[0]


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
        with pytest.raises(FileError, match=r"outcome\.json: cannot be read as what a sweep wrote"):
            sweep(cells[:1], tmp_path, lambda line: None)


def test_a_run_that_fails_is_named_and_the_others_go_on(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, rows = finished
    bad = Cell(cells[0].settings, override(cells[0].experiment, {"sparsity.keep_dense": ["x"]}))
    (tmp_path / bad.name).mkdir()
    shutil.copy(folder / bad.name / "model.pt", tmp_path / bad.name)
    found, faults = sweep([*cells[1:], bad], tmp_path, lambda line: None)
    assert faults == [
        f"{bad.name}: {tmp_path / bad.name}: holds a run with sparsity.keep_dense = "
        "('readout',), not ('x',); choose another directory"
    ]
    assert {row.settings["density"]: row.seeds for row in found} == {0.2: (2,), 0.5: (1, 2)}
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"{bad.name}: failed"
    assert said[0] == f"{cells[1].name}: {100 * rows[0].accuracies[1]:.2f} % on the test split"


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


def test_what_is_wrong_with_all_is_said_before_anything_is_made(
    cells: list[Cell], tmp_path: Path
) -> None:
    bad = [
        Cell(cell.settings, override(cell.experiment, {"sparsity.keep_dense": ["x"]}))
        for cell in cells
    ]
    with pytest.raises(ConfigError, match=r"^keep_dense names 'x'"):
        sweep(bad, tmp_path / "new", lambda line: None)
    assert not (tmp_path / "new").exists()


def test_runs_of_other_data_are_not_mixed(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in a table, nor a model trained on some and evaluated on others."""
    folder, rows = finished
    shutil.copytree(folder, tmp_path / "sweep")

    def other(data: Data, split: str, *_: object) -> Images:
        digits = load(data.name, split)
        return replace(digits, images=(255 - digits.images).astype(np.uint8))

    monkeypatch.setattr(sweeps, "samples_of", other)
    again, faults = sweep(cells, tmp_path / "sweep", lambda line: None)
    assert (again, faults) == (rows, [])  # nothing is left to do, and no data are needed
    run = RunDirectory(tmp_path / "sweep" / cells[0].name)
    run.outcome.unlink()
    with pytest.raises(DataError, match=r"outcome\.json: made with other data: its train split"):
        sweep(cells, tmp_path / "sweep", lambda line: None)
    _, faults = sweep(cells[:1], tmp_path / "sweep", lambda line: None)
    (fault,) = faults
    assert fault.startswith(f"{cells[0].name}: {run.model}: made with other data: its train split")


def _killed_once(cell: Cell, place: Any) -> Any:
    """Each cell's first process is killed in its training, after a checkpoint."""
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
    """As the system does with the first cell for want of memory; says how often."""
    if cell.name == "density-0.2_seed-1":
        with (place.directory.parent / "begun").open("a") as file:
            file.write(".")
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt(cell, place)


attempt = sweeps._attempt


def test_a_run_whose_process_is_killed_goes_on_in_another(
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
    said = capsys.readouterr().err.splitlines()
    line = "the process was ended by SIGKILL; it goes on in another, which may happen 2 times more"
    assert sorted(one for one in said if "SIGKILL" in one) == [
        f"{cell.name}: {line}" for cell in cells[:2]
    ]


def test_a_run_whose_process_is_always_killed_fails_and_the_others_go_on(
    cells: list[Cell],
    finished: tuple[Path, list[SweepRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, rows = finished
    monkeypatch.setattr(sweeps, "_attempt", _always_killed)
    found, faults = sweep(cells[:3], tmp_path / "sweep", lambda line: None, jobs=2)
    assert faults == [
        f"{cells[0].name}: the process was ended by SIGKILL, 3 times, perhaps for want of memory; "
        "the same command with fewer --jobs goes on where it was"
    ]
    assert (tmp_path / "begun").read_text() == "." * sweeps.TRIES
    assert [row.seeds for row in found] == [(2,), (1,)]
    assert [row.accuracies for row in found] == [rows[0].accuracies[1:], rows[1].accuracies[:1]]
    states = read_states(tmp_path / "sweep")
    assert [state.stage for state in states] == ["failed", "done", "done"]
    assert f"{cells[0].name}: {states[0].reason}" == faults[0]
    monkeypatch.undo()
    assert sweep(cells, tmp_path / "sweep", lambda line: None) == (rows, [])
    assert contents(tmp_path / "sweep") == contents(folder)


def _broken(cell: Cell, place: Any) -> None:
    raise ZeroDivisionError("a bug of ours")


def test_a_bug_in_a_worker_shows_its_traceback(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "_attempt", _broken)
    with pytest.raises(RuntimeError, match=r"in _broken[\s\S]*ZeroDivisionError: a bug of ours"):
        sweep(cells, tmp_path, lambda line: None, jobs=2)
    assert not (tmp_path / ".states").exists()


def _names_its_gpu(cell: Cell, place: Any) -> str:
    """Which GPU a run has, and that no other has it meanwhile."""
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    mine = place.directory / gpu
    mine.mkdir()
    time.sleep(0.3)
    mine.rmdir()
    return gpu


def test_runs_that_train_on_gpus_have_one_each_to_themselves(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPUs are made up, their hand-out is not."""
    monkeypatch.setattr(sweeps, "_gpus", lambda: ("2", "GPU-5"))
    monkeypatch.setattr(sweeps, "wants_gpu", lambda cell: True)
    monkeypatch.setattr(sweeps, "_attempt", _names_its_gpu)
    _, faults = sweep(cells, tmp_path, lambda line: None, jobs=4)
    assert [fault.partition(": ")[0] for fault in faults] == [cell.name for cell in cells]
    assert {fault.partition(": ")[2] for fault in faults} == {"2", "GPU-5"}


def test_which_runs_want_a_gpu(cells: list[Cell]) -> None:
    convolutional = load_preset("cifar10-small")
    assert not sweeps.wants_gpu(cells[0])
    for device in ("auto", "cpu", "cuda"):
        asking = Cell({}, override(convolutional, {"training.device": device}))
        assert sweeps.wants_gpu(asking) == (device != "cpu")
    stored = override(convolutional, {"training.engine": "sparse"})
    assert not sweeps.wants_gpu(Cell({}, stored))


def test_states_are_told_while_it_goes_on(
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
            if is_going(tmp_path):
                states = read_states(tmp_path)
                if is_going(tmp_path):  # still, so that no state was missing
                    seen.append(states)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        sweep(cells, tmp_path, lambda line: None, lines=False)
    finally:
        stop.set()
        looking.join()
    assert capsys.readouterr().err == ""
    stages = [[state.stage for state in states] for states in seen]
    assert {row[0] for row in stages} == {"done before"}
    for place in (1, 2, 3):
        passed = [row[place] for row in stages]
        order = ["waiting", "running", "done"]
        assert passed == sorted(passed, key=order.index)
        assert set(passed) >= {"running"}
    running = [one for states in seen for one in states if one.stage == "running"]
    assert {one.epochs for one in running} == {None, 1}
    assert all(one.loss > 0 for one in running if one.epoch is not None)
    assert all(one.host == socket.gethostname() and one.began is not None for one in running)
    done = [one for states in seen for one in states if one.stage == "done"]
    assert all(one.ended >= one.began for one in done)
    assert {one.accuracy for one in done} <= {a for row in rows for a in row.accuracies}


def test_two_runs_of_one_name_are_refused(cells: list[Cell], tmp_path: Path) -> None:
    doubled: Sequence[Cell] = [*cells, cells[1]]
    with pytest.raises(ConfigError, match=r"would be called density-0\.2_seed-2"):
        sweep(doubled, tmp_path / "new", lambda line: None)
    assert not (tmp_path / "new").exists()


def test_a_directory_that_cannot_be_made(cells: list[Cell], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file/new: cannot be made"):
        sweep(cells, tmp_path / "file" / "new", lambda line: None)


def test_progress_is_told_now_and_then(
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
