"""Read a saved model without torch: its experiment and its trained layers, with all checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from esl_lava import modelfile
from esl_lava.arrays import Array
from esl_lava.chip import DECAY_UNITY
from esl_lava.config import Experiment, from_toml
from esl_lava.errors import ConfigError, Fault, FileError
from esl_lava.modelfile import SavedModel
from esl_lava.models.config import Model, MultiSpike, SingleSpike
from esl_lava.models.stored_convolutional import (
    check_masks,
    convolutional_layers,
    convolutional_topology,
    unexpected_entry,
    wrong_array,
)
from esl_lava.tomlfile import MAX_BYTES
from esl_lava.topology import LayerSpec, Topology
from esl_lava.trained import (
    LARGEST,
    SPARSE_PARTS,
    CubaNeuron,
    DenseWeights,
    Neuron,
    OneSpikeNeuron,
    ReadoutNeuron,
    SparseWeights,
    TrainedLayer,
    Weights,
    find_sparse_fault,
)


def load_model(path: Path) -> tuple[SavedModel, Experiment]:
    """Read a `model.pt` and the experiment that made it.

    Raises:
        FileError: as `modelfile.read`, and if its configuration is not valid.
    """
    saved = modelfile.read(path)
    if len(saved.config) > MAX_BYTES:
        raise FileError(
            f"{path}: its configuration has {len(saved.config)} characters, but at most "
            f"{MAX_BYTES} are allowed",
            "too-large",
            value=len(saved.config),
            limit=MAX_BYTES,
            file=path,
        )
    try:
        return saved, from_toml(saved.config, str(path), recorded=True)
    except ConfigError as error:
        raise FileError.of(
            [
                Fault(
                    f"{path}: its configuration is not valid: {fault.sentence}",
                    "damaged",
                    fault.key,
                    fault.value,
                    fault.limit,
                    path,
                )
                for fault in error.faults
            ]
        ) from None


@dataclass(frozen=True)
class _Kind:
    """How a state dict holds the layers of a kind of network.

    Attributes:
        key: the end of a weight's key, after the name of its layer.
        kernel: the lengths of a weight after (n_post, n_pre).
        sparse: whether a layer may store only its connections.
        decays: the names of the decays that the state dict and the configuration both hold.
        neuron: (configuration, whether the layer is the readout) -> the neurons of the layer.
    """

    key: str
    kernel: tuple[int, ...]
    sparse: bool
    decays: tuple[str, ...]
    neuron: Callable[[Model, bool], Neuron]


def _slayer_decay(decay: float) -> np.float32:
    """Return a decay as SLAYER's neurons store it: in units of 1/4096, not rounded."""
    return np.float32(DECAY_UNITY * decay)


def _cuba_neuron(config: Model, readout: bool) -> Neuron:
    if readout:
        return ReadoutNeuron()
    assert isinstance(config, MultiSpike)
    decays = (config.current_decay, config.voltage_decay)
    current, voltage = (float(_slayer_decay(decay)) / DECAY_UNITY for decay in decays)
    return CubaNeuron(current, voltage, config.threshold)


def _one_spike_neuron(config: Model, readout: bool) -> Neuron:
    assert isinstance(config, SingleSpike)
    return OneSpikeNeuron(config.current_decay)


_DECAYS = ("current_decay", "voltage_decay")


def trained_layers(saved: SavedModel) -> tuple[TrainedLayer, ...]:
    """Return the trained layers of a saved model, as `read_layers`."""
    config = from_toml(saved.config, recorded=True).model
    return read_layers(config, saved.weights, saved.masks)


def read_layers(
    config: Model, entries: Mapping[str, Array], masks: Mapping[str, Array]
) -> tuple[TrainedLayer, ...]:
    """Return the trained layers of a network, after checking its parts against its configuration.

    Args:
        config: the configuration of the network.
        entries: the entries of its state dict. The layers share their memory.
        masks: layer name -> numbers of the weight's shape, 0 where there is no connection. A
            layer without a mask has all connections, or the connections of its sparse weight.

    Raises:
        FileError: if entries or masks do not fit the configuration.
    """
    return READERS[config.kind].layers(config, entries, masks)


def read_topology(config: Model, entries: Mapping[str, Array]) -> Topology:
    """Return the topology of a configuration, with the inputs and classes of a state dict.

    Raises:
        FileError: if the shapes of the weights do not fit the configuration.
    """
    return READERS[config.kind].topology(config, entries)


@dataclass(frozen=True)
class Reader:
    """How networks of a kind are read from a state dict; see `read_topology` and `read_layers`."""

    topology: Callable[[Any, Mapping[str, Array]], Topology]
    layers: Callable[[Any, Mapping[str, Array], Mapping[str, Array]], tuple[TrainedLayer, ...]]


