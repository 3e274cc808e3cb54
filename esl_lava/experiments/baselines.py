"""What sparse training from scratch has to be compared with, made from the same experiment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from types import MappingProxyType

from esl_lava.config import Experiment, override
from esl_lava.data.catalogue import samples_of
from esl_lava.data.own import Own
from esl_lava.errors import ConfigError
from esl_lava.sparsity.plan import count_connections
from esl_lava.topology import widest


def static(experiment: Experiment) -> Experiment:
    """The same drawn masks, never rewired."""
    return override(experiment, {"sparsity.alpha": 0.0, "sparsity.dense_epochs": 0})


def dense(experiment: Experiment) -> Experiment:
    """Every connection there is."""
    return override(static(experiment), {"sparsity.density": 1.0})


def small_dense(experiment: Experiment, own: Own | None = None) -> Experiment:
    """Dense layers, narrower, with the parameters of the sparse network.

    All hidden layers shrink by one factor, to the narrowest that have at least as many
    weights as the sparse network has connections: the doubt is the small network's gain.

    Raises:
        DataError: when the data set, whose shape decides, cannot be read.
    """
    data = samples_of(experiment.data, "train", experiment.encoding, own)
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
    """Trained dense for two thirds of the epochs, pruned by magnitude, and fine-tuned.

    Raises:
        ConfigError: for an experiment of one epoch.
    """
    epochs = experiment.training.epochs
    if epochs < 2:
        raise ConfigError(
            "training.epochs 1: method pruned trains, prunes and fine-tunes, at least 2 epochs"
        )
    dense_epochs = max(1, 2 * epochs // 3)
    return override(static(experiment), {"sparsity.dense_epochs": dense_epochs})


METHODS: Mapping[str, Callable[[Experiment, Own | None], Experiment]] = MappingProxyType(
    {
        "esl": lambda experiment, _: experiment,
        "static": lambda experiment, _: static(experiment),
        "dense": lambda experiment, _: dense(experiment),
        "small-dense": small_dense,
        "pruned": lambda experiment, _: pruned(experiment),
    }
)
"""Ways to train an experiment by name: as it says, and the baselines; own samples as they take."""


def by_method(experiment: Experiment, name: str, own: Own | None = None) -> Experiment:
    """The experiment trained another way: same data, seed, budget of epochs and settings.

    Args:
        experiment: as it is.
        name: a key of `METHODS`.
        own: where its samples come from, where these are the user's own and in no folder.

    Raises:
        ConfigError: for an unknown name, or where the experiment has no such baseline.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name](experiment, own)
