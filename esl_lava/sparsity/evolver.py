"""The mask evolver: sparse training from scratch around any torch model and optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity.density import DISTRIBUTIONS, LayerShape, by_eps
from esl_lava.sparsity.growth import GROW, Site
from esl_lava.sparsity.masks import draw, move
from esl_lava.sparsity.prune import PRUNE
from esl_lava.sparsity.schedule import CosineDecay

T = TypeVar("T")

_ADAM = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

MOMENTS: Mapping[type[torch.optim.Optimizer], tuple[str, ...]] = MappingProxyType(
    {
        torch.optim.SGD: ("momentum_buffer",),
        torch.optim.Adam: _ADAM,
        torch.optim.AdamW: _ADAM,
    }
)
"""Per-weight state of each supported optimiser; zeroed where a connection grows."""


@dataclass(frozen=True)
class LayerUpdate:
    """What one update did to one layer.

    Attributes:
        name: the layer's name.
        size: its possible connections.
        pruned, grown: connections dropped and grown by this update.
        connections: connections after it.
        ever: positions that were ever a connection, this update included.
    """

    name: str
    size: int
    pruned: int
    grown: int
    connections: int
    ever: int

    @property
    def density(self) -> float:
        """Connections over possible connections."""
        return self.connections / self.size

    @property
    def exploration(self) -> float:
        """R_s: share of the positions that were ever a connection."""
        return self.ever / self.size


@dataclass(frozen=True)
class Update:
    """What one update did.

    Attributes:
        iteration: optimiser iterations done, from 1.
        fraction: Eq. 2 at this iteration.
        layers: one record per sparse layer, in the model's order.
    """

    iteration: int
    fraction: float
    layers: tuple[LayerUpdate, ...]

    @property
    def exploration(self) -> float:
        """R_s of all sparse layers together."""
        return sum(layer.ever for layer in self.layers) / sum(layer.size for layer in self.layers)


@dataclass(eq=False)
class _Layer:
    """A sparse layer: its weight, and what the evolver owns for it."""

    name: str
    weight: nn.Parameter
    mask: Tensor
    ever: Tensor
    generator: torch.Generator


class MaskEvolver:
    """Makes a model's weight layers sparse and rewires them while it trains.

    Used like a scheduler: `loss.backward(); optimizer.step(); evolver.step()`.
    A weight layer is a submodule with a parameter `weight` of at least two dimensions,
    (outputs, inputs, ...); its name is the submodule's path without a trailing
    ".synapse" (SLAYER keeps a block's weight there). Build the evolver after moving the
    model to its device and before loading a checkpoint into it: weights outside the
    drawn masks are set to 0 at once.

    Each update moves, in every layer, the prune rule's number of connections, but at
    most the free slots there were. The number of connections never changes, what is
    pruned does not return in the same update, grown weights start at 0 and so do their
    optimiser moments. Moments of inactive weights go on integrating the dense gradient;
    that never reaches the network, as `step` sets inactive weights to 0 after every
    optimiser step and growth resets the moments. (Adam's step count belongs to the whole
    tensor, so a grown weight's first step is about 3.2 learning rates with default betas.)

    Everything random comes from one CPU generator a layer, seeded by (seed, the layer's
    place among the weight layers): the same seed gives the same masks on every device.

    Args:
        model: the model, on its device.
        optimizer: a torch SGD, Adam or AdamW over its weights.
        density: connections over possible ones of the layers being made sparse, (0, 1].
        eps: instead of a density, the paper's Eq. 1 (Erdos-Renyi only).
        distribution: how a density is spread over the layers, of `DISTRIBUTIONS`.
        keep_dense: names of weight layers that stay dense.
        prune: a name in `PRUNE`.
        growth: a name in `GROW`.
        alpha, t_iter, t_end: see `CosineDecay`; in optimiser iterations.
        seed: a non-negative integer.

    Attributes:
        iteration: how often `step` was called.
        history: one record per update done.

    Raises:
        ConfigError: for an unknown rule, layer or optimiser, for a value out of range,
            or for a weight that is no plain parameter or that the optimiser lacks.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        t_end: int,
        density: float | None = None,
        eps: float | None = None,
        distribution: str = "er",
        keep_dense: Iterable[str] = (),
        prune: str = "set",
        growth: str = "random",
        alpha: float = 0.3,
        t_iter: int = 100,
        seed: int = 0,
    ) -> None:
        self.schedule = CosineDecay(alpha=alpha, t_iter=t_iter, t_end=t_end)
        self._prune = _choose(PRUNE, "prune rule", prune)
        self._grow = _choose(GROW, "growth rule", growth)
        if seed < 0:
            raise ConfigError(f"seed {seed} is negative")
        weights = weight_layers(model)
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
        self._optimizer = optimizer
        _check_optimizer(optimizer, sparse)
        shapes = [_shape(name, weight) for name, weight in sparse.items()]
        counts = _allocate(shapes, density, eps, distribution)

        self.iteration = 0
        self.history: list[Update] = []
        self._sizes = {name: weight.numel() for name, weight in weights.items()}
        self._layers: list[_Layer] = []
        for (name, weight), count in zip(sparse.items(), counts):
            generator = _generator(seed, list(weights).index(name))
            mask = torch.zeros(weight.numel(), dtype=torch.bool)
            mask[draw(count, weight.numel(), generator)] = True
            mask = mask.view(weight.shape).to(weight.device)
            self._layers.append(_Layer(name, weight, mask, mask.clone(), generator))
        self._apply_masks()

    @torch.no_grad()
    def step(self) -> Update | None:
        """Count an iteration, zero inactive weights, and rewire when an update is due.

        Call it after every `optimizer.step()`.

        Returns:
            The record of the update, or None when none was due.

        Raises:
            UserError: when an update is due and an active weight is NaN or infinite.
            ConfigError: when the optimiser holds per-weight state of an unknown kind.
                The masks are then those before the call.
        """
        self.iteration += 1
        self._apply_masks()
        if not self.schedule.due(self.iteration):
            return None
        fraction = self.schedule.fraction(self.iteration)
        values = [self._active_values(layer) for layer in self._layers]
        moments = [_moments(self._optimizer, layer) for layer in self._layers]
        numbers = self._prune.numbers(values, fraction)
        records = [
            self._rewire(*arguments) for arguments in zip(self._layers, values, moments, numbers)
        ]
        update = Update(self.iteration, fraction, tuple(records))
        self.history.append(update)
        return update

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name -> bool mask of each sparse layer, of its weight's shape; not to be written."""
        return {layer.name: layer.mask for layer in self._layers}

    @property
    def ever(self) -> dict[str, Tensor]:
        """Name -> bool, true where a connection ever was, of each sparse layer."""
        return {layer.name: layer.ever for layer in self._layers}

    def connections(self) -> dict[str, int]:
        """Name -> connections of every weight layer, those kept dense included."""
        return {**self._sizes, **{layer.name: int(layer.mask.sum()) for layer in self._layers}}

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
        return _share([layer.mask for layer in self._layers])

    @property
    def exploration(self) -> float:
        """R_s: share of the sparse layers' positions that were ever a connection."""
        return _share([layer.ever for layer in self._layers])

    def state_dict(self) -> dict[str, Any]:
        """A snapshot from which a run goes on with identical bits.

        Returns:
            Plain containers of numbers and tensors: iteration; masks and ever (bool) and
            generators (uint8) by layer name; history as
            [iteration, fraction, [[pruned, grown, connections, ever], ...]] an update.
        """
        return {
            "iteration": self.iteration,
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "ever": {name: ever.clone() for name, ever in self.ever.items()},
            "generators": {layer.name: layer.generator.get_state() for layer in self._layers},
            "history": [
                [
                    update.iteration,
                    update.fraction,
                    [[r.pruned, r.grown, r.connections, r.ever] for r in update.layers],
                ]
                for update in self.history
            ],
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot; weights outside its masks are set to 0.

        Args:
            state: what `state_dict` returned, for the same model and settings.

        Raises:
            ConfigError: when layer names, shapes or the number of connections differ
                from this evolver's. Nothing is changed then.
        """
        for part in ("masks", "ever", "generators"):
            if list(state[part]) != list(self.masks):
                raise ConfigError(
                    f"the state's {part} are of layers {', '.join(state[part])}, "
                    f"the sparse layers are {', '.join(self.masks)}"
                )
        for part in ("masks", "ever"):
            for layer in self._layers:
                tensor = state[part][layer.name]
                if tensor.shape != layer.mask.shape or tensor.dtype != torch.bool:
                    raise ConfigError(
                        f"layer {layer.name}: the state's {part} have shape "
                        f"{tuple(tensor.shape)} of {tensor.dtype}, "
                        f"not {tuple(layer.mask.shape)} of torch.bool"
                    )
        saved = sum(int(mask.sum()) for mask in state["masks"].values())
        held = sum(int(mask.sum()) for mask in self.masks.values())
        if saved != held:
            raise ConfigError(f"the state has {saved} connections, this run {held}")
        for layer in self._layers:
            layer.mask.copy_(state["masks"][layer.name])
            layer.ever.copy_(state["ever"][layer.name])
            layer.generator.set_state(state["generators"][layer.name].cpu())
        self.iteration = int(state["iteration"])
        self.history = [
            Update(
                iteration,
                fraction,
                tuple(
                    LayerUpdate(layer.name, layer.mask.numel(), *numbers)
                    for layer, numbers in zip(self._layers, records)
                ),
            )
            for iteration, fraction, records in state["history"]
        ]
        self._apply_masks()

    @torch.no_grad()
    def _apply_masks(self) -> None:
        for layer in self._layers:
            # Filled, not multiplied: a product would leave -0.0 and NaN behind.
            layer.weight.masked_fill_(~layer.mask, 0.0)

    def _active_values(self, layer: _Layer) -> Tensor:
        """(connections,) active weights in order of position; refuses NaN and infinity."""
        values = layer.weight.detach()[layer.mask]
        broken = int((~values.isfinite()).sum())
        if broken:
            raise UserError(
                f"layer {layer.name}: {broken} of {values.numel()} active weights are NaN or "
                f"infinite at iteration {self.iteration}; the training diverged"
            )
        return values

    def _rewire(
        self, layer: _Layer, values: Tensor, moments: list[Tensor], number: int
    ) -> LayerUpdate:
        """Move `number` connections of a layer, or as many as it had free slots."""
        mask, ever = layer.mask.view(-1), layer.ever.view(-1)
        n = min(number, mask.numel() - values.numel())
        drop = mask.nonzero().view(-1)[self._prune.pick(values, n)]
        grow = self._grow(Site(mask, ever, layer.generator), n)
        move(layer.mask, drop, grow)
        ever[grow] = True
        # By coordinates: weights may have any memory layout (channels last, for one).
        shape = layer.weight.shape
        layer.weight[torch.unravel_index(drop, shape)] = 0.0
        for moment in moments:
            moment[torch.unravel_index(grow, shape)] = 0.0
        return LayerUpdate(
            name=layer.name,
            size=mask.numel(),
            pruned=drop.numel(),
            grown=grow.numel(),
            connections=int(mask.sum()),
            ever=int(ever.sum()),
        )


def weight_layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's weight layers by name, in the order of its submodules.

    A weight shared by several submodules is listed once, under the first. A model that
    is itself a layer is called "weight".

    Raises:
        ConfigError: when a weight is not a plain parameter (weight normalisation
            computes it anew in every forward pass, so no mask would hold), or when two
            layers would have the same name.
    """
    layers: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            continue
        name = path.removesuffix(".synapse") or "weight"
        if not isinstance(weight, nn.Parameter):
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


def _shape(name: str, weight: Tensor) -> LayerShape:
    return LayerShape(name, weight.shape[1], weight.shape[0], weight.numel())


def _allocate(
    shapes: list[LayerShape], density: float | None, eps: float | None, distribution: str
) -> list[int]:
    """Connections of each layer; exactly one of density and eps is to be given."""
    spread = _choose(DISTRIBUTIONS, "distribution", distribution)
    if density is not None and eps is None:
        return spread(shapes, density)
    if eps is not None and density is None:
        if distribution != "er":
            raise ConfigError(f"eps {eps} defines an 'er' distribution, not {distribution!r}")
        return by_eps(shapes, eps)
    raise ConfigError(f"exactly one of density ({density}) and eps ({eps}) is needed")


def _choose(table: Mapping[str, T], what: str, name: str) -> T:
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]


def _check_optimizer(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimiser whose state is unknown, or that does not train the weights."""
    if type(optimizer) not in MOMENTS:
        raise ConfigError(
            f"optimiser {type(optimizer).__name__} keeps state we do not know; "
            f"known: {', '.join(known.__name__ for known in MOMENTS)}"
        )
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, weight in weights.items():
        if id(weight) not in trained:
            raise ConfigError(f"layer {name}: its weight is not among the optimiser's parameters")


def _moments(optimizer: torch.optim.Optimizer, layer: _Layer) -> list[Tensor]:
    """The optimiser's tensors of the layer's shape; refuses unknown ones."""
    known = MOMENTS[type(optimizer)]
    found = []
    for key, value in optimizer.state.get(layer.weight, {}).items():
        if isinstance(value, Tensor) and value.shape == layer.weight.shape:
            if key not in known:
                raise ConfigError(
                    f"layer {layer.name}: optimiser state {key!r} is unknown; "
                    f"known for {type(optimizer).__name__}: {', '.join(known)}"
                )
            found.append(value)
    return found


def _generator(seed: int, place: int) -> torch.Generator:
    """A CPU generator for one layer, the same in every process and on every platform."""
    state = np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _share(tensors: list[Tensor]) -> float:
    """Share of true positions of some bool tensors together."""
    return sum(int(t.sum()) for t in tensors) / sum(t.numel() for t in tensors)
