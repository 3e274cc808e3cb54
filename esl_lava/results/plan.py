"""The record of a dry run: what a training would be, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedLayer:
    """One layer with weights.

    Attributes:
        name: name of the layer.
        shape: shape of its weight, as torch has it: (outputs, inputs, *kernel).
        neurons: number of its neurons.
        positions: positions of its weight matrix or kernel.
        weights: positions that its mask allows at the start.
    """

    name: str
    shape: tuple[int, ...]
    neurons: int
    positions: int
    weights: int

    @property
    def density(self) -> float:
        """Number of weights divided by number of positions, 0..1."""
        return self.weights / self.positions


@dataclass(frozen=True)
class PlannedMapping:
    """The untrained network on a chip.

    Attributes:
        chip: name of the device.
        cores, chips: how many it takes; None where it cannot be placed.
        synapse_words: words of synapse memory in all cores; None where it cannot be placed.
        obstacle: why it cannot be placed; an empty text where it can.
    """

    chip: str
    cores: int | None
    chips: int | None
    synapse_words: int | None
    obstacle: str = ""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would be.

    Attributes:
        dataset: name of the data set.
        train_samples, validation_samples, test_samples: numbers of samples.
        sample_shape: (channels, rows, columns).
        classes: number of classes.
        steps: T, the steps of a sample.
        layers: layers with weights, in order.
        density: weights over positions of all layers together, 0..1.
        connections: connections of the integer network before the training; None if the integer
            network cannot be made before the training.
        mapping: the network placed on loihi1 and on loihi2.
        epochs, iterations: epochs, and optimiser steps of all epochs.
        mask_updates: how often the masks are rewired.
        device: the torch device of the training.
        timed_iterations: number of optimiser steps whose time was measured.
        seconds: estimated time of all optimiser steps, from the mean of the timed ones.
        memory_bytes: largest resident memory of this process up to now.
    """

    dataset: str
    train_samples: int
    validation_samples: int
    test_samples: int
    sample_shape: tuple[int, int, int]
    classes: int
    steps: int
    layers: Sequence[PlannedLayer]
    density: float
    connections: int | None
    mapping: Sequence[PlannedMapping]
    epochs: int
    iterations: int
    mask_updates: int
    device: str
    timed_iterations: int
    seconds: float
    memory_bytes: int
