"""Choose the layers that store only their connections, by the engine of the experiment."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from esl_lava.sparsity.config import Sparsity
from esl_lava.sparsity.density import LayerShape
from esl_lava.sparsity.plan import choose_sparse, count_connections
from esl_lava.topology import Topology

BREAK_EVENS: Mapping[str, Sequence[tuple[int, float]]] = MappingProxyType(
    {
        "matrix": ((1 << 18, 0.2), (0, 0.3)),
        "normalised matrix": ((0, 0.05),),
        "normalised kernel": ((1 << 20, 0.2), (1 << 16, 0.1), (0, 0.0)),
    }
)
"""Kind of layer -> (least number of positions, break-even density), most positions first. Below the
break-even density, storing only the connections is faster. For matrices it is the density that fits
best for 4 and 16 steps, with and without a gradient of the input. For normalised layers it was
measured on the step of a whole network (`docs/performance.md`)."""

_logger = logging.getLogger(__name__)


def choose_stored(
    engine: str, topology: Topology, sparsity: Sparsity, *, normalised: bool = False
) -> tuple[str, ...]:
    """Return the names of the layers that will store only their connections.

    Args:
        engine: the value of `training.engine`.
        topology: the layers of the network.
        sparsity: the configuration that sets the densities of the layers.
        normalised: whether a normalisation follows the weights.

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
            _logger.info("engine auto: fused in every layer, because %s", reason)
            return ()
    counts = count_connections(topology, sparsity)
    chosen = []
    for shape in shapes:
        density = counts[shape.name] / shape.size
        break_even = _break_even(shape, normalised)
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


def _break_even(shape: LayerShape, normalised: bool) -> float:
    kind = "matrix"
    if normalised:
        kind = "normalised kernel" if shape.kernel else "normalised matrix"
    return next(density for positions, density in BREAK_EVENS[kind] if shape.size >= positions)
