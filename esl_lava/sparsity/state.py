"""Snapshots of an evolver: what they hold, and which of them fit a network's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from esl_lava.errors import ConfigError
from esl_lava.sparsity.arrays import count
from esl_lava.sparsity.stores import DenseStore, SparseStore


class _Parts(TypedDict):
    iteration: int
    masks: dict[str, Tensor]
    ever: dict[str, Tensor]
    generators: dict[str, Tensor]
    history: list[list[Any]]


class State(_Parts, total=False):
    """A snapshot.

    Attributes:
        iteration: optimiser iterations done.
        masks, ever: as the attributes of `MaskEvolver`.
        generators: layer name -> (n,) uint8 state of its generator.
        history: records as `Update.plain`.
        waiting: whether an update waits; older snapshots lack it.
    """

    waiting: bool


def load_layers(state: State, layers: Sequence[DenseStore | SparseStore], *, dense: bool) -> None:
    """Take over masks, past connections and generators of a snapshot.

    Args:
        state: of any network.
        layers: those of this one, the connections of a `SparseWeight` loaded already.
        dense: whether all positions are to be connections at the snapshot's iteration.

    Raises:
        ConfigError: as `MaskEvolver.load_state_dict`. Nothing is changed then.
    """
    masked = [layer for layer in layers if isinstance(layer, DenseStore)]
    stored = [layer for layer in layers if isinstance(layer, SparseStore)]
    names = [layer.name for layer in layers]
    for part, tensors, due in (
        ("masks", state["masks"], [layer.name for layer in masked]),
        ("ever", state["ever"], names),
        ("generators", state["generators"], names),
    ):
        if list(tensors) != due:
            raise ConfigError(
                f"the state's {part} are of layers {', '.join(tensors)}, "
                f"the sparse layers are {', '.join(due) or 'none'}"
            )
    for part, tensors in (("masks", state["masks"]), ("ever", state["ever"])):
        for layer in masked:
            tensor, shape = tensors[layer.name], layer.taken.tensor.shape
            if tensor.shape != shape or tensor.dtype != torch.bool:
                raise ConfigError(
                    f"layer {layer.name}: the state's {part} have shape "
                    f"{tuple(tensor.shape)} of {tensor.dtype}, "
                    f"not {tuple(shape)} of torch.bool"
                )
    records = [layer.read_record(state["ever"][layer.name]) for layer in stored]
    saved = sum(count(mask) for mask in state["masks"].values())
    saved += sum(layer.taken.count for layer in stored)
    wanted = sum(layer.size if dense else layer.connections for layer in layers)
    if saved != wanted:
        raise ConfigError(f"the state has {saved} connections, this run {wanted}")
    for layer in masked:
        layer.load(state["masks"][layer.name], state["ever"][layer.name])
    for kept, record in zip(stored, records):
        kept.ever = record
    for any_layer in layers:
        any_layer.generator.set_state(state["generators"][any_layer.name].cpu())
