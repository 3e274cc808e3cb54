"""The mask evolver: sparse training from scratch around any torch model and optimiser."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.arrays import count, count_broken
from esl_lava.sparsity.density import allocate
from esl_lava.sparsity.growth import GROW, SCORES, uniformly
from esl_lava.sparsity.layers import choose, sparse_weights, survey, weight_layers
from esl_lava.sparsity.masks import draw, move
from esl_lava.sparsity.optimizer import (
    any_gradient,
    broken_gradient,
    check_momentum,
    check_optimizer,
)
from esl_lava.sparsity.prune import PRUNE, closest_to_zero
from esl_lava.sparsity.records import LayerUpdate, Update
from esl_lava.sparsity.redistribution import REDISTRIBUTE, budget
from esl_lava.sparsity.schedule import SCHEDULES
from esl_lava.sparsity.sets import PositionSet
from esl_lava.sparsity.stores import ORDER, DenseStore, Held, SparseStore, Store, check_stored
from esl_lava.sparsity.weights import SparseWeight

__all__ = ["MaskEvolver", "allocate", "sparse_weights", "weight_layers"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


class MaskEvolver:
    """Makes a model's weight layers sparse and rewires them while it trains.

    Used like a scheduler: `loss.backward(); optimizer.step(); evolver.step()`.
    `layers.survey` says what a weight layer is and how it is called; every other parameter
    that could hold connections is left dense, and a warning and `left_dense` name it.
    Build the evolver after moving the model to its device and before loading a checkpoint
    into it: weights outside the drawn masks are set to 0 at once (unless a dense phase
    comes first). A copy of the model (a mean of its weights, say) is nobody's: multiply it
    by `masks`. After loading other weights into the model call `apply_masks`.

    Each update moves the prune rule's number of connections, but at most the free slots
    there were: in every layer its own, or shared out anew among the layers with a
    redistribution. Once the network is sparse, its connections never change in number, what is
    pruned does not return in the same update, grown weights start at 0 and so do their
    optimiser moments. Moments of inactive weights go on integrating the dense gradient;
    that never reaches the network, as `step` sets inactive weights to 0 after every
    optimiser step and growth resets the moments. (Adam's step count belongs to the whole
    tensor, so a grown weight's first step is about 3.2 learning rates with default betas.)

    Growth by gradient reads `parameter.grad` as the backward pass left it: zero it before
    the next backward pass, not before `step`. Where all gradients of the optimiser are 0, or a
    layer's is None, it refuses. Where those of one layer alone are 0 (a dead layer), or its
    momenta, that layer's new connections are drawn at random, with a warning. Gradients may
    be scaled: only their order within a layer counts.

    An update waits, with a warning, while gradients that it would read are NaN or infinite,
    as those are that make a `torch.amp.GradScaler` leave out the optimiser's step, or while
    there is no momentum yet because such steps were the only ones. It is made after the first
    iteration with finite ones, with the fraction of that iteration, and never after `t_end`.
    Every call of `step` counts as an iteration, whether the optimiser made its step or not.

    A layer whose weight is frozen (`requires_grad` set to False) after the evolver was built
    is not rewired until it is trained again: its mask stays, and so do its weights. Frozen
    layers are to be kept dense when the evolver is built.

    A `SparseWeight` stores only its connections: they begin with the evolver, and are where
    a mask's would be with the same weights, gradients and seed; weights and moments move
    with them. Growth by gradient asks for `dense_gradient` block by block, and
    `wants_dense_gradient` is true before the backward pass of an iteration that ends with
    an update. Growth by momentum and a dense phase, which need what is not stored, are
    refused, as is DistributedDataParallel; without it, average `values.grad` over ranks.

    Everything random comes from one CPU generator a layer, seeded by (seed, the layer's
    place among the weight layers): the same seed gives the same masks on every device.

    Under `torch.distributed` every rank builds an evolver, with the model or with the
    DistributedDataParallel around it, and they start from rank 0's masks and generators.
    The gradient to grow by is the mean over ranks: DDP has averaged `parameter.grad`
    already and averaging again changes nothing; without DDP it is averaged here. Every
    update compares a checksum of what is pruned and of the new masks over all ranks.

    Args:
        model: the model, on its device.
        optimizer: a torch SGD, Adam or AdamW over its weights.
        density: connections over possible ones of the layers being made sparse, (0, 1].
        eps: instead of a density, the paper's Eq. 1 (Erdos-Renyi only).
        densities: instead of both, a density for each sparse layer by name.
        distribution: how a density is spread over the layers, of `DISTRIBUTIONS`.
        keep_dense: names of weight layers that stay dense (and of other parameters, which
            then need no warning).
        layers: names of what is made sparse; by default every weight layer. It may name
            other parameters of at least two dimensions (a lookup table), which are weight
            layers then.
        prune: a name in `PRUNE`.
        growth: a name in `GROW`.
        redistribution: a name in `REDISTRIBUTE`.
        schedule: a name in `SCHEDULES`.
        alpha, t_iter, t_end: see `Schedule`; in optimiser iterations.
        t_dense: iterations trained dense. Then every layer keeps those of its weights
            that are farthest from 0, as many as it is to have connections, and rewiring
            begins. With 0 training is sparse from scratch, from drawn masks; with
            alpha 0 and this it is magnitude pruning of a dense net, and fine-tuning.
        seed: a non-negative integer.

    Attributes:
        iteration: how often `step` was called.
        history: one record per update done.
        left_dense: name -> why, of every parameter of at least two dimensions that is not
            made sparse.

    Raises:
        ConfigError: for an unknown rule, layer or optimiser, for a value out of range,
            for a weight that is no plain parameter, is frozen, shares memory with another
            parameter or is not the optimiser's, or for what a `SparseWeight` cannot do.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        t_end: int,
        density: float | None = None,
        eps: float | None = None,
        densities: Mapping[str, float] | None = None,
        distribution: str = "er",
        keep_dense: Iterable[str] = (),
        layers: Iterable[str] | None = None,
        prune: str = "set",
        growth: str = "random",
        redistribution: str = "none",
        schedule: str = "cosine",
        alpha: float = 0.3,
        t_iter: int = 100,
        t_dense: int = 0,
        seed: int = 0,
    ) -> None:
        timing = _choose(SCHEDULES, "schedule", schedule)
        self.schedule = timing(alpha=alpha, t_iter=t_iter, t_end=t_end)
        self._prune = _choose(PRUNE, "prune rule", prune)
        self._grow = _choose(GROW, "growth rule", growth)
        self._statistic = _choose(REDISTRIBUTE, "redistribution", redistribution)
        for what, number in (("seed", seed), ("t_dense", t_dense)):
            if number < 0:
                raise ConfigError(f"{what} {number} is negative")
        found = survey(model)
        keep_dense = set(keep_dense)
        weights, sparse = choose(found, layers, keep_dense)
        rules = {f"growth {growth!r}": growth == "momentum", f"t_dense {t_dense}": t_dense > 0}
        for name, layer in weights.items():
            if isinstance(layer.weight, SparseWeight):
                needs = {**rules, "keep_dense": name not in sparse}
                check_stored(name, layer.weight, model, [what for what in needs if needs[what]])
        trained = {name: layer.parameter for name, layer in sparse.items()}
        check_optimizer(optimizer, trained)
        if "momentum" in (growth, redistribution):
            check_momentum(optimizer, trained)
        shapes = [layer.shape for layer in sparse.values()]
        counts = allocate(shapes, density, eps, densities, distribution)

        self.iteration = 0
        self.history: list[Update] = []
        self.left_dense = {
            name: "kept dense as asked" if name in keep_dense else layer.other or "not in layers"
            for name, layer in found.items()
            if name not in sparse
        }
        self._t_dense = t_dense
        self._growth = growth
        self._by_momentum = "momentum" in (growth, redistribution)
        self._waiting = False
        self._blind: set[str] = set()  # layers that grow at random, of which the log knows
        self._optimizer = optimizer
        self._sizes = {name: layer.size for name, layer in weights.items()}
        self._layers: list[DenseStore | SparseStore] = []
        # Places do not depend on what is chosen; what is no weight layer by itself comes last.
        places = sorted(found, key=lambda name: bool(found[name].other))
        for (name, layer), number in zip(sparse.items(), counts):
            generator = _generator(seed, places.index(name))
            device = layer.parameter.device
            where = None
            if t_dense == 0:
                where = draw(number, layer.size, generator).to(device)
                where = ranks.from_first(where, device)
            generator.set_state(ranks.from_first(generator.get_state(), device))
            kept = (layer, optimizer, number, generator)
            if isinstance(layer.weight, SparseWeight):
                assert where is not None  # t_dense is refused
                self._layers.append(SparseStore(*kept, layer.weight, where))
            else:
                self._layers.append(DenseStore(*kept, layer.parameter, where))
        self.apply_masks()
        self._expect_gradients()
        unasked = [
            f"{name} ({why})"
            for name, why in self.left_dense.items()
            if layers is None and name not in keep_dense
        ]
        if unasked:
            _log.warning(
                "left dense and not counted: %s; layers makes one sparse, keep_dense says "
                "that it is to stay so",
                ", ".join(unasked),
            )

    @torch.no_grad()
    def step(self) -> Update | None:
        """Count an iteration, zero inactive weights, and rewire when an update is due.

        Call it after every `optimizer.step()`.

        Returns:
            The record of the update, or None when none was due.

        Raises:
            UserError: when an update is due and an active weight is NaN or infinite, or
                a score to grow by is, or ranks disagree about what to prune.
            ConfigError: when the optimiser holds per-weight state of an unknown kind, or
                gradients or momentum to grow by are missing, or a weight is no longer the
                tensor it was.
                The masks are then those before the call; only where ranks agree about
                all that and their new masks differ (UserError) they are not.
        """
        self.iteration += 1
        self.apply_masks()
        try:
            if self.iteration == self._t_dense:
                return self._thin()
            return self._rewire() if self._due(self.iteration) else None
        finally:
            self._expect_gradients()

    def _due(self, iteration: int) -> bool:
        """Whether masks are updated after an iteration, as the schedule has it or belatedly."""
        if iteration <= self._t_dense:
            return False
        return self.schedule.due(iteration) or (self._waiting and iteration <= self.schedule.t_end)

    def _rewire(self) -> Update | None:
        """Update the masks, or have the update wait."""
        fraction = self.schedule.fraction(self.iteration)
        layers = [layer for layer in self._layers if layer.trained]
        held = [self._held(layer) for layer in layers]
        for layer in layers:
            layer.moments()  # refuses unknown ones before anything moves
        if self._must_wait(layers):
            return None
        values = [active.values for active in held]
        free = [layer.size - len(active.values) for layer, active in zip(layers, held)]
        statistics = None
        if self._statistic is not None:
            statistics = {
                layer.name: self._statistic(active) for layer, active in zip(layers, held)
            }
        pruned, grown = budget(self._prune, values, fraction, free, statistics)
        drops = [
            active.positions.index_select(0, self._prune.pick(active.values, n))
            for active, n in zip(held, pruned)
        ]
        # Before growth, which talks to the other ranks as often as there is to grow.
        numbers = torch.tensor(grown, device=self._layers[0].parameter.device)
        ranks.agree([numbers, *drops], "connections to prune", self.iteration)
        grows = [self._grown(layer, n) for layer, n in zip(layers, grown)]
        move(layers, drops, grows)
        self._waiting = False
        moved = {
            layer.name: (drop.numel(), grow.numel())
            for layer, drop, grow in zip(layers, drops, grows)
        }
        records = [
            LayerUpdate(
                layer.name,
                layer.size,
                *moved.get(layer.name, (0, 0)),
                layer.taken.count,
                layer.ever.count,
            )
            for layer in self._layers
        ]
        wiring = [tensor for layer in self._layers for tensor in layer.wiring()]
        ranks.agree(wiring, "masks", self.iteration)
        return self._recorded(fraction, records)

    def _must_wait(self, layers: Sequence[Store]) -> bool:
        """Whether an update that is due has to wait for finite gradients."""
        unstepped = self._by_momentum and not all(layer.has_momentum for layer in layers)
        if not layers or not (self._growth == "gradient" or unstepped):
            return False
        broken = broken_gradient(self._optimizer)
        # What a step with broken gradients leaves behind, and one that was left out does not.
        spoilt = broken and any(
            count_broken(moment) for layer in layers for moment in layer.moments().values()
        )
        broken, spoilt = ranks.any_of([broken, spoilt], layers[0].parameter.device)
        if not broken or spoilt:
            return False
        ends = self.iteration >= self.schedule.t_end
        if ends or not self._waiting:
            _log.warning(
                "iteration %d: gradients are NaN or infinite, as where GradScaler leaves out a "
                "step; the update of the masks %s",
                self.iteration,
                "is left out, as rewiring ends here" if ends else "waits for finite ones",
            )
        self._waiting = not ends
        return True

    def _grown(self, layer: Store, n: int) -> Tensor:
        """Where a layer grows; at random where its scores are all 0 and so say nothing.

        Raises:
            ConfigError: when these are gradients, and there are none in the other layers.
        """
        site = layer.site()
        grown = self._grow(site, n)
        scores = SCORES.get(self._growth)
        # None of the free slots has a larger score than these.
        if n == 0 or scores is None:
            return grown
        if scores(site)(grown).any():
            self._blind.discard(layer.name)
            return grown
        some = any_gradient(self._optimizer)
        if self._growth == "gradient" and not any(ranks.any_of([some], site.mask.device)):
            raise ConfigError(
                f"layer {layer.name}: its gradient is 0 everywhere, as is every other that the "
                f"optimiser has, so there is nothing to grow by; {ORDER}"
            )
        if layer.name not in self._blind:
            _log.warning(
                "iteration %d: layer %s: its %s is 0 wherever it could grow (a dead layer?); until "
                "that changes its new connections are drawn at random",
                self.iteration,
                layer.name,
                self._growth,
            )
        self._blind.add(layer.name)
        return uniformly(site, n)

    def _thin(self) -> Update:
        """End the dense phase: every layer keeps its largest weights, ties the higher index."""
        layers = self._dense  # all: a layer that stores only connections is refused
        for layer in layers:
            if not layer.trained:
                raise ConfigError(
                    f"layer {layer.name}: its weight is frozen at iteration {self.iteration}, "
                    "where the dense phase ends (t_dense) and weights go"
                )
        drops = [
            closest_to_zero(values, values.numel() - layer.connections)
            for layer, values in [(layer, self._held(layer).values) for layer in layers]
        ]
        ranks.agree(drops, "connections to prune", self.iteration)
        records = []
        for layer, drop in zip(layers, drops):
            layer.thin(drop)
            size = layer.size
            records.append(LayerUpdate(layer.name, size, drop.numel(), 0, layer.connections, size))
        return self._recorded(1 - self.sparse_density, records)

    def _recorded(self, fraction: float, records: list[LayerUpdate]) -> Update:
        update = Update(self.iteration, fraction, tuple(records))
        self.history.append(update)
        return update

    def record_silent(self, silent: Mapping[str, int]) -> None:
        """Add to the last update's record how many neurons of each layer stayed silent.

        Spikes are the training's to count; the evolver only keeps the figures with what
        may have caused them.

        Args:
            silent: layer name -> neurons without a spike in a batch after the update;
                any layers, those kept dense too.

        Raises:
            ValueError: when no update was done yet.
        """
        if not self.history:
            raise ValueError("no update was done yet, there is no record to add to")
        self.history[-1] = replace(self.history[-1], silent=dict(silent))

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name -> bool mask of each sparse layer with a dense weight, of its shape.

        Not to be written. Layers that store only their connections have none: their
        `SparseWeight` (`sparse_weights`) says where these are.
        """
        return {layer.name: layer.taken.tensor for layer in self._dense}

    @property
    def ever(self) -> dict[str, Tensor]:
        """Name -> where a connection ever was, of each sparse layer; not to be written.

        Bool of the weight's shape where that is dense. Of a layer that stores only its
        connections the smaller of a list, (positions,) int64, ascending, and a bitmap,
        (ceil(size / 8),) uint8, where position p is bit p % 8 of byte p // 8.
        """
        return {layer.name: layer.ever.tensor for layer in self._layers}

    def connections(self) -> dict[str, int]:
        """Name -> connections of every weight layer, those kept dense included."""
        return {**self._sizes, **{layer.name: layer.taken.count for layer in self._layers}}

    def densities(self) -> dict[str, float]:
        """Name -> connections over possible ones of every weight layer (1 where dense)."""
        return {name: count / self._sizes[name] for name, count in self.connections().items()}

    @property
    def density(self) -> float:
        """Connections over possible ones of all weight layers together."""
        return sum(self.connections().values()) / sum(self._sizes.values())

    @property
    def sparse_density(self) -> float:
        """Connections over possible ones of the sparse layers together."""
        return _share([layer.taken for layer in self._layers])

    @property
    def exploration(self) -> float:
        """R_s: share of the sparse layers' positions that were ever a connection."""
        return _share([layer.ever for layer in self._layers])

    def state_dict(self) -> dict[str, Any]:
        """A snapshot from which a run goes on with identical bits.

        Returns:
            Plain containers of numbers and tensors: iteration; masks and ever as the
            attributes, and generators (uint8), by layer name; history as `Update.plain`;
            whether an update waits. (The connections of a `SparseWeight` are in the model's
            own state.)
        """
        return {
            "iteration": self.iteration,
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "ever": {name: ever.clone() for name, ever in self.ever.items()},
            "generators": {layer.name: layer.generator.get_state() for layer in self._layers},
            "history": [update.plain() for update in self.history],
            "waiting": self._waiting,
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot; weights outside its masks are set to 0.

        Where layers store only their connections, load the model's state before.

        Args:
            state: what `state_dict` returned, for the same model and settings.

        Raises:
            ConfigError: when layer names, shapes or the number of connections differ
                from this evolver's, or a layer's connections are not among those that
                ever were. Nothing is changed then.
        """
        with_mask = [layer.name for layer in self._dense]
        names = [layer.name for layer in self._layers]
        for part, due in (("masks", with_mask), ("ever", names), ("generators", names)):
            if list(state[part]) != due:
                raise ConfigError(
                    f"the state's {part} are of layers {', '.join(state[part])}, "
                    f"the sparse layers are {', '.join(due) or 'none'}"
                )
        for part in ("masks", "ever"):
            for masked in self._dense:
                tensor, shape = state[part][masked.name], masked.taken.tensor.shape
                if tensor.shape != shape or tensor.dtype != torch.bool:
                    raise ConfigError(
                        f"layer {masked.name}: the state's {part} have shape "
                        f"{tuple(tensor.shape)} of {tensor.dtype}, "
                        f"not {tuple(shape)} of torch.bool"
                    )
        stored = [layer for layer in self._layers if isinstance(layer, SparseStore)]
        records = [layer.record(state["ever"][layer.name]) for layer in stored]
        saved = sum(count(mask) for mask in state["masks"].values())
        saved += sum(layer.taken.count for layer in stored)
        dense = state["iteration"] < self._t_dense
        wanted = sum(layer.size if dense else layer.connections for layer in self._layers)
        if saved != wanted:
            raise ConfigError(f"the state has {saved} connections, this run {wanted}")
        for masked in self._dense:
            masked.load(state["masks"][masked.name], state["ever"][masked.name])
        for kept, record in zip(stored, records):
            kept.ever = record
        for layer in self._layers:
            layer.generator.set_state(state["generators"][layer.name].cpu())
        self.iteration = int(state["iteration"])
        sizes = {layer.name: layer.size for layer in self._layers}
        self.history = [Update.from_plain(values, sizes) for values in state["history"]]
        self._waiting = bool(state.get("waiting", False))  # older states lack it
        self.apply_masks()
        self._expect_gradients()

    @property
    def _dense(self) -> list[DenseStore]:
        return [layer for layer in self._layers if isinstance(layer, DenseStore)]

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set inactive weights to 0, as `step` does: for who loaded others into the model.

        Raises:
            ConfigError: when a weight is no longer the tensor it was.
        """
        for layer in self._layers:
            layer.hold()

    def _expect_gradients(self) -> None:
        """Tell layers whether the next iteration grows by gradient."""
        due = self._growth == "gradient" and self._due(self.iteration + 1)
        for layer in self._layers:
            layer.expect_gradient(due)

    def _held(self, layer: Store) -> Held:
        """A layer's connections; refuses NaN and infinity among their weights."""
        held = layer.held()
        broken = count_broken(held.values)
        if broken:
            raise UserError(
                f"layer {layer.name}: {broken} of {held.values.numel()} active weights are NaN "
                f"or infinite at iteration {self.iteration}; the training diverged"
            )
        return held


def _choose(table: Mapping[str, T], what: str, name: str) -> T:
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]


def _generator(seed: int, place: int) -> torch.Generator:
    """A CPU generator for one layer, the same in every process and on every platform."""
    state = np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _share(sets: Sequence[PositionSet]) -> float:
    """Share of some layers' positions that are in their sets."""
    return sum(held.count for held in sets) / sum(held.size for held in sets)
