"""Number of connections of each layer of a topology, before the network has weights."""

from __future__ import annotations

from collections.abc import Collection

from esl_lava.errors import ConfigError
from esl_lava.sparsity.config import Sparsity
from esl_lava.sparsity.density import LayerShape, allocate
from esl_lava.topology import Topology


def choose_sparse(topology: Topology, keep_dense: Collection[str]) -> list[LayerShape]:
    """Return the layers that become sparse, in order: all weight layers not in `keep_dense`.

    Raises:
        ConfigError: if `keep_dense` has a name that is no weight layer's, or no layer is left.
    """
    names = [layer.name for layer in topology.weighted]
    for name in sorted({*keep_dense} - {*names}):
        raise ConfigError(
            f"sparsity.keep_dense names {name!r}, which is not a weight layer; the network has "
            f"{', '.join(names)}",
            "unknown",
            key="sparsity.keep_dense",
            value=name,
            limit=tuple(names),
        )
    shapes = []
    for layer in topology.weighted:
        n_post, n_pre, *kernel = layer.weight_shape
        if layer.name not in keep_dense:
            # As `Layer.shape`: trailing lengths 1 are not part of the kernel.
            kernel = kernel if any(length > 1 for length in kernel) else []
            shapes.append(LayerShape(layer.name, n_pre, n_post, tuple(kernel)))
    if not shapes:
        raise ConfigError(
            f"no layer is left to make sparse: sparsity.keep_dense names all {len(names)} weight "
            "layers of the network",
            "conflict",
            key="sparsity.keep_dense",
            value=tuple(sorted(keep_dense)),
        )
    return shapes


def count_connections(topology: Topology, sparsity: Sparsity) -> dict[str, int]:
    """Return the number of connections of every weight layer, once the sparse layers are sparse.

    This is after a dense phase, if there is one, and before the first update of the masks.

    Raises:
        ConfigError: as in `choose_sparse` and `allocate`.
    """
    shapes = choose_sparse(topology, sparsity.keep_dense)
    counts = allocate(
        shapes,
        sparsity.density,
        sparsity.eps,
        sparsity.densities,
        sparsity.distribution,
        section="sparsity.",
    )
    sparse = {shape.name: count for shape, count in zip(shapes, counts)}
    return {layer.name: sparse.get(layer.name, layer.positions) for layer in topology.weighted}
