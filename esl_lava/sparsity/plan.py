"""How many connections the layers of a topology are to have, known before there are weights."""

from __future__ import annotations

from collections.abc import Collection

from esl_lava.errors import ConfigError
from esl_lava.sparsity.config import Sparsity
from esl_lava.sparsity.density import LayerShape, allocate
from esl_lava.topology import Topology


def choose_sparse(topology: Topology, keep_dense: Collection[str]) -> list[LayerShape]:
    """The layers to make sparse, in order: all that have weights and are not kept dense.

    Raises:
        ConfigError: when `keep_dense` names a layer that has no weights, or none is left.
    """
    names = [layer.name for layer in topology.weighted]
    for name in sorted({*keep_dense} - {*names}):
        raise ConfigError(
            f"keep_dense names {name!r}, which is no weight layer; there are: {', '.join(names)}"
        )
    shapes = []
    for layer in topology.weighted:
        n_post, n_pre, *kernel = layer.weight_shape
        if layer.name not in keep_dense:
            shapes.append(LayerShape(layer.name, n_pre, n_post, tuple(kernel)))
    if not shapes:
        raise ConfigError(
            f"no layer is left to make sparse: the model's {len(names)} weight layers, "
            f"of which keep_dense names {len(names)}"
        )
    return shapes


def count_connections(topology: Topology, sparsity: Sparsity) -> dict[str, int]:
    """Connections of every layer that has weights, when masks are drawn.

    Raises:
        ConfigError: as `choose_sparse` and `allocate`.
    """
    shapes = choose_sparse(topology, sparsity.keep_dense)
    counts = allocate(
        shapes, sparsity.density, sparsity.eps, sparsity.densities, sparsity.distribution
    )
    sparse = {shape.name: count for shape, count in zip(shapes, counts)}
    return {layer.name: sparse.get(layer.name, layer.positions) for layer in topology.weighted}
