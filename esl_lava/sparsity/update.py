"""The update of the masks of a network: prune connections and grow others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.arrays import are_positions, count_nonfinite
from esl_lava.sparsity.construction import Rules
from esl_lava.sparsity.growth import GROW, draw_random
from esl_lava.sparsity.optimizer import gradients, has_momentum
from esl_lava.sparsity.prune import PRUNE, pick_smallest
from esl_lava.sparsity.records import Update
from esl_lava.sparsity.redistribution import REDISTRIBUTE, ActiveWeights, share_out
from esl_lava.sparsity.stores import CALL_ORDER, DenseStore, Store

_log = logging.getLogger(__name__)


class Updater:
    """Updates the masks of a network by its rules.

    Attributes:
        waiting: whether an update is overdue and waits for finite gradients.
    """

    def __init__(
        self, layers: Sequence[Store], rules: Rules, optimizer: torch.optim.Optimizer
    ) -> None:
        self._layers = layers
        self._rules = rules
        self._optimizer = optimizer
        self.waiting = False
        self._random_layers: set[str] = set()  # layers whose random growth is in the log

    def rewire(self, iteration: int) -> Update | None:
        """Update the masks and return the record; None if the update has to wait."""
        fraction = self._rules.schedule.fraction(iteration)
        layers = [layer for layer in self._layers if layer.parameter.requires_grad]
        active = [_finite_weights(layer, iteration) for layer in layers]
        for layer in layers:
            layer.moments()  # refuses unknown moments before any connection moves
        if self._must_wait(layers, iteration):
            return None
        values = [weights.values for weights in active]
        free = [layer.size - len(weights.values) for layer, weights in zip(layers, active)]
        prune, statistic = PRUNE[self._rules.prune], REDISTRIBUTE[self._rules.redistribution]
        statistics = None
        if statistic is not None:
            statistics = {layer.name: statistic(weights) for layer, weights in zip(layers, active)}
        pruned, grown = share_out(prune, values, fraction, free, statistics)
        drops = [
            weights.positions.index_select(0, prune.pick(weights.values, n))
            for weights, n in zip(active, pruned)
        ]
        # The check precedes growth, because the numbers to grow determine how often growth
        # communicates with the other ranks.
        numbers = torch.tensor(grown, device=self._layers[0].parameter.device)
        ranks.check_agreement([numbers, *drops], "connections to prune", iteration)
        grows = [self._choose_growth(layer, n, iteration) for layer, n in zip(layers, grown)]
        move(layers, drops, grows)
        self.waiting = False
        moved = {layer: (len(drop), len(grow)) for layer, drop, grow in zip(layers, drops, grows)}
        records = tuple(layer.record(*moved.get(layer, (0, 0))) for layer in self._layers)
        masks = (layer.active.tensor for layer in self._layers)
        ranks.check_agreement(masks, "masks", iteration)
        return Update(iteration, fraction, records)

    def _must_wait(self, layers: Sequence[Store], iteration: int) -> bool:
        """Check whether a due update has to wait for finite gradients."""
        lacks_momentum = self._rules.uses_momentum and not all(
            has_momentum(self._optimizer, layer.parameter) for layer in layers
        )
        if not layers or not (self._rules.growth == "gradient" or lacks_momentum):
            return False
        broken = any(count_nonfinite(gradient) for gradient in gradients(self._optimizer))
        # A step with non-finite gradients makes moments non-finite; a skipped step does not.
        stepped = broken and any(
            count_nonfinite(moment) for layer in layers for moment in layer.moments().values()
        )
        broken, stepped = ranks.find_any([broken, stepped], layers[0].parameter.device)
        if not broken or stepped:
            return False
        ends = iteration >= self._rules.schedule.t_end
        if ends or not self.waiting:
            _log.warning(
                "iteration %d: gradients are NaN or infinite (did GradScaler skip a step?); the "
                "update of the masks %s",
                iteration,
                "is skipped, because this is its last iteration"
                if ends
                else "waits for finite gradients",
            )
        self.waiting = not ends
        return True

    def _choose_growth(self, layer: Store, n: int, iteration: int) -> Tensor:
        """Choose the positions that a layer grows; at random if all its scores are 0.

        Raises:
            ConfigError: if the scores are gradients, and the gradients of all layers are 0.
        """
        site = layer.site()
        positions = GROW[self._rules.growth](site, n)
        scores = {"gradient": site.gradient, "momentum": site.momentum}.get(self._rules.growth)
        if n == 0 or scores is None:
            return positions
        # These positions have the largest scores. If they are 0, all scores are 0.
        if scores()(positions).any():
            self._random_layers.discard(layer.name)
            return positions
        nonzero = any(bool(gradient.any()) for gradient in gradients(self._optimizer))
        device = site.mask.device
        if self._rules.growth == "gradient" and not any(ranks.find_any([nonzero], device)):
            raise ConfigError(
                f"layer {layer.name}: its gradient and all other gradients of the optimiser are "
                f"0, so growth cannot rank positions; {CALL_ORDER}",
                "missing",
                layer=layer.name,
            )
        if layer.name not in self._random_layers:
            _log.warning(
                "iteration %d: layer %s: its %s is 0 at all free positions (a dead layer?); until "
                "it is not 0, the new connections of the layer are drawn at random",
                iteration,
                layer.name,
                self._rules.growth,
            )
        self._random_layers.add(layer.name)
        return draw_random(site, n)


def move(layers: Sequence[Store], drops: Sequence[Tensor], grows: Sequence[Tensor]) -> None:
    """Move connections of a network, in place: remove `drops` and add equally many `grows`.

    Args:
        layers: the sparse layers of the network.
        drops: one (n,) int64 tensor of ascending flat positions per layer.
        grows: as `drops`. A layer may grow more or fewer connections than it drops.

    Raises:
        AssertionError: if a dropped position is not a connection, a grown position is one,
            positions are not strictly ascending within the layer, or the total numbers differ.
            In this case no layer is changed.
    """
    for layer, drop, grow in zip(layers, drops, grows):
        active = layer.active
        for name, positions in (("dropped", drop), ("grown", grow)):
            if not are_positions(positions, active.size):
                raise AssertionError(
                    f"{name} positions are not strictly ascending within 0..{active.size - 1}"
                )
        if not bool(active.contains(drop).all()):
            raise AssertionError("a dropped position was not a connection")
        if bool(active.contains(grow).any()):
            raise AssertionError("a grown position was a connection before the update")
    dropped, grown = (sum(part.numel() for part in parts) for parts in (drops, grows))
    if dropped != grown:
        raise AssertionError(f"{dropped} connections are dropped, but {grown} are grown")
    for layer, drop, grow in zip(layers, drops, grows):
        layer.rewire(drop, grow)


def end_dense_phase(layers: Sequence[DenseStore], iteration: int) -> Update:
    """Prune every sparse layer to its largest |weights|; ties: keep the higher index.

    Raises:
        ConfigError: if a layer is frozen.
        UserError: if a weight is NaN or infinite, or ranks disagree about the connections to prune.
    """
    drops = []
    for layer in layers:
        if not layer.parameter.requires_grad:
            raise ConfigError(
                f"layer {layer.name}: its weight is frozen at iteration t_dense {iteration}, where "
                "the dense phase ends and weights are pruned",
                "conflict",
                key="t_dense",
                value=iteration,
                layer=layer.name,
            )
        values = _finite_weights(layer, iteration).values
        drops.append(pick_smallest(values, len(values) - layer.connections))
    ranks.check_agreement(drops, "connections to prune", iteration)
    for layer, drop in zip(layers, drops):
        layer.prune(drop)
    records = tuple(layer.record(len(drop), 0) for layer, drop in zip(layers, drops))
    kept = sum(layer.connections for layer in layers) / sum(layer.size for layer in layers)
    return Update(iteration, 1 - kept, records)


def _finite_weights(layer: Store, iteration: int) -> ActiveWeights:
    """Return the connections of a layer; refuse weights that are NaN or infinite."""
    weights = layer.active_weights()
    broken = count_nonfinite(weights.values)
    if broken:
        raise UserError(
            f"layer {layer.name}: the weights of {broken} of its {weights.values.numel()} "
            f"connections are NaN or infinite at iteration {iteration}; the training diverged",
            "not-finite",
            value=broken,
            layer=layer.name,
        )
    return weights
