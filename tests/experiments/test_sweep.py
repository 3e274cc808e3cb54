import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import pytest
import torch

from esl_lava.config import Experiment, override
from esl_lava.errors import ConfigError, FileError, UserError
from esl_lava.experiments import sweep as sweeps
from esl_lava.experiments.evaluate import encoding_of, evaluate, load_samples
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.sweep import Cell, sweep
from esl_lava.models import modelfile
from esl_lava.netfile import read
from esl_lava.report.sweeps import Row
from tests.cli.test_commands import contents


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
def finished(cells: list[Cell], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A sweep's directory, not to be written, and its rows."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    told: list[str] = []
    rows = sweep(cells, folder, told.append)
    assert [line.split(":")[0] for line in told] == [
        f"[{n}/4] {cell.name}" for n, cell in enumerate(cells, 1)
    ]
    return folder, rows


def test_names_say_what_varies(cells: list[Cell]) -> None:
    assert [cell.name for cell in cells] == [
        "density-0.2_seed-1",
        "density-0.2_seed-2",
        "density-0.5_seed-1",
        "density-0.5_seed-2",
    ]


def test_rows_tell_what_the_runs_hold(cells: list[Cell], finished: tuple[Path, list[Row]]) -> None:
    folder, rows = finished
    assert [row.settings for row in rows] == [{"density": 0.2}, {"density": 0.5}]
    for row, group in zip(rows, (cells[:2], cells[2:])):
        assert row.seeds == (1, 2)
        accuracies, explored = [], []
        for cell in group:
            run = RunDirectory(folder / cell.name)
            saved = modelfile.read(run.model)
            assert saved.config == cell.experiment
            network = read(run.net)
            data = load_samples(network, "digits", "test", None)
            found = evaluate(network, data, encoding_of(network))
            accuracies.append(found.accuracy)
            explored.append(
                sum(int(e.sum()) for e in saved.ever.values())
                / sum(e.numel() for e in saved.ever.values())
            )
            assert row.connections == network.connections
            assert row.density == network.density
        assert row.accuracies == tuple(accuracies)
        assert row.accuracy == sum(accuracies) / 2
        assert row.exploration == sum(explored) / 2
        assert row.sparse_density == round(float(row.settings["density"]) * 1824) / 1824
        assert row.exploration > row.sparse_density


def test_finished_runs_are_not_done_again(
    cells: list[Cell], finished: tuple[Path, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = finished
    before = contents(folder)
    for name in ("train", "resume", "export", "evaluate"):
        monkeypatch.setattr(sweeps, name, None)
    told: list[str] = []
    assert sweep(cells, folder, told.append) == rows
    assert told == ["4 of 4 runs are finished already"]
    assert contents(folder) == before


def test_an_interrupted_sweep_goes_on_to_the_same_bits(
    cells: list[Cell],
    finished: tuple[Path, list[Row]],
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
            sweeps.train(cells[2].experiment, tmp_path / cells[2].name, interrupt)
        torch.set_num_threads(threads)
    assert sweep(cells, tmp_path, lambda line: None) == rows
    assert contents(tmp_path) == contents(folder)


def test_workers_find_the_same_bits(
    cells: list[Cell], finished: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    """Through `joblib.parallel_config`, as a cluster's backend would be chosen."""
    folder, rows = finished
    with joblib.parallel_config("loky", n_jobs=2):
        assert sweep(cells, tmp_path, lambda line: None) == rows
    assert contents(tmp_path) == contents(folder)


def test_threads_do_not_matter_and_are_left_as_they_were(
    cells: list[Cell], finished: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    folder, _ = finished
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sweep(cells[:1], tmp_path, lambda line: None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    name = cells[0].name
    assert contents(tmp_path / name) == contents(folder / name)


@pytest.mark.parametrize("left", ["outcome.json", "model.pt", "checkpoint.pt"])
def test_runs_of_another_experiment_are_left_alone(
    cells: list[Cell], finished: tuple[Path, list[Row]], tmp_path: Path, left: str
) -> None:
    folder, _ = finished
    name = cells[0].name
    shutil.copytree(folder / name, tmp_path / name)
    if left != "outcome.json":
        (tmp_path / name / "outcome.json").unlink()
    if left == "checkpoint.pt":
        (tmp_path / name / "model.pt").rename(tmp_path / name / "checkpoint.pt")
    before = contents(tmp_path)
    other = Cell(cells[0].settings, override(cells[0].experiment, {"training.epochs": 3}))
    kind = FileError if left == "outcome.json" else UserError
    with pytest.raises(kind, match=r"holds a run with training\.epochs = 1, not 3; choose"):
        sweep([other], tmp_path, lambda line: None)
    assert contents(tmp_path) == before


def test_a_damaged_outcome_is_named(
    cells: list[Cell], finished: tuple[Path, list[Row]], tmp_path: Path
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


def test_a_run_that_fails_is_named_when_the_others_have_ended(
    cells: list[Cell], finished: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    folder, _ = finished
    bad = Cell({"density": 0.9}, override(cells[0].experiment, {"sparsity.keep_dense": ["x"]}))
    told: list[str] = []
    with pytest.raises(UserError, match=r"^density-0\.9_seed-1: keep_dense names 'x'"):
        sweep([bad, cells[0]], tmp_path, told.append)
    assert told[0] == "[1/2] density-0.9_seed-1: failed"
    assert contents(tmp_path / cells[0].name) == contents(folder / cells[0].name)


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
    from esl_lava.training.trainer import Progress

    now = iter([0.0, 30.0, 61.0, 90.0, 130.0])
    monkeypatch.setattr(sweeps.time, "monotonic", lambda: next(now))
    report = sweeps._Reporter("eps-60_seed-1")
    for step in range(1, 5):
        report(Progress(step, 9, 1, 3, 0.5))
    line = "eps-60_seed-1: epoch 1/3, loss 0.5000\n"
    assert capsys.readouterr().err == line * 2
