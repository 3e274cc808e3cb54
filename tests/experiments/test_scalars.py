"""TensorBoard scalars are those of our own record, also after a resumption."""

from __future__ import annotations

import errno
import os

import pytest

from esl_lava.config import Experiment, override
from esl_lava.errors import PackageError
from esl_lava.experiments import scalars
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.train import resume, train
from esl_lava.models.stored import load_model
from esl_lava.results.training import read_history
from tests.faults import refused


def ignore(_: object) -> None:
    pass


def recorded(folder) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, of all files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


@pytest.mark.slow
def test_scalars_are_the_history_after_an_interruption_too(
    experiment: Experiment, tmp_path
) -> None:
    logged = override(experiment, {"training.log": "tensorboard"})
    stopped = tmp_path / "run"

    def stop(progress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(logged, stopped, stop)
    resume(stopped, ignore)
    run = RunDirectory(stopped)
    saved, _ = load_model(run.model)
    history = read_history(saved.history)
    tags = recorded(stopped / scalars.FOLDER)
    assert set(tags["loss"]) == {1, 2, 3, 4}
    for epoch in history:
        assert tags["loss"][epoch.epoch] == pytest.approx(epoch.loss)  # stored in 32 bits
        assert tags["density/hidden1"][epoch.epoch] == pytest.approx(epoch.densities["hidden1"])
        assert epoch.silent is not None
        assert tags["silent_neurons/hidden1"][epoch.epoch] == epoch.silent["hidden1"]
    assert "validation_accuracy" in tags


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_ends_the_log_and_not_the_training(
    experiment: Experiment, tmp_path, monkeypatch, caplog
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(self, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(progress) -> None:
        if progress.epoch == 2:
            monkeypatch.setattr(RecordWriter, "write", full)

    logged = override(experiment, {"training.log": "tensorboard"})
    trained = train(logged, tmp_path / "run", fill)
    assert trained.run.model.exists()
    texts = [record.getMessage() for record in caplog.records if record.name == scalars.__name__]
    assert len(texts) == 1
    assert str(tmp_path / "run" / scalars.FOLDER) in texts[0]


def test_without_the_option_nothing_is_written(tiny) -> None:
    assert not (tiny.path / scalars.FOLDER).exists()


def test_a_missing_package_is_refused_before_anything_is_written(
    experiment: Experiment, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(scalars, "is_installed", lambda name: False)
    logged = override(experiment, {"training.log": "tensorboard"})
    with refused(PackageError, "package"):
        train(logged, tmp_path / "run", ignore)
    assert list(tmp_path.iterdir()) == []
