import errno
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from esl_lava import modelfile
from esl_lava.config import Experiment, from_toml, override, read_toml
from esl_lava.data.config import Data
from esl_lava.data.datasets import Images, load
from esl_lava.errors import ConfigError, DataError, FileError, UserError
from esl_lava.experiments import rundir
from esl_lava.experiments import train as experiments
from esl_lava.experiments.train import resume, train
from esl_lava.interrupts import Termination, raise_on_sigterm
from esl_lava.models.restore import restore
from esl_lava.training.evaluation import examine
from esl_lava.training.trainer import Trainer, TrainingProgress
from tests.faults import refused

pytestmark = pytest.mark.slow

OUTPUTS = ["config.toml", "model.pt", "training.png", "updates.json"]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def silent(progress: TrainingProgress) -> None:
    pass


def interrupted(after: int) -> Callable[[TrainingProgress], None]:
    """Return a `show` that interrupts like Ctrl-C after this many steps."""

    def show(progress: TrainingProgress) -> None:
        if progress.iteration == after:
            raise KeyboardInterrupt

    return show


@pytest.fixture
def short(experiment: Experiment) -> Experiment:
    """An experiment of two epochs of three steps."""
    return override(experiment, {"training.epochs": 2, "training.batch_size": 432})


def test_a_run_is_complete_and_correct(tmp_path: Path, short: Experiment) -> None:
    shown: list[TrainingProgress] = []
    trained = train(short, tmp_path / "run", shown.append)
    assert listing(tmp_path / "run") == OUTPUTS
    assert [p.iteration for p in shown] == [1, 2, 3, 4, 5, 6]
    assert read_toml(trained.run.config) == short

    stored = modelfile.read(trained.run.model)
    assert from_toml(stored.config) == short
    assert stored.state == {}
    assert len(stored.history) == 2
    test = load("digits", "test")
    assert trained.samples == len(test) == 357
    assert trained.accuracy == examine(short, restore(stored), test).accuracy
    masks = sum(int(mask.sum()) for mask in stored.masks.values())
    assert masks == round(0.4 * (64 * 24 + 24 * 12))
    assert trained.connections == masks + 120
    assert trained.density == trained.connections / (64 * 24 + 24 * 12 + 120)
    assert trained.seconds > 0


def test_the_command_writes_the_same_bytes(
    tiny: Any, experiment: Experiment, tmp_path: Path
) -> None:
    # The command ran in another process with the same number of threads.
    train(experiment, tmp_path / "run", silent)
    for name in OUTPUTS:
        assert (tmp_path / "run" / name).read_bytes() == (tiny.path / name).read_bytes(), name


