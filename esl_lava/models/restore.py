"""From a saved model to a network of torch, and between arrays and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from esl_lava.config import from_toml
from esl_lava.engines import sparse
from esl_lava.errors import FileError
from esl_lava.modelfile import SavedModel
from esl_lava.models.build import SpikingNetwork, build
from esl_lava.models.stored import topology_of, trained_layers
from esl_lava.sparsity import sets
from esl_lava.topology import MAX_DENSE
from esl_lava.trained import Identity, NormalisedWeights, SparseWeights, Weights


def restore(saved: SavedModel) -> SpikingNetwork:
    """The network of a saved model, weights loaded and masks verified.

    Layers are as they were saved, with a dense weight or a sparse one (`densified` makes them
    all dense); passes are stock SLAYER's until `fused.accelerate` changes them.

    Raises:
        FileError: when weights, masks or ever-active sets do not fit the saved configuration.
    """
    weights = _weights(saved)  # checked before anything of the configuration's size is allocated
    stored = [name for name, (found, _) in weights.items() if isinstance(found, SparseWeights)]
    for name in stored:
        _ever(saved, name, weights[name][0])
    experiment = from_toml(saved.config, recorded=True)
    topology = topology_of(experiment.model, saved.weights)
    with torch.random.fork_rng(devices=[]):
        model = build(
            experiment.model, topology, stored, lambda *_: sparse.zeros, experiment.encoding
        )
    model.load_state_dict(as_tensors(saved.weights))
    return model.eval()


def densified(saved: SavedModel) -> SavedModel:
    """The same model with dense weights, masks and ever-active sets in every layer.

    Raises:
        FileError: when a weight would have more than MAX_DENSE positions, or the model is
            not sound (`restore`).
    """
    weights, masks, ever = dict(saved.weights), dict(saved.masks), dict(saved.ever)
    for name, (stored, shape) in _weights(saved).items():
        if not isinstance(stored, SparseWeights):
            continue
        n_post, n_pre = stored.n_post, stored.n_pre
        if n_post * n_pre > MAX_DENSE:
            raise FileError(
                f"layer {name}: {n_post} x {n_pre} positions are more than the "
                f"{MAX_DENSE} of a dense weight"
            )
        prefix = f"{name}.synapse.weight"
        for key in ("values", "starts", "pre", "sides"):
            del weights[f"{prefix}.{key}"]
        dense = stored.densified(shape)
        assert dense.mask is not None
        weights[prefix], masks[name] = dense.values, dense.mask
        if (record := _ever(saved, name, stored)) is not None:
            ever[name] = record.block(slice(0, record.size)).numpy().reshape(shape).copy()
    return replace(saved, weights=weights, masks=masks, ever=ever)


def _weights(saved: SavedModel) -> dict[str, tuple[Weights, tuple[int, ...]]]:
    """Name of a layer or shortcut -> its weights, known to fit it, and the shape of dense ones."""
    found = {}
    for layer in trained_layers(saved):
        for fed in layer.inputs.values():
            if isinstance(fed, NormalisedWeights):
                found[fed.name] = fed.weights, fed.shape
            elif not isinstance(fed, Identity):
                found[layer.name] = fed, (fed.n_post, fed.n_pre, 1, 1, 1)
    return found


def _ever(saved: SavedModel, name: str, weights: Weights) -> sets.Record | None:
    """The ever-active set of a sparse layer, where there is one."""
    if name not in saved.ever:
        return None
    try:
        return sets.read(as_tensors(saved.ever[name]), weights.n_post * weights.n_pre)
    except ValueError as error:
        raise FileError(f"part 'ever' of layer {name} {error}") from None


def as_arrays(value: Any) -> Any:
    """Plain containers with arrays where there were tensors, which may share their memory."""
    return _exchanged(value, torch.Tensor, lambda tensor: tensor.detach().cpu().numpy())


def as_tensors(value: Any) -> Any:
    """Plain containers with tensors where there were arrays, which share their memory."""
    return _exchanged(value, np.ndarray, torch.from_numpy)


def _exchanged(value: Any, kind: type, exchange: Any) -> Any:
    if isinstance(value, kind):
        return exchange(value)
    if isinstance(value, Mapping):
        return {key: _exchanged(item, kind, exchange) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_exchanged(item, kind, exchange) for item in value)
    return value
