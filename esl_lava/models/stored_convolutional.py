"""Read a saved convolutional network without torch: its trained layers, with all checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from esl_lava.arrays import Array, Floats
from esl_lava.errors import ConfigError, Fault, FileError
from esl_lava.folding import gain_and_bias
from esl_lava.models.config import Convolutional
from esl_lava.topology import INPUT, MAX_DENSE, LayerSpec, Topology
from esl_lava.trained import (
    LARGEST,
    SPARSE_PARTS,
    DenseWeights,
    Identity,
    InputWeights,
    NormalisedNeuron,
    NormalisedReadout,
    NormalisedWeights,
    Sliding,
    SparseWeights,
    TrainedLayer,
    Weights,
    find_sparse_fault,
)

WEIGHT = "synapse.weight"
NORM = ("weight", "bias", "running_mean", "running_var")
BATCHES = "num_batches_tracked"
EPSILON = 1e-5
"""The batch normalisations add this to a variance."""


def convolutional_layers(
    config: Convolutional, entries: Mapping[str, Array], masks: Mapping[str, Array]
) -> tuple[TrainedLayer, ...]:
    """Return the trained layers of a convolutional network, as `stored.read_layers`."""
    topology = convolutional_topology(config, entries)
    expected = dict(_expected_entries(topology, entries))
    for key in sorted(expected.keys() | entries.keys()):
        if key not in expected or key not in entries:
            raise unexpected_entry(key, key in expected, config.layers)
        if (kind := expected[key]) is None:
            continue  # a part of a sparse weight, which is checked as a whole
        dtype, shape = kind
        if entries[key].dtype != dtype or entries[key].shape != shape:
            raise wrong_array(key, entries[key], dtype, shape)
    check_masks(entries, masks, f".{WEIGHT}")
    shapes = {layer.name: layer.output_shape for layer in topology.layers}
    shapes[INPUT] = topology.input_shape
    return tuple(_layer(layer, shapes, config, entries, masks) for layer in topology.layers)


def unexpected_entry(key: str, missing: bool, layers: str) -> FileError:
    """Return the error for an entry that only the configuration or only the state dict has.

    Args:
        key: the entry of the state dict.
        missing: whether the state dict lacks it.
        layers: `model.layers` of the configuration.
    """
    fault = "lack" if missing else "have"
    other = "needs" if missing else "does not have"
    return FileError(
        f"the model's weights {fault} {key}, which its configuration (layers = '{layers}') {other}",
        "mismatch",
        key=key,
    )


def wrong_array(key: str, entry: Array, dtype: type, shape: tuple[int, ...]) -> FileError:
    """Return the error for an entry of the wrong type or shape."""
    value = f"{entry.dtype} of shape {entry.shape}"
    expected = f"{np.dtype(dtype)} of shape {shape}"
    return FileError(
        f"{key} is {value}, but the model's configuration needs {expected}",
        "mismatch",
        key=key,
        value=value,
        limit=expected,
    )


def check_masks(entries: Mapping[str, Array], masks: Mapping[str, Array], key: str) -> None:
    """Check that masks fit dense weights, and that pruned weights are 0.

    Args:
        entries: the entries of a state dict.
        masks: layer name -> numbers, 0 where there is no connection.
        key: the end of a weight's key in the state dict, after the name of its layer.

    Raises:
        FileError: if a mask does not fit, or a pruned weight is not 0.
    """
    for name, mask in masks.items():
        weight = entries.get(f"{name}{key}")
        if weight is None or weight.shape != mask.shape:
            raise FileError(
                f"the mask of layer {name} has the shape {mask.shape}, but the layer has "
                + ("no dense weight" if weight is None else f"a weight of shape {weight.shape}"),
                "mismatch",
                value=mask.shape,
                limit=None if weight is None else weight.shape,
                layer=name,
            )
        pruned = weight[mask == 0]
        if pruned.any():
            value = pruned[pruned != 0][0]
            raise FileError(
                f"layer {name}: a pruned connection has the weight {value}, but its weight must "
                "be 0",
                "damaged",
                value=float(value),
                limit=0,
                layer=name,
            )


def convolutional_topology(config: Convolutional, entries: Mapping[str, Array]) -> Topology:
    """Return the topology of a configuration, with the saved input shape and number of classes.

    Raises:
        FileError: if the input shape or the readout is missing or malformed, or if the layers do
            not fit the input shape.
    """
    shape, classes = entries.get("input_shape"), _classes(entries)
    if (
        shape is None
        or not classes
        or shape.dtype != np.int64
        or shape.shape != (3,)
        or not 0 < shape.min() <= shape.max() < 1 << 16
    ):
        raise FileError(
            "the model's weights are not those of a convolutional network: input_shape or the "
            "weight of the readout is missing or malformed",
            "mismatch",
        )
    channels, rows, columns = map(int, shape)
    try:
        return config.describe((channels, rows, columns), classes)
    except ConfigError as error:
        raise FileError.of(
            [
                Fault(
                    f"the model's layers do not fit its input: {fault.sentence}",
                    "mismatch",
                    fault.key,
                    fault.value,
                    fault.limit,
                    fault.file,
                    fault.layer,
                )
                for fault in error.faults
            ]
        ) from None


def _classes(entries: Mapping[str, Array]) -> int:
    """Return the number of output neurons of the readout, 0 if it has no valid weight."""
    dense, sides = (entries.get(f"readout.{WEIGHT}{part}") for part in ("", ".sides"))
    if dense is not None:
        return len(dense) if dense.ndim == 5 else 0
    if sides is None or sides.dtype != np.int64 or sides.shape != (2,):
        return 0
    return int(sides[0]) if 0 < sides[0] <= LARGEST else 0


def dense_shape(layer: LayerSpec) -> tuple[int, ...]:
    """Return the shape of a layer's dense weight in SLAYER."""
    return (*layer.weight_shape[:2], *(layer.weight_shape[2:] or (1, 1)), 1)