@pytest.mark.parametrize("after", [1, 3, 5])
def test_resumed_after_an_interruption(tmp_path: Path, short: Experiment, after: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(short, whole, silent)
    with pytest.raises(KeyboardInterrupt):
        train(short, broken, interrupted(after))
    assert listing(broken) == ["checkpoint.pt", "config.toml"]
    # The current epoch is lost.
    steps = []
    trained = resume(broken, lambda progress: steps.append(progress.iteration))
    assert steps[0] == (4 if after > 3 else 1)
    assert listing(broken) == OUTPUTS
    for name in OUTPUTS:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert trained.run.path == broken


def test_a_training_with_nan_keeps_the_last_good_checkpoint(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are written within epochs. The resumed run has the same bits."""
    monkeypatch.setattr(experiments, "CHECKPOINT_SECONDS", -1.0)
    whole, spoilt = tmp_path / "whole", tmp_path / "spoilt"
    train(short, whole, silent)
    trainers: list[Trainer] = []

    def record_trainer(*arguments: Any) -> Trainer:
        trainers.append(Trainer(*arguments))
        return trainers[-1]

    monkeypatch.setattr(experiments, "Trainer", record_trainer)

    def spoil(progress: TrainingProgress) -> None:
        if progress.iteration == 5:
            trainers[0].model.hidden2.synapse.weight.data[0] = math.nan

    with pytest.raises(UserError, match=r"layer hidden2.* step 5"):
        train(short, spoilt, spoil)
    kept = modelfile.read(spoilt / "checkpoint.pt")
    assert kept.state["iteration"] == 4
    assert all(np.isfinite(weight).all() for weight in kept.weights.values())
    resume(spoilt, silent)
    assert (spoilt / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()


def test_a_training_interrupted_while_it_writes_can_be_resumed(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """model.pt is written last, so that its presence means a complete run."""
    plot = Mock(side_effect=KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "draw_training", plot)
        with pytest.raises(KeyboardInterrupt):
            train(short, tmp_path, silent)
    assert "model.pt" not in listing(tmp_path)
    resume(tmp_path, silent)
    assert listing(tmp_path) == OUTPUTS


def test_a_directory_that_is_not_empty_is_left_alone(
    tmp_path: Path, short: Experiment, tiny: Any
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tiny.path):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with refused(FileError, "exists", file=folder):
            train(short, folder, silent)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sparsity.keep_dense": ["hidden7"]}, ConfigError, "'hidden7'"),
        ({"sparsity.density": 1e-4}, ConfigError, "needs at least 1"),
        ({"data.validation": 0.9999}, DataError, "data.validation 0.9999"),
    ],
)
def test_a_refused_training_leaves_no_directory(
    tmp_path: Path, short: Experiment, settings: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        train(override(short, settings), tmp_path / "run", silent)
    assert listing(tmp_path) == []
    train(short, tmp_path / "run", silent)  # nothing blocks another try


def test_wrong_test_data_are_refused_before_the_training(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_test(data: Data, split: str, *_: object) -> Images:
        if split == "test":
            raise DataError("no test split", "not-found")
        return load(data.name, split)

    def wider_test(data: Data, split: str, *_: object) -> Images:
        digits = load(data.name, split)
        if split == "train":
            return digits
        return Images(data.name, np.zeros((1, 81), np.uint8), digits.labels[:1], 10, (9, 9))

    for loader, code, value, limit in (
        (no_test, "not-found", None, None),
        (wider_test, "mismatch", (1, 9, 9), (1, 8, 8)),
    ):
        monkeypatch.setattr(experiments, "load_configured", loader)
        with refused(DataError, code, value=value, limit=limit):
            train(short, tmp_path / "run", silent)
        assert listing(tmp_path) == []


def test_resume_needs_an_unfinished_run(tmp_path: Path, short: Experiment, tiny: Any) -> None:
    with refused(FileError, "exists", file=tiny.model):
        resume(tiny.path, silent)
    for folder in (tmp_path, tmp_path / "missing", tmp_path / ("x" * 300)):
        with pytest.raises(FileError, match=r"checkpoint\.pt"):
            resume(folder, silent)
    (tmp_path / "checkpoint.pt").write_bytes(tiny.model.read_bytes())
    with pytest.raises(UserError):
        resume(tmp_path, silent)
    assert listing(tmp_path) == ["checkpoint.pt"]


def test_errors_of_a_checkpoint_name_its_file(tmp_path: Path, short: Experiment) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, tmp_path, interrupted(4))
    path = tmp_path / "checkpoint.pt"
    saved = modelfile.read(path)
    modelfile.write(replace(saved, state={**saved.state, "iteration": 1 << 40}), path)
    with refused(DataError, "range", key="state.iteration", file=path):
        resume(tmp_path, silent)


# --- other data of the same name -----------------------------------------------------------


def relabelled(split: str) -> Callable[..., Images]:
    """Return a `samples_of` that swaps two labels of a split."""

    def other(data: Data, name: str, *_: object) -> Images:
        digits = load(data.name, name)
        if name != split:
            return digits
        labels = digits.labels.copy()
        labels[:2] = labels[1::-1]
        return replace(digits, labels=labels)

    return other


def digests() -> dict[str, str]:
    return {split: load("digits", split).digest for split in ("train", "test")}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_training_is_not_resumed_with_other_data(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, tmp_path, interrupted(4))
    assert modelfile.read(tmp_path / "checkpoint.pt").data == digests()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "load_configured", relabelled(split))
        other = relabelled(split)(Data(), split).digest
        expected = {"key": split, "value": other, "limit": digests()[split]}
        with refused(DataError, "mismatch", **expected, file=tmp_path / "checkpoint.pt"):
            resume(tmp_path, silent)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert resume(tmp_path, silent).model.data == digests()
    assert modelfile.read(tmp_path / "model.pt").data == digests()


def test_digests_that_the_start_did_not_record_stay_unknown(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, tmp_path, interrupted(4))
    path = tmp_path / "checkpoint.pt"
    modelfile.write(replace(modelfile.read(path), data={}), path)
    monkeypatch.setattr(experiments, "load_configured", relabelled("train"))
    resume(tmp_path, silent)
    assert modelfile.read(tmp_path / "model.pt").data == {}


# --- SIGTERM -------------------------------------------------------------------------------


@pytest.fixture
def sigterm() -> Iterator[None]:
    """Restore how this process handles SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize("after", [1, 3, 5, 6])
def test_sigterm_saves_a_checkpoint(
    tmp_path: Path, short: Experiment, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(short, whole, silent)
    shown = []

    def show(progress: TrainingProgress) -> None:
        shown.append(progress.iteration)
        if progress.iteration == after:
            os.kill(os.getpid(), signal.SIGTERM)

    def program() -> None:
        with raise_on_sigterm():
            train(short, broken, show)

    with pytest.raises(Termination):
        program()
    assert shown[-1] == after
    assert listing(broken) == ["checkpoint.pt", "config.toml"]
    assert modelfile.read(broken / "checkpoint.pt").state["iteration"] == after
    assert f"esl train --resume {broken}" in caplog.text
    resume(broken, silent)
    for name in OUTPUTS:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name


# --- a full disk ---------------------------------------------------------------------------


def fill_disk(patch: pytest.MonkeyPatch, is_refused: Callable[[int], bool]) -> list[int]:
    """Let writes fail as on a full disk, by their number from 1. Return the list of the failed."""
    real, calls, failed = os.fsync, [], []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if is_refused(len(calls)):
            failed.append(len(calls))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    patch.setattr(os, "fsync", fsync)
    return failed


def test_a_full_disk_at_a_checkpoint_is_a_warning(
    tmp_path: Path,
    short: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(experiments, "CHECKPOINT_SECONDS", -1.0)  # after every step
    whole, full = tmp_path / "whole", tmp_path / "full"
    train(short, whole, silent)
    caplog.clear()
    saved = []

    def show(progress: TrainingProgress) -> None:
        saved.append(modelfile.read(full / "checkpoint.pt").state["iteration"])

    with monkeypatch.context() as patch:
        # Write 1 is the first checkpoint, and write 2 the configuration.
        failed = fill_disk(patch, lambda number: number in (4, 5))
        train(short, full, show)
    assert failed == [4, 5]
    assert saved == [0, 1, 1, 1, 4, 5]  # the latest checkpoint when each step is shown
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    texts = [record.getMessage() for record in warnings if record.name == experiments.__name__]
    assert [str(full / "checkpoint.pt") in text for text in texts] == [True, True]
    assert listing(full) == OUTPUTS
    for name in OUTPUTS:
        assert (full / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("name", ["training.png", "updates.json", "model.pt"])
def test_a_full_disk_at_the_end_is_an_error_that_says_how_to_continue(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    earlier = 4  # two checkpoints of epochs, the first one and the configuration
    position = earlier + 1 + ["training.png", "updates.json", "model.pt"].index(name)
    with monkeypatch.context() as patch:
        fill_disk(patch, lambda number: number >= position)
        with refused(FileError, "unwritable", file=run / name) as caught:
            train(short, run, silent)
    assert f"esl train --resume {run}" in str(caught.value)
    assert "model.pt" not in listing(run)
    train(short, whole, silent)
    steps: list[TrainingProgress] = []
    resume(run, steps.append)
    assert not steps  # the last checkpoint is that of the last step
    for output in OUTPUTS:
        assert (run / output).read_bytes() == (whole / output).read_bytes(), output


# --- two trainings in one directory, and files of killed ones ------------------------------


def test_a_second_training_in_the_same_directory_is_refused(
    tmp_path: Path, short: Experiment
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(short, whole, silent)
    with pytest.raises(KeyboardInterrupt):
        train(short, run, interrupted(4))

    def second(progress: TrainingProgress) -> None:
        before = (run / "checkpoint.pt").read_bytes()
        with refused(FileError, "conflict", file=run):
            resume(run, silent)
        assert (run / "checkpoint.pt").read_bytes() == before

    resume(run, second)
    assert listing(run) == OUTPUTS
    for name in OUTPUTS:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_training_does_not_overwrite_one_that_began_and_ended_meanwhile(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = tmp_path / "run", rundir.create

    def create(path: Path) -> Any:
        directory = real(path)
        monkeypatch.setattr(experiments, "create", real)
        train(short, path, silent)  # another process, before this one has the lock
        return directory

    monkeypatch.setattr(experiments, "create", create)
    with refused(FileError, "exists", file=run):
        train(short, run, silent)
    assert listing(run) == OUTPUTS


def test_a_resumed_training_removes_unfinished_files(tmp_path: Path, short: Experiment) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, tmp_path, interrupted(4))
    (tmp_path / f".checkpoint.pt.{2**40}.unfinished").write_bytes(b"half")
    (tmp_path / ".lock").write_text("of a killed process")
    resume(tmp_path, silent)
    assert listing(tmp_path) == OUTPUTS
