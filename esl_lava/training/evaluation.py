"""What a network does on samples: how often it is right, and which neurons fire how often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from esl_lava.config import Experiment
from esl_lava.data.samples import TrainingSamples
from esl_lava.models.build import SpikingNetwork
from esl_lava.results.firing import LayerFiring, layer_firing
from esl_lava.training.kinds import KINDS

BATCH = 500
"""Samples a network is given at a time, at most."""

ROOM = 1 << 26
"""Spikes of all layers that are held at a time: 256 MiB."""


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        accuracy: share of samples decided to be of their label, 0..1.
        firing: of each layer that fires, what its neurons did.
    """

    accuracy: float
    firing: tuple[LayerFiring, ...]


@torch.no_grad()
def examine(experiment: Experiment, model: SpikingNetwork, data: TrainingSamples) -> Examined:
    """Let a network decide of samples, at least one, and count what its neurons fire."""
    kind = KINDS[experiment.model.kind]
    right, fired = 0, None
    learning, device = model.training, next(model.parameters()).device
    model.eval()
    neurons = sum(layer.neurons for layer in model.topology.layers)
    size = max(1, min(BATCH, ROOM // (neurons * experiment.encoding.steps)))
    for first in range(0, len(data), size):
        part = data.choose(slice(first, first + size))
        outputs = model.layer_outputs(kind.encode(experiment, part).to(device))
        right += int(np.count_nonzero(kind.decide(outputs[-1]).cpu().numpy() == part.labels))
        now = kind.fired(experiment, outputs)
        fired = now if fired is None else [a + b for a, b in zip(fired, now)]
    model.train(learning)
    assert fired is not None
    steps = experiment.encoding.steps
    firing = tuple(
        layer_firing(
            layer.name,
            spikes.cpu().numpy(),
            len(data),
            steps,
            refractory=steps if kind.once else 0,
            maps=layer.output_shape[0] if len(layer.output_shape) > 1 else 0,
        )
        for layer, spikes in zip(model.topology.layers, fired)  # the last may never fire
    )
    return Examined(right / len(data), firing)
