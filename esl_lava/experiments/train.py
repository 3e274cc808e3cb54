"""Train into a run directory. With several ranks, only the first rank writes."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from esl_lava import modelfile
from esl_lava.config import Experiment, to_toml
from esl_lava.data.catalogue import load_configured
from esl_lava.data.config import OWN
from esl_lava.data.own import OwnData
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import ConfigError, DataError, FileError, UserError
from esl_lava.experiments import samedata
from esl_lava.experiments.rundir import RunDirectory, check_free, create, lock
from esl_lava.experiments.scalars import check_log, open_log
from esl_lava.export import lower
from esl_lava.files import FullDiskError, replace_file, replace_json
from esl_lava.interrupts import Termination, postpone_termination
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

_logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
"""Time between checkpoints. The result of a training does not depend on it."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A finished training.

    Attributes:
        run: the run directory.
        model: the model of the kept epoch.
        accuracy: accuracy of the integer network of the model on the whole test split, 0..1.
        samples: number of test samples.
        dataset: name of the data of the test split.
        density, weights: density and weights of all weight layers together.
        connections: connections that the weights make, as `esl_lava.connections` counts them.
        seconds: duration of the training since its start or resumption.
        firing: spike counts of the neurons of each firing layer on the test split.
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
    own: OwnData | None = None,
) -> TrainingResult:
    """Train an experiment from the start in a new directory.

    Nothing is written until the experiment and the data are checked. Then the first checkpoint is
    written, so that an interrupted training can always continue.

    Args:
        experiment: the experiment to train.
        directory: the new run directory.
        show: called with the progress of the training.
        own: the source of the samples of the data set `own`; the run does not record it.

    Raises:
        ConfigError: if own samples are given to an experiment with another data set.
        FileError: if the directory is not empty, or another training runs in it.
        Termination: when SIGTERM arrives in the context `raise_on_sigterm`; a checkpoint is saved
            before.
        UserError: as `Trainer`.
    """
    check_log(experiment)
    with ranks.together():
        data, test = load_splits(experiment, own)
        digests = samedata.digests({"train": data, "test": test})
    trainer = Trainer(experiment, data)
    run = RunDirectory(directory)
    with contextlib.ExitStack() as stack:
        with ranks.together():
            if ranks.first():
                create(directory)
                stack.enter_context(lock(directory))
                check_free(directory)  # another training may have begun and ended meanwhile
                modelfile.write(replace(trainer.checkpoint(), data=digests), run.checkpoint)
        return _finish(trainer, run, test, digests, show)


def resume(
    directory: Path, show: Callable[[TrainingProgress], None], own: OwnData | None = None
) -> TrainingResult:
    """Continue an interrupted training.

    Args:
        directory: the run directory.
        show: called with the progress of the training.
        own: as in `train`; it replaces the folder that the run recorded.

    Raises:
        ConfigError: as `train`.
        FileError: if the directory holds no checkpoint, or another training runs in it.
        DataError: if the data differ from those at the start of the training.
        Termination: as `train`.
        UserError: as `Trainer`.
    """
    run = RunDirectory(directory)
    with contextlib.ExitStack() as stack:
        with ranks.together():
            if ranks.first():
                stack.enter_context(lock(directory))
            if os.path.exists(run.model):  # unlike Path.exists, false for an impossible name
                raise FileError(
                    f"{run.model}: already exists, so the training is finished",
                    "exists",
                    file=run.model,
                )
            checkpoint, experiment = load_model(run.checkpoint)
            data, test = load_splits(experiment, own)
            digests = samedata.digests({"train": data, "test": test})
            samedata.refuse_other_data(run.checkpoint, checkpoint.data, digests)
        # Digests that the start did not record stay unknown.
        try:
            trainer = Trainer(experiment, data, checkpoint)
        except UserError as error:
            raise error.in_file(run.checkpoint) from None
        return _finish(trainer, run, test, checkpoint.data, show)


