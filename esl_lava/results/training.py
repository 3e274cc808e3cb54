"""What was found while a network was trained: its epochs, and the updates of its masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from esl_lava.errors import DataError
from esl_lava.values import OPTIONAL


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch; `as_values` of it is what a model.pt stores.

    Attributes:
        epoch: its number, from 1.
        loss: mean over its batches.
        validation_accuracy: share of the held-back samples decided right, 0..1; None where
            nothing is held back.
        density: weights over positions, all weight layers together.
        densities: layer name -> the same of each.
        exploration: R_s of the sparse layers.
        silent: layer name -> neurons without a spike on all samples looked at; None in
            records from before it was counted.
        saturated: of the same samples, layer name -> neurons that fire at every step of each;
            without the layers whose neurons can fire only once.
        rates: of the same samples, layer name -> spikes of a mean neuron at a mean step, 0..1.
        beyond_range: layer name -> share of its weights out of range, 0..1; None in records
            from before it was counted.
    """

    epoch: int
    loss: float
    validation_accuracy: float | None
    density: float
    densities: Mapping[str, float]
    exploration: float
    silent: Mapping[str, int] | None = field(default=None, metadata=OPTIONAL)
    saturated: Mapping[str, int] | None = field(default=None, metadata=OPTIONAL)
    rates: Mapping[str, float] | None = field(default=None, metadata=OPTIONAL)
    beyond_range: Mapping[str, float] | None = field(default=None, metadata=OPTIONAL)


_EPOCH = TypeAdapter(Epoch)


def read_history(entries: Iterable[Mapping[str, Any]]) -> list[Epoch]:
    """The epochs of a model.pt's history, in order.

    Raises:
        DataError: where an entry is no record of an epoch.
    """
    known = {one.name for one in fields(Epoch)}
    history = []
    for entry in entries:
        values = {key: entry[key] for key in entry if key in known}
        try:
            history.append(Epoch(**values))
            _EPOCH.validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise DataError(
                f"the history holds an epoch whose {place} is of another kind than it has to be"
            ) from None
        except TypeError:
            raise DataError(
                f"the history holds an epoch with {', '.join(map(str, entry)) or 'nothing'}"
            ) from None
    return history


def kept_epoch(history: Sequence[Epoch]) -> int:
    """Index of the epoch whose weights a training keeps.

    That of the best validation accuracy, the latest of equals; the last where nothing was
    held back. Epochs before the network became as sparse as it is are no candidates.

    Args:
        history: at least one epoch.
    """

    def rank(index: int) -> tuple[float, int]:
        return history[index].validation_accuracy or 0.0, index

    density = history[-1].density
    return max((i for i, epoch in enumerate(history) if epoch.density == density), key=rank)


@dataclass(frozen=True)
class LayerMoves:
    """What an update of the masks moved in a layer.

    Attributes:
        pruned, grown: connections.
        connections: there are after it.
    """

    pruned: int
    grown: int
    connections: int


@dataclass(frozen=True)
class MaskUpdate:
    """What an update of the masks moved, as `updates.json` keeps it.

    Attributes:
        iteration: optimiser steps done, from 1.
        layers: name -> its moves, of the sparse layers.
    """

    iteration: int
    layers: Mapping[str, LayerMoves]
