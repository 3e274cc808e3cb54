"""Training into a run directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esl_lava.config import Experiment, to_toml
from esl_lava.data.datasets import load
from esl_lava.errors import FileError
from esl_lava.experiments.rundir import RunDirectory, create
from esl_lava.models import modelfile
from esl_lava.models.build import restore
from esl_lava.models.modelfile import SavedModel
from esl_lava.report.plots import plot_training
from esl_lava.training.trainer import Progress, Trainer, accuracy


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    Attributes:
        run: its directory.
        model: the model that was kept.
        accuracy: of the kept model through SLAYER on the whole test split, 0..1.
        samples: how many test samples that were.
        density, connections: of all weight layers together.
        seconds: the training took, from its start or resumption.
    """

    run: RunDirectory
    model: SavedModel
    accuracy: float
    samples: int
    density: float
    connections: int
    seconds: float


def train(experiment: Experiment, directory: Path, show: Callable[[Progress], None]) -> Trained:
    """Train `experiment` from the start into a new directory.

    Raises:
        FileError: when the directory holds something already.
        UserError: as `Trainer`.
    """
    data = load(experiment.data.name, "train")
    trainer = Trainer(experiment, data)
    run = create(directory)
    modelfile.replace_file(run.config, to_toml(experiment).encode())
    return _finish(trainer, run, show)


def resume(directory: Path, show: Callable[[Progress], None]) -> Trained:
    """Go on with a training that was interrupted.

    Raises:
        FileError: when the directory holds no checkpoint.
        UserError: as `Trainer`.
    """
    run = RunDirectory(directory)
    if run.model.exists():
        raise FileError(f"{run.model}: exists, so this training is finished")
    checkpoint = modelfile.read(run.checkpoint)
    experiment = checkpoint.config
    trainer = Trainer(experiment, load(experiment.data.name, "train"), checkpoint)
    return _finish(trainer, run, show)


def _finish(trainer: Trainer, run: RunDirectory, show: Callable[[Progress], None]) -> Trained:
    start = time.perf_counter()
    model = trainer.run(show, lambda checkpoint: modelfile.write(checkpoint, run.checkpoint))
    seconds = time.perf_counter() - start
    modelfile.write(model, run.model)
    run.checkpoint.unlink(missing_ok=True)
    plot_training(model.history, run.training_plot)
    test = load(trainer.experiment.data.name, "test")
    return Trained(
        run=run,
        model=model,
        accuracy=accuracy(trainer.experiment, restore(model), test),
        samples=len(test),
        density=trainer.evolver.density,
        connections=sum(trainer.evolver.connections().values()),
        seconds=seconds,
    )
