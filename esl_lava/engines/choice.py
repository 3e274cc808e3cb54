"""What computes a training's steps: SLAYER's blocks, faster passes of theirs, sparse layers."""

from __future__ import annotations

import logging

from esl_lava.config import Experiment
from esl_lava.engines.fused import accelerate
from esl_lava.models.build import SpikingNetwork, build
from esl_lava.sparsity.density import LayerShape
from esl_lava.sparsity.evolver import allocate

SMALL = 1 << 18
"""Positions of a layer below which its cost is mostly not that of its weights."""

BREAK_EVEN, BREAK_EVEN_SMALL = 0.2, 0.3
"""Density from which on storing only connections no longer pays, of any layer and of a small
one: where 4 and 16 steps, with and without a gradient of the input, agree best
(`docs/performance.md`)."""

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
        break_even = BREAK_EVEN_SMALL if shape.size < SMALL else BREAK_EVEN
        if pays := density < break_even:
            chosen.append(shape.name)
        _logger.info(
            "engine auto: %s %s, %d x %d at density %.4g (sparse below %g)",
            "sparse" if pays else "fused",
            shape.name,
            shape.n_pre,
            shape.n_post,
            density,
            break_even,
        )
    return tuple(chosen)
