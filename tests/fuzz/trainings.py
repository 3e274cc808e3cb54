"""Trainings of a few steps, of each kind, whose checkpoints are changed."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from esl_lava.config import Experiment, from_mapping, override
from esl_lava.data.datasets import load
from esl_lava.data.samples import TrainingSamples
from esl_lava.modelfile import SavedModel
from esl_lava.training.trainer import Trainer, TrainingProgress

BASE: dict[str, Any] = {
    "seed": 3,
    "data": {"validation": 0.2},
    "encoding": {"steps": 2},
    "model": {"layers": "6-5", "weight_scale": 3.0},
    "sparsity": {"density": 0.4, "t_iter": 1, "end": 1.0},
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.02},
}
KINDS: dict[str, dict[str, Any]] = {
    "fused": {},
    "slayer": {"training.engine": "slayer", "sparsity.redistribution": "magnitude"},
    "sparse": {"training.engine": "sparse", "sparsity.growth": "gradient"},
    "momentum": {"training.engine": "sparse", "sparsity.growth": "momentum"},
    "dense": {"sparsity.dense_epochs": 1},
    "single": {
        "model": {"kind": "single_spike", "layers": "6", "current_decay": 0.05},
        "encoding": {"kind": "latency", "steps": 8},
    },
    "maps": {"model": {"kind": "convolutional", "layers": "2C3-AP2-3C3-AP2"}},
    "stored maps": {
        "model": {"kind": "convolutional", "layers": "2C3-R3S2-GAP"},
        "training.engine": "sparse",
        "sparsity.redistribution": "nonzero",
    },
}
"""Settings of a training, as `config.override` takes them, besides those of `BASE`."""

STEPS = 4


def settings(kind: str) -> Experiment:
    """Return the experiment of a kind of training."""
    changes = dict(KINDS[kind])
    base = copy.deepcopy(BASE)
    for key in ("model", "encoding"):
        if key in changes:
            base[key] = changes.pop(key)
    return override(from_mapping(base), changes)


def samples() -> TrainingSamples:
    """Return 20 samples: 4 for validation, and 16 for two steps in an epoch."""
    return load("digits", "train").take(20)


def stopped(experiment: Experiment, data: TrainingSamples, after: int) -> SavedModel:
    """Return the checkpoint of a training after so many steps."""
    trainer = Trainer(experiment, data)

    def stop(progress: TrainingProgress) -> None:
        if progress.iteration == after:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        trainer.run(stop)
    return trainer.checkpoint()
