"""The mask evolver: sparse training from scratch around any torch model and optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import ranks
from esl_lava.sparsity.arrays import count, count_broken
from esl_lava.sparsity.density import DISTRIBUTIONS, LayerShape, by_eps, by_layer
from esl_lava.sparsity.growth import GROW, Site
from esl_lava.sparsity.masks import draw, move
from esl_lava.sparsity.optimizer import check_momentum, check_optimizer
from esl_lava.sparsity.positions import Positions, Record, read
from esl_lava.sparsity.prune import PRUNE, closest_to_zero
from esl_lava.sparsity.records import LayerUpdate, Update
from esl_lava.sparsity.redistribution import REDISTRIBUTE, budget
from esl_lava.sparsity.schedule import SCHEDULES
from esl_lava.sparsity.stores import DenseStore, Held, SparseStore, Store
from esl_lava.sparsity.weights import SparseWeight

T = TypeVar("T")


class MaskEvolver:
    """Makes a model's weight layers sparse and rewires them while it trains.

    Used like a scheduler: `loss.backward(); optimizer.step(); evolver.step()`.
    A weight layer is a submodule with a parameter `weight` of at least two dimensions,
    (outputs, inputs, ...), or with a `SparseWeight` in its place; its name is the
    submodule's path without a trailing ".synapse" (SLAYER keeps a block's weight there).
    Build the evolver after moving the model to its device and before loading a checkpoint
    into it: weights outside the drawn masks are set to 0 at once (unless a dense phase
    comes first).

    Each update moves the prune rule's number of connections, but at most the free slots
    there were: in every layer its own, or shared out anew among the layers with a
    redistribution. Once the network is sparse, its connections never change in number, what is
    pruned does not return in the same update, grown weights start at 0 and so do their
    optimiser moments. Moments of inactive weights go on integrating the dense gradient;
    that never reaches the network, as `step` sets inactive weights to 0 after every
    optimiser step and growth resets the moments. (Adam's step count belongs to the whole
    tensor, so a grown weight's first step is about 3.2 learning rates with default betas.)

    Growth by gradient reads `parameter.grad` as the backward pass left it: zero it after
    `step`, not before.

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
        keep_dense: names of weight layers that stay dense.
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

    Raises:
        ConfigError: for an unknown rule, layer or optimiser, for a value out of range,
            for a weight that is no plain parameter or that the optimiser lacks, or for
            what a `SparseWeight` cannot do.
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
        weights = _weights(model)
        dense = set(keep_dense)
        for name in sorted(dense - set(weights)):
            raise ConfigError(
                f"keep_dense names {name!r}, which is no weight layer; "
                f"there are: {', '.join(weights)}"
            )
        sparse = {name: weight for name, weight in weights.items() if name not in dense}
        if not sparse:
            raise ConfigError(
                f"no layer is left to make sparse: the model's {len(weights)} weight layers, "
                f"of which keep_dense names {len(dense)}"
            )
        rules = {f"growth {growth!r}": growth == "momentum", f"t_dense {t_dense}": t_dense > 0}
        for name, weight in weights.items():
            if isinstance(weight, SparseWeight):
                needs = {**rules, "keep_dense": name in dense}
                _check_stored(name, weight, model, [what for what in needs if needs[what]])
        trained = {name: _parameter(weight) for name, weight in sparse.items()}
        check_optimizer(optimizer, trained)
        if "momentum" in (growth, redistribution):
            check_momentum(optimizer, trained)
        shapes = [_shape(name, weight) for name, weight in sparse.items()]
        counts = allocate(shapes, density, eps, densities, distribution)

        self.iteration = 0
        self.history: list[Update] = []
        self._t_dense = t_dense
        self._by_gradient = growth == "gradient"
        self._sizes = {name: math.prod(weight.shape) for name, weight in weights.items()}
        self._layers: list[DenseStore | SparseStore] = []
        for (name, weight), number in zip(sparse.items(), counts):
            generator = _generator(seed, list(weights).index(name))
            device = _parameter(weight).device
            where = None
            if t_dense == 0:
                where = draw(number, self._sizes[name], generator).to(device)
                where = ranks.from_first(where, device)
            generator.set_state(ranks.from_first(generator.get_state(), device))
            kept = (name, optimizer, number, generator)
            if isinstance(weight, SparseWeight):
                assert where is not None  # t_dense is refused
                self._layers.append(SparseStore(*kept, weight, where))
            else:
                self._layers.append(DenseStore(*kept, weight, where))
        self._apply_masks()
        self._expect_gradients()

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
                a gradient or momentum to grow by is missing.
                The masks are then those before the call; only where ranks agree about
                all that and their new masks differ (UserError) they are not.
        """
        self.iteration += 1
        self._apply_masks()
        self._expect_gradients()
        if self.iteration == self._t_dense:
            return self._thin()
        if self.iteration < self._t_dense or not self.schedule.due(self.iteration):
            return None
        fraction = self.schedule.fraction(self.iteration)
        layers = self._layers
        held = [self._held(layer) for layer in layers]
        for layer in layers:
            layer.moments()  # refuses unknown ones before anything moves
        values = [active.values for active in held]
        free = [layer.taken.size - len(active.values) for layer, active in zip(layers, held)]
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
        numbers = torch.tensor(grown, device=values[0].device)
        ranks.agree([numbers, *drops], "connections to prune", self.iteration)
        grows = [self._grow(_site(layer), n) for layer, n in zip(layers, grown)]
        move(layers, drops, grows)
        records = [
            LayerUpdate(
                name=layer.name,
                size=layer.taken.size,
                pruned=drop.numel(),
                grown=grow.numel(),
                connections=len(active.values) - drop.numel() + grow.numel(),
                ever=layer.ever.count,
            )
            for layer, active, drop, grow in zip(layers, held, drops, grows)
        ]
        wiring = [tensor for layer in layers for tensor in layer.wiring()]
        ranks.agree(wiring, "masks", self.iteration)
        return self._recorded(fraction, records)

    def _thin(self) -> Update:
        """End the dense phase: every layer keeps its largest weights, ties the higher index."""
        layers = self._dense  # all: a layer that stores only connections is refused
        drops = [
            closest_to_zero(values, values.numel() - layer.connections)
            for layer, values in [(layer, self._held(layer).values) for layer in layers]
        ]
        ranks.agree(drops, "connections to prune", self.iteration)
        records = []
        for layer, drop in zip(layers, drops):
            layer.thin(drop)
            size = layer.taken.size
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
            attributes, and generators (uint8), by layer name; history as `Update.plain`.
            (The connections of a `SparseWeight` are in the model's own state.)
        """
        return {
            "iteration": self.iteration,
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "ever": {name: ever.clone() for name, ever in self.ever.items()},
            "generators": {layer.name: layer.generator.get_state() for layer in self._layers},
            "history": [update.plain() for update in self.history],
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
        records = [_record(layer, state["ever"][layer.name]) for layer in stored]
        saved = sum(count(mask) for mask in state["masks"].values())
        saved += sum(layer.taken.count for layer in stored)
        dense = state["iteration"] < self._t_dense
        wanted = sum(layer.taken.size if dense else layer.connections for layer in self._layers)
        if saved != wanted:
            raise ConfigError(f"the state has {saved} connections, this run {wanted}")
        for masked in self._dense:
            masked.load(state["masks"][masked.name], state["ever"][masked.name])
        for kept, record in zip(stored, records):
            kept.ever = record
        for layer in self._layers:
            layer.generator.set_state(state["generators"][layer.name].cpu())
        self.iteration = int(state["iteration"])
        sizes = {layer.name: layer.taken.size for layer in self._layers}
        self.history = [Update.from_plain(values, sizes) for values in state["history"]]
        self._apply_masks()
        self._expect_gradients()

    @property
    def _dense(self) -> list[DenseStore]:
        return [layer for layer in self._layers if isinstance(layer, DenseStore)]

    @torch.no_grad()
    def _apply_masks(self) -> None:
        for layer in self._layers:
            layer.hold()

    def _expect_gradients(self) -> None:
        """Tell layers whether the next iteration grows by gradient."""
        due = self._by_gradient and self.schedule.due(self.iteration + 1)
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


def weight_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's weight layers by name, in the order of its submodules.

    Of a model in DistributedDataParallel, names are those of the model inside.
    A weight shared by several submodules is listed once, under the first. A model that
    is itself a layer is called "weight".

    Returns:
        Name -> what the optimiser trains: the weight, or a `SparseWeight`'s values.

    Raises:
        ConfigError: when a weight is not a plain parameter (weight normalisation
            computes it anew in every forward pass, so no mask would hold), or when two
            layers would have the same name.
    """
    return {name: _parameter(weight) for name, weight in _weights(model).items()}


def sparse_weights(model: nn.Module) -> dict[str, SparseWeight]:
    """Those of the model's weight layers that store only their connections, by name."""
    return {
        name: weight for name, weight in _weights(model).items() if isinstance(weight, SparseWeight)
    }


Weight = nn.Parameter | SparseWeight
"""What a layer may have as `weight`."""


def _weights(model: nn.Module) -> dict[str, Weight]:
    """Weight layers as `weight_layers` names them."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    layers: dict[str, Weight] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor | SparseWeight) or len(weight.shape) < 2:
            continue
        name = path.removesuffix(".synapse") or "weight"
        if not isinstance(weight, Weight):
            raise ConfigError(
                f"layer {name}: its weight is not a plain parameter "
                "(weight normalisation?), a mask could not hold it"
            )
        if any(weight is other for other in layers.values()):
            continue
        if name in layers:
            raise ConfigError(f"two weight layers are called {name}")
        layers[name] = weight
    return layers


def _parameter(weight: Weight) -> nn.Parameter:
    """What the optimiser trains."""
    return weight.values if isinstance(weight, SparseWeight) else weight


def _check_stored(name: str, weight: SparseWeight, model: nn.Module, rules: list[str]) -> None:
    """Refuse what a layer that stores only its connections cannot do.

    Args:
        rules: those given that need weights or moments of all possible connections.
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


def _record(layer: SparseStore, tensor: Tensor) -> Record:
    """A layer's past connections from a state; ConfigError where they are not its own."""
    try:
        record = read(tensor.clone(), layer.taken.size)
    except ValueError as error:
        raise ConfigError(f"layer {layer.name}: the state's ever {error}") from None
    lost = layer.taken.count - count(record.contains(layer.weight.positions()))
    if lost:
        raise ConfigError(
            f"layer {layer.name}: the state's ever lacks {lost} of the layer's connections "
            "(load the model's state first)"
        )
    return record


def _site(layer: Store) -> Site:
    return Site(
        name=layer.name,
        mask=layer.taken,
        ever=layer.ever,
        generator=layer.generator,
        gradient=layer.gradient,
        momentum=layer.momentum,
    )


def _shape(name: str, weight: Weight) -> LayerShape:
    kernel = tuple(weight.shape[2:])
    # SLAYER keeps every weight as that of a 3-D convolution: (out, in, 1, 1, 1) where fully
    # connected, (out, in, height, width, 1) where not. The lengths 1 are no kernel's.
    while len(weight.shape) == 5 and kernel and kernel[-1] == 1:
        kernel = kernel[:-1]
    return LayerShape(name, weight.shape[1], weight.shape[0], kernel)


def allocate(
    shapes: Sequence[LayerShape],
    density: float | None,
    eps: float | None,
    densities: Mapping[str, float] | None,
    distribution: str,
) -> list[int]:
    """Connections of each layer, as `MaskEvolver` takes the same arguments.

    Raises:
        ConfigError: unless exactly one of density, eps and densities is given; or where what
            is given is impossible (`sparsity.density`).
    """
    spread = _choose(DISTRIBUTIONS, "distribution", distribution)
    given = {"density": density, "eps": eps, "densities": densities}
    if sum(value is not None for value in given.values()) != 1:
        listed = ", ".join(f"{name} ({value})" for name, value in given.items())
        raise ConfigError(f"exactly one of {listed} is needed")
    if density is not None:
        return spread(shapes, density)
    if distribution != "er":
        raise ConfigError(
            f"distribution {distribution!r} spreads a density; eps and densities say "
            "themselves what each layer gets"
        )
    return by_eps(shapes, eps) if eps is not None else by_layer(shapes, densities or {})


def _choose(table: Mapping[str, T], what: str, name: str) -> T:
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]


def _generator(seed: int, place: int) -> torch.Generator:
    """A CPU generator for one layer, the same in every process and on every platform."""
    state = np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _share(sets: Sequence[Positions]) -> float:
    """Share of some layers' positions that are in their sets."""
    return sum(held.count for held in sets) / sum(held.size for held in sets)
