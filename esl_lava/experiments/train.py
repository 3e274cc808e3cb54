"""Training into a run directory; of several ranks, the first writes it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from esl_lava import modelfile
from esl_lava.config import Experiment, to_toml
from esl_lava.data.catalogue import samples_of
from esl_lava.data.config import OWN
from esl_lava.data.own import Own
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import ConfigError, DataError, FileError
from esl_lava.experiments import samedata
from esl_lava.experiments.rundir import RunDirectory, create
from esl_lava.experiments.scalars import check_log, open_log
from esl_lava.export import lower
from esl_lava.files import replace_file, replace_json
from esl_lava.modelfile import SavedModel
from esl_lava.models.config import Convolutional
from esl_lava.models.restore import restore
from esl_lava.models.stored import load_model, trained_layers
from esl_lava.report.canvas import save_png
from esl_lava.report.pictures import draw_training
from esl_lava.results.firing import LayerFiring
from esl_lava.training import ranks
from esl_lava.training.evaluation import examine
from esl_lava.training.trainer import Trainer, TrainingProgress
from esl_lava.values import Keys, as_values, keys

CHECKPOINT_SECONDS = 30.0
"""How much of a training a power cut may cost; its result does not depend on it."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    Attributes:
        model: that was kept.
        accuracy: of that model in integers on the whole test split of so many samples, 0..1.
        dataset: what that split is called where accuracies are labelled.
        density, weights: of all weight layers together.
        connections: that the weights make, as `esl_lava.connections` counts them.
        seconds: the training took, from its start or resumption.
        firing: of each layer that fires, what its neurons did on that split: of the pass that
            `accuracy` is of.
    """

    KEYS: ClassVar[Keys] = keys(
        "accuracy samples dataset density weights connections seconds firing"
    )

    run: RunDirectory
    model: SavedModel
    accuracy: float
    samples: int
    dataset: str
    density: float
    weights: int
    connections: int
    seconds: float
    firing: tuple[LayerFiring, ...]


def train(
    experiment: Experiment,
    directory: Path,
    show: Callable[[TrainingProgress], None],
    own: Own | None = None,
) -> Trained:
    """Train `experiment` from the start into a new directory.

    Nothing is written before experiment and data are known to fit; then the first
    checkpoint is, so that an interrupted training can always go on.

    Args:
        experiment: what to train.
        directory: the new one.
        show: given the training's progress.
        own: where samples come from, of the data set `own`; the run does not record it.

    Raises:
        ConfigError: when own samples are given to an experiment of another data set.
        FileError: when the directory holds something already.
        UserError: as `Trainer`.
    """
    check_log(experiment)
    with ranks.together():
        data, test = load_splits(experiment, own)
        digests = samedata.digests({"train": data, "test": test})
    trainer = Trainer(experiment, data)
    run = RunDirectory(directory)
    with ranks.together():
        if ranks.first():
            create(directory)
            modelfile.write(replace(trainer.checkpoint(), data=digests), run.checkpoint)
    return _finish(trainer, run, test, digests, show)


def resume(
    directory: Path, show: Callable[[TrainingProgress], None], own: Own | None = None
) -> Trained:
    """Go on with a training that was interrupted.

    Args:
        directory: of the run.
        show: given the training's progress.
        own: as `train`; where the run recorded a folder, it takes its place.

    Raises:
        ConfigError: as `train`.
        FileError: when the directory holds no checkpoint.
        DataError: when the data are not those it began with.
        UserError: as `Trainer`.
    """
    run = RunDirectory(directory)
    with ranks.together():
        if os.path.exists(run.model):  # unlike Path.exists, false for an impossible name
            raise FileError(f"{run.model}: exists, so this training is finished")
        checkpoint, experiment = load_model(run.checkpoint)
        data, test = load_splits(experiment, own)
        found = samedata.digests({"train": data, "test": test})
        samedata.refuse_others(run.checkpoint, checkpoint.data, found)
    # What nobody recorded at the start stays unknown.
    return _finish(Trainer(experiment, data, checkpoint), run, test, checkpoint.data, show)


def load_splits(experiment: Experiment, own: Own | None) -> tuple[TrainingSamples, TrainingSamples]:
    """Train and test split, both read before hours are spent on the first.

    Raises:
        ConfigError: when own samples are given, and the experiment has others.
        DataError: when they cannot be read, or are not of one shape.
    """
    name, encoding = experiment.data.name, experiment.encoding
    if own is not None and name != OWN:
        raise ConfigError(f"data.name {name!r}: {own.name} was given, which is data.name {OWN!r}")
    train_split, test = (
        samples_of(experiment.data, split, encoding, own) for split in ("train", "test")
    )
    if train_split.shape != test.shape:
        raise DataError(
            f"{train_split.name}: training samples of shape {train_split.shape}, "
            f"test samples of shape {test.shape}"
        )
    return train_split, test


def _connections(experiment: Experiment, model: SavedModel) -> int:
    """Connections of a network whose weights make other numbers of them; else 0."""
    if not isinstance(experiment.model, Convolutional):
        return 0
    encoding = experiment.encoding
    layers = trained_layers(model)
    return lower(layers, steps=encoding.steps, input_range=encoding.input_range).connections


def _finish(
    trainer: Trainer,
    run: RunDirectory,
    test: TrainingSamples,
    digests: Mapping[str, str],
    show: Callable[[TrainingProgress], None],
) -> Trained:
    """Train to the end; `digests` are those of the data, for all that is saved."""
    with ranks.together():
        if ranks.first():
            replace_file(run.config, to_toml(trainer.experiment).encode())
    start = time.perf_counter()
    saved = start

    def save(checkpoint: SavedModel) -> None:
        nonlocal saved
        with ranks.together():
            if ranks.first():
                modelfile.write(replace(checkpoint, data=digests), run.checkpoint)
        saved = time.perf_counter()

    def due() -> bool:
        return ranks.first_says(time.perf_counter() - saved > CHECKPOINT_SECONDS)

    def show_and_log(progress: TrainingProgress) -> None:
        show(progress)
        if progress.iteration % trainer.steps_per_epoch == 0:
            log(trainer.history)

    with open_log(trainer.experiment, run.path, len(trainer.history)) as log:
        model = replace(trainer.run(show_and_log, save, due), data=digests)
    seconds = time.perf_counter() - start
    with ranks.together():
        if ranks.first():
            save_png(draw_training(trainer.history), run.training_plot)
            replace_json(run.updates, [as_values(u) for u in trainer.evolver.history])
            modelfile.write(model, run.model)  # its presence says that the training is finished
            run.checkpoint.unlink(missing_ok=True)
    examined = examine(trainer.experiment, restore(model), test)
    return Trained(
        run=run,
        model=model,
        accuracy=examined.accuracy,
        samples=len(test),
        dataset=test.name,
        density=trainer.evolver.density,
        weights=(weights := sum(trainer.evolver.connections().values())),
        connections=_connections(trainer.experiment, model) or weights,
        seconds=seconds,
        firing=examined.firing,
    )
