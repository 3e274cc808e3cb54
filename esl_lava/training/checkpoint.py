"""Check the contents of a training checkpoint, which may come from a stranger.

A checkpoint is used by torch and by kernels that do not check their arguments, so every part is
checked against the configuration before its first use. `check_parts` needs no network: memory of
the size that the configuration asks for is allocated only after the file was found to hold as much.
`check_optimizer` and `check_generators` compare the rest with the state of a new training.

Weights, moments, losses and the words of random generators can have any finite values. All numbers
that follow from the configuration and the number of steps must be those, except that the last
digits of a cosine may differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from esl_lava.arrays import Array
from esl_lava.config import Experiment
from esl_lava.engines.choice import choose_stored
from esl_lava.errors import DataError, FileError, shorten
from esl_lava.modelfile import SavedModel
from esl_lava.models.config import Convolutional
from esl_lava.models.stored import READERS
from esl_lava.models.stored_convolutional import BATCHES
from esl_lava.results.training import Epoch, kept_epoch, read_history
from esl_lava.sparsity import sets
from esl_lava.sparsity.plan import choose_sparse, count_connections
from esl_lava.sparsity.schedule import Schedule
from esl_lava.topology import Topology
from esl_lava.training.config import Training
from esl_lava.training.entries import (
    check_array,
    check_equal,
    check_finite,
    check_integer,
    check_list,
    check_names,
    check_number,
    check_squares,
    check_table,
    refuse,
)

PARTS = ("iteration", "iterations", "losses", "optimizer", "evolver", "best")
"""Keys of the state of a checkpoint."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Tensors of Adam that have the shape of their weight."""

LARGEST_STEP = 1 << 24
"""Adam counts its steps in float32, where 2^24 + 1 is 2^24."""

_BY_TORCH = ("foreach", "fused", "decoupled_weight_decay")
"""Options of Adam that only some versions of torch have, or that choose its kernel."""


