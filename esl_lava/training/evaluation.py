"""Evaluate a network on samples: its accuracy, and how often its neurons fire."""

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
"""Largest number of samples in a forward pass."""

MAX_SPIKES = 1 << 26
"""Largest number of spike values of all layers in memory: 256 MiB."""


@dataclass(frozen=True)
class Examination:
    """The accuracy and the firing of a network on samples.

    Attributes:
        accuracy: share of the samples that the network classifies correctly, 0..1.
        firing: the firing of the neurons of each layer that fires.
    """

    accuracy: float
    firing: tuple[LayerFiring, ...]


@torch.no_grad()
def examine(experiment: Experiment, model: SpikingNetwork, data: TrainingSamples) -> Examination:
    """Classify samples, at least one, with a network and count the spikes of its neurons."""
    kind = KINDS[experiment.model.kind]
    correct, spike_counts = 0, None
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    neurons = sum(layer.neurons for layer in model.topology.layers)
    size = max(1, min(BATCH, MAX_SPIKES // (neurons * experiment.encoding.steps)))
    for first in range(0, len(data), size):
        part = data.choose(slice(first, first + size))
        outputs = model.layer_outputs(kind.encode(experiment, part).to(device))
        correct += int(np.count_nonzero(kind.decide(outputs[-1]).cpu().numpy() == part.labels))
        counts = kind.count_spikes(experiment, outputs)
        if spike_counts is not None:
            counts = [a + b for a, b in zip(spike_counts, counts)]
        spike_counts = counts
    model.train(was_training)
    assert spike_counts is not None
    steps = experiment.encoding.steps
    firing = tuple(
        layer_firing(
            layer.name,
            spikes.cpu().numpy(),
            len(data),
            steps,
            refractory=steps if kind.fires_once else 0,
            maps=layer.output_shape[0] if len(layer.output_shape) > 1 else 0,
        )
        for layer, spikes in zip(model.topology.layers, spike_counts)  # the readout may never fire
    )
    return Examination(correct / len(data), firing)
