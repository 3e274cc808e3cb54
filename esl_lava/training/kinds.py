"""What training does differently by the kind of network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from esl_lava.chip import DECAY_UNITY, WEIGHT_RANGE, WEIGHT_SCALE
from esl_lava.config import Experiment
from esl_lava.data.samples import TrainingSamples
from esl_lava.models.config import MultiSpike, SingleSpike
from esl_lava.models.convolutional import SpikingCNN
from esl_lava.models.mlp import SpikingMLP
from esl_lava.models.one_spike import SingleSpikeMLP, grid_step, window_end
from esl_lava.training.losses import first_spike, tet, weight_sum_cost

AnyNetwork = TypeVar("AnyNetwork", bound=torch.nn.Module)


@dataclass(frozen=True)
class Kind(Generic[AnyNetwork]):
    """A kind of network, as its training sees it.

    Attributes:
        encode: (experiment, samples) -> what the network takes.
        loss: (experiment, network, its output, labels (batch,)) -> scalar, a mean over the batch.
        decide: the network's output -> (batch,) int64 class, -1 for none.
        fired: (experiment, the output of every layer) -> for each layer that fires, in order,
            the spikes of each neuron: (neurons,) int64.
        once: whether a neuron fires at most once in a sample.
        thinning: density of a layer -> divisor of its initial weights.
        ends: experiment -> least and largest weight of which the network makes a difference.
        beyond: where weights beyond them are, in words.
        adam: `training.engine` -> what makes the optimiser of weights and a learning rate.
        on_gpu: whether its passes run on a GPU.
        collective: whether passes in training add up over ranks, also of one without samples.
    """

    loss: Callable[[Experiment, AnyNetwork, torch.Tensor, torch.Tensor], torch.Tensor]
    encode: Callable[[Experiment, TrainingSamples], torch.Tensor]
    decide: Callable[[torch.Tensor], torch.Tensor]
    fired: Callable[[Experiment, list[torch.Tensor]], list[torch.Tensor]]
    thinning: Callable[[float], float]
    ends: Callable[[Experiment], tuple[float, float]]
    beyond: str
    adam: Callable[[str], Callable[..., torch.optim.Adam]]
    once: bool = False
    on_gpu: bool = False
    collective: bool = False


def fused_adam(weights: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Adam:
    """Torch's Adam, in one pass over the weights where torch has that for CPUs (from 2.4 on)."""
    return torch.optim.Adam(weights, lr=lr, fused=torch.__version__ >= "2.4")


def _spikes(experiment: Experiment, samples: TrainingSamples) -> torch.Tensor:
    """(batch, inputs, T) float of 0 and 1 or of pixels, contiguous, as SLAYER has its axes."""
    return _inputs(experiment, samples).contiguous()


def _inputs(experiment: Experiment, samples: TrainingSamples) -> torch.Tensor:
    """(batch, inputs, T) float; what is the same at every step has the memory of one, repeated."""
    given = samples.spikes(experiment.encoding).swapaxes(1, 2)
    if given.strides[2] == 0:
        step = torch.from_numpy(given[:, :, 0].astype(np.float32))
        return step[:, :, None].expand(*given.shape)
    spikes = torch.from_numpy(np.require(given, requirements="W"))  # torch warns of what is not
    return spikes.float().contiguous()


def _tet(
    experiment: Experiment, model: torch.nn.Module, outputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    config = experiment.model
    threshold = config.threshold if isinstance(config, MultiSpike) else 1.0
    return tet(outputs, labels, experiment.training.tet_lambda, threshold)


def _current_decay(experiment: Experiment) -> float:
    assert isinstance(experiment.model, SingleSpike)
    return experiment.model.current_decay


def input_times(experiment: Experiment, samples: TrainingSamples) -> torch.Tensor:
    """(batch, inputs) float32: exp of the times at which inputs spike, infinity for never.

    Steps of the encoder become times on the chip's grid (`grid_step`), so that training and
    chip see the same.
    """
    encoding = experiment.encoding
    times = np.exp(np.arange(encoding.steps + 1) * grid_step(_current_decay(experiment)))
    times[-1] = np.inf
    return torch.from_numpy(times.astype(np.float32)[samples.first_steps(encoding)])


def _earliest(z: torch.Tensor) -> torch.Tensor:
    z_first, index = z.min(dim=1)  # the lowest index of several
    return torch.where(z_first.isfinite(), index, -1)


def _each(_: Experiment, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Spikes of floats 0 and 1: their sums are exact up to 2**24, 4096 samples of 4096 steps."""
    return [spikes.sum(dim=(0, 2)).long() for spikes in outputs[:-1]]


def _within_the_window(experiment: Experiment, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """A spike after the last step is none on the chip."""
    step, steps = grid_step(_current_decay(experiment)), experiment.encoding.steps
    return [
        (times <= window_end(step, steps, place)).sum(dim=0)
        for place, times in enumerate(outputs, 1)
    ]


def _one_spike_decides(experiment: Experiment) -> tuple[float, float]:
    """What a spike must weigh to bring the threshold, or take it, within the step it comes in."""
    alone = DECAY_UNITY / round(_current_decay(experiment) * DECAY_UNITY)
    return -alone, alone


KINDS: Mapping[str, Kind[Any]] = MappingProxyType(
    {
        "multi_spike": Kind[SpikingMLP](
            encode=_spikes,
            loss=_tet,
            decide=lambda outputs: outputs.sum(dim=2).argmax(dim=1),
            fired=_each,
            thinning=math.sqrt,
            ends=lambda _: (WEIGHT_RANGE[0] / WEIGHT_SCALE, WEIGHT_RANGE[1] / WEIGHT_SCALE),
            beyond="beyond the range of 8 bits",
            adam=lambda engine: torch.optim.Adam if engine == "slayer" else fused_adam,
        ),
        "single_spike": Kind[SingleSpikeMLP](
            encode=input_times,
            loss=lambda _, model, z, labels: (
                first_spike(z, labels) + weight_sum_cost(model.parameters())  # all of them weights
            ),
            decide=_earliest,
            fired=_within_the_window,
            once=True,
            thinning=lambda density: density,
            ends=_one_spike_decides,
            beyond="so large that one spike alone decides whether a neuron fires, beyond",
            adam=lambda engine: torch.optim.Adam,
        ),
        "convolutional": Kind[SpikingCNN](
            encode=_inputs,
            loss=_tet,
            decide=lambda outputs: outputs.sum(dim=2).argmax(dim=1),
            fired=_each,
            thinning=math.sqrt,
            ends=lambda _: (-math.inf, math.inf),
            beyond="",  # none are: the range rule scales them
            adam=lambda engine: fused_adam,
            on_gpu=True,
            collective=True,
        ),
    }
)
"""The kinds by `model.kind`."""
