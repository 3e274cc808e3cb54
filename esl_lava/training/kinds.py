"""What training does differently by the kind of network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from esl_lava.config import Experiment
from esl_lava.data.encoders import encode, first_steps
from esl_lava.models.single_spike import grid_step, window_end
from esl_lava.training.losses import first_spike, tet, weight_sum_cost

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """A kind of network, as its training sees it.

    Attributes:
        encode: (experiment, images (batch, features)) -> what the network takes.
        loss: (network, its output, labels (batch,)) -> scalar, a mean over the batch.
        decide: the network's output -> (batch,) int64 class, -1 for none.
        silent: (experiment, network, encoded batch) -> for each hidden layer, the neurons
            without a spike in the whole batch.
        thinning: density of a layer -> divisor of its initial weights.
    """

    encode: Callable[[Experiment, Images], torch.Tensor]
    loss: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
    decide: Callable[[torch.Tensor], torch.Tensor]
    silent: Callable[[Experiment, Any, torch.Tensor], list[int]]
    thinning: Callable[[float], float]


def _spikes(experiment: Experiment, images: Images) -> torch.Tensor:
    """(batch, features, T) float of 0 and 1."""
    encoding = experiment.encoding
    return torch.from_numpy(encode(encoding.kind, images, encoding.steps)).float()


def _multi_spike_loss(model: Any, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return tet(outputs, labels)


def _without_spike(experiment: Experiment, model: Any, spikes: torch.Tensor) -> list[int]:
    *hidden, _ = model.layer_outputs(spikes)
    return [int((layer.amax(dim=(0, 2)) == 0).sum()) for layer in hidden]


def input_times(experiment: Experiment, images: Images) -> torch.Tensor:
    """(batch, features) float32: exp of the times at which inputs spike, infinity for never.

    Steps of the encoder become times on the chip's grid (`grid_step`), so that training and
    chip see the same.
    """
    encoding = experiment.encoding
    steps = first_steps(encoding.kind, encoding.steps)
    times = np.exp(steps * grid_step(experiment.model.current_decay))
    times[steps == encoding.steps] = np.inf
    return torch.from_numpy(times.astype(np.float32)[images])


def _first_spike_loss(model: Any, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weights = [layer.weight for layer in model.layers()]
    return first_spike(z, labels) + weight_sum_cost(weights)


def _earliest(z: torch.Tensor) -> torch.Tensor:
    z_first, index = z.min(dim=1)  # the lowest index of several
    return torch.where(z_first.isfinite(), index, -1)


def _later_than_the_window(experiment: Experiment, model: Any, z: torch.Tensor) -> list[int]:
    """A spike after the last step is none on the chip."""
    step, steps = grid_step(experiment.model.current_decay), experiment.encoding.steps
    *hidden, _ = model.layer_times(z)
    return [
        int((times.amin(dim=0) > window_end(step, steps, place)).sum())
        for place, times in enumerate(hidden, 1)
    ]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "multi_spike": Kind(
            encode=_spikes,
            loss=_multi_spike_loss,
            decide=lambda outputs: outputs.sum(dim=2).argmax(dim=1),
            silent=_without_spike,
            thinning=math.sqrt,
        ),
        "single_spike": Kind(
            encode=input_times,
            loss=_first_spike_loss,
            decide=_earliest,
            silent=_later_than_the_window,
            thinning=lambda density: density,
        ),
    }
)
"""The kinds by `model.kind`."""
