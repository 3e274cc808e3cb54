"""The training loop: Adam under a mask evolver, resumable after any step."""

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
from esl_lava.errors import ConfigError, DataError, LimitError, UserError
from esl_lava.modelfile import SavedModel
from esl_lava.models.build import build_to_train
from esl_lava.models.mlp import scale_initial_weights
from esl_lava.models.restore import as_arrays, as_tensors
from esl_lava.results.training import Epoch, kept_epoch, read_history
from esl_lava.sparsity.evolver import MaskEvolver, sparse_weights, weight_layers
from esl_lava.sparsity.ranks import count
from esl_lava.training import health, ranks
from esl_lava.training.clipping import norms, scale_down, scale_up
from esl_lava.training.config import Training
from esl_lava.training.evaluation import BATCH, examine
from esl_lava.training.kinds import KINDS
from esl_lava.values import as_values

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands, for whoever shows it.

    Attributes:
        iteration, iterations: optimiser steps done and to do in all.
        epoch, epochs: the current epoch, from 1, and how many there are.
        loss: mean loss of the current epoch so far.
        validation_accuracy: after the last finished epoch, 0..1; None where there is none.
        density: connections over positions of all weight layers, then.
        batch: samples of a step.
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
    """One training run, from the first step or from a checkpoint.

    The same experiment, data and number of threads give the same bits: weights come from
    `seed`, an epoch's order from (`seed`, epoch), masks from the evolver's generators.

    In a process group of `torch.distributed` every rank builds and runs the same trainer,
    and each takes its share of every batch; losses and gradients are those of the whole.
    Sums are then in another order, so the same bits need the same number of ranks too.

    Args:
        experiment: what to train.
        data: the training split; a validation share is taken off here.
        checkpoint: a saved model with training state, to go on from.

    Raises:
        ConfigError, DataError: when experiment, data and checkpoint do not fit.
        UserError: when the checkpoint's weights or moments are not finite.
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
            raise DataError(f"{data.name}: no sample is left to train on")
        training = experiment.training
        self.steps_per_epoch = math.ceil(len(self.train_data) / training.batch_size)
        self.iterations = training.epochs * self.steps_per_epoch
        self.iteration = 0
        self.history: list[Epoch] = []
        self._losses: list[float] = []
        self._order: npt.NDArray[np.int64] | None = None
        self._best: dict[str, dict[str, torch.Tensor]] = {}

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(experiment.seed)
            topology = experiment.model.describe(data.shape, data.classes)
            self.device = choose_device(
                training.device, self.kind.on_gpu and training.engine == "fused"
            )
            self.model = build_to_train(experiment, topology).to(self.device)
        self._layers = {layer.name: layer.neurons for layer in topology.layers}
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self.kind.adam(training.engine)(trainable, lr=training.learning_rate)
        sparsity = experiment.sparsity
        self.evolver = MaskEvolver(
            self.model,
            self.optimizer,
            **sparsity.model_dump(exclude={"end", "dense_epochs"}),
            t_end=max(1, round(sparsity.end * self.iterations)),
            t_dense=sparsity.dense_epochs * self.steps_per_epoch,
            seed=experiment.seed,
        )
        self._warn_if_static()
        densities = self.evolver.densities()
        scale_initial_weights(
            self.model,
            {
                # The fewer inputs a neuron keeps, the more each must weigh.
                layer.name: experiment.model.weight_scale
                / self.kind.thinning(densities[layer.name])
                for layer in topology.weighted
                if not layer.readout
            },
        )
        if checkpoint is not None:
            self._restore(checkpoint)
        self._refuse_broken(self.iteration)

    def run(
        self,
        show: Callable[[TrainingProgress], None] = lambda progress: None,
        save: Callable[[SavedModel], None] = lambda checkpoint: None,
        due: Callable[[], bool] = lambda: False,
    ) -> SavedModel:
        """Train to the end.

        Args:
            show: called after every step.
            save: given a checkpoint after every epoch, and whenever `due` says so.
            due: asked after every other step.

        Returns:
            The model of the epoch that `kept_epoch` names.

        Raises:
            UserError: when the loss is no longer finite, when weights or moments are not where
                masks, an epoch's record or a checkpoint are to be made of them, so that `save`
                is given none such, or when a layer has no integers.
        """
        density = self.evolver.density
        while self.iteration < self.iterations:
            epoch, position = divmod(self.iteration, self.steps_per_epoch)
            last_of_epoch = position + 1 == self.steps_per_epoch
            try:
                self._step(epoch, position)
                if last_of_epoch:
                    # Before anybody can interrupt: a checkpoint without it would lack the epoch.
                    self._end_epoch(epoch + 1)
            except LimitError as error:  # of every rank, as all have the same weights
                if self.iteration == 0:
                    raise
                raise self._diverged(f"{error} after step {self.iteration}") from None
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
                self._refuse_broken(self.iteration)
                save(self.checkpoint())
        for sentence in self._complaints(kept_epoch(self.history) + 1).values():
            _logger.warning("the model that is kept: %s", sentence)
        return self._saved(self._best, {})

    def checkpoint(self) -> SavedModel:
        """A snapshot of everything needed to go on from here to the same bits."""
        evolver: dict[str, Any] = {**self.evolver.state_dict()}
        del evolver["masks"], evolver["ever"]  # a model's own parts
        state = {
            "iteration": self.iteration,
            "iterations": self.iterations,
            "losses": list(self._losses),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "evolver": evolver,
            "best": self._best,
        }
        return self._saved(self._copied_parts(), state)

    def _copied_parts(self) -> dict[str, dict[str, torch.Tensor]]:
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
        """Every rule gives the same result where none is ever asked."""
        schedule, sparsity = self.evolver.schedule, self.experiment.sparsity
        t_dense = sparsity.dense_epochs * self.steps_per_epoch
        first = (t_dense // schedule.t_iter + 1) * schedule.t_iter
        asked = sparsity.alpha > 0 and (self.evolver.sparse_density < 1 or t_dense > 0)
        if asked and schedule.fraction(first) == 0:
            _logger.warning(
                "masks are never rewired: the first update would be after step %d "
                "(sparsity.t_iter), rewiring ends with step %d (sparsity.end)",
                first,
                schedule.t_end,
            )

    def _restore(self, checkpoint: SavedModel) -> None:
        state = as_tensors(checkpoint.state)
        if "iteration" not in state:
            raise DataError("a finished model, not a training checkpoint: nothing to resume")
        try:
            if state["iterations"] != self.iterations:
                raise DataError(
                    f"the checkpoint is of a training of {state['iterations']} steps, this one "
                    f"has {self.iterations}: the data are not those it began with"
                )
            self.model.load_state_dict(as_tensors(checkpoint.weights))
            fused = self.optimizer.defaults["fused"]  # which another version of torch may not have
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
            for group in self.optimizer.param_groups:
                group["fused"] = fused
            masks = as_tensors({"masks": checkpoint.masks, "ever": checkpoint.ever})
            evolver: Any = {**state["evolver"], **masks}
            self.evolver.load_state_dict(evolver)
            self.iteration = state["iteration"]
            self.history = read_history(checkpoint.history)
            self._losses = list(state["losses"])
            self._best = state["best"]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())  # torch's are several lines
            raise DataError(f"the checkpoint does not fit its experiment: {reason}") from None

    def _saved(
        self, parts: dict[str, dict[str, torch.Tensor]], state: dict[str, Any]
    ) -> SavedModel:
        return SavedModel(
            config=to_toml(self.experiment),
            **as_arrays(parts),  # weights, masks and ever
            history=[as_values(epoch) for epoch in self.history],
            state=as_arrays(state),
        )

    def _step(self, epoch: int, position: int) -> None:
        """One optimiser step on batch `position` of an epoch counted from 0."""
        training = self.experiment.training
        if self._order is None or position == 0:
            generator = np.random.default_rng([self.experiment.seed, epoch])
            self._order = generator.permutation(len(self.train_data))
        chosen = self._order[position * training.batch_size : (position + 1) * training.batch_size]
        if self.evolver.history and self.evolver.history[-1].iteration == self.iteration:
            self.evolver.record_silent(self._silent(chosen))
        batch = self._batch(chosen, epoch, position)
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
            # Before masks follow the weights. Also, a NaN in a hidden layer silences its
            # neuron and leaves the loss finite.
            self._refuse_broken(now)
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
        for name, norm in reversed(by_layer.items()):  # a gradient that is NaN makes others so
            if not norm.isfinite():
                raise self._diverged(
                    f"the gradient's norm of layer {name} is {norm.item()} "
                    f"at step {self.iteration + 1}"
                )
        together = torch.linalg.vector_norm(torch.stack(list(by_layer.values())))
        scale_down(gradients.values(), sparse_weights(self.model).values(), together, limit)

    def _batch(self, chosen: npt.NDArray[np.int64], epoch: int, position: int) -> TrainingSamples:
        """The chosen samples as this epoch shows them."""
        batch, training = self.train_data.choose(chosen), self.experiment.training
        generator = np.random.default_rng([self.experiment.seed, epoch, position])
        if training.shift:
            batch = batch.shifted(training.shift, generator)
        return batch.flipped(generator) if training.flip else batch

    def _loss_part(self, batch: TrainingSamples) -> torch.Tensor:
        """What this rank's share of a batch adds to the batch's mean loss."""
        own = batch.choose(ranks.share(np.arange(len(batch))))
        if len(own) == 0 and not self.kind.collective:
            for weight in sparse_weights(self.model).values():
                weight.had_no_samples()
            return torch.zeros((), requires_grad=True)  # a mean over nothing would be NaN
        outputs = self.model(self.kind.encode(self.experiment, own).to(self.device))
        if len(own) == 0:
            return outputs.sum()
        labels = torch.from_numpy(own.labels).to(self.device)
        loss = self.kind.loss(self.experiment, self.model, outputs, labels)
        return loss * (len(own) / len(batch))

    @torch.no_grad()
    def _silent(self, batch: npt.NDArray[np.int64]) -> dict[str, int]:
        """Hidden layer -> neurons without a spike in the first batch under new masks."""
        encoded = self.kind.encode(self.experiment, self.train_data.choose(batch)).to(self.device)
        self.model.eval()
        fired = self.kind.fired(self.experiment, self.model.layer_outputs(encoded))
        self.model.train()
        silent = [int((spikes == 0).sum()) for spikes in fired]
        return dict(zip(self.model.topology.hidden_names, silent))

    def _refuse_broken(self, after: int) -> None:
        """Refuse weights or moments that are not finite after that step. Collective."""
        weights = weight_layers(self.model)
        with ranks.together():
            moments = health.moments(self.optimizer, weights)
            clause = health.broken(weights, self.evolver.masks, moments)
            clause = clause or health.broken_beside(self.model, self.optimizer, weights)
            if clause and after == 0:
                scale = self.experiment.model.weight_scale
                raise ConfigError(f"{clause} at the start: model.weight_scale {scale} is too large")
            if clause:
                raise self._diverged(f"{clause} after step {after}")

    def _refuse_loss(self, loss: float, batch: TrainingSamples) -> None:
        """Refuse a loss that is not finite, with the layer where that can be told. Collective."""
        what = f"loss {loss} at step {self.iteration + 1}"
        with ranks.together():
            clause = health.broken(weight_layers(self.model), self.evolver.masks, {})
            own = batch.choose(ranks.share(np.arange(len(batch))))
            if clause is None and len(own) and not self.kind.collective:
                with torch.no_grad():
                    encoded = self.kind.encode(self.experiment, own)
                    outputs = self.model.layer_outputs(encoded)
                clause = health.not_numbers(dict(zip(self._layers, outputs)))
            if clause:
                raise self._diverged(f"{what}, {clause}")
        raise self._diverged(what)

    def _diverged(self, what: str) -> UserError:
        rate = self.experiment.training.learning_rate
        return UserError(
            f"training diverged: {what}; training.learning_rate {rate} may be too high"
        )

    def _end_epoch(self, epoch: int) -> None:
        """Record the epoch, counted from 1, and keep it if none was better."""
        held_back = self.validation_data
        some = self.train_data.take(min(BATCH, len(self.train_data)))
        examined = examine(self.experiment, self.model, held_back if len(held_back) else some)
        weights, firing = weight_layers(self.model), examined.firing
        beyond = health.beyond_range(weights, self.evolver.masks, self.kind.ends(self.experiment))
        self.history.append(
            Epoch(
                epoch=epoch,
                loss=sum(self._losses) / len(self._losses),
                validation_accuracy=examined.accuracy if len(held_back) else None,
                density=self.evolver.density,
                densities=self.evolver.densities(),
                exploration=self.evolver.exploration,
                silent={one.layer: one.silent for one in firing},
                saturated={one.layer: one.saturated for one in firing if one.saturated is not None},
                rates={one.layer: one.rate for one in firing},
                beyond_range=beyond,
            )
        )
        before = self._complaints(epoch - 1)
        for short, sentence in self._complaints(epoch).items():
            if short not in before:
                _logger.warning("%s", sentence)
        if kept_epoch(self.history) == len(self.history) - 1:
            self._best = self._copied_parts()

    def _complaints(self, epoch: int) -> dict[str, str]:
        """What the record of an epoch, counted from 1, says of dead and exploded layers."""
        if epoch == 0:
            return {}
        least, largest = self.kind.ends(self.experiment)
        beyond = f"{self.kind.beyond} {least:g}..{largest:g}"
        return health.complaints(self.history[epoch - 1], self._layers, beyond)


def learning_rate(training: Training, iteration: int, iterations: int) -> float:
    """Cosine decay from `training.learning_rate` at step 0 to 0 after the last."""
    return training.learning_rate / 2 * (1 + math.cos(math.pi * iteration / iterations))
