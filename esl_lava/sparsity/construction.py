"""Construction of an evolver: look up its rules, check its layers and draw their connections."""

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
"""Largest number of positions of a layer that stores only connections and grows by momentum. The
two moments of all these positions take 512 MiB."""


@dataclass(frozen=True)
class Rules:
    """Schedule and rules by which the masks of a network evolve.

    Attributes:
        schedule: the iterations of the updates, and the share of connections that they move.
        prune, growth, redistribution: names of the rules.
        t_dense: number of iterations of dense training at the start.

    Raises:
        ConfigError: for an unknown name or a value out of range.
    """

    schedule: Schedule
    prune: str
    growth: str
    redistribution: str
    t_dense: int

    def __post_init__(self) -> None:
        look_up(PRUNE, "prune", self.prune)
        look_up(GROW, "growth", self.growth)
        look_up(REDISTRIBUTE, "redistribution", self.redistribution)
        if self.t_dense < 0:
            raise ConfigError(
                f"t_dense {self.t_dense} is negative",
                "range",
                key="t_dense",
                value=self.t_dense,
                limit=0,
            )

    @property
    def uses_momentum(self) -> bool:
        """Whether one of the rules uses the momentum of the optimiser."""
        return "momentum" in (self.growth, self.redistribution)


def check_layers(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rules: Rules,
    weights: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
) -> None:
    """Check that the rules and the optimiser can make the chosen layers sparse.

    Args:
        model: the model.
        optimizer: the optimiser of the weights.
        rules: the rules of the evolver.
        weights: the weight layers by name, as `layers.choose_layers` returns them.
        sparse: the layers of `weights` that become sparse.

    Raises:
        ConfigError: if a layer that stores only its connections is to stay dense, is to be dense at
            the start, has too many positions for growth by momentum, is in a
            DistributedDataParallel or is not on the CPU; or as `check_optimizer`.
    """
    for name, layer in weights.items():
        if not isinstance(layer.weight, SparseWeight):
            continue
        for key, value, wish, needs_dense in (
            ("t_dense", rules.t_dense, f"t_dense {rules.t_dense}", rules.t_dense > 0),
            ("keep_dense", name, "staying dense (by keep_dense or layers)", name not in sparse),
        ):
            if needs_dense:
                raise ConfigError(
                    f"layer {name}: {wish} needs the weights of all positions, but this layer "
                    "stores only its connections",
                    "unsupported",
                    key=key,
                    value=value,
                    layer=name,
                )
        if rules.growth == "momentum" and layer.size > MAX_MOMENTS:
            raise ConfigError(
                f"layer {name}: growth 'momentum' needs moments of all {layer.size} positions, "
                "but in a layer that stores only connections it supports at most "
                f"{MAX_MOMENTS} positions",
                "too-large",
                key="growth",
                value=layer.size,
                limit=MAX_MOMENTS,
                layer=name,
            )
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise ConfigError(
                f"layer {name}: DistributedDataParallel does not support a weight whose number of "
                "stored connections changes",
                "unsupported",
                layer=name,
            )
        if layer.parameter.device.type != "cpu":
            raise ConfigError(
                f"layer {name}: its connections are on the device {layer.parameter.device}; a "
                "layer that stores only connections trains on the CPU",
                "unsupported",
                value=str(layer.parameter.device),
                limit="cpu",
                layer=name,
            )
    parameters = {name: layer.parameter for name, layer in sparse.items()}
    check_optimizer(optimizer, parameters, uses_momentum=rules.uses_momentum)


def build_stores(
    candidates: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
    counts: Sequence[int],
    optimizer: torch.optim.Optimizer,
    *,
    dense: bool,
    seed: int,
) -> list[Store]:
    """Build the stores of the sparse layers. All ranks call this function together.

    Every rank gets the connections and the generators of rank 0.

    Args:
        candidates: the layers that `layers.find_layers` returns.
        sparse: the layers of `candidates` that become sparse.
        counts: the number of connections of each layer once it is sparse.
        optimizer: the optimiser of their weights.
        dense: whether all positions are connections at the start.
        seed: the random seed, not negative.
    """
    stores: list[Store] = []
    # The seed of a layer depends on its place among all candidates, whichever of them are sparse.
    # Weight layers come first.
    places = sorted(candidates, key=lambda name: bool(candidates[name].exclusion))
    for (name, layer), count in zip(sparse.items(), counts):
        # The layer seed is the same in every process and on every platform.
        layer_seed = np.random.SeedSequence([seed, places.index(name)]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(layer_seed[0]))
        device = layer.parameter.device
        positions = None
        if not dense:
            positions = draw(count, layer.size, generator).to(device)
            positions = ranks.broadcast_first(positions, device)
        generator.set_state(ranks.broadcast_first(generator.get_state(), device))
        kind = SparseStore if isinstance(layer.weight, SparseWeight) else DenseStore
        stores.append(kind(layer, optimizer, count, generator, positions))
    return stores


def explain_dense(
    candidates: Mapping[str, Layer],
    sparse: Mapping[str, Layer],
    keep_dense: set[str],
    *,
    warn: bool,
) -> dict[str, str]:
    """Return the reason for each layer that stays dense, by name.

    Args:
        candidates: the layers that `layers.find_layers` returns.
        sparse: the layers of `candidates` that become sparse.
        keep_dense: the names of layers that the user keeps dense.
        warn: whether to log a warning that names the layers that the user did not mention.
    """
    reasons = {
        name: "named by keep_dense" if name in keep_dense else layer.exclusion or "not in layers"
        for name, layer in candidates.items()
        if name not in sparse
    }
    unmentioned = [
        f"{name} ({reason})" for name, reason in reasons.items() if warn and name not in keep_dense
    ]
    if unmentioned:
        _log.warning(
            "these parameters stay dense and do not count in the density: %s; name a parameter in "
            "layers to make it sparse, or in keep_dense to avoid this warning",
            ", ".join(unmentioned),
        )
    return reasons


def look_up(table: Mapping[str, T], key: str, name: str) -> T:
    """Return the entry of a table of rules.

    Args:
        table: the rules by name.
        key: the argument that names the rule.
        name: the name of the rule.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in table:
        raise ConfigError(
            f"{key} {name!r} is unknown; known are {', '.join(table)}",
            "unknown",
            key=key,
            value=name,
            limit=tuple(table),
        )
    return table[name]
