"""Compute the operations and bytes of a training run and of its dense twin.

The numbers follow from the records of a run: the density of every layer in every epoch, the
connections that the mask updates moved, and the spike rates. The spike rates of the trained network
are used for the whole run. The dense twin is the same network, data and number of epochs with every
connection and without evolution. A layer has c of N possible connections, which w weights of p
positions make. An epoch has S samples in batches. A sample has T steps, and r is the rate of spikes
per input and step. The operations are:

    phase      sparse, every step   sparse, events only   dense twin
    forward    S T c                S T c r               S T N
    backward   S T c (1 + b)        S T c (r + b)         S T N (1 + b)
    update     12 w a batch         12 w a batch          12 p a batch
    evolution  w + moved an update; p more if growth ranks all positions

Except in kernels, w is c and p is N. b is 0 in the first layer, which passes no error back, and 1
in the others. The gradient of a weight is an error times an input spike, so a step without a spike
adds nothing. Errors themselves are not sparse. Growth by gradient computes the dense gradient in
the iterations that grow, with S T (N - c) / batches further operations each. Growth by momentum
computes it in every iteration. Adam takes 12 operations for one weight. Operations are
multiply-accumulates or accumulations.

Bytes: weights, gradients and Adam's two moments are float32. In sparse training a weight also has a
4-byte index. A spike has 1 byte. Weights are read once per batch and step in each direction, except
backwards in the first layer. Gradients are read and written. Spikes and potentials are written in
the forward pass and read in the backward pass. An update reads weight, gradient and moments, and
writes weight and moments. A mask update reads the weights, and reads and writes a byte of mask for
every position.

The figures are a bound: they describe a machine that profits from every zero. PyTorch's masked
dense training takes the operations of the dense twin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from esl_lava.errors import DataError
from esl_lava.values import Keys, keys

ADAM_OPERATIONS = 12
ADAM_BYTES = 7 * 4
FLOAT, INDEX = 4, 4

PHASES = ("forward", "backward", "update", "evolution")


@dataclass(frozen=True)
class TrainedLayer:
    """The record of a layer in a training.

    Attributes:
        name: name of the layer.
        neurons: number of neurons.
        positions: number of positions of its weights. A position of a kernel counts once.
        possible_connections: number of connections if nothing were pruned. It equals `positions`
            if the layer is fully connected.
        rate: spikes per input and step, 0..1.
        densities: weights divided by positions, one value for each epoch.
        moved: number of connections grown in all mask updates.
    """

    name: str
    neurons: int
    positions: int
    possible_connections: int
    rate: float
    densities: Sequence[float]
    moved: int = 0


@dataclass(frozen=True)
class TrainingSchedule:
    """The schedule of a training.

    Attributes:
        samples: samples of an epoch.
        batch: samples of an optimiser step.
        steps: T, the steps of a sample.
        updates: number of mask updates.
        growth: the growth rule, a name in `sparsity.growth.GROW`.
    """

    samples: int
    batch: int
    steps: int
    updates: int
    growth: str

    @property
    def batches(self) -> int:
        """Number of optimiser steps of an epoch."""
        return math.ceil(self.samples / self.batch)


@dataclass(frozen=True)
class Work:
    """The operations and bytes of a training in each phase (`PHASES`).

    Attributes:
        operations: phase -> operations if every connection costs in every step.
        event_operations: phase -> operations if a connection costs only when a spike crosses it.
        bytes: phase -> bytes moved.
    """

    operations: Mapping[str, float]
    event_operations: Mapping[str, float]
    bytes: Mapping[str, float]


@dataclass(frozen=True)
class TrainingCost:
    """The cost of a training and of its dense twin.

    Attributes:
        sparse, dense: the work of the training, and of its dense twin.
        neuron_updates: neuron updates of the forward pass, equal in both. The backward pass takes
            as many.
    """

    KEYS: ClassVar[Keys] = keys(
        "sparse dense_twin=dense neuron_updates operations_ratio event_ratio bytes_ratio"
    )

    sparse: Work
    dense: Work
    neuron_updates: int

    @property
    def operations_ratio(self) -> float:
        """Operations of the sparse training divided by those of its dense twin."""
        return sum(self.sparse.operations.values()) / sum(self.dense.operations.values())

    @property
    def event_ratio(self) -> float:
        """Event operations of the sparse training divided by the operations of its dense twin."""
        return sum(self.sparse.event_operations.values()) / sum(self.dense.operations.values())

    @property
    def bytes_ratio(self) -> float:
        """Bytes moved by the sparse training divided by those of its dense twin."""
        return sum(self.sparse.bytes.values()) / sum(self.dense.bytes.values())


def training_cost(layers: Sequence[TrainedLayer], schedule: TrainingSchedule) -> TrainingCost:
    """Compute the operations and bytes of a whole training, and of its dense twin.

    Args:
        layers: the layers in order. Each has one density for each epoch.
        schedule: the schedule of the training.

    Raises:
        DataError: if the layers do not have the same number of densities, or have none.
    """
    epochs = {len(layer.densities) for layer in layers}
    if len(epochs) != 1 or 0 in epochs:
        recorded = ", ".join(f"{layer.name} {len(layer.densities)}" for layer in layers)
        raise DataError(
            "densities: every layer needs a density for every epoch, and at least one; the numbers "
            f"of recorded densities are {recorded}",
            "mismatch",
            key="densities",
            value=recorded,
        )
    (number,) = epochs
    dense = [replace(layer, densities=[1.0] * number, moved=0) for layer in layers]
    quiet = replace(schedule, updates=0, growth="random")
    neurons = sum(layer.neurons for layer in layers)
    return TrainingCost(
        sparse=_work(layers, schedule, stored_index=True),
        dense=_work(dense, quiet, stored_index=False),
        neuron_updates=neurons * schedule.samples * schedule.steps * number,
    )


def _work(
    layers: Sequence[TrainedLayer], schedule: TrainingSchedule, *, stored_index: bool
) -> Work:
    """Compute the work of a training. With `stored_index` each weight has an index."""
    operations = dict.fromkeys(PHASES, 0.0)
    events = dict.fromkeys(PHASES, 0.0)
    moved = dict.fromkeys(PHASES, 0.0)
    presented = schedule.samples * schedule.steps
    for position, layer in enumerate(layers):
        down = 1 if position else 0  # whether the layer passes an error back
        # Every term is linear in the weights, so they are summed over epochs.
        weights = layer.positions * sum(layer.densities)
        epochs = len(layer.densities)
        batches = schedule.batches
        ranked = _ranked(layer, schedule)
        active = presented * layer.possible_connections * sum(layer.densities)
        operations["forward"] += active
        events["forward"] += active * layer.rate
        operations["backward"] += active * (1 + down) + ranked
        events["backward"] += active * (layer.rate + down) + ranked * layer.rate
        adam = ADAM_OPERATIONS * weights * batches
        changed = _evolution(layer, schedule, weights / epochs)
        for phase, extra in (("update", adam), ("evolution", changed)):
            operations[phase] += extra
            events[phase] += extra
        weight = FLOAT + (INDEX if stored_index else 0)
        reads = batches * schedule.steps * weights
        states = presented * epochs * layer.neurons * (FLOAT + 1)
        moved["forward"] += reads * weight + states
        moved["backward"] += reads * (weight * down + 2 * FLOAT) + states
        moved["update"] += ADAM_BYTES * weights * batches
        if layer.moved:
            scanned = FLOAT * weights / epochs + 2 * layer.positions
            moved["evolution"] += schedule.updates * scanned
    return Work(operations, events, moved)


def _ranked(layer: TrainedLayer, schedule: TrainingSchedule) -> float:
    """Compute the operations of the gradients of absent connections, which some rules rank."""
    absent = layer.possible_connections * sum(1 - density for density in layer.densities)
    of_all_epochs = schedule.samples * schedule.steps * absent
    if schedule.growth == "momentum":
        return of_all_epochs
    if schedule.growth == "gradient":
        iterations = schedule.batches * len(layer.densities)
        return of_all_epochs * schedule.updates / iterations
    return 0.0


def _evolution(layer: TrainedLayer, schedule: TrainingSchedule, weights: float) -> float:
    """Compute the operations of all mask updates: scoring and moving connections."""
    if not schedule.updates or not layer.moved:
        return 0.0  # a layer that is never rewired
    scored = layer.positions if schedule.growth in ("gradient", "momentum") else 0
    return schedule.updates * (weights + scored) + layer.moved
