import math
import re
from collections.abc import Callable
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
from esl_lava.experiments import train as experiments
from esl_lava.experiments.train import resume, train
from esl_lava.models.restore import restore
from esl_lava.training.evaluation import examine
from esl_lava.training.trainer import Trainer, TrainingProgress

OUTPUTS = ["config.toml", "model.pt", "training.png", "updates.json"]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def silent(progress: TrainingProgress) -> None:
    pass


def interrupted(after: int) -> Callable[[TrainingProgress], None]:
    """A `show` that interrupts as Ctrl-C does, after so many steps."""

    def show(progress: TrainingProgress) -> None:
        if progress.iteration == after:
            raise KeyboardInterrupt

    return show


@pytest.fixture
def short(experiment: Experiment) -> Experiment:
    """Two epochs of three steps."""
    return override(experiment, {"training.epochs": 2, "training.batch_size": 432})


def test_a_run_is_complete_and_tells_the_truth(tmp_path: Path, short: Experiment) -> None:
    shown: list[TrainingProgress] = []
    found = train(short, tmp_path / "run", shown.append)
    assert listing(tmp_path / "run") == OUTPUTS
    assert [p.iteration for p in shown] == [1, 2, 3, 4, 5, 6]
    assert read_toml(found.run.config) == short

    stored = modelfile.read(found.run.model)
    assert from_toml(stored.config) == short
    assert stored.state == {}
    assert len(stored.history) == 2
    test = load("digits", "test")
    assert found.samples == len(test) == 357
    assert found.accuracy == examine(short, restore(stored), test).accuracy
    masks = sum(int(mask.sum()) for mask in stored.masks.values())
    assert masks == round(0.4 * (64 * 24 + 24 * 12))
    assert found.connections == masks + 120
    assert found.density == found.connections / (64 * 24 + 24 * 12 + 120)
    assert found.seconds > 0


def test_the_real_command_made_the_same(tiny: Any, experiment: Experiment, tmp_path: Path) -> None:
    # Another process, of as many threads: every byte.
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
    # What was lost is the epoch begun, and nothing of a run is lost before its first ends.
    steps = []
    found = resume(broken, lambda progress: steps.append(progress.iteration))
    assert steps[0] == (4 if after > 3 else 1)
    assert listing(broken) == OUTPUTS
    for name in OUTPUTS:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert found.run.path == broken


def test_a_spoilt_training_leaves_the_last_good_checkpoint(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints come within epochs; from the one that stays the run ends as if unharmed."""
    monkeypatch.setattr(experiments, "CHECKPOINT_SECONDS", -1.0)
    whole, spoilt = tmp_path / "whole", tmp_path / "spoilt"
    train(short, whole, silent)
    trainers: list[Trainer] = []

    def noted(*given: Any) -> Trainer:
        trainers.append(Trainer(*given))
        return trainers[-1]

    monkeypatch.setattr(experiments, "Trainer", noted)

    def spoil(progress: TrainingProgress) -> None:
        if progress.iteration == 5:
            trainers[0].model.hidden2.synapse.weight.data[0] = math.nan

    with pytest.raises(UserError, match="in layer hidden2 are NaN or infinite after step 5"):
        train(short, spoilt, spoil)
    kept = modelfile.read(spoilt / "checkpoint.pt")
    assert kept.state["iteration"] == 4
    assert all(np.isfinite(weight).all() for weight in kept.weights.values())
    resume(spoilt, silent)
    assert (spoilt / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()


def test_killed_before_the_end_was_written(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """model.pt comes last: where it is, everything is."""
    plot = Mock(side_effect=KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "draw_training", plot)
        with pytest.raises(KeyboardInterrupt):
            train(short, tmp_path, silent)
    assert "model.pt" not in listing(tmp_path)
    resume(tmp_path, silent)
    assert listing(tmp_path) == OUTPUTS


def test_a_directory_that_holds_something_is_left_alone(
    tmp_path: Path, short: Experiment, tiny: Any
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tiny.path):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(FileError, match=f"{folder}: already holds something"):
            train(short, folder, silent)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sparsity.keep_dense": ["hidden7"]}, ConfigError, "'hidden7'"),
        ({"sparsity.density": 1e-4}, ConfigError, "needs at least 1"),
        ({"data.validation": 0.9999}, DataError, "validation fraction"),
    ],
)
def test_what_does_not_fit_leaves_no_directory(
    tmp_path: Path, short: Experiment, settings: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        train(override(short, settings), tmp_path / "run", silent)
    assert listing(tmp_path) == []
    train(short, tmp_path / "run", silent)  # the retry is not in the way of anything


def test_missing_test_data_are_noticed_before_the_training(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_test(data: Data, split: str, *_: object) -> Images:
        if split == "test":
            raise DataError("no test split")
        return load(data.name, split)

    def wider_test(data: Data, split: str, *_: object) -> Images:
        digits = load(data.name, split)
        if split == "train":
            return digits
        return Images(data.name, np.zeros((1, 81), np.uint8), digits.labels[:1], 10, (9, 9))

    for loader, message in (
        (no_test, "no test split"),
        (wider_test, r"training samples of shape \(1, 8, 8\), test samples of shape \(1, 9, 9\)"),
    ):
        monkeypatch.setattr(experiments, "samples_of", loader)
        with pytest.raises(DataError, match=message):
            train(short, tmp_path / "run", silent)
        assert listing(tmp_path) == []


def test_resume_needs_an_unfinished_run(tmp_path: Path, short: Experiment, tiny: Any) -> None:
    with pytest.raises(FileError, match=r"model\.pt: exists, so this training is finished"):
        resume(tiny.path, silent)
    for folder in (tmp_path, tmp_path / "missing", tmp_path / ("x" * 300)):
        with pytest.raises(FileError, match=r"checkpoint\.pt"):
            resume(folder, silent)
    (tmp_path / "checkpoint.pt").write_bytes(tiny.model.read_bytes())
    with pytest.raises(UserError, match="nothing to resume"):
        resume(tmp_path, silent)
    assert listing(tmp_path) == ["checkpoint.pt"]


# --- data of the same name that are others --------------------------------------------------


def relabelled(split: str) -> Callable[..., Images]:
    """`samples_of`, but two samples of a split have one another's labels."""

    def other(data: Data, wanted: str, *_: object) -> Images:
        digits = load(data.name, wanted)
        if wanted != split:
            return digits
        labels = digits.labels.copy()
        labels[:2] = labels[1::-1]
        return replace(digits, labels=labels)

    return other


def digests() -> dict[str, str]:
    return {split: load("digits", split).digest for split in ("train", "test")}


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_data_of_the_same_name_are_not_gone_on_with(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, tmp_path, interrupted(4))
    assert modelfile.read(tmp_path / "checkpoint.pt").data == digests()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "samples_of", relabelled(split))
        other = relabelled(split)(Data(), split).digest
        said = (
            f"its {split} split has SHA-256 {digests()[split][:12]}..., the one here {other[:12]}"
        )
        with pytest.raises(DataError, match=re.escape(said)):
            resume(tmp_path, silent)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert resume(tmp_path, silent).model.data == digests()
    assert modelfile.read(tmp_path / "model.pt").data == digests()


def test_what_was_not_recorded_at_the_start_stays_unknown(
    tmp_path: Path, short: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, tmp_path, interrupted(4))
    path = tmp_path / "checkpoint.pt"
    modelfile.write(replace(modelfile.read(path), data={}), path)
    monkeypatch.setattr(experiments, "samples_of", relabelled("train"))
    resume(tmp_path, silent)
    assert modelfile.read(tmp_path / "model.pt").data == {}
