"""Restore a saved model as a network of torch, and convert between arrays and tensors."""

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
from esl_lava.models.stored import read_topology, trained_layers
from esl_lava.sparsity import sets
from esl_lava.topology import MAX_DENSE
from esl_lava.trained import Identity, NormalisedWeights, SparseWeights, Weights


def restore(saved: SavedModel) -> SpikingNetwork:
    """Build the network of a saved model, load its weights and check its masks.

    Layers have a dense or a sparse weight as they were saved (`densified` makes all of them
    dense). SLAYER's blocks compute as in stock SLAYER until `fused.accelerate` changes them.

    Raises:
        FileError: if weights, masks or `ever` do not fit the saved configuration.
    """
    weights = _read_weights(saved)  # before anything of the configuration's size is allocated
    stored = [name for name, (values, _) in weights.items() if isinstance(values, SparseWeights)]
    for name in stored:
        _read_ever_active(saved, name, weights[name][0])
    experiment = from_toml(saved.config, recorded=True)
    topology = read_topology(experiment.model, saved.weights)
    with torch.random.fork_rng(devices=[]):
        model = build(
            experiment.model, topology, stored, lambda *_: sparse.zeros, experiment.encoding
        )
    model.load_state_dict(as_tensors(saved.weights))
    return model.eval()


def densified(saved: SavedModel) -> SavedModel:
    """Return the same model with each sparse weight as a dense weight, a mask and a dense `ever`.

    Raises:
        FileError: as `restore`, and if a weight would have more than MAX_DENSE positions.
    """
    weights, masks, ever = dict(saved.weights), dict(saved.masks), dict(saved.ever)
    for name, (stored, shape) in _read_weights(saved).items():
        if not isinstance(stored, SparseWeights):
            continue
        n_post, n_pre = stored.n_post, stored.n_pre
        if n_post * n_pre > MAX_DENSE:
            raise FileError(
                f"layer {name}: it has {n_post} x {n_pre} positions, but a dense weight may have "
                f"at most {MAX_DENSE}",
                "too-large",
                value=n_post * n_pre,
                limit=MAX_DENSE,
                layer=name,
            )
        prefix = f"{name}.synapse.weight"
        for key in ("values", "starts", "pre", "sides"):
            del weights[f"{prefix}.{key}"]
        dense = stored.densified(shape)
        assert dense.mask is not None
        weights[prefix], masks[name] = dense.values, dense.mask
        if (record := _read_ever_active(saved, name, stored)) is not None:
            ever[name] = record.block(slice(0, record.size)).numpy().reshape(shape).copy()
    return replace(saved, weights=weights, masks=masks, ever=ever)


def _read_weights(saved: SavedModel) -> dict[str, tuple[Weights, tuple[int, ...]]]:
    """Return, by name of layer or shortcut, the checked weights and the shape of dense weights."""
    weights = {}
    for layer in trained_layers(saved):
        for fed in layer.inputs.values():
            if isinstance(fed, NormalisedWeights):
                weights[fed.name] = fed.weights, fed.shape
            elif not isinstance(fed, Identity):
                weights[layer.name] = fed, (fed.n_post, fed.n_pre, 1, 1, 1)
    return weights


def _read_ever_active(saved: SavedModel, name: str, weights: Weights) -> sets.Record | None:
    """Return the positions of a layer that were ever a connection; None if `ever` lacks them."""
    if name not in saved.ever:
        return None
    try:
        return sets.read(as_tensors(saved.ever[name]), weights.n_post * weights.n_pre)
    except ValueError as error:
        raise FileError(
            f"part 'ever' of layer {name} {error}", "damaged", key="ever", layer=name
        ) from None


def as_arrays(value: Any) -> Any:
    """Replace tensors in plain containers by arrays, which may share the tensors' memory."""
    return _convert(value, torch.Tensor, lambda tensor: tensor.detach().cpu().numpy())


def as_tensors(value: Any) -> Any:
    """Replace arrays in plain containers by tensors, which share the arrays' memory."""
    return _convert(value, np.ndarray, torch.from_numpy)


def _convert(value: Any, kind: type, convert: Any) -> Any:
    if isinstance(value, kind):
        return convert(value)
    if isinstance(value, Mapping):
        return {key: _convert(item, kind, convert) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_convert(item, kind, convert) for item in value)
    return value