@dataclass(frozen=True)
class Plan:
    """The facts of a training that a checkpoint has to fit.

    Attributes:
        experiment: the configuration.
        topology: the network for the data.
        steps_per_epoch: number of optimiser steps in an epoch.
        schedule: the schedule of the updates of the masks.
        validated: whether samples are held back for validation.
    """

    experiment: Experiment
    topology: Topology
    steps_per_epoch: int
    schedule: Schedule
    validated: bool

    @property
    def iterations(self) -> int:
        """Number of optimiser steps of the whole training."""
        return self.experiment.training.epochs * self.steps_per_epoch

    @property
    def dense_steps(self) -> int:
        """Number of optimiser steps of dense training at the start."""
        return self.experiment.sparsity.dense_epochs * self.steps_per_epoch

    @property
    def updates(self) -> range:
        """The steps after which the schedule updates the masks."""
        schedule = self.schedule
        first = (self.dense_steps // schedule.t_iter + 1) * schedule.t_iter
        return range(first, schedule.t_end + 1, schedule.t_iter)


@dataclass(frozen=True)
class _Layer:
    """A layer that becomes sparse.

    Attributes:
        name: its name.
        size: its number of positions.
        connections: its number of connections once it is sparse, before updates.
        stored: whether only its connections are stored.
    """

    name: str
    size: int
    connections: int
    stored: bool


def learning_rate(training: Training, iteration: int, iterations: int) -> float:
    """Return the learning rate of a step, counted from 0: `training.learning_rate` falling to 0.

    It falls along a cosine, over the number of steps `iterations`.
    """
    return training.learning_rate / 2 * (1 + math.cos(math.pi * iteration / iterations))


def check_parts(saved: SavedModel, plan: Plan) -> None:
    """Check all parts of a checkpoint except the optimiser's state and the generators' words.

    Raises:
        DataError: naming the part, and the layer if there is one.
        ConfigError: if the configuration does not fit the network.
    """
    state = saved.state
    if "iteration" not in state:
        raise DataError(
            "the file holds a finished model and no training checkpoint: nothing to resume",
            "mismatch",
        )
    check_table(state, "state", PARTS)
    planned = plan.iterations
    iterations = check_integer(state["iterations"], "state.iterations", 0, 1 << 62)
    if iterations != planned:
        raise DataError(
            f"the checkpoint belongs to a training of {iterations} steps, but this training has "
            f"{planned} steps: the training samples, the batch size or the epochs have changed",
            "mismatch",
            value=iterations,
            limit=planned,
        )
    iteration = check_integer(state["iteration"], "state.iteration", 0, planned)
    layers = _list_layers(plan)
    parts = {"weights": saved.weights, "masks": saved.masks, "ever": saved.ever}
    connections, ever = _check_network(parts, plan, layers, iteration, "")
    explored = _check_evolver(state["evolver"], plan, layers, iteration, connections, ever)
    history = _check_history(saved.history, plan, layers, iteration, explored)
    _check_losses(state["losses"], plan, iteration)
    _check_best(state["best"], parts, plan, layers, iteration, history)


def check_optimizer(
    saved: SavedModel, plan: Plan, new: Mapping[str, Any], names: Sequence[str]
) -> None:
    """Check the state of the optimiser. Call `check_parts` first.

    Moments at positions without a connection may be NaN or infinite, because they never reach the
    network.

    Args:
        saved: the checkpoint.
        plan: the facts of the training.
        new: the state dict of the optimiser of a new training.
        names: the names of its parameters in the state dict of the network, in order.

    Raises:
        DataError: naming the entry, and the layer if there is one.
    """
    key, iteration = "state.optimizer", saved.state["iteration"]
    state = check_table(saved.state["optimizer"], key, ("state", "param_groups"))
    groups = check_list(state["param_groups"], f"{key}.param_groups", len(new["param_groups"]))
    for index, (group, expected) in enumerate(zip(groups, new["param_groups"])):
        _check_group(group, expected, plan, iteration, f"{key}.param_groups[{index}]")
    per_weight = state["state"]
    if not isinstance(per_weight, dict):
        refuse(f"{key}.state", f"is a {type(per_weight).__name__}, not a table", "type")
    allowed = range(len(names)) if iteration else range(0)
    for index in per_weight:
        if type(index) is not int or index not in allowed:
            expected_keys = f"0..{len(names) - 1}" if iteration else "none before the first step"
            refuse(
                f"{key}.state",
                f"has the key {shorten(index)}, but its keys are {expected_keys}",
                value=index,
            )
    for index in allowed:
        name = names[index]
        layer = _layer_of(name)
        weight = saved.weights[name]
        if index not in per_weight:
            if weight.size:
                refuse(f"{key}.state", f"lacks the key {index}, which is {name}", layer=layer)
            continue
        place = f"{key}.state[{index}]"
        entry = check_table(per_weight[index], place, ("step", *MOMENTS), layer=layer)
        steps = check_array(entry["step"], f"{place}.step", np.float32, (), layer)
        taken = float(min(iteration, LARGEST_STEP))
        # A weight without connections may have had no gradient in some steps.
        if not (float(steps) == taken or (not weight.size and 0 <= float(steps) <= taken)):
            refuse(
                f"{place}.step",
                f"is {float(steps)}, but the training has taken {taken:g} steps",
                value=float(steps),
                limit=taken,
                layer=layer,
            )
        mask = saved.masks.get(layer) if name.endswith(".weight") else None
        for moment in MOMENTS:
            values = check_array(
                entry[moment], f"{place}.{moment}", np.float32, weight.shape, layer
            )
            active = values[mask] if mask is not None and mask.shape == values.shape else values
            check_finite(active, f"{moment} of the optimiser", layer)
        check_squares(entry["exp_avg_sq"], f"{place}.exp_avg_sq", layer)


def check_generators(saved: SavedModel, new: Mapping[str, torch.Tensor]) -> None:
    """Check the states of the layers' random generators. Call `check_parts` first.

    torch checks only some fields. With wrong values in others it would read beyond the state.

    Args:
        saved: the checkpoint.
        new: layer name -> state of the generator of a new training.

    Raises:
        DataError: naming the layer.
    """
    for name, state in saved.state["evolver"]["generators"].items():
        key = f"state.evolver.generators.{name}"
        expected = new[name].numpy()
        raw = check_array(state, key, np.uint8, expected.shape, name).tobytes()
        ours, its = (np.frombuffer(b, _GENERATOR)[0] for b in (expected.tobytes(), raw))
        # Words are drawn from `next` on, `left` - 1 of them; a new generator has (1, 0).
        left, position = int(its["left"]), int(its["next"])
        words = its["words"]
        if (
            its["seed"] != ours["seed"]
            or its["seeded"] != 1
            or not ((left, position) == (1, 0) or (left >= 1 and left + position == _WORDS + 1))
            or its["has_normal"]
            or its["has_float_normal"]
            or bool((words >> np.uint64(32)).any())
        ):
            refuse(
                key,
                "is not a state of the generator of this layer and seed",
                "damaged",
                layer=name,
            )
        if not words[1:].any() and not int(words[0]) >> 31:
            refuse(key, "is a state that gives only zeros", "damaged", layer=name)


_WORDS = 624
_GENERATOR = np.dtype(
    [
        ("seed", "<u8"),
        ("left", "<i4"),
        ("seeded", "<i4"),
        ("next", "<u8"),
        ("words", "<u8", (_WORDS,)),
        ("normals", "<f8", (3,)),
        ("has_normal", "<i4"),
        ("padding", "<i4"),
        ("float_normal", "<f4"),
        ("has_float_normal", "<u1"),
        ("end", "<u1", (3,)),
    ]
)
"""State of a generator on the CPU (`CPUGeneratorImplState` in ATen): a Mersenne Twister, and normal
numbers kept for a next call, which the evolver never draws."""


def _list_layers(plan: Plan) -> list[_Layer]:
    """Return the layers that become sparse, in order."""
    experiment, topology = plan.experiment, plan.topology
    sparsity = experiment.sparsity
    connections = count_connections(topology, sparsity)
    normalised = isinstance(experiment.model, Convolutional)
    engine = experiment.training.engine
    stored = choose_stored(engine, topology, sparsity, normalised=normalised)
    return [
        _Layer(shape.name, shape.size, connections[shape.name], shape.name in stored)
        for shape in choose_sparse(topology, sparsity.keep_dense)
    ]


def _check_network(
    parts: Mapping[str, Any], plan: Plan, layers: Sequence[_Layer], iteration: int, prefix: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Check `weights`, `masks` and `ever` of a network after `iteration` steps.

    Args:
        parts: the tables `weights`, `masks` and `ever`.
        plan: the facts of the training.
        layers: the sparse layers.
        iteration: number of steps that the network has been trained.
        prefix: the place of the parts in the file.

    Returns:
        How many connections each sparse layer has, and how many it has ever had.
    """
    weights, masks, ever = (parts[part] for part in ("weights", "masks", "ever"))
    for part, table in parts.items():
        if not isinstance(table, Mapping) or not all(
            isinstance(key, str) and isinstance(value, np.ndarray) for key, value in table.items()
        ):
            refuse(f"{prefix}{part}", "is not a table of tensors", "type")
    check_names(masks, f"{prefix}masks", [layer.name for layer in layers if not layer.stored])
    check_names(ever, f"{prefix}ever", [layer.name for layer in layers])
    config = plan.experiment.model
    try:
        reader = READERS[config.kind]
        reader.layers(config, weights, masks)
        topology = reader.topology(config, weights)
    except FileError as error:
        fault = error.faults[0]
        key = f"{prefix}{fault.key or 'weights'}"
        sentence = fault.sentence if key in fault.sentence else f"{key}: {fault.sentence}"
        raise DataError(
            f"the checkpoint does not fit its experiment: {sentence}",
            "mismatch",
            key=key,
            value=fault.value,
            limit=fault.limit,
            layer=fault.layer,
        ) from None
    for saved, spec in zip(topology.weighted, plan.topology.weighted):
        if (saved.name, saved.weight_shape) != (spec.name, spec.weight_shape):
            refuse(
                f"{prefix}weights",
                f"has the shape {saved.weight_shape} in layer {spec.name}, but the data and the "
                f"configuration need {spec.weight_shape}",
                value=saved.weight_shape,
                limit=spec.weight_shape,
                layer=spec.name,
            )
    if isinstance(config, Convolutional) and topology.input_shape != plan.topology.input_shape:
        refuse(
            f"{prefix}weights",
            f"has samples of shape {topology.input_shape}, but the data have "
            f"{plan.topology.input_shape}",
            value=topology.input_shape,
            limit=plan.topology.input_shape,
        )
    counts, past = {}, {}
    for layer in layers:
        is_stored = f"{layer.name}.synapse.weight.sides" in weights
        if is_stored != layer.stored:
            kinds = ("all positions", "its connections alone")
            refuse(
                f"{prefix}weights",
                f"has weights of {kinds[is_stored]} in layer {layer.name}, but training.engine "
                f"needs {kinds[layer.stored]}",
                layer=layer.name,
            )
        measure = _count_stored if layer.stored else _count_masked
        counts[layer.name], past[layer.name] = measure(parts, layer, prefix)
    _check_weights(weights, masks, iteration, prefix)
    _check_counts(counts, plan, layers, iteration, f"{prefix}masks")
    return counts, past


def _check_weights(
    weights: Mapping[str, Array], masks: Mapping[str, Array], iteration: int, prefix: str
) -> None:
    """Check the numbers of a state dict whose types and shapes are right."""
    for name, values in weights.items():
        layer = _layer_of(name)
        if values.dtype == np.float32:
            mask = (
                masks.get(layer) if name in (f"{layer}.synapse.weight", f"{layer}.weight") else None
            )
            is_weight = name.endswith((".weight", ".values")) and ".norm." not in name
            check_finite(
                values if mask is None else values[mask],
                f"{prefix}weights" if is_weight else f"numbers of {prefix}{name}",
                layer,
            )
        if name.endswith(".running_var"):
            check_squares(values, f"{prefix}{name}", layer)
        if name.endswith(f".{BATCHES}") and int(values) != iteration:
            refuse(
                f"{prefix}{name}",
                f"is {int(values)}, but the network has been trained for {iteration} steps",
                value=int(values),
                limit=iteration,
                layer=layer,
            )


def _count_masked(parts: Mapping[str, Any], layer: _Layer, prefix: str) -> tuple[int, int]:
    """Return how many connections a layer with a mask has, and how many it has ever had."""
    mask, ever = parts["masks"][layer.name], parts["ever"][layer.name]
    weights = parts["weights"]
    keys = (f"{layer.name}.synapse.weight", f"{layer.name}.weight")
    shape = next(weights[key].shape for key in keys if key in weights)
    check_array(mask, f"{prefix}masks", np.bool_, shape, layer.name)
    check_array(ever, f"{prefix}ever", np.bool_, shape, layer.name)
    missing = int(np.count_nonzero(mask & ~ever))
    if missing:
        _refuse_missing(missing, prefix, layer.name)
    return int(np.count_nonzero(mask)), int(np.count_nonzero(ever))


def _count_stored(parts: Mapping[str, Any], layer: _Layer, prefix: str) -> tuple[int, int]:
    """Return how many connections a layer without a mask has, and how many it has ever had."""
    key = f"{layer.name}.synapse.weight"
    starts, pre = (parts["weights"][f"{key}.{part}"] for part in ("starts", "pre"))
    n_pre = int(parts["weights"][f"{key}.sides"][1])
    rows = np.repeat(np.arange(len(starts) - 1, dtype=np.int64) * n_pre, np.diff(starts))
    try:
        record = sets.read(torch.from_numpy(np.array(parts["ever"][layer.name])), layer.size)
    except ValueError as error:
        refuse(f"{prefix}ever", str(error), layer=layer.name)
    missing = int(np.count_nonzero(~record.contains(torch.from_numpy(rows + pre)).numpy()))
    if missing:
        _refuse_missing(missing, prefix, layer.name)
    return len(pre), record.count


def _refuse_missing(missing: int, prefix: str, layer: str) -> NoReturn:
    refuse(f"{prefix}ever", f"lacks {missing} connections of the layer", value=missing, layer=layer)


def _check_counts(
    counts: Mapping[str, int], plan: Plan, layers: Sequence[_Layer], iteration: int, key: str
) -> None:
    """Check the numbers of connections of the sparse layers after `iteration` steps."""
    dense = iteration < plan.dense_steps
    expected = {layer.name: layer.size if dense else layer.connections for layer in layers}
    if not dense and plan.experiment.sparsity.redistribution != "none":
        # A redistribution moves connections between layers.
        counts, expected = {"": sum(counts.values())}, {"": sum(expected.values())}
    for name, count in counts.items():
        if count != expected[name]:
            refuse(
                key,
                f"has {count} connections, but the configuration needs {expected[name]}",
                value=count,
                limit=expected[name],
                layer=name or None,
            )


def _check_evolver(
    state: object,
    plan: Plan,
    layers: Sequence[_Layer],
    iteration: int,
    connections: Mapping[str, int],
    ever: Mapping[str, int],
) -> dict[int, float]:
    """Check the state of the mask evolver.

    Returns:
        Step -> exploration rate after it, for step 0 and for each update.
    """
    key = "state.evolver"
    expected = ["iteration", "generators", "history"]
    moments = (
        plan.experiment.sparsity.growth == "momentum"
        and any(layer.stored for layer in layers)
        and iteration < plan.schedule.t_end
    )
    table = check_table(state, key, [*expected, *["moments"] * moments], optional=("waiting",))
    if type(table["iteration"]) is not int or table["iteration"] != iteration:
        refuse(
            f"{key}.iteration",
            f"is {shorten(table['iteration'])}, but state.iteration is {iteration}",
            value=table["iteration"],
            limit=iteration,
        )
    if table.get("waiting", False) is not False:
        refuse(f"{key}.waiting", "is not false, but the training never lets an update wait")
    names = [layer.name for layer in layers]
    if not isinstance(table["generators"], dict):
        refuse(f"{key}.generators", "is not a table", "type")
    check_names(table["generators"], f"{key}.generators", names)
    if moments:
        _check_dense_moments(table["moments"], layers, iteration)
    return _check_updates(table["history"], plan, layers, iteration, connections, ever)


def _check_dense_moments(state: object, layers: Sequence[_Layer], iteration: int) -> None:
    """Check the moments of all positions of the layers that store only connections."""
    key = "state.evolver.moments"
    if not isinstance(state, dict):
        refuse(key, "is not a table", "type")
    check_names(state, key, [layer.name for layer in layers if layer.stored])
    for layer in layers:
        if layer.stored:
            place = f"{key}.{layer.name}"
            moments = MOMENTS if iteration else ()
            tensors = check_table(state[layer.name], place, moments, layer=layer.name)
            for moment in moments:
                shape = (layer.size,)
                check_array(tensors[moment], f"{place}.{moment}", np.float32, shape, layer.name)
            if moments:
                check_squares(tensors["exp_avg_sq"], f"{place}.exp_avg_sq", layer.name)


def _check_updates(
    state: object,
    plan: Plan,
    layers: Sequence[_Layer],
    iteration: int,
    connections: Mapping[str, int],
    ever: Mapping[str, int],
) -> dict[int, float]:
    """Check the records of the updates of the masks (`sparsity.records.Update.plain`).

    Returns:
        As `_check_evolver`.
    """
    key, dense_steps = "state.evolver.history", plan.dense_steps
    steps = [dense_steps] if 0 < dense_steps <= iteration else []
    steps += [step for step in plan.updates if step <= iteration]
    records = check_list(state, key, len(steps))
    positions = sum(layer.size for layer in layers)
    present = {x.name: x.size if dense_steps else x.connections for x in layers}
    past = dict(present)
    explored = {0: sum(past.values()) / positions}
    for index, (record, step) in enumerate(zip(records, steps)):
        place = f"{key}[{index}]"
        at, fraction, moves, silent = check_list(record, place, 4)
        if type(at) is not int or at != step:
            refuse(
                place,
                f"has the step {shorten(at)}, but the update was after step {step}",
                value=at,
                limit=step,
            )
        ends_dense = step == dense_steps
        expected = plan.schedule.fraction(step)
        if ends_dense:
            expected = 1 - sum(layer.connections for layer in layers) / positions
        share = check_number(fraction, f"{place} (fraction)", 0, 1)
        if not math.isclose(share, expected, rel_tol=1e-9, abs_tol=1e-12):
            refuse(place, f"has the fraction {share}, not {expected}", value=share, limit=expected)
        totals = [0, 0]
        for layer, numbers in zip(layers, check_list(moves, place, len(layers))):
            here = f"{place} (layer {layer.name})"
            pruned, grown, after, ever_after = (
                check_integer(number, here, 0, layer.size)
                for number in check_list(numbers, here, 4)
            )
            before, least = present[layer.name], past[layer.name]
            one_by_one = plan.experiment.sparsity.redistribution == "none"
            wrong = (
                (ends_dense and (grown or after != layer.connections))
                or (not ends_dense and one_by_one and pruned != grown)
                or pruned > before
                or after != before - pruned + grown
                or not least <= ever_after <= least + grown
            )
            if wrong:
                refuse(here, "has numbers that contradict each other", layer=layer.name)
            present[layer.name], past[layer.name] = after, ever_after
            totals[0] += pruned
            totals[1] += grown
        if not ends_dense and totals[0] != totals[1]:
            refuse(place, "pruned and grew different numbers of connections")
        _check_silent(silent, plan.topology, place, counted=step < iteration)
        explored[step] = sum(past.values()) / positions
    for layer in layers:
        if (present[layer.name], past[layer.name]) != (connections[layer.name], ever[layer.name]):
            refuse(
                key,
                f"ends with {present[layer.name]} connections and {past[layer.name]} past "
                f"connections in layer {layer.name}, but the layer has "
                f"{connections[layer.name]} and {ever[layer.name]}",
                layer=layer.name,
            )
    return explored


def _check_silent(silent: object, topology: Topology, key: str, *, counted: bool) -> None:
    """Check the numbers of silent neurons of an update, which the next step counts."""
    if not counted:
        if silent is not None:
            refuse(key, "has silent neurons, which only the next step counts")
        return
    hidden = [layer for layer in topology.layers if not layer.readout]
    table = check_table(silent, f"{key} (silent)", [layer.name for layer in hidden])
    for layer in hidden:
        check_integer(table[layer.name], f"{key} (silent {layer.name})", 0, layer.neurons)


def _check_history(
    entries: Sequence[Mapping[str, Any]],
    plan: Plan,
    layers: Sequence[_Layer],
    iteration: int,
    explored: Mapping[int, float],
) -> list[Epoch]:
    """Check the records of the epochs and return them."""
    check_list(entries, "history", iteration // plan.steps_per_epoch)
    history = read_history(entries)
    topology = plan.topology
    sizes = {layer.name: layer.positions for layer in topology.weighted}
    for index, epoch in enumerate(history):
        place, step = f"history[{index}]", (index + 1) * plan.steps_per_epoch
        if type(epoch.epoch) is not int or epoch.epoch != index + 1:
            refuse(f"{place}.epoch", f"is {epoch.epoch}, not {index + 1}", value=epoch.epoch)
        check_number(epoch.loss, f"{place}.loss", -math.inf, math.inf)
        if plan.validated:
            check_number(epoch.validation_accuracy, f"{place}.validation_accuracy", 0, 1)
        elif epoch.validation_accuracy is not None:
            refuse(f"{place}.validation_accuracy", "is a number, but no sample is held back")
        check_names(epoch.densities, f"{place}.densities", list(sizes))
        counts = {}
        for name, size in sizes.items():
            density = check_number(epoch.densities[name], f"{place}.densities.{name}", 0, 1)
            counts[name] = round(density * size)
            check_equal(density, counts[name] / size, f"{place}.densities.{name}")
        sparse = {layer.name: counts[layer.name] for layer in layers}
        _check_counts(sparse, plan, layers, step, f"{place}.densities")
        dense = {name: sizes[name] for name in sizes.keys() - sparse.keys()}
        total = sum(sparse.values()) + sum(dense.values())
        check_equal(epoch.density, total / sum(sizes.values()), f"{place}.density")
        for name in dense:
            check_equal(epoch.densities[name], 1.0, f"{place}.densities.{name}")
        last = max(update for update in explored if update <= step)
        check_equal(epoch.exploration, explored[last], f"{place}.exploration")
        _check_measurements(epoch, topology, place)
    return history


def _check_measurements(epoch: Epoch, topology: Topology, place: str) -> None:
    """Check the numbers of a record that no one can compute again; older records lack some."""
    neurons = {layer.name: layer.neurons for layer in topology.layers}
    weighted = [layer.name for layer in topology.weighted]
    firing: list[list[str]] = [[], list(topology.hidden_names), list(topology.names)]
    for part, table, layers in (
        ("silent", epoch.silent, firing),
        ("saturated", epoch.saturated, firing),
        ("rates", epoch.rates, firing),
        ("beyond_range", epoch.beyond_range, [weighted]),
    ):
        if table is None:
            continue
        if list(table) not in layers:
            check_names(table, f"{place}.{part}", layers[-1])
        for name, value in table.items():
            if part in ("silent", "saturated"):
                check_integer(value, f"{place}.{part}.{name}", 0, neurons[name])
            else:
                check_number(value, f"{place}.{part}.{name}", 0, 1)


def _check_losses(losses: object, plan: Plan, iteration: int) -> None:
    """Check the losses of the steps of the current epoch."""
    number = (iteration - 1) % plan.steps_per_epoch + 1 if iteration else 0
    for loss in check_list(losses, "state.losses", number):
        check_number(loss, "state.losses", -math.inf, math.inf)


def _check_best(
    best: object,
    parts: Mapping[str, Mapping[str, Array]],
    plan: Plan,
    layers: Sequence[_Layer],
    iteration: int,
    history: Sequence[Epoch],
) -> None:
    """Check the network of the epoch that the training would keep if it ended now."""
    table = check_table(best, "state.best", tuple(parts) if history else ())
    if not history:
        return
    kept = kept_epoch(history)
    step = (kept + 1) * plan.steps_per_epoch
    counts, _ = _check_network(table, plan, layers, step, "state.best.")
    for layer in layers:
        density = history[kept].densities[layer.name]
        if counts[layer.name] / layer.size != density:
            refuse(
                "state.best",
                f"has {counts[layer.name]} connections in layer {layer.name}, but its epoch has "
                f"the density {density}",
                value=counts[layer.name],
                limit=density,
                layer=layer.name,
            )
    if step != iteration:
        return
    for part, arrays in parts.items():
        for name, values in arrays.items():
            if not np.array_equal(table[part][name], values):
                refuse(
                    f"state.best.{part}",
                    f"differs in {name} from {part}, though the last epoch is the best one",
                    layer=_layer_of(name),
                )


def _check_group(
    group: object, expected: Mapping[str, Any], plan: Plan, iteration: int, key: str
) -> None:
    """Check that the options of the optimiser, except the learning rate, are those of a new one.

    The learning rate must be that of the last step.
    """
    required = [name for name in expected if name not in _BY_TORCH]
    table = check_table(group, key, required, optional=_BY_TORCH)
    for name in ("foreach", "fused", "decoupled_weight_decay"):
        if not isinstance(table.get(name), bool | None):
            refuse(f"{key}.{name}", "is neither a truth value nor nothing", "type")
    if table.get("decoupled_weight_decay"):
        refuse(f"{key}.decoupled_weight_decay", "is true, but the training uses Adam")
    training = plan.experiment.training
    rate = learning_rate(training, max(0, iteration - 1), plan.iterations)
    for name in required:
        value = table[name]
        if name == "lr":
            check_number(value, f"{key}.lr", 0, math.inf)
            # The cosine may differ in its last bits between machines; the next step sets the rate.
            tolerance = 1e-12 * training.learning_rate
            matches = math.isclose(value, rate, rel_tol=1e-9, abs_tol=tolerance)
        else:
            matches = _is_same(value, expected[name])
        if not matches:
            wanted = rate if name == "lr" else expected[name]
            refuse(
                f"{key}.{name}",
                f"is {shorten(value)}, but the training has {shorten(wanted)}",
                value=value if isinstance(value, int | float) else shorten(value),
                limit=wanted if isinstance(wanted, int | float) else shorten(wanted),
            )


def _is_same(a: object, b: object) -> bool:
    """Return whether two plain values are equal and have the same types."""
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(_is_same, a, b))
    return type(a) is type(b) and not isinstance(a, np.ndarray) and a == b


def _layer_of(name: str) -> str:
    """Return the layer or shortcut to which an entry of a state dict belongs."""
    for end in (".synapse.weight", ".norm.", ".neuron.", ".weight"):
        if end in name:
            return name.partition(end)[0]
    return name
