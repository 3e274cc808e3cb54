"""Records of a training: its epochs and the updates of its masks."""

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
    """The record of one epoch. `model.pt` stores it as `as_values` of this class.

    The samples of `silent`, `saturated` and `rates` are those that the epoch was examined on,
    usually the validation samples.

    Attributes:
        epoch: number of the epoch, from 1.
        loss: mean loss over its batches.
        validation_accuracy: share of correct decisions on the validation samples, 0..1; None if
            there are none.
        density: weights over positions of all weight layers together.
        densities: layer name -> weights over positions of the layer.
        exploration: R_s, the share of positions of the sparse layers that were a connection at some
            time, 0..1.
        silent: layer name -> number of neurons without a spike on all samples; None in records of
            versions that did not count them.
        saturated: layer name -> number of neurons that fire at every step of every sample; layers
            whose neurons can fire only once are left out.
        rates: layer name -> mean spikes per neuron and step, 0..1.
        beyond_range: layer name -> share of weights outside the range that a sound network
            needs (`training.kinds.Kind.weight_range`), 0..1; None in records of versions that did
            not count them.
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
    """Return the epochs of the history of a `model.pt`, in order.

    Raises:
        DataError: if an entry is not the record of an epoch.
    """
    known = {one.name for one in fields(Epoch)}
    history: list[Epoch] = []
    for entry in entries:
        values = {key: entry[key] for key in entry if key in known}
        try:
            epoch = Epoch(**values)
            _EPOCH.validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            key = f"history.{error.errors()[0]['loc'][0]}"
            raise DataError(
                f"{key}: epoch {len(history) + 1} has a value of the wrong type", "damaged", key=key
            ) from None
        except TypeError:  # a key is missing
            required = (one.name for one in fields(Epoch) if one.metadata != OPTIONAL)
            missing = ", ".join(name for name in required if name not in values)
            raise DataError(
                f"history: the record of epoch {len(history) + 1} lacks {missing}",
                "damaged",
                key="history",
            ) from None
        history.append(epoch)
    return history


def kept_epoch(history: Sequence[Epoch]) -> int:
    """Return the index of the epoch whose weights a training keeps.

    This is the epoch of the best validation accuracy, the latest if several are equal; without a
    validation split it is the last epoch. Epochs in which the network had another density than
    at the end are not considered.

    Args:
        history: at least one epoch.
    """

    def rank(index: int) -> tuple[float, int]:
        return history[index].validation_accuracy or 0.0, index

    density = history[-1].density
    return max((i for i, epoch in enumerate(history) if epoch.density == density), key=rank)


@dataclass(frozen=True)
class LayerMoves:
    """The connections that an update of the masks moved in one layer.

    Attributes:
        pruned, grown: number of connections that were pruned and grown. They differ if layers
            exchange connections, and at the end of a dense phase, where none is grown.
        connections: number of connections after the update.
    """

    pruned: int
    grown: int
    connections: int


@dataclass(frozen=True)
class MaskUpdate:
    """One update of the masks, as stored in `updates.json`.

    Attributes:
        iteration: number of optimiser steps done before the update, from 1.
        layers: name of a sparse layer -> its moves.
    """

    iteration: int
    layers: Mapping[str, LayerMoves]