def _make_matrix_reader(kind: _Kind) -> Reader:
    """Return the reader of networks of fully connected layers, each fed by the layer before."""

    def layers(
        config: Model, entries: Mapping[str, Array], masks: Mapping[str, Array]
    ) -> tuple[TrainedLayer, ...]:
        topology = _checked_topology(entries, config, kind)
        _check_entries(entries, config, kind, topology)
        check_masks(entries, masks, kind.key)
        return tuple(_layer(layer, config, kind, entries, masks) for layer in topology.layers)

    return Reader(lambda config, entries: _checked_topology(entries, config, kind), layers)


def _layer(
    layer: LayerSpec,
    config: Model,
    kind: _Kind,
    entries: Mapping[str, Array],
    masks: Mapping[str, Array],
) -> TrainedLayer:
    name, (n_post, n_pre) = layer.name, layer.weight_shape
    key = f"{name}{kind.key}"
    weights: Weights
    if key in entries:
        weights = DenseWeights(entries[key], masks.get(name))
    else:
        parts = {part: entries[f"{key}.{part}"] for part in SPARSE_PARTS}
        if fault := find_sparse_fault(n_post, n_pre, **parts):
            raise FileError(f"{key}: {fault}", "damaged", key=key, layer=name)
        weights = SparseWeights(n_pre, parts["starts"], parts["pre"], parts["values"])
    return TrainedLayer(name, {layer.source: weights}, kind.neuron(config, layer.readout))


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "multi_spike": _make_matrix_reader(
            _Kind(".synapse.weight", (1, 1, 1), True, _DECAYS, _cuba_neuron)
        ),
        "single_spike": _make_matrix_reader(_Kind(".weight", (), False, (), _one_spike_neuron)),
        "convolutional": Reader(convolutional_topology, convolutional_layers),
    }
)
"""`model.kind` -> reader of that kind of network."""


def _checked_topology(weights: Mapping[str, Array], config: Model, kind: _Kind) -> Topology:
    """Return the topology of the configuration, with the inputs and classes of the weights."""
    names = [layer.name for layer in config.describe((1,), 1).weighted]
    shapes = [_weight_shape(weights, kind, name) for name in names]
    first, last = shapes[0], shapes[-1]
    if first is None or last is None or not all(first):
        raise FileError(
            f"the model's weights have no matrix for layer {names[0]} or layer {names[-1]}, which "
            f"its configuration (layers = '{config.layers}') needs",
            "mismatch",
        )
    topology = config.describe((first[1],), last[0])
    for layer, shape in zip(topology.weighted, shapes):
        kernel = kind.kernel if f"{layer.name}{kind.key}" in weights else ()
        expected = (*layer.weight_shape, *kernel)
        if shape != expected:
            raise FileError(
                f"the weight of layer {layer.name} has shape {shape}, but its configuration needs "
                f"{expected} (layers = '{config.layers}')",
                "mismatch",
                value=shape,
                limit=expected,
                layer=layer.name,
            )
    return topology


def _weight_shape(weights: Mapping[str, Array], kind: _Kind, name: str) -> tuple[int, ...] | None:
    """Return the shape of a layer's weight, or None if it has no valid weight.

    The shape of a sparse weight is (n_post, n_pre).
    """
    weight = weights.get(f"{name}{kind.key}")
    if weight is not None:
        return weight.shape if weight.ndim == 2 + len(kind.kernel) else None
    sides = weights.get(f"{name}{kind.key}.sides")
    if not kind.sparse or sides is None or sides.dtype != np.int64 or sides.shape != (2,):
        return None
    n_post, n_pre = (int(side) for side in sides)
    return (n_post, n_pre) if 0 < min(n_post, n_pre) <= max(n_post, n_pre) <= LARGEST else None


def _check_entries(
    weights: Mapping[str, Array], config: Model, kind: _Kind, topology: Topology
) -> None:
    """Refuse a state dict whose entries, types, shapes or decays the configuration contradicts."""
    decays = {name: np.array([_slayer_decay(getattr(config, name))]) for name in kind.decays}
    expected: dict[str, Array | None] = {}  # expected key -> its value, None if any value is valid
    for name in topology.names:
        key = f"{name}{kind.key}"
        expected |= (
            {key: None} if key in weights else {f"{key}.{part}": None for part in SPARSE_PARTS}
        )
        expected |= {f"{name}.neuron.{decay}": value for decay, value in decays.items()}
    for key in sorted(expected.keys() | weights.keys()):
        if key not in expected or key not in weights:
            raise unexpected_entry(key, key in expected, config.layers)
        entry, value = weights[key], expected[key]
        if value is None and not key.endswith(kind.key):
            continue  # a part of a sparse weight, which is checked as a whole
        shape = entry.shape if value is None else value.shape
        if entry.dtype != np.float32 or entry.shape != shape:
            raise wrong_array(key, entry, np.float32, shape)
        if value is not None and entry != value:
            raise FileError(
                f"{key} is {entry.tolist()}, but the model's configuration needs {value.tolist()}",
                "mismatch",
                key=key,
                value=float(entry[0]),
                limit=float(value[0]),
            )
