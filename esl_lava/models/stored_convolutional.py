"""A saved convolutional network without torch: whether its parts fit, its trained layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from esl_lava.arrays import Array, Floats
from esl_lava.errors import ConfigError, FileError
from esl_lava.folding import gain_and_bias
from esl_lava.models.config import Convolutional
from esl_lava.topology import INPUT, MAX_DENSE, LayerSpec, Topology
from esl_lava.trained import (
    LARGEST,
    SPARSE_PARTS,
    DenseWeights,
    Fed,
    Identity,
    NormalisedNeuron,
    NormalisedReadout,
    NormalisedWeights,
    Sliding,
    SparseWeights,
    TrainedLayer,
    Weights,
    faulty_sparse,
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
    due = dict(_due(topology, entries))
    for key in sorted(due.keys() | entries.keys()):
        if key not in due or key not in entries:
            raise FileError(
                f"the model's weights and its configuration (layers = '{config.layers}') "
                f"disagree about {key}"
            )
        if (kind := due[key]) is None:
            continue  # of a sparse weight, which is checked as a whole
        dtype, shape = kind
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
    shape, classes = entries.get("input_shape"), _classes(entries)
    if (
        shape is None
        or not classes
        or shape.dtype != np.int64
        or shape.shape != (3,)
        or not 0 < shape.min() <= shape.max() < 1 << 16
    ):
        raise FileError("the model's weights are not those of a convolutional network")
    channels, rows, columns = map(int, shape)
    try:
        return config.describe((channels, rows, columns), classes)
    except ConfigError as error:
        raise FileError(f"the model's layers do not fit its input: {error}") from None


def _classes(entries: Mapping[str, Array]) -> int:
    """Output neurons of the readout; 0 where there is none."""
    dense, sides = (entries.get(f"readout.{WEIGHT}{part}") for part in ("", ".sides"))
    if dense is not None:
        return len(dense) if dense.ndim == 5 else 0
    if sides is None or sides.dtype != np.int64 or sides.shape != (2,):
        return 0
    return int(sides[0]) if 0 < sides[0] <= LARGEST else 0


def dense_shape(layer: LayerSpec) -> tuple[int, ...]:
    """Of a layer's weight for every position, as SLAYER has it."""
    return (*layer.weight_shape[:2], *(layer.weight_shape[2:] or (1, 1)), 1)


def _due(
    topology: Topology, entries: Mapping[str, Array]
) -> list[tuple[str, tuple[type, tuple[int, ...]] | None]]:
    """What the state dict holds: key, and type and shape, but of parts of a sparse weight."""
    due: list[tuple[str, tuple[type, tuple[int, ...]] | None]] = [("input_shape", (np.int64, (3,)))]
    for layer in topology.weighted:
        key = f"{layer.name}.{WEIGHT}"
        if key in entries or layer.positions > MAX_DENSE:
            due.append((key, (np.float32, dense_shape(layer))))
        else:
            due += [(f"{key}.{part}", None) for part in SPARSE_PARTS]
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
        weights = _weights(part, entries, masks)
        gain = None
        if not layer.readout:
            gain, shift = normalisation_of(part.name, entries)
            shifts.append(shift)
        channels, rows, columns = (*shapes[part.source], 1, 1)[:3]
        stride = 0 if part.kind == "dense" else part.stride
        sliding = Sliding((channels, rows, columns), part.pool, stride, part.padding)
        inputs[part.source] = NormalisedWeights(
            part.name, weights, dense_shape(part), sliding, gain
        )
    if layer.readout:
        return TrainedLayer(layer.name, inputs, NormalisedReadout())
    if layer.identity:
        inputs[layer.identity] = Identity()
    per_channel = config.thresholds == "channel"
    neuron = NormalisedNeuron(config.held_decay, sum_shifts(shifts), per_channel)
    return TrainedLayer(layer.name, inputs, neuron)


def _weights(layer: LayerSpec, entries: Mapping[str, Array], masks: Mapping[str, Array]) -> Weights:
    key = f"{layer.name}.{WEIGHT}"
    if key in entries:
        return DenseWeights(entries[key], masks.get(layer.name))
    parts = {part: entries[f"{key}.{part}"] for part in SPARSE_PARTS}
    n_post, n_pre = layer.weight_shape[0], math.prod(layer.weight_shape[1:])
    if fault := faulty_sparse(n_post, n_pre, **parts):
        raise FileError(f"{key}: {fault}")
    return SparseWeights(n_pre, parts["starts"], parts["pre"], parts["values"])


def normalisation_of(name: str, entries: Mapping[str, Array]) -> tuple[Floats, Floats]:
    """Gain and bias of a weight layer's normalisation (`folding.gain_and_bias`)."""
    return gain_and_bias((entries[f"{name}.norm.{part}"] for part in NORM), EPSILON)


def sum_shifts(shifts: Sequence[Floats]) -> Floats:
    """The bias of a layer, (channels,), from those of the normalisations of its inputs."""
    total: Floats = np.sum(shifts, axis=0)
    return total
