"""What an evolver is built of: its rules, by name, and its layers, each checked and drawn."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from esl_lava.errors import ConfigError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.growth import GROW
from esl_lava.sparsity.layers import Layer
from esl_lava.sparsity.optimizer import check_optimizer
from esl_lava.sparsity.prune import PRUNE
from esl_lava.sparsity.redistribution import REDISTRIBUTE
from esl_lava.sparsity.schedule import Schedule
from esl_lava.sparsity.sets import draw
from esl_lava.sparsity.stores import DenseStore, SparseStore, Store
from esl_lava.sparsity.weights import SparseWeight

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_MOMENTS = 1 << 26
"""Positions of a layer that stores only connections up to which it may grow by momentum: two
moments of each are 512 MiB."""


@dataclass(frozen=True)
class Rules:
    """How a network evolves.

    Attributes:
        schedule: when connections move, and what share of them.
        prune, growth, redistribution: names of the rules by which they do.
        t_dense: iterations trained dense before.

    Raises:
        ConfigError: for an unknown name, or a value out of range.
    """

    schedule: Schedule
    prune: str
    growth: str
    redistribution: str
    t_dense: int

    def __post_init__(self) -> None:
        look_up(PRUNE, "prune rule", self.prune)
        look_up(GROW, "growth rule", self.growth)
        look_up(REDISTRIBUTE, "redistribution", self.redistribution)
        if self.t_dense < 0:
            raise ConfigError(f"t_dense {self.t_dense} is negative")

    @property
    def by_momentum(self) -> bool:
        """Whether one of the rules goes by momentum."""
        return "momentum" in (self.growth, self.redistribution)


def check_layers(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rules: Rules,
    weights: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
) -> None:
    """Refuse weights, as `layers.choose` chose them, that rules or optimiser cannot make sparse.

    Raises:
        ConfigError: naming the layer, or the optimiser.
    """
    needs = {f"t_dense {rules.t_dense}": rules.t_dense > 0}
    for name, layer in weights.items():
        if not isinstance(layer.weight, SparseWeight):
            continue
        for rule, dense in {**needs, "keep_dense": name not in sparse}.items():
            if dense:
                raise ConfigError(
                    f"layer {name}: {rule} needs weights of connections that do not exist, and "
                    "this layer stores only the existing ones"
                )
        if rules.growth == "momentum" and layer.size > MAX_MOMENTS:
            raise ConfigError(
                f"layer {name}: growth 'momentum' needs moments of all its {layer.size} positions, "
                f"and layers that store only connections keep {MAX_MOMENTS} at most"
            )
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise ConfigError(
                f"layer {name}: DistributedDataParallel cannot follow weights that change in number"
            )
        if layer.parameter.device.type != "cpu":
            raise ConfigError(
                f"layer {name}: its connections are on {layer.parameter.device}; "
                "layers that store only these train on the CPU"
            )
    trained = {name: layer.parameter for name, layer in sparse.items()}
    check_optimizer(optimizer, trained, by_momentum=rules.by_momentum)


def build_stores(
    found: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
    counts: Sequence[int],
    optimizer: torch.optim.Optimizer,
    *,
    dense: bool,
    seed: int,
) -> list[Store]:
    """The layers to make sparse, with rank 0's connections and generators. Collective.

    Args:
        found, sparse: what `layers.survey` found, and of it what is to be sparse.
        counts: the connections of each sparse layer.
        optimizer: what trains them.
        dense: whether they begin with all connections.
        seed: non-negative.
    """
    stores: list[Store] = []
    # Places do not depend on what is chosen; what is no weight layer by itself comes last.
    places = sorted(found, key=lambda name: bool(found[name].other))
    for (name, layer), number in zip(sparse.items(), counts):
        # The same in every process and on every platform.
        drawn = np.random.SeedSequence([seed, places.index(name)]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(drawn[0]))
        device = layer.parameter.device
        where = None
        if not dense:
            where = draw(number, layer.size, generator).to(device)
            where = ranks.take_first(where, device)
        generator.set_state(ranks.take_first(generator.get_state(), device))
        kind = SparseStore if isinstance(layer.weight, SparseWeight) else DenseStore
        stores.append(kind(layer, optimizer, number, generator, where))
    return stores


def explain_dense(
    found: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
    keep_dense: set[str],
    *,
    warn: bool,
) -> dict[str, str]:
    """Name -> why, of what is not made sparse; a warning names what nobody asked to keep so."""
    left = {
        name: "kept dense as asked" if name in keep_dense else layer.other or "not in layers"
        for name, layer in found.items()
        if name not in sparse
    }
    unasked = [f"{name} ({why})" for name, why in left.items() if warn and name not in keep_dense]
    if unasked:
        _log.warning(
            "left dense and not counted: %s; layers makes one sparse, keep_dense says "
            "that it is to stay so",
            ", ".join(unasked),
        )
    return left


def look_up(table: Mapping[str, T], what: str, name: str) -> T:
    """The entry of a table of rules; ConfigError for an unknown name."""
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]