def load_splits(
    experiment: Experiment, own: OwnData | None
) -> tuple[TrainingSamples, TrainingSamples]:
    """Load train and test split, so that errors of both show before the training.

    Raises:
        ConfigError: if own samples are given, but the experiment has another data set.
        DataError: if a split cannot be read, or their shapes differ.
    """
    name, encoding = experiment.data.name, experiment.encoding
    if own is not None and name != OWN:
        raise ConfigError(
            f"data.name {name!r}: the data {own.name} are given, which need data.name {OWN!r}",
            "conflict",
            key="data.name",
            value=name,
            limit=OWN,
        )
    train_split, test = (
        load_configured(experiment.data, split, encoding, own) for split in ("train", "test")
    )
    if train_split.shape != test.shape:
        raise DataError(
            f"{train_split.name}: the training samples have shape {train_split.shape}, but the "
            f"test samples {test.shape}",
            "mismatch",
            value=test.shape,
            limit=train_split.shape,
        )
    return train_split, test


def _connections(experiment: Experiment, model: SavedModel) -> int:
    """Count the connections of a convolutional network.

    For other networks return 0: each of their weights makes one connection.
    """
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
) -> TrainingResult:
    """Train to the end and save the results. The saved files record the digests of the data."""
    with ranks.together():
        if ranks.first():
            replace_file(run.config, to_toml(trainer.experiment).encode())
    start = time.perf_counter()
    saved = start

    def save(checkpoint: SavedModel) -> None:
        nonlocal saved
        with ranks.together():
            if ranks.first():
                _save_checkpoint(replace(checkpoint, data=digests), run)
        saved = time.perf_counter()
        if ranks.is_true_on_any(must_end()):
            if ranks.first():
                _logger.warning(
                    "SIGTERM ends the training; esl train --resume %s continues it", run.path
                )
            raise Termination

    def due() -> bool:
        overdue = time.perf_counter() - saved > CHECKPOINT_SECONDS
        return ranks.is_true_on_any(overdue or must_end())

    def show_and_log(progress: TrainingProgress) -> None:
        show(progress)
        if progress.iteration % trainer.steps_per_epoch == 0:
            log(trainer.history)

    with (
        open_log(trainer.experiment, run.path, len(trainer.history)) as log,
        postpone_termination() as must_end,
    ):
        model = replace(trainer.run(show_and_log, save, due), data=digests)
    seconds = time.perf_counter() - start
    with ranks.together():
        if ranks.first():
            _save_results(trainer, model, run)
    examination = examine(trainer.experiment, restore(model), test)
    return TrainingResult(
        run=run,
        model=model,
        accuracy=examination.accuracy,
        samples=len(test),
        dataset=test.name,
        density=trainer.evolver.density,
        weights=(weights := sum(trainer.evolver.connections().values())),
        connections=_connections(trainer.experiment, model) or weights,
        seconds=seconds,
        firing=examination.firing,
    )


def _save_checkpoint(checkpoint: SavedModel, run: RunDirectory) -> None:
    """Write a checkpoint. A full disk is only a warning: the last checkpoint stays as it was."""
    try:
        modelfile.write(checkpoint, run.checkpoint)
    except FullDiskError as error:
        _logger.warning(
            "%s; the training goes on, the last checkpoint stays, and the next one is written "
            "after the epoch or after %.0f s",
            *(error, CHECKPOINT_SECONDS),
        )


def _save_results(trainer: Trainer, model: SavedModel, run: RunDirectory) -> None:
    """Write the results of a finished training, and remove its checkpoint.

    Raises:
        FullDiskError: if the disk is full; the sentence says how to continue.
    """
    try:
        save_png(draw_training(trainer.history), run.training_plot)
        replace_json(run.updates, [as_values(update) for update in trainer.evolver.history])
        modelfile.write(model, run.model)  # last: this file marks the training as finished
    except FullDiskError as error:
        raise FullDiskError(
            f"{error}; free some space, then esl train --resume {run.path} continues from the "
            "last checkpoint",
            error.code,
            file=error.faults[0].file,
        ) from None
    run.checkpoint.unlink(missing_ok=True)
