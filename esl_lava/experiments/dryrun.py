"""What a training would be: shapes, connections, cores, memory and time (`esl train --dry-run`).

The network is built and its masks are drawn as the training would, and a few optimiser steps are
made to measure them. No run is written.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Sequence

from esl_lava.config import Experiment
from esl_lava.data.own import OwnData
from esl_lava.errors import LimitError
from esl_lava.experiments.activity import place
from esl_lava.experiments.train import load_splits
from esl_lava.export import lower
from esl_lava.models.stored import trained_layers
from esl_lava.network import Network
from esl_lava.results.plan import PlannedLayer, PlannedMapping, TrainingPlan
from esl_lava.sparsity.evolver import weight_layers
from esl_lava.training.trainer import Trainer, TrainingProgress

CHIPS = ("loihi1", "loihi2")
"""The chips on which a dry run places the network."""

WARM_STEPS = 2
"""Number of steps that are not timed after the first step, which is not timed either.

They compile kernels and fill caches.
"""

TIMED_STEPS = 8
"""Largest number of steps that are timed."""

TIMED_SECONDS = 10.0
"""No further step is made once the timed steps have taken this many seconds."""


class _EnoughError(Exception):
    """Enough steps were made."""


def plan(experiment: Experiment, own: OwnData | None = None) -> TrainingPlan:
    """Build the network of an experiment and estimate its training. No run is written.

    Args:
        experiment: the configuration.
        own: the user's own samples, as `train` takes them.

    Raises:
        UserError: as `train`, for everything that it would refuse before its first step.
    """
    train_split, test_split = load_splits(experiment, own)
    trainer = Trainer(experiment, train_split)
    saved = trainer.checkpoint()
    connections = trainer.evolver.connections()
    shapes = {name: tuple(weight.shape) for name, weight in weight_layers(trainer.model).items()}
    topology = experiment.model.describe(train_split.shape, train_split.classes)
    layers = [
        PlannedLayer(
            layer.name,
            tuple(layer.weight_shape),
            layer.neurons,
            layer.positions,
            connections.get(layer.name, layer.positions),
        )
        for layer in topology.weighted
        if layer.name in connections or layer.name in shapes
    ]
    network: Network | None = None
    obstacle = ""
    try:
        network = lower(
            trained_layers(saved),
            steps=experiment.encoding.steps,
            input_range=experiment.encoding.input_range,
        )
    except LimitError as error:
        obstacle = (
            f"the integer network cannot be made from untrained weights: {error.faults[0].sentence}"
        )
    timed, seconds = _time_steps(trainer)
    return TrainingPlan(
        dataset=train_split.name,
        train_samples=len(trainer.train_data),
        validation_samples=len(trainer.validation_data),
        test_samples=len(test_split),
        sample_shape=train_split.shape,
        classes=train_split.classes,
        steps=experiment.encoding.steps,
        layers=layers,
        density=trainer.evolver.density,
        connections=None if network is None else network.connections,
        mapping=_map(network, obstacle),
        epochs=experiment.training.epochs,
        iterations=trainer.iterations,
        mask_updates=sum(map(trainer.evolver.schedule.due, range(1, trainer.iterations + 1))),
        device=str(trainer.device),
        timed_iterations=timed,
        seconds=seconds * trainer.iterations,
        memory_bytes=_largest_memory(),
    )


def _map(network: Network | None, obstacle: str) -> Sequence[PlannedMapping]:
    """Place the network on each of `CHIPS`; `obstacle` says why there is no network."""
    mappings = []
    for chip in CHIPS:
        if network is None:
            mappings.append(PlannedMapping(chip, None, None, None, obstacle))
            continue
        try:
            core_map = place(network, chip).core_map
        except LimitError as error:
            mappings.append(PlannedMapping(chip, None, None, None, error.faults[0].sentence))
        else:
            cores = [core for layer in core_map.layers for core in layer.cores]
            words = sum(core.used["synapse_words"] for core in cores)
            mappings.append(PlannedMapping(chip, core_map.cores, core_map.chips, words))
    return mappings


def _time_steps(trainer: Trainer) -> tuple[int, float]:
    """Return the number of timed steps and the mean seconds of a step.

    If the training is too short, all its steps are timed. The trainer is of no use afterwards.
    """
    moments: list[float] = []

    def show(_: TrainingProgress) -> None:
        moments.append(time.perf_counter())
        timed = len(moments) - 1 - WARM_STEPS
        long = timed >= 1 and moments[-1] - moments[WARM_STEPS] > TIMED_SECONDS
        if timed >= TIMED_STEPS or long:
            raise _EnoughError

    start = time.perf_counter()
    with contextlib.suppress(_EnoughError):
        trainer.run(show)
    if len(moments) > WARM_STEPS + 1:
        timed = len(moments) - 1 - WARM_STEPS
        return timed, (moments[-1] - moments[WARM_STEPS]) / timed
    return len(moments), (moments[-1] - start) / len(moments)


def _largest_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
