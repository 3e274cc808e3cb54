"""The update of a network's masks: which connections go, and where others appear."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.arrays import are_positions, count_broken
from esl_lava.sparsity.construction import Rules
from esl_lava.sparsity.growth import GROW, uniformly
from esl_lava.sparsity.optimizer import gradients, has_momentum
from esl_lava.sparsity.prune import PRUNE, closest_to_zero
from esl_lava.sparsity.records import Update
from esl_lava.sparsity.redistribution import REDISTRIBUTE, Active, share_out
from esl_lava.sparsity.stores import ORDER, DenseStore, Store

_log = logging.getLogger(__name__)


class Updater:
    """Moves a network's connections by its rules.

    Attributes:
        waiting: whether an update that was due waits for finite gradients.
    """

    def __init__(
        self, layers: Sequence[Store], rules: Rules, optimizer: torch.optim.Optimizer
    ) -> None:
        self._layers = layers
        self._rules = rules
        self._optimizer = optimizer
        self.waiting = False
        self._blind: set[str] = set()  # layers that grow at random, of which the log knows

    def rewire(self, iteration: int) -> Update | None:
        """Update the masks, or have the update wait."""
        fraction = self._rules.schedule.fraction(iteration)
        layers = [layer for layer in self._layers if layer.parameter.requires_grad]
        held = [_held(layer, iteration) for layer in layers]
        for layer in layers:
            layer.moments()  # refuses unknown ones before anything moves
        if self._must_wait(layers, iteration):
            return None
        values = [active.values for active in held]
        free = [layer.size - len(active.values) for layer, active in zip(layers, held)]
        prune, statistic = PRUNE[self._rules.prune], REDISTRIBUTE[self._rules.redistribution]
        statistics = None
        if statistic is not None:
            statistics = {layer.name: statistic(active) for layer, active in zip(layers, held)}
        pruned, grown = share_out(prune, values, fraction, free, statistics)
        drops = [
            active.positions.index_select(0, prune.pick(active.values, n))
            for active, n in zip(held, pruned)
        ]
        # Before growth, which talks to the other ranks as often as there is to grow.
        numbers = torch.tensor(grown, device=self._layers[0].parameter.device)
        ranks.agree([numbers, *drops], "connections to prune", iteration)
        grows = [self._grown(layer, n, iteration) for layer, n in zip(layers, grown)]
        move(layers, drops, grows)
        self.waiting = False
        moved = {layer: (len(drop), len(grow)) for layer, drop, grow in zip(layers, drops, grows)}
        records = tuple(layer.record(*moved.get(layer, (0, 0))) for layer in self._layers)
        ranks.agree((layer.taken.tensor for layer in self._layers), "masks", iteration)
        return Update(iteration, fraction, records)

    def _must_wait(self, layers: Sequence[Store], iteration: int) -> bool:
        """Whether an update that is due has to wait for finite gradients."""
        unstepped = self._rules.by_momentum and not all(
            has_momentum(self._optimizer, layer.parameter) for layer in layers
        )
        if not layers or not (self._rules.growth == "gradient" or unstepped):
            return False
        broken = any(count_broken(gradient) for gradient in gradients(self._optimizer))
        # What a step with broken gradients leaves behind, and one that was left out does not.
        spoilt = broken and any(
            count_broken(moment) for layer in layers for moment in layer.moments().values()
        )
        broken, spoilt = ranks.find_any([broken, spoilt], layers[0].parameter.device)
        if not broken or spoilt:
            return False
        ends = iteration >= self._rules.schedule.t_end
        if ends or not self.waiting:
            _log.warning(
                "iteration %d: gradients are NaN or infinite, as where GradScaler leaves out a "
                "step; the update of the masks %s",
                iteration,
                "is left out, as rewiring ends here" if ends else "waits for finite ones",
            )
        self.waiting = not ends
        return True

    def _grown(self, layer: Store, n: int, iteration: int) -> Tensor:
        """Where a layer grows; at random where its scores are all 0 and so say nothing.

        Raises:
            ConfigError: when these are gradients, and there are none in the other layers.
        """
        site = layer.site()
        grown = GROW[self._rules.growth](site, n)
        scores = {"gradient": site.gradient, "momentum": site.momentum}.get(self._rules.growth)
        # None of the free slots has a larger score than these.
        if n == 0 or scores is None:
            return grown
        if scores()(grown).any():
            self._blind.discard(layer.name)
            return grown
        some = any(bool(gradient.any()) for gradient in gradients(self._optimizer))
        if self._rules.growth == "gradient" and not any(ranks.find_any([some], site.mask.device)):
            raise ConfigError(
                f"layer {layer.name}: its gradient is 0 everywhere, as is every other that the "
                f"optimiser has, so there is nothing to grow by; {ORDER}"
            )
        if layer.name not in self._blind:
            _log.warning(
                "iteration %d: layer %s: its %s is 0 wherever it could grow (a dead layer?); until "
                "that changes its new connections are drawn at random",
                iteration,
                layer.name,
                self._rules.growth,
            )
        self._blind.add(layer.name)
        return uniformly(site, n)


def move(layers: Sequence[Store], drops: Sequence[Tensor], grows: Sequence[Tensor]) -> None:
    """Move connections of a network, in place: `drops` off, equally many `grows` on.

    Args:
        layers: the network's sparse layers.
        drops: one (n,) int64 of flat positions a layer, ascending.
        grows: as `drops`; a layer may grow more or fewer than it drops.

    Raises:
        AssertionError: when a dropped position is not active, a grown one is, positions
            are not strictly ascending within the layer, or the numbers over all layers
            differ. No layer is changed then.
    """
    for layer, drop, grow in zip(layers, drops, grows):
        taken = layer.taken
        for name, where in (("dropped", drop), ("grown", grow)):
            if not are_positions(where, taken.size):
                raise AssertionError(f"{name} positions are not strictly ascending within the mask")
        if not bool(taken.contains(drop).all()):
            raise AssertionError("a dropped connection was not active")
        if bool(taken.contains(grow).any()):
            raise AssertionError("a grown connection was active before the update")
    dropped, grown = (sum(part.numel() for part in parts) for parts in (drops, grows))
    if dropped != grown:
        raise AssertionError(f"{dropped} connections dropped but {grown} grown")
    for layer, drop, grow in zip(layers, drops, grows):
        layer.rewire(drop, grow)


def end_dense_phase(layers: Sequence[DenseStore], iteration: int) -> Update:
    """Every sparse layer of the network keeps its largest weights, ties the higher index.

    Raises:
        ConfigError: when a layer is frozen.
        UserError: when a weight is NaN or infinite, or ranks disagree.
    """
    drops = []
    for layer in layers:
        if not layer.parameter.requires_grad:
            raise ConfigError(
                f"layer {layer.name}: its weight is frozen at iteration {iteration}, "
                "where the dense phase ends (t_dense) and weights go"
            )
        values = _held(layer, iteration).values
        drops.append(closest_to_zero(values, len(values) - layer.connections))
    ranks.agree(drops, "connections to prune", iteration)
    for layer, drop in zip(layers, drops):
        layer.thin(drop)
    records = tuple(layer.record(len(drop), 0) for layer, drop in zip(layers, drops))
    kept = sum(layer.connections for layer in layers) / sum(layer.size for layer in layers)
    return Update(iteration, 1 - kept, records)


def _held(layer: Store, iteration: int) -> Active:
    """A layer's connections; refuses NaN and infinity among their weights."""
    held = layer.held()
    broken = count_broken(held.values)
    if broken:
        raise UserError(
            f"layer {layer.name}: {broken} of {held.values.numel()} active weights are NaN "
            f"or infinite at iteration {iteration}; the training diverged"
        )
    return held
