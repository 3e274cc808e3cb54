"""A saved model without torch: its experiment, whether its parts fit, its trained layers."""

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
from esl_lava.errors import ConfigError, FileError
from esl_lava.modelfile import SavedModel
from esl_lava.models.config import Model, MultiSpike, SingleSpike
from esl_lava.models.stored_convolutional import (
    check_masks,
    convolutional_layers,
    convolutional_topology,
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
    faulty_sparse,
)


def load_model(path: Path) -> tuple[SavedModel, Experiment]:
    """A `model.pt` and the experiment that made it.

    Raises:
        FileError: as `modelfile.read`, and when its configuration is not valid.
    """
    saved = modelfile.read(path)
    if len(saved.config) > MAX_BYTES:
        raise FileError(f"{path}: its configuration is longer than {MAX_BYTES} characters")
    try:
        return saved, from_toml(saved.config, str(path), recorded=True)
    except ConfigError as error:
        raise FileError(f"{path}: its configuration is not valid: {error}") from None


@dataclass(frozen=True)
class _Kind:
    """How a kind of network is saved.

    Attributes:
        key: what follows a layer's name where a state dict keeps its weight.
        kernel: lengths of a weight after (n_post, n_pre).
        sparse: whether a layer may store its connections only.
        decays: those a SLAYER neuron holds there too, by the names they have in both.
        neuron: (configuration, whether it is of the readout) -> the neurons.
    """

    key: str
    kernel: tuple[int, ...]
    sparse: bool
    decays: tuple[str, ...]
    neuron: Callable[[Model, bool], Neuron]


def _held(decay: float) -> np.float32:
    """A decay as SLAYER's neurons hold it: in 1/4096, not rounded."""
    return np.float32(DECAY_UNITY * decay)


def _cuba(config: Model, readout: bool) -> Neuron:
    if readout:
        return ReadoutNeuron()
    assert isinstance(config, MultiSpike)
    decays = (config.current_decay, config.voltage_decay)
    current, voltage = (float(_held(decay)) / DECAY_UNITY for decay in decays)
    return CubaNeuron(current, voltage, config.threshold)


def _once(config: Model, readout: bool) -> Neuron:
    assert isinstance(config, SingleSpike)
    return OneSpikeNeuron(config.current_decay)


_DECAYS = ("current_decay", "voltage_decay")


def trained_layers(saved: SavedModel) -> tuple[TrainedLayer, ...]:
    """As `layers_of`, of a saved model."""
    config = from_toml(saved.config, recorded=True).model
    return layers_of(config, saved.weights, saved.masks)


def layers_of(
    config: Model, entries: Mapping[str, Array], masks: Mapping[str, Array]
) -> tuple[TrainedLayer, ...]:
    """The layers of a network, once its parts are known to fit its configuration.

    Args:
        config: of the network.
        entries: of its state dict, whose memory the layers share.
        masks: layer name -> numbers of the weight's shape, 0 where there is no connection; a
            layer without one has every connection, or those that a sparse weight says.

    Raises:
        FileError: when entries or masks do not fit it.
    """
    return READERS[config.kind].layers(config, entries, masks)


def topology_of(config: Model, entries: Mapping[str, Array]) -> Topology:
    """The layers as the configuration has them, on inputs and classes as a state dict has them.

    Raises:
        FileError: when the shapes of its weights do not fit the configuration.
    """
    return READERS[config.kind].topology(config, entries)


@dataclass(frozen=True)
class Reader:
    """How networks of a kind are read from what was saved; see `topology_of`, `layers_of`."""

    topology: Callable[[Any, Mapping[str, Array]], Topology]
    layers: Callable[[Any, Mapping[str, Array], Mapping[str, Array]], tuple[TrainedLayer, ...]]


def _of_matrices(kind: _Kind) -> Reader:
    """Of fully connected layers, each fed by the one before."""

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
        if fault := faulty_sparse(n_post, n_pre, **parts):
            raise FileError(f"{key}: {fault}")
        weights = SparseWeights(n_pre, parts["starts"], parts["pre"], parts["values"])
    return TrainedLayer(name, {layer.source: weights}, kind.neuron(config, layer.readout))


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "multi_spike": _of_matrices(_Kind(".synapse.weight", (1, 1, 1), True, _DECAYS, _cuba)),
        "single_spike": _of_matrices(_Kind(".weight", (), False, (), _once)),
        "convolutional": Reader(convolutional_topology, convolutional_layers),
    }
)
"""The kinds of networks by `model.kind`."""


def _checked_topology(weights: Mapping[str, Array], config: Model, kind: _Kind) -> Topology:
    """The layers as the configuration has them, on inputs and classes as the weights have them."""
    names = [layer.name for layer in config.describe((1,), 1).weighted]
    found = [_shape(weights, kind, name) for name in names]
    first, last = found[0], found[-1]
    if first is None or last is None or not all(first):
        raise FileError("the model's weights are not those of a multi-layer network")
    topology = config.describe((first[1],), last[0])
    for layer, shape in zip(topology.weighted, found):
        kernel = kind.kernel if f"{layer.name}{kind.key}" in weights else ()
        needed = (*layer.weight_shape, *kernel)
        if shape != needed:
            raise FileError(
                f"the weight of layer {layer.name} has shape {shape}, its configuration needs "
                f"{needed} (layers = '{config.layers}')"
            )
    return topology


def _shape(weights: Mapping[str, Array], kind: _Kind, name: str) -> tuple[int, ...] | None:
    """Shape of a layer's weight, (n_post, n_pre) of a sparse one; None where there is none."""
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
    """Refuse a state dict that lacks an entry, or holds others than the configuration's."""
    held = {name: np.array([_held(getattr(config, name))]) for name in kind.decays}
    due: dict[str, Array | None] = {}  # what is to be there, and its value where that is known
    for name in topology.names:
        key = f"{name}{kind.key}"
        due |= {key: None} if key in weights else {f"{key}.{part}": None for part in SPARSE_PARTS}
        due |= {f"{name}.neuron.{decay}": value for decay, value in held.items()}
    for key in sorted(due.keys() | weights.keys()):
        if key not in due or key not in weights:
            raise FileError(
                f"the model's weights and its configuration (layers = '{config.layers}') "
                f"disagree about {key}"
            )
        found, value = weights[key], due[key]
        if value is None and not key.endswith(kind.key):
            continue  # of a sparse weight, which is checked as a whole
        shape = found.shape if value is None else value.shape
        if found.dtype != np.float32 or found.shape != shape:
            raise FileError(
                f"{key} is {found.dtype} of shape {found.shape}, "
                f"its configuration needs float32 of shape {shape}"
            )
        if value is not None and found != value:
            raise FileError(f"{key} is {found.tolist()}, its configuration says {value.tolist()}")
