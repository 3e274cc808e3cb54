"""From a trained network to the integer network: one rule per quantity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from esl_lava.chip import DECAY_UNITY, WEIGHT_SCALE
from esl_lava.errors import LimitError
from esl_lava.models.mlp import SpikingMLP
from esl_lava.network import INPUT, INTEGRATOR, Connections, Cuba, Input, Layer, Network
from esl_lava.sparsity.weights import SparseWeight


def integer_weights(weights: torch.Tensor) -> npt.NDArray[np.int32]:
    """Even integers in -256..254: round(w * 32), half to even, times 2.

    The rule of lava-dl 0.6.0, `slayer/neuron/base.py`, quantize_8bit, which the forward
    pass applies at every step of the training.
    """
    halves = torch.round(weights.detach().cpu() * (WEIGHT_SCALE / 2)).clamp(-128, 127)
    return (2 * halves).numpy().astype(np.int32)


def integer_decay(decay: float) -> int:
    """A fraction lost per step as a 12-bit integer, 0..4096 (SLAYER's cx_current_decay)."""
    return round(decay * DECAY_UNITY)


def integer_threshold(threshold: float) -> int:
    """The threshold mantissa, in units of the integer weights."""
    return int(threshold * WEIGHT_SCALE)


def lower(
    model: SpikingMLP,
    masks: Mapping[str, torch.Tensor] | None = None,
    *,
    steps: int | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Network:
    """The integer network a trained model stands for.

    Args:
        model: its weights are read, not changed.
        masks: layer name -> bool tensor of the weight's shape; a layer without one has
            every connection, or those its sparse weight says.
        steps: T the network is presented a sample.
        provenance: text facts to carry along.

    Raises:
        LimitError: naming layers whose weights are not finite, or not 0 where pruned.
        ValueError: for a mask of no layer.
    """
    blocks = {name: model.get_submodule(name) for name in (*model.hidden_names, "readout")}
    sparse = {
        name: block.synapse.weight
        for name, block in blocks.items()
        if isinstance(block.synapse.weight, SparseWeight)
    }
    weights = {
        name: block.synapse.weight.detach().flatten(1)
        for name, block in blocks.items()
        if name not in sparse
    }
    where = checked_masks(weights, masks or {})
    faults = [
        f"layer {name}: {broken} weights are NaN or infinite"
        for name, weight in sparse.items()
        if (broken := int((~torch.isfinite(weight.values)).sum()))
    ]
    if faults:
        raise LimitError(faults)
    layers: list[Layer] = []
    for name, block in blocks.items():
        neuron = INTEGRATOR
        if name != "readout":
            dynamics = block.neuron
            neuron = Cuba(
                integer_decay(dynamics.current_decay.item() / DECAY_UNITY),
                integer_decay(dynamics.voltage_decay.item() / DECAY_UNITY),
                integer_threshold(dynamics.threshold),
            )
        if name in sparse:
            weight = sparse[name]
            connections = Connections(
                weight.n_post,
                weight.n_pre,
                weight.starts.numpy(),
                weight.pre.numpy(),
                integer_weights(weight.values),
            )
        else:
            connections = Connections.from_dense(integer_weights(weights[name]), where[name])
        source = layers[-1].name if layers else INPUT
        layers.append(Layer(name, (Input(source, connections),), neuron))
    return Network(tuple(layers), steps, provenance or {})


def checked_masks(
    weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Where each layer has connections, (n_post, n_pre), once its weights are known to fit.

    Args:
        weights: layer name -> (n_post, n_pre) trained weights.
        masks: layer name -> bool tensor of as many elements; none is every connection.

    Raises:
        LimitError: naming layers whose weights are not finite, or not 0 where pruned.
        ValueError: for a mask of no layer.
    """
    if unknown := sorted(masks.keys() - weights.keys()):
        raise ValueError(f"masks for {', '.join(unknown)}, but layers are {', '.join(weights)}")
    checked = {}
    faults = []
    for name, weight in weights.items():
        mask = masks[name].flatten(1).bool() if name in masks else torch.ones_like(weight).bool()
        stray = int(weight[~mask].count_nonzero())
        unusable = int((~torch.isfinite(weight)).sum())
        if stray:
            faults.append(f"layer {name}: {stray} pruned connections have a weight other than 0")
        if unusable:
            faults.append(f"layer {name}: {unusable} weights are NaN or infinite")
        checked[name] = mask.cpu().numpy()
    if faults:
        raise LimitError(faults)
    return checked
