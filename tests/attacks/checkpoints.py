"""Attacks by a checkpoint from which `esl train --resume` shall go on, in a sound archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.attacks.attack import attack
from tests.fuzz import models, trainings
from tests.fuzz.checkpoints import samples

FILE = "checkpoint.pt"


def forged(path: Path, kind: str, change: Callable[[Any], object]) -> None:
    """Write a checkpoint whose content was changed, with a right digest."""
    saved = trainings.stopped(trainings.settings(kind), samples(), 3)
    parts = ("package", "config", "weights", "masks", "ever", "history", "state")
    content = {"format": "esl-lava model", "version": 1} | {p: getattr(saved, p) for p in parts}
    content = models.plain(models.repacked(content))
    change(content)
    path.write_bytes(models.repacked(content))


def _moments(content: Any) -> Any:
    return content["state"]["optimizer"]["state"][0]


@attack(FILE, "mismatch")
def moments_of_one_number(path: Path) -> None:
    """A moment of Adam is shorter than its weight, and torch would write beyond it."""
    forged(path, "fused", lambda c: _moments(c).update(exp_avg=np.zeros(1, np.float32)))


@attack(FILE, "mismatch")
def moments_of_another_type(path: Path) -> None:
    """A moment has half the bytes that a kernel reads."""
    half = np.zeros((6, 64, 1, 1, 1), np.float16)
    forged(path, "fused", lambda c: _moments(c).update(exp_avg=half))


@attack(FILE, "mismatch")
def a_weight_that_does_not_exist(path: Path) -> None:
    """The optimiser has a state for a parameter beyond the last one."""
    forged(path, "fused", lambda c: c["state"]["optimizer"]["state"].update({99: _moments(c)}))


@attack(FILE, "mismatch", "damaged", "range", layer="hidden1")
def an_input_beyond_the_layer(path: Path) -> None:
    """A stored connection comes from input 2^30 of a layer of 64."""

    def change(content: Any) -> None:
        content["weights"]["hidden1.synapse.weight.pre"][-1] = 1 << 30

    forged(path, "sparse", change)


@attack(FILE, "mismatch", "damaged", "range")
def rows_that_begin_before_the_first(path: Path) -> None:
    """A row of stored connections begins at a negative place."""

    def change(content: Any) -> None:
        content["weights"]["hidden1.synapse.weight.starts"][1] = -(1 << 40)

    forged(path, "sparse", change)


@attack(FILE, "damaged", layer="hidden1")
def a_generator_beyond_its_words(path: Path) -> None:
    """The next word of a random generator lies beyond its state."""

    def change(content: Any) -> None:
        words = content["state"]["evolver"]["generators"]["hidden1"]
        words[16:24] = np.frombuffer(np.int64(1 << 40).tobytes(), np.uint8)

    forged(path, "fused", change)


@attack(FILE, "mismatch", "range")
def a_step_beyond_the_last(path: Path) -> None:
    """The counter of steps is 2^62."""
    forged(path, "fused", lambda c: c["state"].update(iteration=1 << 62))


@attack(FILE, "mismatch", "type", "not-finite")
def a_rate_that_is_no_number(path: Path) -> None:
    """The learning rate is NaN, which would make every weight NaN."""
    forged(
        path, "fused", lambda c: c["state"]["optimizer"]["param_groups"][0].update(lr=float("nan"))
    )


@attack(FILE, "mismatch", "range", "type")
def an_option_of_the_optimiser(path: Path) -> None:
    """An option that the training does not have would change its steps silently."""
    forged(path, "fused", lambda c: c["state"]["optimizer"]["param_groups"][0].update(amsgrad=True))


@attack(FILE, "mismatch", layer="hidden1")
def more_connections_than_allowed(path: Path) -> None:
    """A mask has all connections, but the configuration allows 40 %."""

    def change(content: Any) -> None:
        content["masks"]["hidden1"][:] = True
        content["ever"]["hidden1"][:] = True

    forged(path, "fused", change)


@attack(FILE, "type", "mismatch")
def a_history_without_end(path: Path) -> None:
    """The record of the masks has a hundred thousand updates of a training of four steps."""

    def change(content: Any) -> None:
        content["state"]["evolver"]["history"] = [0] * 100_000

    forged(path, "fused", change)


@attack(FILE, "mismatch")
def a_network_of_another_size(path: Path) -> None:
    """The configuration has layers of 60,000 neurons, for which the file has no weights."""

    def change(content: Any) -> None:
        content["config"] = content["config"].replace('"6-5"', '"60000-60000"')

    forged(path, "fused", change)
