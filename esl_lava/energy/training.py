"""Operations and bytes of a training run, against its dense twin.

From what a run recorded: the density of every layer in every epoch, what the updates of the
masks moved, and the rates of spikes (of the trained network: they stand for the whole run).
A dense twin is the same network, data and number of epochs with every connection, and
without evolution. Per layer with c connections of N possible ones, which w weights of p
positions make, S samples an epoch in batches, T steps, rate r of spikes per input and step:

    phase      sparse, every step   sparse, events only   dense twin
    forward    S T c                S T c r               S T N
    backward   S T c (1 + b)        S T c (r + b)         S T N (1 + b)
    update     12 w a batch         12 w a batch          12 p a batch
    evolution  w + moved an update; p more where growth ranks all positions

w is c and p is N but for kernels. b is 0 in the first layer, which hands no error down, and 1
in others. The gradient of a weight is an error times an input spike, so that without a spike
there is nothing to add; errors themselves are not sparse. Growth by gradient takes the dense
gradient in its iterations, S T N / batches each; growth by momentum in all of them. 12
operations are Adam's for one weight. Operations are multiply-accumulates or accumulations.

Bytes: weights, gradients and Adam's two moments are float32, a stored weight has a 4-byte
index, a spike 1 byte; weights are read once per batch and step in either direction,
gradients read and written, spikes and potentials written forward and read backward; an
update reads weight, gradient and moments and writes all but the gradient; an update of the
masks reads the weights and reads and writes a byte of mask for every position.

Figures of a machine that profits from every zero, as a bound: PyTorch's masked dense
training does the operations of the dense twin.
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
    """What a training recorded of a layer.

    Attributes:
        name: the layer's.
        neurons: it has.
        positions: of its weights, of a kernel each once.
        possible_connections: between two neurons, if nothing were pruned: `positions`
            where the layer is fully connected.
        rate: spikes per input and step, 0..1.
        densities: weights over positions, one for each epoch.
        moved: connections grown, all updates of the masks together.
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
    """How a training ran.

    Attributes:
        samples: per epoch.
        batch: samples an optimiser step.
        steps: T.
        updates: of the masks.
        growth: the rule, a name of `sparsity.growth.GROW`.
    """

    samples: int
    batch: int
    steps: int
    updates: int
    growth: str

    @property
    def batches(self) -> int:
        """Optimiser steps an epoch."""
        return math.ceil(self.samples / self.batch)


@dataclass(frozen=True)
class Work:
    """Operations and bytes of a training by phase (`PHASES`).

    Attributes:
        operations: phase -> operations where every step costs every connection.
        event_operations: the same where only spikes cost, in the phases they reach.
        bytes: phase -> bytes moved.
    """

    operations: Mapping[str, float]
    event_operations: Mapping[str, float]
    bytes: Mapping[str, float]


@dataclass(frozen=True)
class TrainingCost:
    """A training and its dense twin.

    Attributes:
        sparse, dense: the work of either.
        neuron_updates: forward, the same in both; backward takes as many.
    """

    KEYS: ClassVar[Keys] = keys(
        "sparse dense_twin=dense neuron_updates operations_ratio event_ratio bytes_ratio"
    )

    sparse: Work
    dense: Work
    neuron_updates: int

    @property
    def operations_ratio(self) -> float:
        """Operations of the sparse training over those of its dense twin."""
        return sum(self.sparse.operations.values()) / sum(self.dense.operations.values())

    @property
    def event_ratio(self) -> float:
        """The same where the sparse training pays for spikes only."""
        return sum(self.sparse.event_operations.values()) / sum(self.dense.operations.values())

    @property
    def bytes_ratio(self) -> float:
        """Bytes moved by the sparse training over those of its dense twin."""
        return sum(self.sparse.bytes.values()) / sum(self.dense.bytes.values())


def training_cost(layers: Sequence[TrainedLayer], schedule: TrainingSchedule) -> TrainingCost:
    """Operations and bytes of a whole training, and of its dense twin.

    Args:
        layers: in order, with as many densities each as there were epochs.
        schedule: of the training.

    Raises:
        DataError: when layers do not record the same epochs, at least one.
    """
    epochs = {len(layer.densities) for layer in layers}
    if len(epochs) != 1 or 0 in epochs:
        raise DataError(
            "a training's cost needs the density of every layer in every epoch; recorded are "
            + ", ".join(f"{layer.name} {len(layer.densities)}" for layer in layers)
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
    operations = dict.fromkeys(PHASES, 0.0)
    events = dict.fromkeys(PHASES, 0.0)
    moved = dict.fromkeys(PHASES, 0.0)
    presented = schedule.samples * schedule.steps
    for position, layer in enumerate(layers):
        down = 1 if position else 0
        # Weights summed over epochs: every term is linear in them.
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
    """Operations of the gradients of absent connections, which some growth rules rank."""
    absent = layer.possible_connections * sum(1 - density for density in layer.densities)
    of_all_epochs = schedule.samples * schedule.steps * absent
    if schedule.growth == "momentum":
        return of_all_epochs
    if schedule.growth == "gradient":
        iterations = schedule.batches * len(layer.densities)
        return of_all_epochs * schedule.updates / iterations
    return 0.0


def _evolution(layer: TrainedLayer, schedule: TrainingSchedule, weights: float) -> float:
    """Operations of all updates of the masks: what is scored, and what is moved."""
    if not schedule.updates or not layer.moved:
        return 0.0  # a layer that is never rewired
    scored = layer.positions if schedule.growth in ("gradient", "momentum") else 0
    return schedule.updates * (weights + scored) + layer.moved
