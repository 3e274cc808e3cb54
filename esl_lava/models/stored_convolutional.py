"""A saved convolutional network without torch: whether its parts fit, its trained layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from esl_lava.arrays import Array, Floats
from esl_lava.errors import ConfigError, FileError
from esl_lava.folding import gain_and_bias
from esl_lava.models.config import Convolutional
from esl_lava.topology import INPUT, LayerSpec, Topology
from esl_lava.trained import (
    DenseWeights,
    Fed,
    Identity,
    NormalisedNeuron,
    NormalisedReadout,
    NormalisedWeights,
    Sliding,
    TrainedLayer,
)

WEIGHT = "synapse.weight"
NORM = ("weight", "bias", "running_mean", "running_var")
BATCHES = "num_batches_tracked"
EPSILON = 1e-5
"""Added to a variance by the batch normalisations."""


def convolutional_layers(
    config: Convolutional, entries: Mapping[str, Array], masks: Mapping[str, Array]
) -> tuple[TrainedLayer, ...]:
    """As `stored.layers_of`."""
    topology = convolutional_topology(config, entries)
    due = dict(_due(topology))
    for key in sorted(due.keys() | entries.keys()):
        if key not in due or key not in entries:
            raise FileError(
                f"the model's weights and its configuration (layers = '{config.layers}') "
                f"disagree about {key}"
            )
        dtype, shape = due[key]
        if entries[key].dtype != dtype or entries[key].shape != shape:
            raise FileError(
                f"{key} is {entries[key].dtype} of shape {entries[key].shape}, its "
                f"configuration needs {np.dtype(dtype)} of shape {shape}"
            )
    check_masks(entries, masks, f".{WEIGHT}")
    shapes = {layer.name: layer.output_shape for layer in topology.layers}
    shapes[INPUT] = topology.input_shape
    return tuple(_layer(layer, shapes, config, entries, masks) for layer in topology.layers)


def check_masks(entries: Mapping[str, Array], masks: Mapping[str, Array], key: str) -> None:
    """Refuse masks that are not of dense weights, and weights other than 0 where pruned.

    Args:
        entries: of a state dict.
        masks: layer name -> numbers, 0 where there is no connection.
        key: what follows a layer's name where the state dict keeps its weight.

    Raises:
        FileError: naming the layer.
    """
    for name, mask in masks.items():
        weight = entries.get(f"{name}{key}")
        if weight is None or weight.shape != mask.shape:
            raise FileError(f"the mask of {name} does not fit its weights")
        pruned = weight[mask == 0]
        if pruned.any():
            value = pruned[pruned != 0][0]
            raise FileError(f"layer {name}: a pruned connection has a weight other than 0: {value}")


def convolutional_topology(config: Convolutional, entries: Mapping[str, Array]) -> Topology:
    """The layers, on inputs of the shape that is saved and classes as the readout has.

    Raises:
        FileError: when there is no such shape or readout, or the layers do not fit it.
    """
    shape, readout = entries.get("input_shape"), entries.get(f"readout.{WEIGHT}")
    if (
        shape is None
        or readout is None
        or shape.dtype != np.int64
        or shape.shape != (3,)
        or readout.ndim != 5
        or not 0 < shape.min() <= shape.max() < 1 << 16
    ):
        raise FileError("the model's weights are not those of a convolutional network")
    channels, rows, columns = map(int, shape)
    try:
        return config.describe((channels, rows, columns), len(readout))
    except ConfigError as error:
        raise FileError(f"the model's layers do not fit its input: {error}") from None


def _due(topology: Topology) -> list[tuple[str, tuple[type, tuple[int, ...]]]]:
    """What the state dict holds: key, and type and shape."""
    due: list[tuple[str, tuple[type, tuple[int, ...]]]] = [("input_shape", (np.int64, (3,)))]
    for layer in topology.weighted:
        kernel = layer.weight_shape[2:] or (1, 1)
        due.append((f"{layer.name}.{WEIGHT}", (np.float32, (*layer.weight_shape[:2], *kernel, 1))))
        if not layer.readout:
            channels = layer.weight_shape[:1]
            due += [(f"{layer.name}.norm.{part}", (np.float32, channels)) for part in NORM]
            due.append((f"{layer.name}.norm.{BATCHES}", (np.int64, ())))
    return due


def _layer(
    layer: LayerSpec,
    shapes: Mapping[str, tuple[int, ...]],
    config: Convolutional,
    entries: Mapping[str, Array],
    masks: Mapping[str, Array],
) -> TrainedLayer:
    inputs: dict[str, Fed] = {}
    shifts = []
    for part in filter(None, (layer, layer.shortcut)):
        weights = DenseWeights(entries[f"{part.name}.{WEIGHT}"], masks.get(part.name))
        gain = None
        if not layer.readout:
            gain, shift = normalisation_of(part.name, entries)
            shifts.append(shift)
        channels, rows, columns = (*shapes[part.source], 1, 1)[:3]
        stride = 0 if part.kind == "dense" else part.stride
        sliding = Sliding((channels, rows, columns), part.pool, stride, part.padding)
        inputs[part.source] = NormalisedWeights(part.name, weights, sliding, gain)
    if layer.readout:
        return TrainedLayer(layer.name, inputs, NormalisedReadout())
    if layer.identity:
        inputs[layer.identity] = Identity()
    per_channel = config.thresholds == "channel"
    neuron = NormalisedNeuron(config.held_decay, sum_shifts(shifts), per_channel)
    return TrainedLayer(layer.name, inputs, neuron)


def normalisation_of(name: str, entries: Mapping[str, Array]) -> tuple[Floats, Floats]:
    """Gain and bias of a weight layer's normalisation (`folding.gain_and_bias`)."""
    return gain_and_bias((entries[f"{name}.norm.{part}"] for part in NORM), EPSILON)


def sum_shifts(shifts: Sequence[Floats]) -> Floats:
    """The bias of a layer, (channels,), from those of the normalisations of its inputs."""
    total: Floats = np.sum(shifts, axis=0)
    return total
