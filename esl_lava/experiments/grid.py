"""How much of a single-spike network's accuracy the chip's grid of times would cost."""

from __future__ import annotations

from dataclasses import dataclass

from esl_lava.data.datasets import Dataset
from esl_lava.errors import ConfigError
from esl_lava.models.build import restore
from esl_lava.models.modelfile import SavedModel
from esl_lava.models.single_spike import grid_decisions, grid_step, grid_times
from esl_lava.training.kinds import input_times
from esl_lava.training.trainer import EVALUATION_BATCH, accuracy


@dataclass(frozen=True)
class GridAccuracy:
    """Accuracies (0..1) with exact times and weights, and with those of the grid."""

    exact: float
    on_grid: float


def grid_accuracy(saved: SavedModel, data: Dataset) -> GridAccuracy:
    """Both accuracies of a trained single-spike network, as `grid_times` rounds.

    Raises:
        ConfigError: for a network of another kind.
        FileError: as `restore`.
    """
    experiment = saved.config
    if experiment.model.kind != "single_spike":
        raise ConfigError(f"model.kind {experiment.model.kind}: its time has no other grid")
    model = restore(saved)
    step, steps = grid_step(experiment.model.current_decay), experiment.encoding.steps
    right = 0
    for first in range(0, len(data), EVALUATION_BATCH):
        part = slice(first, first + EVALUATION_BATCH)
        times = grid_times(model, input_times(experiment, data.images[part]), step, steps)
        decided = grid_decisions(model, times)
        right += int((decided.numpy() == data.labels[part]).sum())
    return GridAccuracy(accuracy(experiment, model, data), right / len(data))
