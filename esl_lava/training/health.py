"""What tells that a training has destroyed its network, though its loss may be finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from esl_lava.results.training import Epoch
from esl_lava.sparsity.arrays import count, count_broken

MANY = 0.1
"""Share of a layer's connections with weights beyond the range from which on it is said: none of
the presets' trainings has any, and trainings that were destroyed had more than half."""


def broken(
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]],
) -> str | None:
    """The layer whose numbers went first, in a clause; None where all are finite.

    That is the last of those with NaN or infinity. Such numbers spread through gradients, from a
    layer to those before it; what goes forward are spikes, and a loss that is NaN ends a training
    before a step is made of it. What the masks exclude does not count: weights are 0 there, and
    moments begin at 0 again with a connection.

    Args:
        weights: layer name -> its weight, or the weights it stores; layers in order.
        masks: layer name -> bool of the weight's shape; without one all count.
        moments: layer name -> the optimiser's tensors of the weight's shape, by name.
    """
    for name in reversed(list(weights)):
        held = {"weights": weights[name], **moments.get(name, {})}
        for what, tensor in held.items():
            values = tensor.detach()
            if not count_broken(values):
                continue
            if name in masks:
                values = values[masks[name]]
            if number := count_broken(values):
                of_optimiser = "" if what == "weights" else " of the optimiser"
                return (
                    f"{number} of {values.numel()} {what}{of_optimiser} in layer {name} "
                    "are NaN or infinite"
                )
    return None


def broken_beside(
    model: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]
) -> str | None:
    """What of a model is not finite beside its weights, in a clause: of its normalisations.

    Args:
        model: its parameters and buffers.
        optimizer: of its parameters.
        weights: layer name -> its weight, which `broken` is asked about.
    """
    known = {id(weight) for weight in weights.values()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) in known or not tensor.is_floating_point():
            continue
        state = optimizer.state.get(tensor, {}) if isinstance(tensor, nn.Parameter) else {}
        for held in (tensor, *(part for part in state.values() if isinstance(part, Tensor))):
            if number := count_broken(held.detach()):
                return f"{number} of {held.numel()} numbers of {name} are NaN or infinite"
    return None


def moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """What an optimiser holds for each weight, for `broken`."""
    return {
        name: {
            key: value
            for key, value in optimizer.state.get(weight, {}).items()
            if isinstance(value, Tensor) and value.shape == weight.shape
        }
        for name, weight in weights.items()
    }


def not_numbers(outputs: Mapping[str, Tensor]) -> str | None:
    """The first layer, in order, whose output holds a NaN, in a clause; None where none does."""
    for name, output in outputs.items():
        if number := count(output.isnan()):
            return f"{number} of {output.numel()} outputs of layer {name} are NaN"
    return None


def beyond_range(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], ends: tuple[float, float]
) -> dict[str, float]:
    """Layer -> share of its connections, 0..1, whose weights lie outside of a range."""
    shares = {}
    for name, weight in weights.items():
        # Weights of no connection are 0, within any range.
        outside = (weight < ends[0]) | (weight > ends[1])
        connections = count(masks[name]) if name in masks else weight.numel()
        shares[name] = count(outside) / max(1, connections)
    return shares


def complaints(entry: Epoch, sizes: Mapping[str, int], beyond: str) -> dict[str, str]:
    """What an epoch's record says of layers that are dead, constant or exploded.

    Args:
        entry: of a training's history.
        sizes: layer name -> neurons.
        beyond: where weights out of range are, in words.

    Returns:
        What is wrong, in short -> a sentence.
    """
    epoch = entry.epoch
    samples = "training" if entry.validation_accuracy is None else "validation"
    dead = {
        f"silent {name}": (
            f"all {number} neurons of layer {name} were silent on every {samples} sample looked at "
            f"after epoch {epoch}"
        )
        for name, number in (entry.silent or {}).items()
        if number == sizes[name]
    }
    constant = {
        f"saturated {name}": (
            f"all {number} neurons of layer {name} fired at every step of every {samples} sample "
            f"looked at after epoch {epoch}"
        )
        for name, number in (entry.saturated or {}).items()
        if number == sizes[name]
    }
    exploded = {
        f"beyond {name}": (
            f"{share:.1%} of the weights of layer {name} are {beyond} after epoch {epoch}"
        )
        for name, share in (entry.beyond_range or {}).items()
        if share > MANY
    }
    return {**dead, **constant, **exploded}
