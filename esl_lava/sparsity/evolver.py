"""The mask evolver: sparse training from scratch around any torch model and optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from esl_lava.errors import ConfigError
from esl_lava.sparsity.arrays import count
from esl_lava.sparsity.construction import Rules, build_stores, check_layers, explain_dense, look_up
from esl_lava.sparsity.density import allocate
from esl_lava.sparsity.layers import choose, sparse_weights, survey, weight_layers
from esl_lava.sparsity.records import State, Update
from esl_lava.sparsity.schedule import SCHEDULES, Schedule
from esl_lava.sparsity.sets import PositionSet
from esl_lava.sparsity.stores import DenseStore, SparseStore
from esl_lava.sparsity.update import Updater, end_dense_phase

__all__ = ["MaskEvolver", "allocate", "sparse_weights", "weight_layers"]


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
    an update. Growth by momentum asks for it after every step of the optimiser up to `t_end`,
    and keeps moments of all positions meanwhile; what scales `values.grad` after a backward
    pass is to scale `dense_gradient` too, and neither is to be scaled by a GradScaler. A dense
    phase, which needs weights that are not stored, is refused, as is DistributedDataParallel;
    without it, average `values.grad` over ranks.

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
        schedule: when connections move, and what share of them.
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
        decay = look_up(SCHEDULES, "schedule", schedule)
        self.schedule = Schedule(decay, alpha, t_iter, t_end)
        rules = Rules(self.schedule, prune, growth, redistribution, t_dense)
        if seed < 0:
            raise ConfigError(f"seed {seed} is negative")
        found = survey(model)
        keep_dense = set(keep_dense)
        weights, sparse = choose(found, layers, keep_dense)
        check_layers(model, optimizer, rules, weights, sparse)
        shapes = [layer.shape for layer in sparse.values()]
        counts = allocate(shapes, density, eps, densities, distribution)

        self.iteration = 0
        self.history: list[Update] = []
        self._rules = rules
        self._sizes = {name: layer.size for name, layer in weights.items()}
        self._layers = build_stores(found, sparse, counts, optimizer, dense=t_dense > 0, seed=seed)
        self._updater = Updater(self._layers, rules, optimizer)
        if rules.growth == "momentum":
            optimizer.register_step_post_hook(lambda *_: self._note_step())
        self.apply_masks()
        self._expect_gradients()
        self.left_dense = explain_dense(found, sparse, keep_dense, warn=layers is None)

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
        for layer in self._stored:
            layer.follow()
        update = None
        try:
            if self.iteration == self._rules.t_dense:
                # All are dense: a layer that stores only connections is refused.
                update = end_dense_phase(self._dense, self.iteration)
            elif self._is_due(self.iteration):
                update = self._updater.rewire(self.iteration)
        finally:
            self._expect_gradients()
        if update is not None:
            self.history.append(update)
        return update

    def _is_due(self, iteration: int) -> bool:
        """Whether masks are updated after an iteration, as the schedule has it or belatedly."""
        late = self._updater.waiting and iteration <= self.schedule.t_end
        return iteration > self._rules.t_dense and (self.schedule.due(iteration) or late)

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

    def state_dict(self) -> State:
        """A snapshot from which a run goes on with identical bits.

        Returns:
            Plain containers of numbers and tensors. (The connections of a `SparseWeight` are
            in the model's own state.)
        """
        state: State = {
            "iteration": self.iteration,
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "ever": {name: ever.clone() for name, ever in self.ever.items()},
            "generators": {layer.name: layer.generator.get_state() for layer in self._layers},
            "history": [update.plain() for update in self.history],
            "waiting": self._updater.waiting,
        }
        if self._follows:
            state["moments"] = {
                layer.name: {key: part.clone() for key, part in layer.elsewhere.tensors.items()}
                for layer in self._stored
            }
        return state

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        """Take over a snapshot; weights outside its masks are set to 0.

        Where layers store only their connections, load the model's state before.

        Args:
            state: what `state_dict` returned, for the same model and settings.

        Raises:
            ConfigError: when layer names, shapes or the number of connections differ
                from this evolver's, or a layer's connections are not among those that
                ever were. Nothing is changed then.
        """
        names, masked, stored = [layer.name for layer in self._layers], self._dense, self._stored
        moments = state.get("moments", {})
        parts: list[tuple[str, Mapping[str, object], list[str]]] = [
            ("masks", state["masks"], [layer.name for layer in masked]),
            ("ever", state["ever"], names),
            ("generators", state["generators"], names),
        ]
        if self._rules.growth == "momentum" and state["iteration"] < self.schedule.t_end:
            parts.append(("moments", moments, [layer.name for layer in stored]))
        for part, tensors, due in parts:
            if list(tensors) != due:
                raise ConfigError(
                    f"the state's {part} are of layers {', '.join(tensors)}, "
                    f"the sparse layers are {', '.join(due) or 'none'}"
                )
        for part, tensors in (("masks", state["masks"]), ("ever", state["ever"])):
            for layer in masked:
                tensor, shape = tensors[layer.name], layer.taken.tensor.shape
                if tensor.shape != shape or tensor.dtype != torch.bool:
                    raise ConfigError(
                        f"layer {layer.name}: the state's {part} have shape "
                        f"{tuple(tensor.shape)} of {tensor.dtype}, "
                        f"not {tuple(shape)} of torch.bool"
                    )
        records = [layer.read_record(state["ever"][layer.name]) for layer in stored]
        followed = [layer.read_moments(moments.get(layer.name, {})) for layer in stored]
        saved = sum(count(mask) for mask in state["masks"].values())
        saved += sum(layer.taken.count for layer in stored)
        dense = state["iteration"] < self._rules.t_dense
        wanted = sum(layer.size if dense else layer.connections for layer in self._layers)
        if saved != wanted:
            raise ConfigError(f"the state has {saved} connections, this run {wanted}")
        for layer in masked:
            layer.taken.tensor.copy_(state["masks"][layer.name])
            layer.ever.tensor.copy_(state["ever"][layer.name])
        for kept, record, tensors in zip(stored, records, followed):
            kept.ever, kept.elsewhere.tensors = record, tensors
        for each in self._layers:
            each.generator.set_state(state["generators"][each.name].cpu())
        self.iteration = int(state["iteration"])
        sizes = {layer.name: layer.size for layer in self._layers}
        self.history = [Update.from_plain(values, sizes) for values in state["history"]]
        self._updater.waiting = bool(state.get("waiting", False))
        self.apply_masks()
        self._expect_gradients()

    @property
    def _dense(self) -> list[DenseStore]:
        return [layer for layer in self._layers if isinstance(layer, DenseStore)]

    @property
    def _stored(self) -> list[SparseStore]:
        return [layer for layer in self._layers if isinstance(layer, SparseStore)]

    @property
    def _follows(self) -> bool:
        """Whether stored connections keep moments of all positions for an update to come."""
        by_momentum = self._rules.growth == "momentum"
        return by_momentum and bool(self._stored) and self.iteration < self.schedule.t_end

    def _note_step(self) -> None:
        for layer in self._stored:
            layer.note_step()

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set inactive weights to 0, as `step` does: for who loaded others into the model.

        Raises:
            ConfigError: when a weight is no longer the tensor it was.
        """
        for layer in self._layers:
            layer.hold()

    def _expect_gradients(self) -> None:
        """Tell layers what to keep in the backward pass of the next iteration."""
        due = self._rules.growth == "gradient" and self._is_due(self.iteration + 1)
        for layer in self._stored:
            layer.weight.wants_dense_gradient = due or self._follows
            if not self._follows:
                layer.elsewhere.tensors = {}


def _share(sets: Sequence[PositionSet]) -> float:
    """Share of some layers' positions that are in their sets."""
    return sum(held.count for held in sets) / sum(held.size for held in sets)
