"""What a network does on samples: how often it is right, and which neurons never fire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from esl_lava.arrays import Ints
from esl_lava.config import Experiment
from esl_lava.data.samples import TrainingSamples
from esl_lava.models.build import SpikingNetwork
from esl_lava.training.kinds import KINDS

BATCH = 500
"""Samples a network is given at a time."""


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        accuracy: share of samples decided to be of their label, 0..1.
        silent: firing layer -> neurons without a spike in any sample.
    """

    accuracy: float
    silent: dict[str, int]


@torch.no_grad()
def accuracy(experiment: Experiment, model: SpikingNetwork, data: TrainingSamples) -> float:
    """Share of samples the network decides to be of their label, 0..1."""
    kind = KINDS[experiment.model.kind]
    right = sum(
        _right(kind.decide(model(encoded)), labels)
        for encoded, labels in _batches(experiment, data)
    )
    return right / len(data)


@torch.no_grad()
def examine(experiment: Experiment, model: SpikingNetwork, data: TrainingSamples) -> Examined:
    """As `accuracy`, and the neurons that never fire.

    Args:
        data: at least one sample.
    """
    kind = KINDS[experiment.model.kind]
    right, fired = 0, None
    for encoded, labels in _batches(experiment, data):
        outputs = kind.outputs(model, encoded)
        right += _right(kind.decide(outputs[-1]), labels)
        now = kind.fired(experiment, outputs)
        fired = now if fired is None else [a | b for a, b in zip(fired, now)]
    assert fired is not None
    names = model.topology.names  # of which the last may be one that never fires
    silent = {name: int((~neurons).sum()) for name, neurons in zip(names, fired)}
    return Examined(right / len(data), silent)


def _batches(experiment: Experiment, data: TrainingSamples) -> Iterator[tuple[torch.Tensor, Ints]]:
    """What the network takes, and labels."""
    encode = KINDS[experiment.model.kind].encode
    for first in range(0, len(data), BATCH):
        part = data.choose(slice(first, first + BATCH))
        yield encode(experiment, part), part.labels


def _right(decisions: torch.Tensor, labels: Ints) -> int:
    return int(np.count_nonzero(decisions.numpy() == labels))
