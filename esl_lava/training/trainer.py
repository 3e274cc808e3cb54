"""The training loop: Adam with a mask evolver. It can resume after any step."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from esl_lava.config import Experiment, to_toml
from esl_lava.data.datasets import split_validation
from esl_lava.data.samples import TrainingSamples
from esl_lava.engines.device import choose_device
from esl_lava.errors import Code, ConfigError, DataError, LimitError, UserError
from esl_lava.modelfile import SavedModel
from esl_lava.models.build import build_to_train
from esl_lava.models.mlp import scale_initial_weights
from esl_lava.models.restore import as_arrays, as_tensors
from esl_lava.results.training import Epoch, kept_epoch, read_history
from esl_lava.sparsity.evolver import MaskEvolver, sparse_weights, weight_layers
from esl_lava.sparsity.ranks import count
from esl_lava.sparsity.schedule import SCHEDULES, Schedule
from esl_lava.training import health, ranks
from esl_lava.training.checkpoint import (
    Plan,
    check_generators,
    check_optimizer,
    check_parts,
    learning_rate,
)
from esl_lava.training.clipping import norms, scale_down, scale_up
from esl_lava.training.evaluation import BATCH, examine
from esl_lava.training.kinds import KINDS
from esl_lava.values import as_values

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training, for a progress display.

    Attributes:
        iteration, iterations: optimiser steps so far, and in the whole training.
        epoch, epochs: the current epoch, counted from 1, and the number of epochs.
        loss: mean loss of the current epoch so far.
        validation_accuracy: accuracy after the last finished epoch, 0..1; None if there is no
            validation or no finished epoch.
        density: weights divided by positions of all weight layers, after the last finished epoch,
            or before the first one.
        batch: number of samples in a step; the last step of an epoch can have fewer.
    """

    iteration: int
    iterations: int
    epoch: int
    epochs: int
    loss: float
    validation_accuracy: float | None
    density: float
    batch: int


