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
from esl_lava.sparsity.growth import GROW, GrowthRule
from esl_lava.sparsity.layers import Layer
from esl_lava.sparsity.masks import draw
from esl_lava.sparsity.optimizer import check_momentum, check_optimizer
from esl_lava.sparsity.prune import PRUNE, PruneRule
from esl_lava.sparsity.redistribution import REDISTRIBUTE, Statistic
from esl_lava.sparsity.schedule import SCHEDULES, Schedule
from esl_lava.sparsity.stores import DenseStore, SparseStore
from esl_lava.sparsity.weights import SparseWeight

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Rules:
    """How a network evolves.

    Attributes:
        schedule: when connections move, and what share of them.
        prune: which go.
        growth: the growth rule's name.
        grow: where new ones appear.
        statistic: what the layers share growth out by; None where each regrows its own.
        by_momentum: whether one of the rules goes by momentum.
        t_dense: iterations trained dense before.
    """

    schedule: Schedule
    prune: PruneRule
    growth: str
    grow: GrowthRule
    statistic: Statistic | None
    by_momentum: bool
    t_dense: int

    def is_due(self, iteration: int, waiting: bool) -> bool:
        """Whether masks are updated after an iteration, as the schedule has it or belatedly."""
        if iteration <= self.t_dense:
            return False
        return self.schedule.due(iteration) or (waiting and iteration <= self.schedule.t_end)


def choose_rules(
    prune: str,
    growth: str,
    redistribution: str,
    schedule: str,
    *,
    alpha: float,
    t_iter: int,
    t_end: int,
    t_dense: int,
) -> Rules:
    """The rules of these names; arguments are those of `MaskEvolver`.

    Raises:
        ConfigError: for an unknown name, or a value out of range.
    """
    timing = _choose(SCHEDULES, "schedule", schedule)
    rules = Rules(
        schedule=timing(alpha=alpha, t_iter=t_iter, t_end=t_end),
        prune=_choose(PRUNE, "prune rule", prune),
        growth=growth,
        grow=_choose(GROW, "growth rule", growth),
        statistic=_choose(REDISTRIBUTE, "redistribution", redistribution),
        by_momentum="momentum" in (growth, redistribution),
        t_dense=t_dense,
    )
    if t_dense < 0:
        raise ConfigError(f"t_dense {t_dense} is negative")
    return rules


def check_layers(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rules: Rules,
    weights: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
) -> None:
    """Refuse weights that the rules or the optimiser cannot make sparse.

    Args:
        model: what the layers are in.
        optimizer: what is to train them.
        rules: the evolver's.
        weights, sparse: what `layers.choose` chose.

    Raises:
        ConfigError: naming the layer, or the optimiser.
    """
    needs = {
        f"growth {rules.growth!r}": rules.growth == "momentum",
        f"t_dense {rules.t_dense}": rules.t_dense > 0,
    }
    for name, layer in weights.items():
        if isinstance(layer.weight, SparseWeight):
            dense = {**needs, "keep_dense": name not in sparse}
            _check_stored(name, layer.weight, model, [what for what in dense if dense[what]])
    trained = {name: layer.parameter for name, layer in sparse.items()}
    check_optimizer(optimizer, trained)
    if rules.by_momentum:
        check_momentum(optimizer, trained)


def build_stores(
    found: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
    counts: Sequence[int],
    optimizer: torch.optim.Optimizer,
    *,
    dense: bool,
    seed: int,
) -> list[DenseStore | SparseStore]:
    """The layers to make sparse, with rank 0's connections and generators. Collective.

    Args:
        found: everything that `layers.survey` found.
        sparse: those to make sparse.
        counts: the connections of each.
        optimizer: what trains them.
        dense: whether they begin with all connections.
        seed: non-negative.
    """
    stores: list[DenseStore | SparseStore] = []
    # Places do not depend on what is chosen; what is no weight layer by itself comes last.
    places = sorted(found, key=lambda name: bool(found[name].other))
    for (name, layer), number in zip(sparse.items(), counts):
        generator = _generator(seed, places.index(name))
        device = layer.parameter.device
        where = None
        if not dense:
            where = draw(number, layer.size, generator).to(device)
            where = ranks.take_first(where, device)
        generator.set_state(ranks.take_first(generator.get_state(), device))
        kept = (layer, optimizer, number, generator)
        if isinstance(layer.weight, SparseWeight):
            assert where is not None  # t_dense is refused
            stores.append(SparseStore(*kept, layer.weight, where))
        else:
            stores.append(DenseStore(*kept, layer.parameter, where))
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


def _check_stored(name: str, weight: SparseWeight, model: nn.Module, rules: list[str]) -> None:
    """Refuse what a layer that stores only its connections cannot do.

    Args:
        name: the layer's.
        weight: its connections.
        model: the model the layer is in.
        rules: those given that need weights or moments of all possible connections.

    Raises:
        ConfigError: naming the layer and the rule.
    """
    for rule in rules:
        raise ConfigError(
            f"layer {name}: {rule} needs weights or moments of connections that do not exist, "
            "and this layer stores only the existing ones"
        )
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ConfigError(
            f"layer {name}: DistributedDataParallel cannot follow weights that change in number"
        )
    if weight.values.device.type != "cpu":
        raise ConfigError(
            f"layer {name}: its connections are on {weight.values.device}; "
            "layers that store only these train on the CPU"
        )


def _choose(table: Mapping[str, T], what: str, name: str) -> T:
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]


def _generator(seed: int, place: int) -> torch.Generator:
    """A CPU generator for one layer, the same in every process and on every platform."""
    state = np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
