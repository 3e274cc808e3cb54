"""The paper's Table 2 as printed, and the rows of our networks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """A row of the table as printed in the paper.

    Attributes:
        dataset, method: texts of the paper.
        network: text of the paper; None if the paper names no network.
        density: density of the network, 1 if it is dense; None if the paper prints none.
        accuracy: test accuracy, 0..1.
        loss: accuracy of the dense network to which the paper compares it, minus this accuracy,
            0..1; None if the paper prints none.
    """

    dataset: str
    network: str | None
    method: str
    density: float | None
    accuracy: float
    loss: float | None = None


PUBLISHED = (
    PublishedRow("CIFAR-10", None, "ADMM", 0.1, 0.8953, 0.0385),
    PublishedRow("CIFAR-10", None, "Grad R", 0.12, 0.9284, 0.0034),
    PublishedRow("CIFAR-10", "ResNet-19", "TET", 1.0, 0.9279),
    PublishedRow("CIFAR-10", "ResNet-19", "ESL-SNNs", 0.5, 0.9109, 0.017),
    PublishedRow("CIFAR-100", "ResNet-19", "TET", 1.0, 0.7447),
    PublishedRow("CIFAR-100", "ResNet-19", "ESL-SNNs", 0.5, 0.7348, 0.0099),
    PublishedRow("DVS-CIFAR10", "DenseNet", "Streaming rollout", None, 0.668),
    PublishedRow("DVS-CIFAR10", None, "LIAF-Net", None, 0.717),
    PublishedRow("DVS-CIFAR10", "VGGSNN", "TET", 1.0, 0.7858),
    PublishedRow("DVS-CIFAR10", "VGGSNN", "ESL-SNNs", 0.1, 0.783, 0.0028),
)
"""The rows of ESL-SNNs (AAAI 2023), Table 2."""


@dataclass(frozen=True)
class TrainedRow:
    """A row of one of our exported integer networks, over all seeds.

    Attributes:
        part: name of the part of the table; a part has one data set and one network.
        dataset: name of the data set.
        layers: the layers, in the notation of `model.layers`.
        steps: number of steps of a sample, T.
        epochs: number of training epochs.
        density: density of the sparse layers; 1 for the dense network.
        weights: weights of the whole network.
        accuracy: test accuracy, mean over the seeds, 0..1.
        spread: sample standard deviation of the test accuracy; None for a single seed.
        accuracies: test accuracy of each seed.
        loss: mean over the seeds of the accuracy of the dense network minus this accuracy, 0..1;
            None for the dense network, and if the dense network is missing.
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
