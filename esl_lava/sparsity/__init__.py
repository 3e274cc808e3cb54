"""Sparse training from scratch: masks that evolve at a constant number of connections.

A rule is a pure function in a table: `density.DISTRIBUTIONS`, `prune.PRUNE`,
`growth.GROW`, `redistribution.REDISTRIBUTE`, `schedule.SCHEDULES`; a new rule is one more
function and one more entry. `density` and `schedule` import without torch;
`MaskEvolver` is what a training loop uses, over dense weights with masks and over
`weights.SparseWeight`, which stores only the connections that exist.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esl_lava.sparsity.evolver import MaskEvolver, weight_layers

__all__ = ["MaskEvolver", "weight_layers"]


def __getattr__(name: str) -> Any:
    """The evolver, which needs torch, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from esl_lava.sparsity import evolver

    return getattr(evolver, name)
