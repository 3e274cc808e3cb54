"""Sparse training from scratch: masks that evolve at a constant number of connections.

A training loop uses `MaskEvolver`. It works on dense weights with masks, and on
`weights.SparseWeight`, which stores only the connections.

In this package a *position* is one element of a weight matrix or kernel. A *connection* is a
position that the mask allows; the other positions are *free*. Positions are flat indices.

A rule is a pure function in a table: `density.DISTRIBUTIONS`, `prune.PRUNE`, `growth.GROW`,
`redistribution.REDISTRIBUTE` or `schedule.SCHEDULES`. A new rule needs one function and one
entry. `density` and `schedule` do not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esl_lava.sparsity.evolver import MaskEvolver, weight_layers

__all__ = ["MaskEvolver", "weight_layers"]


def __getattr__(name: str) -> Any:
    """Import the evolver on its first use, because it needs torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from esl_lava.sparsity import evolver

    return getattr(evolver, name)
