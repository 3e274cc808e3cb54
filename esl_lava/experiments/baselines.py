"""Baselines for sparse training from scratch, derived from the same experiment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from types import MappingProxyType

from esl_lava.config import Experiment, override
from esl_lava.data.catalogue import load_configured
from esl_lava.data.own import OwnData
from esl_lava.errors import ConfigError, shorten
from esl_lava.sparsity.plan import count_connections
from esl_lava.topology import widest


def static(experiment: Experiment) -> Experiment:
    """Return the experiment with the same initial masks, which never change."""
    return override(experiment, {"sparsity.alpha": 0.0, "sparsity.dense_epochs": 0})


def dense(experiment: Experiment) -> Experiment:
    """Return the experiment with dense layers."""
    return override(static(experiment), {"sparsity.density": 1.0})


def small_dense(experiment: Experiment, own: OwnData | None = None) -> Experiment:
    """Return the experiment with a narrower dense network of as many weights as the sparse one.

    All hidden layers shrink by one factor. It is the smallest at which the network has at least as
    many weights as the sparse network, so rounding favours the baseline.

    Args:
        experiment: the experiment of the sparse network.
        own: the source of the samples, as in `by_method`.

    Raises:
        DataError: if the data set cannot be read. Its shape is needed to count weights.
    """
    data = load_configured(experiment.data, "train", experiment.encoding, own)
    model, shape = experiment.model, data.shape
    sparse = model.describe(shape, data.classes)
    budget = sum(count_connections(sparse, experiment.sparsity).values())

    def weights(width: int) -> int:
        narrower = model.model_copy(update=dict(model.narrowed(width)))
        return narrower.describe(shape, data.classes).positions

    width = bisect_left(range(widest(model.notation)), budget, key=weights)
    fields = {f"model.{key}": value for key, value in model.narrowed(width).items()}
    return override(dense(experiment), fields)


def pruned(experiment: Experiment) -> Experiment:
    """Return the experiment with dense training, pruning by magnitude and fine-tuning.

    Two thirds of the epochs are dense; the last third is fine-tuning.

    Raises:
        ConfigError: if the experiment has only one epoch.
    """
    epochs = experiment.training.epochs
    if epochs < 2:
        raise ConfigError(
            f"training.epochs {epochs}: method pruned needs at least 2 epochs, to train, prune "
            "and fine-tune",
            "range",
            key="training.epochs",
            value=epochs,
            limit=2,
        )
    dense_epochs = max(1, 2 * epochs // 3)
    return override(static(experiment), {"sparsity.dense_epochs": dense_epochs})


METHODS: Mapping[str, Callable[[Experiment, OwnData | None], Experiment]] = MappingProxyType(
    {
        "esl": lambda experiment, _: experiment,
        "static": lambda experiment, _: static(experiment),
        "dense": lambda experiment, _: dense(experiment),
        "small-dense": small_dense,
        "pruned": lambda experiment, _: pruned(experiment),
    }
)
"""Method -> function that makes its experiment, from the experiment and the own samples."""


def by_method(experiment: Experiment, name: str, own: OwnData | None = None) -> Experiment:
    """Return the experiment for another method: same data, seed, number of epochs and settings.

    Args:
        experiment: the experiment of the sparse network.
        name: the method, a key of `METHODS`.
        own: the source of the samples, if they are the user's own and in no folder.

    Raises:
        ConfigError: if the method is unknown, or the experiment has no such baseline.
    """
    if name not in METHODS:
        raise ConfigError(
            f"unknown method {shorten(name)}; the methods are {', '.join(METHODS)}",
            "unknown",
            key="method",
            value=name,
            limit=", ".join(METHODS),
        )
    return METHODS[name](experiment, own)
