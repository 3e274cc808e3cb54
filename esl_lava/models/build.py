"""From a configuration, or from a saved model, to a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from esl_lava.config import Experiment
from esl_lava.engines import sparse
from esl_lava.engines.choice import choose_stored
from esl_lava.engines.fused import accelerate
from esl_lava.errors import FileError
from esl_lava.modelfile import SavedModel
from esl_lava.models.config import Model, MultiSpike
from esl_lava.models.mlp import Initial, SpikingMLP
from esl_lava.models.single_spike import SingleSpikeMLP
from esl_lava.sparsity import positions
from esl_lava.sparsity.evolver import sparse_weights
from esl_lava.topology import Topology

SpikingNetwork = SpikingMLP | SingleSpikeMLP

MAX_DENSE = 1 << 28
"""Positions of a layer's weights that are made dense: 1 GiB."""


def build(
    config: Model,
    topology: Topology,
    sparse_layers: Collection[str] = (),
    initial: Initial = sparse.as_slayer_draws,
) -> SpikingNetwork:
    """A network with torch's current generator's initial weights.

    Args:
        config: its kind and its neurons.
        topology: its layers.
        sparse_layers: names of layers of which only connections are stored, of a
            multi_spike network; they begin without any.
        initial: what gives these their weights.
    """
    return _KINDS[config.kind].build(config, topology, sparse_layers, initial)


def build_to_train(experiment: Experiment, topology: Topology) -> SpikingNetwork:
    """The network to train, computed by the experiment's engine.

    Its initial weights, of torch's current generator, are the same ones whatever the engine; a
    layer of sparse weights gets its own with its first connections.

    Raises:
        ConfigError: when `auto` cannot tell how dense layers are to be.
    """
    engine = experiment.training.engine
    stored = choose_stored(engine, topology, experiment.sparsity)
    model = build(experiment.model, topology, stored)
    if engine != "slayer":
        accelerate(model)  # finds no blocks in other networks
    return model


def _multi_spike(
    config: Model, topology: Topology, sparse_layers: Collection[str], initial: Initial
) -> SpikingMLP:
    assert isinstance(config, MultiSpike)
    return SpikingMLP(
        topology,
        current_decay=config.current_decay,
        voltage_decay=config.voltage_decay,
        threshold=config.threshold,
        tau_grad=config.tau_grad,
        scale_grad=config.scale_grad,
        sparse_layers=sparse_layers,
        initial=initial,
    )


def _single_spike(
    config: Model, topology: Topology, sparse_layers: Collection[str], initial: Initial
) -> SingleSpikeMLP:
    if sparse_layers:
        raise ValueError(f"layers {', '.join(sparse_layers)} of neurons that fire once are dense")
    return SingleSpikeMLP(topology)


@dataclass(frozen=True)
class _Kind:
    """A kind of network.

    Attributes:
        build: makes one.
        key: what follows a layer's name where a state dict keeps its weight.
        kernel: lengths of a weight after (n_post, n_pre).
    """

    build: Callable[[Model, Topology, Collection[str], Initial], SpikingNetwork]
    key: str
    kernel: tuple[int, ...]


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "multi_spike": _Kind(_multi_spike, ".synapse.weight", (1, 1, 1)),
        "single_spike": _Kind(_single_spike, ".weight", ()),
    }
)
"""The kinds of networks by `model.kind`."""


