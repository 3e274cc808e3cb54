"""Detect a network that its training has destroyed, even if the loss is finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from esl_lava.results.training import Epoch
from esl_lava.sparsity.arrays import count, count_nonfinite

REPORTED_SHARE = 0.1
"""A larger share of a layer's weights out of range causes a warning. Trainings of the presets have
none of these weights. In destroyed trainings they were more than half of the weights."""


@dataclass(frozen=True)
class Defect:
    """Numbers of a network that are NaN or infinite.

    Attributes:
        clause: a clause that says how many numbers of which tensor are not finite.
        layer: the layer that they belong to, if known.
    """

    clause: str
    layer: str | None = None


def find_broken_layer(
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]],
) -> Defect | None:
    """Find the layer in which NaN or infinity appeared first, or return None if all is finite.

    It is the last layer that has such numbers, because they spread through gradients from a layer
    to the layers before it. They do not spread forward: layers send spikes, and a loss that is NaN
    ends a training before its step. Positions without a connection are ignored: their weights
    are 0, and the moments of a new connection start at 0.

    Args:
        weights: layer name -> its weight, or the weights it stores; layers in order.
        masks: layer name -> bool of the weight's shape; without a mask all positions count.
        moments: layer name -> name -> tensor of the optimiser, of the weight's shape.
    """
    for name in reversed(list(weights)):
        tensors = {"weights": weights[name], **moments.get(name, {})}
        for key, tensor in tensors.items():
            values = tensor.detach()
            if not count_nonfinite(values):
                continue
            if name in masks:
                values = values[masks[name]]
            if number := count_nonfinite(values):
                of_optimiser = "" if key == "weights" else " of the optimiser"
                return Defect(
                    f"{number} of {values.numel()} {key}{of_optimiser} in layer {name} "
                    "are NaN or infinite",
                    name,
                )
    return None


def find_other_defect(
    model: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]
) -> Defect | None:
    """Find NaN or infinity outside of the weights of a model, for example in normalisations.

    Args:
        model: the model, with parameters and buffers.
        optimizer: the optimiser of its parameters.
        weights: layer name -> its weight; `find_broken_layer` checks the weights.
    """
    known = {id(weight) for weight in weights.values()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) in known or not tensor.is_floating_point():
            continue
        state = optimizer.state.get(tensor, {}) if isinstance(tensor, nn.Parameter) else {}
        for values in (tensor, *(part for part in state.values() if isinstance(part, Tensor))):
            if number := count_nonfinite(values.detach()):
                clause = f"{number} of {values.numel()} numbers of {name} are NaN or infinite"
                return Defect(clause, name.partition(".")[0])
    return None


def collect_moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Return the optimiser's tensors for each layer's weight, as `find_broken_layer` needs them."""
    return {
        name: {
            key: value
            for key, value in optimizer.state.get(weight, {}).items()
            if isinstance(value, Tensor) and value.shape == weight.shape
        }
        for name, weight in weights.items()
    }


def find_nan_output(outputs: Mapping[str, Tensor]) -> Defect | None:
    """Find the first layer, in order, whose output has a NaN, or return None if no output has."""
    for name, output in outputs.items():
        if number := count(output.isnan()):
            return Defect(f"{number} of {output.numel()} outputs of layer {name} are NaN", name)
    return None


def measure_beyond_range(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], ends: tuple[float, float]
) -> dict[str, float]:
    """Return for each layer the share of its connections, 0..1, whose weights are out of range."""
    shares = {}
    for name, weight in weights.items():
        # Positions without a connection have the weight 0, which is within any range.
        outside = (weight < ends[0]) | (weight > ends[1])
        connections = count(masks[name]) if name in masks else weight.numel()
        shares[name] = count(outside) / max(1, connections)
    return shares


def list_warnings(entry: Epoch, sizes: Mapping[str, int], beyond: str) -> dict[str, str]:
    """Return warnings about layers that are silent, saturated or have exploding weights.

    Args:
        entry: the record of an epoch in the history of a training.
        sizes: layer name -> number of neurons.
        beyond: words about weights out of range that name the range; they follow "are".

    Returns:
        Short name of the problem -> sentence.
    """
    epoch = entry.epoch
    samples = "training" if entry.validation_accuracy is None else "validation"
    silent = {
        f"silent {name}": (
            f"all {number} neurons of layer {name} were silent on every {samples} sample evaluated "
            f"after epoch {epoch}"
        )
        for name, number in (entry.silent or {}).items()
        if number == sizes[name]
    }
    saturated = {
        f"saturated {name}": (
            f"all {number} neurons of layer {name} fired at every step of every {samples} sample "
            f"evaluated after epoch {epoch}"
        )
        for name, number in (entry.saturated or {}).items()
        if number == sizes[name]
    }
    exploded = {
        f"beyond {name}": (
            f"{share:.1%} of the weights of layer {name} are {beyond} after epoch {epoch}"
        )
        for name, share in (entry.beyond_range or {}).items()
        if share > REPORTED_SHARE
    }
    return {**silent, **saturated, **exploded}