def _expected_entries(
    topology: Topology, entries: Mapping[str, Array]
) -> list[tuple[str, tuple[type, tuple[int, ...]] | None]]:
    """Return the expected entries of the state dict: key, and type and shape.

    Type and shape are None for the parts of a sparse weight.
    """
    expected: list[tuple[str, tuple[type, tuple[int, ...]] | None]] = [
        ("input_shape", (np.int64, (3,)))
    ]
    for layer in topology.weighted:
        key = f"{layer.name}.{WEIGHT}"
        if key in entries or layer.positions > MAX_DENSE:
            expected.append((key, (np.float32, dense_shape(layer))))
        else:
            expected += [(f"{key}.{part}", None) for part in SPARSE_PARTS]
        if not layer.readout:
            channels = layer.weight_shape[:1]
            expected += [(f"{layer.name}.norm.{part}", (np.float32, channels)) for part in NORM]
            expected.append((f"{layer.name}.norm.{BATCHES}", (np.int64, ())))
    return expected


def _layer(
    layer: LayerSpec,
    shapes: Mapping[str, tuple[int, ...]],
    config: Convolutional,
    entries: Mapping[str, Array],
    masks: Mapping[str, Array],
) -> TrainedLayer:
    inputs: dict[str, InputWeights] = {}
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
    neuron = NormalisedNeuron(config.chip_decay, sum_shifts(shifts), per_channel)
    return TrainedLayer(layer.name, inputs, neuron)


def _weights(layer: LayerSpec, entries: Mapping[str, Array], masks: Mapping[str, Array]) -> Weights:
    key = f"{layer.name}.{WEIGHT}"
    if key in entries:
        return DenseWeights(entries[key], masks.get(layer.name))
    parts = {part: entries[f"{key}.{part}"] for part in SPARSE_PARTS}
    n_post, n_pre = layer.weight_shape[0], math.prod(layer.weight_shape[1:])
    if fault := find_sparse_fault(n_post, n_pre, **parts):
        raise FileError(f"{key}: {fault}", "damaged", key=key, layer=layer.name)
    return SparseWeights(n_pre, parts["starts"], parts["pre"], parts["values"])


def normalisation_of(name: str, entries: Mapping[str, Array]) -> tuple[Floats, Floats]:
    """Return gain and bias of a weight layer's normalisation (`folding.gain_and_bias`).

    Raises:
        FileError: if a running variance is negative.
    """
    key = f"{name}.norm.running_var"
    variance = entries[key].min(initial=0)
    if variance < 0:
        raise FileError(
            f"layer {name}: {key} has the negative variance {variance}",
            "damaged",
            key=key,
            value=float(variance),
            limit=0,
            layer=name,
        )
    return gain_and_bias((entries[f"{name}.norm.{part}"] for part in NORM), EPSILON)


def sum_shifts(shifts: Sequence[Floats]) -> Floats:
    """Return the bias of a layer, (channels,): the sum of the biases of its normalisations."""
    total: Floats = np.sum(shifts, axis=0)
    return total
