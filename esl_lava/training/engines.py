"""What computes a training's steps: SLAYER's blocks, faster passes of theirs, sparse layers."""

from __future__ import annotations

import logging

from esl_lava.config import Experiment
from esl_lava.models.build import SpikingNetwork, build
from esl_lava.models.fused import accelerate
from esl_lava.sparsity.density import LayerShape
from esl_lava.sparsity.evolver import allocate

BREAK_EVEN = 0.2
"""Density from which on storing only connections no longer pays (`docs/performance.md`)."""

SMALLEST = 1 << 14
"""Positions below which it does not pay at any density."""

_logger = logging.getLogger(__name__)


def network(experiment: Experiment, inputs: int, classes: int) -> SpikingNetwork:
    """The network to train, with initial weights of torch's current generator.

    The same ones whatever the engine; a layer of sparse weights gets its own with its first
    connections.

    Raises:
        ConfigError: when `auto` cannot tell how dense layers are to be.
    """
    model = build(experiment.model, inputs, classes, sparse_layers(experiment, inputs, classes))
    if experiment.training.engine != "slayer":
        accelerate(model)  # finds no blocks in other networks
    return model


def sparse_layers(experiment: Experiment, inputs: int, classes: int) -> tuple[str, ...]:
    """Names of the layers of which only connections are to be stored.

    Raises:
        ConfigError: as `allocate`.
    """
    engine, sparsity = experiment.training.engine, experiment.sparsity
    if engine not in ("sparse", "auto"):
        return ()
    widths = [inputs, *experiment.model.hidden, classes]
    names = [*(f"hidden{index}" for index in range(1, len(widths) - 1)), "readout"]
    shapes = [
        LayerShape(name, n_pre, n_post)
        for name, n_pre, n_post in zip(names, widths, widths[1:])
        if name not in sparsity.keep_dense
    ]
    if engine == "sparse":
        return tuple(shape.name for shape in shapes)
    for reason, applies in {
        "sparsity.growth momentum": sparsity.growth == "momentum",
        "sparsity.dense_epochs": sparsity.dense_epochs > 0,
    }.items():
        if applies:
            _logger.info("engine auto: fused in every layer, as %s needs dense weights", reason)
            return ()
    counts = allocate(
        shapes, sparsity.density, sparsity.eps, sparsity.densities, sparsity.distribution
    )
    chosen = []
    for shape, count in zip(shapes, counts):
        density = count / shape.size
        pays = density < BREAK_EVEN and shape.size >= SMALLEST
        if pays:
            chosen.append(shape.name)
        _logger.info(
            "engine auto: %s %s, %d x %d at density %.4g (sparse below %.4g from %d positions on)",
            "sparse" if pays else "fused",
            shape.name,
            shape.n_pre,
            shape.n_post,
            density,
            BREAK_EVEN,
            SMALLEST,
        )
    return tuple(chosen)
