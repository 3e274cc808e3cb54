"""The mask evolver: sparse training from scratch for any torch model and optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from esl_lava.errors import ConfigError
from esl_lava.sparsity.arrays import count
from esl_lava.sparsity.construction import Rules, build_stores, check_layers, explain_dense, look_up
from esl_lava.sparsity.density import allocate
from esl_lava.sparsity.layers import choose_layers, find_layers, sparse_weights, weight_layers
from esl_lava.sparsity.records import State, Update
from esl_lava.sparsity.schedule import SCHEDULES, Schedule
from esl_lava.sparsity.sets import PositionSet
from esl_lava.sparsity.stores import DenseStore, SparseStore
from esl_lava.sparsity.update import Updater, end_dense_phase

__all__ = ["MaskEvolver", "allocate", "sparse_weights", "weight_layers"]


class MaskEvolver:
    """Makes the weight layers of a model sparse and rewires them during training.

    Call it like a scheduler: `loss.backward(); optimizer.step(); evolver.step()`.

    **Layers.** `layers.find_layers` defines the weight layers and their names. Every other
    parameter that could hold connections stays dense; a warning and `left_dense` name it. Build
    the evolver after moving the model to its device and before loading a checkpoint into it,
    because it sets the weights outside the drawn masks to 0 at once (unless training starts with
    a dense phase). The evolver does not change a copy of the model, for example an average of
    its weights: multiply the copy by `masks`. After loading other weights into the model call
    `apply_masks`.

    **Updates.** Each update moves as many connections as the prune rule counts, at most the
    number of free positions. Both numbers are those of each layer, or with a redistribution those
    of all layers together. Once the network is sparse, its number of connections is constant. A
    pruned connection does not return in the same update. The weights and the optimiser moments of
    grown connections start at 0. Moments at free positions continue to integrate the gradient
    there. They never reach the network, because `step` sets the weights at free positions to
    0 after every optimiser step, and growth resets the moments. (Adam has one step count for the
    whole tensor, so with the default betas the first step of a grown weight is about 3.2
    learning rates.)

    **Gradients.** Growth by gradient reads `parameter.grad` of the last backward pass. Set it to
    zero before the next backward pass, not before `step`. If all gradients of the optimiser are
    0, or the gradient of a layer is None, `step` raises an error. If the gradients or momenta of
    one layer alone are 0 (a dead layer), the new connections of this layer are drawn at random,
    with a warning. Gradients may be scaled, because only their order within a layer counts.

    An update waits, with a warning, while the gradients that it reads are NaN or infinite. Such
    gradients make a `torch.amp.GradScaler` skip the optimiser's step. It also waits while there
    is no momentum because all steps were skipped. The update follows the first iteration with
    finite gradients, with the fraction of that iteration, and never later than `t_end`. Every
    call of `step` counts as an iteration, even if the optimiser skipped its step.

    **Frozen layers.** If a layer is frozen (`requires_grad` is False) after the evolver was
    built, its mask and weights do not change until it trains again. A layer that is frozen when
    the evolver is built must be in `keep_dense`.

    **Stored connections.** A `SparseWeight` stores only its connections. The evolver creates
    them, at the positions that a mask would have with the same weights, gradients and seed;
    weights and moments move with them. Growth by gradient calls `dense_gradient` block by block,
    and `wants_dense_gradient` is true before the backward pass of an iteration that ends with an
    update. Growth by momentum calls it after every step of the optimiser up to `t_end`, and
    stores moments of all positions until then. Code that scales `values.grad` after a backward
    pass must scale `dense_gradient` too; a GradScaler must scale neither. A dense phase is refused,
    because it needs the weights of all positions. DistributedDataParallel is refused too; average
    `values.grad` over the ranks instead.

    **Random numbers.** Every layer has one CPU generator, seeded by (seed, place of the layer
    among the weight layers). The same seed gives the same masks on every device.

    **Ranks.** Under `torch.distributed` every rank builds an evolver, with the model or with the
    DistributedDataParallel around it. All ranks start with the masks and generators of rank 0.
    Growth by gradient uses the mean gradient over the ranks. DDP has already averaged
    `parameter.grad`, and a second average changes nothing; without DDP the evolver averages it.
    Every update compares a checksum of the pruned connections and of the new masks over all
    ranks.

    Args:
        model: the model, on its device.
        optimizer: a torch SGD, Adam or AdamW that trains its weights.
        density: connections divided by positions of all sparse layers together, in (0, 1].
        eps: the Erdos-Renyi parameter of Eq. 1 in the paper; it replaces density.
        densities: a density for each sparse layer by name; it replaces density.
        distribution: the rule that distributes a density over the layers, a name in
            `DISTRIBUTIONS`.
        keep_dense: names of weight layers that stay dense. Names of other parameters avoid the
            warning about them.
        layers: names of the layers that become sparse; by default all weight layers. Other
            parameters of at least two dimensions (a lookup table) become weight layers if they
            are named here.
        prune: a name in `PRUNE`.
        growth: a name in `GROW`.
        redistribution: a name in `REDISTRIBUTE`.
        schedule: a name in `SCHEDULES`.
        alpha: fraction of the weights that an update at step 0 would move, 0..1.
        t_iter: optimiser iterations between two updates.
        t_end: the last iteration of rewiring.
        t_dense: number of iterations of dense training. After them every sparse layer keeps its
            weights farthest from 0, as many as its number of connections, and rewiring begins.
            With 0, training is sparse from scratch with random masks. With t_dense and alpha 0,
            this is magnitude pruning of a dense network and fine-tuning.
        seed: the random seed, not negative.

    Attributes:
        iteration: number of calls of `step`.
        history: one record per update.
        schedule: the schedule of the updates.
        left_dense: name -> reason, for every parameter of at least two dimensions that stays
            dense.

    Raises:
        ConfigError: for an unknown rule, layer or optimiser; for a value out of range; for a
            weight that is not a plain parameter, is frozen, shares memory with another parameter
            or is not a parameter of the optimiser; for a feature that a `SparseWeight` does not
            support.
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
            raise ConfigError(f"seed {seed} is negative", "range", key="seed", value=seed, limit=0)
        candidates = find_layers(model)
        keep_dense = set(keep_dense)
        weights, sparse = choose_layers(candidates, layers, keep_dense)
        check_layers(model, optimizer, rules, weights, sparse)
        shapes = [layer.shape for layer in sparse.values()]
        counts = allocate(shapes, density, eps, densities, distribution)

        self.iteration = 0
        self.history: list[Update] = []
        self._rules = rules
        self._sizes = {name: layer.size for name, layer in weights.items()}
        dense = t_dense > 0
        self._layers = build_stores(candidates, sparse, counts, optimizer, dense=dense, seed=seed)
        self._updater = Updater(self._layers, rules, optimizer)
        if rules.growth == "momentum":
            optimizer.register_step_post_hook(lambda *_: self._note_optimizer_step())
        self.apply_masks()
        self._request_gradients()
        self.left_dense = explain_dense(candidates, sparse, keep_dense, warn=layers is None)

    @torch.no_grad()
    def step(self) -> Update | None:
        """Count an iteration, apply the masks, and update them if an update is due.

        Call it after every `optimizer.step()`. After an error the masks are those before the call,
        except after the UserError that says that the new masks of ranks differ.

        Returns:
            The record of the update; None without an update.

        Raises:
            UserError: if an update is due and a weight of a connection or a score for growth is
                NaN or infinite, or ranks disagree about the connections to prune or the new masks.
            ConfigError: if the optimiser has unknown per-weight state, or gradients or momentum
                for growth are missing, or another tensor has replaced a weight, or a weight is
                frozen when the dense phase ends.
        """
        self.iteration += 1
        self.apply_masks()
        for layer in self._stored:
            layer.update_dense_moments()
        update = None
        try:
            if self.iteration == self._rules.t_dense:
                # All layers have dense weights: a dense phase refuses a `SparseWeight`.
                update = end_dense_phase(self._dense, self.iteration)
            elif self._is_due(self.iteration):
                update = self._updater.rewire(self.iteration)
        finally:
            self._request_gradients()
        if update is not None:
            self.history.append(update)
        return update

    def _is_due(self, iteration: int) -> bool:
        """Check whether an update follows an iteration, by the schedule or because one waits."""
        overdue = self._updater.waiting and iteration <= self.schedule.t_end
        return iteration > self._rules.t_dense and (self.schedule.due(iteration) or overdue)

    def record_silent(self, silent: Mapping[str, int]) -> None:
        """Add the number of silent neurons of each layer to the record of the last update.

        The training counts spikes. The evolver stores the numbers with the update that may have
        caused them.

        Args:
            silent: layer name -> number of neurons without a spike in a batch after the update;
                any layers, including dense ones.

        Raises:
            ValueError: if there was no update yet.
        """
        if not self.history:
            raise ValueError("there was no update yet, so there is no record to add to")
        self.history[-1] = replace(self.history[-1], silent=dict(silent))

    @property
    def masks(self) -> dict[str, Tensor]:
        """Layer name -> bool mask of the weight's shape, for sparse layers stored as dense weights.

        Do not change the masks. Layers that store only their connections have no mask; their
        `SparseWeight` (`sparse_weights`) has the positions.
        """
        return {layer.name: layer.active.tensor for layer in self._dense}

    @property
    def ever(self) -> dict[str, Tensor]:
        """Layer name -> positions that were ever a connection, for each sparse layer.

        Do not change them. For a dense weight this is a bool tensor of its shape. For a layer
        that stores only its connections it is the smaller of a list, (positions,) int64,
        ascending, and a bitmap, (ceil(size / 8),) uint8, where position p is bit p % 8 of byte
        p // 8.
        """
        return {layer.name: layer.ever.tensor for layer in self._layers}

    def connections(self) -> dict[str, int]:
        """Return the number of connections of every weight layer by name, also of dense layers."""
        return {**self._sizes, **{layer.name: layer.active.count for layer in self._layers}}

    def densities(self) -> dict[str, float]:
        """Return the density of every weight layer by name; a dense layer has 1."""
        return {name: count / self._sizes[name] for name, count in self.connections().items()}

    @property
    def density(self) -> float:
        """Connections divided by positions of all weight layers together."""
        return sum(self.connections().values()) / sum(self._sizes.values())

    @property
    def sparse_density(self) -> float:
        """Connections divided by positions of the sparse layers together."""
        return _share([layer.active for layer in self._layers])

    @property
    def exploration(self) -> float:
        """Exploration rate R_s: share of all sparse positions that were ever a connection."""
        return _share([layer.ever for layer in self._layers])

    def state_dict(self) -> State:
        """Return a snapshot from which a run continues with identical bits.

        Returns:
            Plain containers of numbers and tensors. The connections of a `SparseWeight` are in
            the state of the model.
        """
        state: State = {
            "iteration": self.iteration,
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "ever": {name: ever.clone() for name, ever in self.ever.items()},
            "generators": {layer.name: layer.generator.get_state() for layer in self._layers},
            "history": [update.plain() for update in self.history],
            "waiting": self._updater.waiting,
        }
        if self._keeps_dense_moments:
            state["moments"] = {
                layer.name: {key: part.clone() for key, part in layer.dense_moments.tensors.items()}
                for layer in self._stored
            }
        return state

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        """Load a snapshot and set the weights outside its masks to 0.

        If layers store only their connections, load the state of the model first.

        Args:
            state: the snapshot that `state_dict` returned for the same model and settings.

        Raises:
            ConfigError: if layer names, shapes or the number of connections differ from those
                of this evolver, or the record of all connections that a layer has ever had lacks
                a connection that it has now. In this case nothing is changed. Also as
                `apply_masks`, after the snapshot was loaded.
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
        for part, tensors, expected in parts:
            if list(tensors) != expected:
                raise ConfigError(
                    f"part {part!r} of the state holds the layers {', '.join(tensors) or 'none'}, "
                    f"but needs the layers {', '.join(expected) or 'none'}",
                    "mismatch",
                    key=part,
                    value=tuple(tensors),
                    limit=tuple(expected),
                )
        for part, tensors in (("masks", state["masks"]), ("ever", state["ever"])):
            for layer in masked:
                tensor, shape = tensors[layer.name], layer.active.tensor.shape
                if tensor.shape != shape or tensor.dtype != torch.bool:
                    raise ConfigError(
                        f"layer {layer.name}: part {part!r} of the state has the shape "
                        f"{tuple(tensor.shape)} of {tensor.dtype}; the layer has {tuple(shape)} of "
                        "torch.bool",
                        "mismatch",
                        key=part,
                        value=tuple(tensor.shape),
                        limit=tuple(shape),
                        layer=layer.name,
                    )
        records = [layer.read_record(state["ever"][layer.name]) for layer in stored]
        layer_moments = [layer.read_moments(moments.get(layer.name, {})) for layer in stored]
        connections = sum(count(mask) for mask in state["masks"].values())
        connections += sum(layer.active.count for layer in stored)
        dense = state["iteration"] < self._rules.t_dense
        required = sum(layer.size if dense else layer.connections for layer in self._layers)
        if connections != required:
            raise ConfigError(
                f"the masks of the state have {connections} connections, but this run needs "
                f"{required}",
                "mismatch",
                key="masks",
                value=connections,
                limit=required,
            )
        for layer in masked:
            layer.active.tensor.copy_(state["masks"][layer.name])
            layer.ever.tensor.copy_(state["ever"][layer.name])
        for sparse_store, record, tensors in zip(stored, records, layer_moments):
            sparse_store.ever, sparse_store.dense_moments.tensors = record, tensors
        for store in self._layers:
            store.generator.set_state(state["generators"][store.name].cpu())
        self.iteration = int(state["iteration"])
        sizes = {layer.name: layer.size for layer in self._layers}
        self.history = [Update.from_plain(values, sizes) for values in state["history"]]
        self._updater.waiting = bool(state.get("waiting", False))
        self.apply_masks()
        self._request_gradients()

    @property
    def _dense(self) -> list[DenseStore]:
        return [layer for layer in self._layers if isinstance(layer, DenseStore)]

    @property
    def _stored(self) -> list[SparseStore]:
        return [layer for layer in self._layers if isinstance(layer, SparseStore)]

    @property
    def _keeps_dense_moments(self) -> bool:
        """Whether layers that store only connections need moments of all positions.

        They do if growth is by momentum, before `t_end`.
        """
        by_momentum = self._rules.growth == "momentum"
        return by_momentum and bool(self._stored) and self.iteration < self.schedule.t_end

    def _note_optimizer_step(self) -> None:
        for layer in self._stored:
            layer.note_optimizer_step()

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set the weights at free positions to 0. Call it after loading weights into the model.

        Raises:
            ConfigError: if another tensor has replaced a weight.
        """
        for layer in self._layers:
            layer.apply_mask()

    def _request_gradients(self) -> None:
        """Request the gradients at all positions that the next iteration needs.

        Only layers that store only their connections have to be asked for them.
        """
        due = self._rules.growth == "gradient" and self._is_due(self.iteration + 1)
        for layer in self._stored:
            layer.weight.wants_dense_gradient = due or self._keeps_dense_moments
            if not self._keeps_dense_moments:
                layer.dense_moments.tensors = {}


def _share(sets: Sequence[PositionSet]) -> float:
    """Return the number of positions in all sets, divided by the number that they could hold."""
    return sum(positions.count for positions in sets) / sum(positions.size for positions in sets)
