"""Which layers store only their connections, by what an experiment says of its engine."""

from __future__ import annotations

import logging

from esl_lava.sparsity.config import Sparsity
from esl_lava.sparsity.plan import choose_sparse, count_connections
from esl_lava.topology import Topology

SMALL = 1 << 18
"""Positions of a layer below which its cost is mostly not that of its weights."""

BREAK_EVEN, BREAK_EVEN_SMALL = 0.2, 0.3
"""Density from which on storing only connections no longer pays, of any layer and of a small
one: where 4 and 16 steps, with and without a gradient of the input, agree best
(`docs/performance.md`)."""

_logger = logging.getLogger(__name__)


def choose_stored(engine: str, topology: Topology, sparsity: Sparsity) -> tuple[str, ...]:
    """Names of the layers of which only connections are to be stored.

    Raises:
        ConfigError: as `count_connections`.
    """
    if engine not in ("sparse", "auto"):
        return ()
    shapes = choose_sparse(topology, sparsity.keep_dense)
    if engine == "sparse":
        return tuple(shape.name for shape in shapes)
    for reason, applies in {
        "sparsity.growth momentum needs every step's dense gradient": sparsity.growth == "momentum",
        "sparsity.dense_epochs needs dense weights": sparsity.dense_epochs > 0,
    }.items():
        if applies:
            _logger.info("engine auto: fused in every layer, as %s", reason)
            return ()
    counts = count_connections(topology, sparsity)
    chosen = []
    for shape in shapes:
        density = counts[shape.name] / shape.size
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
