"""The parts of training that depend on the kind of network."""

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
    """The functions and facts of a kind of network that training needs.

    Attributes:
        encode: (experiment, samples) -> input of the network.
        loss: (experiment, network, output of the network, labels (batch,)) -> scalar, the mean
            over the batch.
        decide: output of the network -> (batch,) int64 class, -1 for no class.
        count_spikes: (experiment, outputs of all layers) -> for each layer that fires, in order,
            the number of spikes of each neuron: (neurons,) int64.
        fires_once: whether a neuron fires at most once in a sample.
        weight_divisor: density of a layer -> divisor of its initial weights.
        weight_range: experiment -> least and largest weight that a sound network needs.
        beyond_range: words for weights beyond this range, before the range itself.
        adam: `training.engine` -> function (weights, lr=...) that makes the optimiser.
        on_gpu: whether the forward and backward passes of the network can run on a GPU.
        collective: whether training passes sum over ranks, so that a rank without samples takes
            part too.
    """

    loss: Callable[[Experiment, AnyNetwork, torch.Tensor, torch.Tensor], torch.Tensor]
    encode: Callable[[Experiment, TrainingSamples], torch.Tensor]
    decide: Callable[[torch.Tensor], torch.Tensor]
    count_spikes: Callable[[Experiment, list[torch.Tensor]], list[torch.Tensor]]
    weight_divisor: Callable[[float], float]
    weight_range: Callable[[Experiment], tuple[float, float]]
    beyond_range: str
    adam: Callable[[str], Callable[..., torch.optim.Adam]]
    fires_once: bool = False
    on_gpu: bool = False
    collective: bool = False


def fused_adam(weights: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Adam:
    """Return torch's Adam, with one pass over the weights if torch supports it (2.4 or later)."""
    return torch.optim.Adam(weights, lr=lr, fused=torch.__version__ >= "2.4")


def _spikes(experiment: Experiment, samples: TrainingSamples) -> torch.Tensor:
    """Return spikes 0 and 1, or pixels, as contiguous float (batch, inputs, T), SLAYER's axes."""
    return _inputs(experiment, samples).contiguous()


def _inputs(experiment: Experiment, samples: TrainingSamples) -> torch.Tensor:
    """Return inputs (batch, inputs, T) float. If all steps are equal, they share memory."""
    inputs = samples.spikes(experiment.encoding).swapaxes(1, 2)
    if inputs.strides[2] == 0:
        step = torch.from_numpy(inputs[:, :, 0].astype(np.float32))
        return step[:, :, None].expand(*inputs.shape)
    # torch warns of arrays that are not writable.
    spikes = torch.from_numpy(np.require(inputs, requirements="W"))
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
    """Return exp of the times at which inputs spike, (batch, inputs) float32, infinity for never.

    Steps of the encoder become times on the chip's grid (`grid_step`), so that training and the
    chip have the same input.
    """
    encoding = experiment.encoding
    times = np.exp(np.arange(encoding.steps + 1) * grid_step(_current_decay(experiment)))
    times[-1] = np.inf
    return torch.from_numpy(times.astype(np.float32)[samples.first_steps(encoding)])


def _decide_earliest(z: torch.Tensor) -> torch.Tensor:
    """Return the class whose neuron fires first, -1 if none fires."""
    z_first, index = z.min(dim=1)  # of equal times, the lowest index
    return torch.where(z_first.isfinite(), index, -1)


def _count_each(_: Experiment, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Count the spikes of each hidden neuron, given as floats 0 and 1.

    Sums are exact up to 2**24, for example 4096 samples of 4096 steps.
    """
    return [spikes.sum(dim=(0, 2)).long() for spikes in outputs[:-1]]


def _count_in_window(experiment: Experiment, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Count each neuron's spikes within the sample. The chip has none after the last step."""
    step, steps = grid_step(_current_decay(experiment)), experiment.encoding.steps
    return [
        (times <= window_end(step, steps, place)).sum(dim=0)
        for place, times in enumerate(outputs, 1)
    ]


def _decisive_weights(experiment: Experiment) -> tuple[float, float]:
    """Return the least and largest weight with which one spike does not decide alone.

    With a weight above the largest, one spike brings its neuron from 0 to the threshold within one
    step. With a weight below the least, it lowers the potential as much.
    """
    alone = DECAY_UNITY / round(_current_decay(experiment) * DECAY_UNITY)
    return -alone, alone


KINDS: Mapping[str, Kind[Any]] = MappingProxyType(
    {
        "multi_spike": Kind[SpikingMLP](
            encode=_spikes,
            loss=_tet,
            decide=lambda outputs: outputs.sum(dim=2).argmax(dim=1),
            count_spikes=_count_each,
            weight_divisor=math.sqrt,
            weight_range=lambda _: (
                WEIGHT_RANGE[0] / WEIGHT_SCALE,
                WEIGHT_RANGE[1] / WEIGHT_SCALE,
            ),
            beyond_range="beyond the range of 8 bits",
            adam=lambda engine: torch.optim.Adam if engine == "slayer" else fused_adam,
        ),
        "single_spike": Kind[SingleSpikeMLP](
            encode=input_times,
            loss=lambda _, model, z, labels: (
                first_spike(z, labels)
                + weight_sum_cost(model.parameters())  # all parameters are weights
            ),
            decide=_decide_earliest,
            count_spikes=_count_in_window,
            fires_once=True,
            weight_divisor=lambda density: density,
            weight_range=_decisive_weights,
            beyond_range="so large that one spike alone decides whether a neuron fires, beyond",
            adam=lambda engine: torch.optim.Adam,
        ),
        "convolutional": Kind[SpikingCNN](
            encode=_inputs,
            loss=_tet,
            decide=lambda outputs: outputs.sum(dim=2).argmax(dim=1),
            count_spikes=_count_each,
            weight_divisor=math.sqrt,
            weight_range=lambda _: (-math.inf, math.inf),
            beyond_range="",  # never needed: the range rule scales all weights
            adam=lambda engine: fused_adam,
            on_gpu=True,
            collective=True,
        ),
    }
)
"""`model.kind` -> kind of network."""