class Trainer:
    """A training run, from the first step or from a checkpoint.

    The same experiment, data and number of threads give the same bits. Initial weights depend on
    `seed`, the order of an epoch's samples on (`seed`, epoch), and masks on the evolver's
    generators.

    In a process group of `torch.distributed` every rank builds and runs the same trainer and
    takes its share of every batch. Losses and gradients are those of the whole batch. The order
    of sums depends on the number of ranks, so the same bits need the same number of ranks.

    Args:
        experiment: the configuration of the training.
        data: the training split. The trainer holds back the validation share of it.
        checkpoint: a saved model with training state, from which to continue.

    Raises:
        ConfigError, DataError: if experiment, data and checkpoint do not fit each other.
        UserError: if initial weights, or weights or moments of the checkpoint, are not finite.
    """

    def __init__(
        self, experiment: Experiment, data: TrainingSamples, checkpoint: SavedModel | None = None
    ) -> None:
        self.experiment = experiment
        self.kind = KINDS[experiment.model.kind]
        self.train_data, self.validation_data = split_validation(
            data, experiment.data.validation, experiment.seed
        )
        if len(self.train_data) == 0:
            raise DataError(
                f"{data.name}: no sample is left to train on; at least 1 is needed",
                "range",
                value=0,
                limit=1,
            )
        training = experiment.training
        self.steps_per_epoch = math.ceil(len(self.train_data) / training.batch_size)
        self.iterations = training.epochs * self.steps_per_epoch
        self.iteration = 0
        self.history: list[Epoch] = []
        self._losses: list[float] = []
        self._order: npt.NDArray[np.int64] | None = None
        self._best: dict[str, dict[str, torch.Tensor]] = {}

        topology = experiment.model.describe(data.shape, data.classes)
        sparsity = experiment.sparsity
        t_end = max(1, round(sparsity.end * self.iterations))
        self._plan = Plan(
            experiment,
            topology,
            self.steps_per_epoch,
            Schedule(SCHEDULES[sparsity.schedule], sparsity.alpha, sparsity.t_iter, t_end),
            len(self.validation_data) > 0,
        )
        if checkpoint is not None:  # before anything of the configuration's size is allocated
            check_parts(checkpoint, self._plan)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(experiment.seed)
            self.device = choose_device(
                training.device, self.kind.on_gpu and training.engine == "fused"
            )
            self.model = build_to_train(experiment, topology).to(self.device)
        self._sizes = {layer.name: layer.neurons for layer in topology.layers}
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self.kind.adam(training.engine)(trainable, lr=training.learning_rate)
        self.evolver = MaskEvolver(
            self.model,
            self.optimizer,
            **sparsity.model_dump(exclude={"end", "dense_epochs"}),
            t_end=t_end,
            t_dense=self._plan.dense_steps,
            seed=experiment.seed,
        )
        self._warn_if_static()
        densities = self.evolver.densities()
        scale_initial_weights(
            self.model,
            {
                # The fewer inputs a neuron has, the larger their weights must be.
                layer.name: experiment.model.weight_scale
                / self.kind.weight_divisor(densities[layer.name])
                for layer in topology.weighted
                if not layer.readout
            },
        )
        if checkpoint is not None:
            self._restore(checkpoint)
        self._refuse_not_finite(self.iteration)

    def run(
        self,
        show: Callable[[TrainingProgress], None] = lambda progress: None,
        save: Callable[[SavedModel], None] = lambda checkpoint: None,
        due: Callable[[], bool] = lambda: False,
    ) -> SavedModel:
        """Train to the end.

        Args:
            show: function that is called with the progress after every step.
            save: function that is called with a checkpoint after every epoch, and after other
                steps if `due` returns true.
            due: function that returns whether to save a checkpoint after a step within an epoch.

        Returns:
            The model of the epoch that `kept_epoch` names.

        Raises:
            UserError: if the loss or a gradient's norm is not finite, if the range rule finds no
                integers for a layer, or if weights or moments are not finite. Weights and moments
                are checked before an update of the masks, the record of an epoch and a
                checkpoint, so that `save` never gets weights that are not finite.
        """
        density = self.evolver.density
        while self.iteration < self.iterations:
            epoch, position = divmod(self.iteration, self.steps_per_epoch)
            last_of_epoch = position + 1 == self.steps_per_epoch
            try:
                self._step(epoch, position)
                if last_of_epoch:
                    # Before `show` can interrupt: else a checkpoint would lack the epoch's record.
                    self._end_epoch(epoch + 1)
            except LimitError as error:  # on every rank, because all have the same weights
                if self.iteration == 0:
                    raise
                fault = error.faults[0]
                clause = f"{fault.sentence} after step {self.iteration}"
                raise self._divergence(clause, fault.layer, "limit") from None
            show(
                TrainingProgress(
                    self.iteration,
                    self.iterations,
                    epoch + 1,
                    self.experiment.training.epochs,
                    sum(self._losses) / len(self._losses),
                    self.history[-1].validation_accuracy if self.history else None,
                    self.history[-1].density if self.history else density,
                    self.experiment.training.batch_size,
                )
            )
            if last_of_epoch or due():
                self._refuse_not_finite(self.iteration)
                save(self.checkpoint())
        for sentence in self._list_warnings(kept_epoch(self.history) + 1).values():
            _logger.warning("the model that is kept: %s", sentence)
        return self._make_saved_model(self._best, {})

    def checkpoint(self) -> SavedModel:
        """Return a snapshot from which a training continues to the same bits."""
        evolver: dict[str, Any] = {**self.evolver.state_dict()}
        del evolver["masks"], evolver["ever"]  # the saved model has them already
        state = {
            "iteration": self.iteration,
            "iterations": self.iterations,
            "losses": list(self._losses),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "evolver": evolver,
            "best": self._best,
        }
        return self._make_saved_model(self._copy_parts(), state)

    def _copy_parts(self) -> dict[str, dict[str, torch.Tensor]]:
        parts = {
            "weights": self.model.state_dict(),
            "masks": self.evolver.masks,
            "ever": self.evolver.ever,
        }
        return {
            part: {name: tensor.clone() for name, tensor in tensors.items()}
            for part, tensors in parts.items()
        }

    def _warn_if_static(self) -> None:
        """Log a warning if no update of the masks is due before rewiring ends."""
        schedule, sparsity = self.evolver.schedule, self.experiment.sparsity
        t_dense = sparsity.dense_epochs * self.steps_per_epoch
        first = (t_dense // schedule.t_iter + 1) * schedule.t_iter
        has_rewiring = sparsity.alpha > 0 and (self.evolver.sparse_density < 1 or t_dense > 0)
        if has_rewiring and schedule.fraction(first) == 0:
            _logger.warning(
                "masks are never rewired: the first update would be after step %d "
                "(sparsity.t_iter), but rewiring ends with step %d (sparsity.end)",
                first,
                schedule.t_end,
            )

    def _restore(self, checkpoint: SavedModel) -> None:
        """Go on from a checkpoint that `check_parts` has checked."""
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        new = self.optimizer.state_dict()
        check_optimizer(checkpoint, self._plan, new, names)
        check_generators(checkpoint, self.evolver.state_dict()["generators"])
        state = as_tensors(checkpoint.state)
        try:
            self.model.load_state_dict(as_tensors(checkpoint.weights))
            # Options of the optimiser stay those of this training and this version of torch.
            groups = [
                {**group, "lr": saved["lr"]}
                for group, saved in zip(new["param_groups"], state["optimizer"]["param_groups"])
            ]
            moments = copy.deepcopy(state["optimizer"]["state"])
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            masks = as_tensors({"masks": checkpoint.masks, "ever": checkpoint.ever})
            evolver: Any = {**state["evolver"], **masks}
            self.evolver.load_state_dict(evolver)
            self.iteration = state["iteration"]
            self.history = read_history(checkpoint.history)
            self._losses = list(state["losses"])
            self._best = state["best"]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())  # torch's have several lines
            raise DataError(
                f"the checkpoint does not fit its experiment: {reason}", "mismatch"
            ) from None

    def _make_saved_model(
        self, parts: dict[str, dict[str, torch.Tensor]], state: dict[str, Any]
    ) -> SavedModel:
        return SavedModel(
            config=to_toml(self.experiment),
            **as_arrays(parts),  # weights, masks and ever
            history=[as_values(epoch) for epoch in self.history],
            state=as_arrays(state),
        )

    def _step(self, epoch: int, position: int) -> None:
        """Take an optimiser step on batch `position` of an epoch, both counted from 0."""
        training = self.experiment.training
        if self._order is None or position == 0:
            generator = np.random.default_rng([self.experiment.seed, epoch])
            self._order = generator.permutation(len(self.train_data))
        indices = self._order[position * training.batch_size : (position + 1) * training.batch_size]
        if self.evolver.history and self.evolver.history[-1].iteration == self.iteration:
            self.evolver.record_silent(self._count_silent(indices))
        batch = self._batch(indices, epoch, position)
        part = self._loss_part(batch)
        loss = ranks.total(part.detach())
        if not torch.isfinite(loss):
            self._refuse_loss(loss.item(), batch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(training, self.iteration, self.iterations)
        self.optimizer.zero_grad()
        part.backward()  # type: ignore[no-untyped-call]
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        ranks.sum_gradients(trainable)
        scale_up(sparse_weights(self.model).values(), count())
        if training.gradient_norm:
            self._limit_gradient(training.gradient_norm)
        self.optimizer.step()
        now = self.iteration + 1
        if self.evolver.schedule.due(now) or position + 1 == self.steps_per_epoch:
            # Check before masks are made from the weights. The loss does not show a NaN in a
            # hidden layer: it silences its neuron, and the loss stays finite.
            self._refuse_not_finite(now)
        self.evolver.step()
        if position == 0:
            self._losses = []
        self._losses.append(loss.item())
        self.iteration += 1

    def _limit_gradient(self, limit: float) -> None:
        """Scale gradients down so that their norm over all connections is at most `limit`."""
        weights = weight_layers(self.model)
        gradients = {name: w.grad for name, w in weights.items() if w.grad is not None}
        by_layer = norms(gradients, self.evolver.masks)
        for name, norm in reversed(by_layer.items()):  # NaN spreads to earlier layers
            if not norm.isfinite():
                raise self._divergence(
                    f"the gradient's norm of layer {name} is {norm.item()} "
                    f"at step {self.iteration + 1}",
                    name,
                )
        total = torch.linalg.vector_norm(torch.stack(list(by_layer.values())))
        scale_down(gradients.values(), sparse_weights(self.model).values(), total, limit)

    def _batch(self, indices: npt.NDArray[np.int64], epoch: int, position: int) -> TrainingSamples:
        """Return the samples of a batch, shifted and flipped at random for this epoch."""
        batch, training = self.train_data.choose(indices), self.experiment.training
        generator = np.random.default_rng([self.experiment.seed, epoch, position])
        if training.shift:
            batch = batch.shifted(training.shift, generator)
        return batch.flipped(generator) if training.flip else batch

    def _loss_part(self, batch: TrainingSamples) -> torch.Tensor:
        """Return the part of the batch's mean loss that comes from this rank's samples."""
        own = batch.choose(ranks.share(np.arange(len(batch))))
        if len(own) == 0 and not self.kind.collective:
            for weight in sparse_weights(self.model).values():
                weight.zero_dense_gradient()
            return torch.zeros((), requires_grad=True)  # a mean over no sample is NaN
        outputs = self.model(self.kind.encode(self.experiment, own).to(self.device))
        if len(own) == 0:
            return outputs.sum()
        labels = torch.from_numpy(own.labels).to(self.device)
        loss = self.kind.loss(self.experiment, self.model, outputs, labels)
        return loss * (len(own) / len(batch))

    @torch.no_grad()
    def _count_silent(self, indices: npt.NDArray[np.int64]) -> dict[str, int]:
        """Count for each hidden layer the neurons that stay silent on these training samples."""
        encoded = self.kind.encode(self.experiment, self.train_data.choose(indices))
        self.model.eval()
        outputs = self.model.layer_outputs(encoded.to(self.device))
        spikes = self.kind.count_spikes(self.experiment, outputs)
        self.model.train()
        silent = [int((of_layer == 0).sum()) for of_layer in spikes]
        return dict(zip(self.model.topology.hidden_names, silent))

    def _refuse_not_finite(self, after: int) -> None:
        """Raise an error if weights or moments are not finite after that step. Collective."""
        weights = weight_layers(self.model)
        with ranks.together():
            moments = health.collect_moments(self.optimizer, weights)
            defect = health.find_broken_layer(weights, self.evolver.masks, moments)
            defect = defect or health.find_other_defect(self.model, self.optimizer, weights)
            if defect and after == 0:
                scale = self.experiment.model.weight_scale
                raise ConfigError(
                    f"{defect.clause} at the start: model.weight_scale {scale} is too large",
                    "not-finite",
                    key="model.weight_scale",
                    value=scale,
                    layer=defect.layer,
                )
            if defect:
                raise self._divergence(f"{defect.clause} after step {after}", defect.layer)

    def _refuse_loss(self, loss: float, batch: TrainingSamples) -> None:
        """Raise the error for a loss that is not finite, with the layer if known. Collective."""
        clause = f"loss {loss} at step {self.iteration + 1}"
        with ranks.together():
            defect = health.find_broken_layer(weight_layers(self.model), self.evolver.masks, {})
            own = batch.choose(ranks.share(np.arange(len(batch))))
            if defect is None and len(own) and not self.kind.collective:
                with torch.no_grad():
                    encoded = self.kind.encode(self.experiment, own)
                    outputs = self.model.layer_outputs(encoded)
                defect = health.find_nan_output(dict(zip(self._sizes, outputs)))
            if defect:
                raise self._divergence(f"{clause}, {defect.clause}", defect.layer)
        raise self._divergence(clause)

    def _divergence(
        self, clause: str, layer: str | None = None, code: Code = "not-finite"
    ) -> UserError:
        """Return the error for a training that has diverged; `clause` says how."""
        rate = self.experiment.training.learning_rate
        return UserError(
            f"training diverged: {clause}; training.learning_rate {rate} may be too high",
            code,
            key="training.learning_rate",
            value=rate,
            layer=layer,
        )

    def _end_epoch(self, epoch: int) -> None:
        """Record the epoch, counted from 1, and keep its model if no epoch was better."""
        held_back = self.validation_data
        some = self.train_data.take(min(BATCH, len(self.train_data)))
        examination = examine(self.experiment, self.model, held_back if len(held_back) else some)
        weights, firing = weight_layers(self.model), examination.firing
        beyond = health.measure_beyond_range(
            weights, self.evolver.masks, self.kind.weight_range(self.experiment)
        )
        self.history.append(
            Epoch(
                epoch=epoch,
                loss=sum(self._losses) / len(self._losses),
                validation_accuracy=examination.accuracy if len(held_back) else None,
                density=self.evolver.density,
                densities=self.evolver.densities(),
                exploration=self.evolver.exploration,
                silent={layer.layer: layer.silent for layer in firing},
                saturated={
                    layer.layer: layer.saturated for layer in firing if layer.saturated is not None
                },
                rates={layer.layer: layer.rate for layer in firing},
                beyond_range=beyond,
            )
        )
        before = self._list_warnings(epoch - 1)
        for problem, sentence in self._list_warnings(epoch).items():
            if problem not in before:
                _logger.warning("%s", sentence)
        if kept_epoch(self.history) == len(self.history) - 1:
            self._best = self._copy_parts()

    def _list_warnings(self, epoch: int) -> dict[str, str]:
        """Return `health.list_warnings` of an epoch, counted from 1; none for epoch 0."""
        if epoch == 0:
            return {}
        least, largest = self.kind.weight_range(self.experiment)
        beyond = f"{self.kind.beyond_range} {least:g}..{largest:g}"
        return health.list_warnings(self.history[epoch - 1], self._sizes, beyond)