def restore(saved: SavedModel) -> Any:
    """The network of a saved model, weights loaded and masks verified.

    Layers are as they were saved, with a dense weight or a sparse one (`densified` makes them
    all dense); passes are stock SLAYER's until `fused.accelerate` changes them.

    Returns:
        A `SpikingMLP` or a `SingleSpikeMLP`, as `model.kind` says.

    Raises:
        FileError: when weights or masks do not fit the saved configuration.
    """
    config = saved.config.model
    kind = _KINDS[config.kind]
    names = [layer.name for layer in config.describe((1,), 1).weighted]
    shapes = [_shape(saved, kind, name) for name in names]
    first, last = shapes[0], shapes[-1]
    if first is None or last is None or not math.prod(first):
        raise FileError("the model's weights are not those of a multi-layer network")
    topology = config.describe((first[1],), last[0])
    sparse_layers = [name for name in names if f"{name}{kind.key}.values" in saved.weights]
    for name, shape, layer in zip(names, shapes, topology.weighted):
        # Before anything of the configuration's size is allocated.
        needed = (*layer.weight_shape, *(() if name in sparse_layers else kind.kernel))
        if shape != needed:
            raise FileError(
                f"the weight of layer {name} has shape {shape}, its configuration needs "
                f"{needed} (layers = '{config.layers}')"
            )
    with torch.random.fork_rng(devices=[]):
        model = build(config, topology, sparse_layers, lambda *_: sparse.zeros)
    expected = model.state_dict()
    own = tuple(f"{name}{kind.key}." for name in sparse_layers)
    for key in sorted(expected.keys() | saved.weights.keys()):
        if key not in expected or key not in saved.weights:
            raise FileError(
                f"the model's weights and its configuration (layers = '{config.layers}') "
                f"disagree about {key}"
            )
        if key.startswith(own):
            continue  # as many as there are connections; loading checks them
        found, due = saved.weights[key], expected[key]
        if found.shape != due.shape or found.dtype != due.dtype:
            raise FileError(
                f"{key} is {found.dtype} of shape {tuple(found.shape)}, "
                f"its configuration needs {due.dtype} of shape {tuple(due.shape)}"
            )
        if not key.endswith(kind.key) and not torch.equal(found, due):
            raise FileError(f"{key} is {found.tolist()}, its configuration says {due.tolist()}")
    try:
        model.load_state_dict(saved.weights)
    except RuntimeError as error:  # a sparse weight's
        raise FileError(" ".join(str(error).split())) from None
    for name, mask in saved.masks.items():
        weight = saved.weights.get(f"{name}{kind.key}")
        if weight is None or weight.shape != mask.shape:
            raise FileError(f"the mask of {name} does not fit its weights")
        if weight[~mask.bool()].count_nonzero():
            raise FileError(f"layer {name}: a pruned connection has a weight other than 0")
    return model


def _shape(saved: SavedModel, kind: _Kind, name: str) -> tuple[int, ...] | None:
    """Shape of a layer's weight, (n_post, n_pre) of a sparse one; None where there is none."""
    weight = saved.weights.get(f"{name}{kind.key}")
    if weight is not None:
        return tuple(weight.shape) if weight.ndim == 2 + len(kind.kernel) else None
    sides = saved.weights.get(f"{name}{kind.key}.sides")
    if sides is None or sides.dtype != torch.int64 or sides.shape != (2,):
        return None
    n_post, n_pre = sides.tolist()
    return n_post, n_pre


def densified(saved: SavedModel) -> SavedModel:
    """The same model with dense weights, masks and ever-active sets in every layer.

    Raises:
        FileError: when a weight would have more than MAX_DENSE positions, or the model is
            not sound (`restore`).
    """
    model = restore(saved)
    weights, masks, ever = dict(saved.weights), dict(saved.masks), dict(saved.ever)
    for name, weight in sparse_weights(model).items():
        if weight.size > MAX_DENSE:
            raise FileError(
                f"layer {name}: {weight.n_post} x {weight.n_pre} positions are more than the "
                f"{MAX_DENSE} of a dense weight"
            )
        prefix = f"{name}.synapse.weight"
        for key in ("values", "starts", "pre", "sides"):
            del weights[f"{prefix}.{key}"]
        shape = (weight.n_post, weight.n_pre, 1, 1, 1)
        dense, where = torch.zeros(weight.size), weight.positions()
        dense[where] = weight.values.detach()
        weights[prefix] = dense.view(shape)
        masks[name] = torch.zeros(weight.size, dtype=torch.bool).index_fill_(0, where, True)
        masks[name] = masks[name].view(shape)
        if name in ever:
            record = positions.read(ever[name], weight.size)
            ever[name] = record.block(slice(0, weight.size)).clone().view(shape)
    return replace(saved, weights=weights, masks=masks, ever=ever)
