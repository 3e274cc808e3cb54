"""The paper's Table 2, as printed, and the networks of ours that stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row that is printed in the paper.

    Attributes:
        dataset, network, method: as printed; a network is None where the paper names none.
        density: of the sparse network; 1 of a dense one; None where none is printed.
        accuracy: 0..1.
        loss: accuracy below that of the dense network of the same method, 0..1.
    """

    dataset: str
    network: str | None
    method: str
    density: float | None
    accuracy: float
    loss: float | None = None


PUBLISHED = (
    Published("CIFAR-10", None, "ADMM", 0.1, 0.8953, 0.0385),
    Published("CIFAR-10", None, "Grad R", 0.12, 0.9284, 0.0034),
    Published("CIFAR-10", "ResNet-19", "TET", 1.0, 0.9279),
    Published("CIFAR-10", "ResNet-19", "ESL-SNNs", 0.5, 0.9109, 0.017),
    Published("CIFAR-100", "ResNet-19", "TET", 1.0, 0.7447),
    Published("CIFAR-100", "ResNet-19", "ESL-SNNs", 0.5, 0.7348, 0.0099),
    Published("DVS-CIFAR10", "DenseNet", "Streaming rollout", None, 0.668),
    Published("DVS-CIFAR10", None, "LIAF-Net", None, 0.717),
    Published("DVS-CIFAR10", "VGGSNN", "TET", 1.0, 0.7858),
    Published("DVS-CIFAR10", "VGGSNN", "ESL-SNNs", 0.1, 0.783, 0.0028),
)
"""ESL-SNNs (AAAI 2023), Table 2."""


@dataclass(frozen=True)
class Trained:
    """A network of ours: an exported integer network, over all seeds.

    Attributes:
        part: name of the table's part; a part has one data set and one network.
        dataset: name of the data set.
        layers: the network, as `model.layers` has it.
        steps: T.
        epochs: trained.
        density: of the layers that are made sparse; 1 of the dense network.
        weights: of the whole network.
        accuracy: on the test split, mean over the seeds, 0..1.
        spread: sample standard deviation of it; None of a single seed.
        accuracies: of each seed.
        loss: accuracy below that of the dense network with the same seeds, 0..1; None of the
            dense one, and where that is missing.
    """

    part: str
    dataset: str
    layers: str
    steps: int
    epochs: int
    density: float
    weights: int
    accuracy: float
    spread: float | None
    accuracies: Sequence[float]
    loss: float | None
