"""Which layers grow how much: statistics of active connections, in one table.

With "none" a layer regrows what it gave up. Otherwise all that is given up is shared out
in proportion to a statistic of each layer (Dettmers & Zettlemoyer 2019), at most as many
as a layer had free slots. A new rule is one more entry of `REDISTRIBUTE`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from torch import Tensor

from esl_lava.sparsity.density import apportion
from esl_lava.sparsity.prune import PruneRule

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Active:
    """A layer's connections, those about to go included, in order of position.

    Attributes:
        values: (connections,) weights.
        momentum: what gives their (connections,) momentum scores (`optimizer.momentum`).
        positions: (connections,) int64 flat positions.
    """

    values: Tensor
    momentum: Callable[[], Tensor]
    positions: Tensor


Statistic = Callable[[Active], float]
"""A layer's weight in the sharing, at least 0."""


REDISTRIBUTE: Mapping[str, Statistic | None] = MappingProxyType(
    {
        "none": None,
        "momentum": lambda active: _mean(active.momentum()),
        "magnitude": lambda active: _mean(active.values.abs()),
        "nonzero": lambda active: float(active.values.count_nonzero()),
    }
)
"""Statistics by name: mean momentum score, mean |weight|, number of weights that are not 0."""


def share_out(
    rule: PruneRule,
    values: Sequence[Tensor],
    fraction: float,
    free: Sequence[int],
    statistics: Mapping[str, float] | None,
) -> tuple[list[int], list[int]]:
    """How many connections each layer gives up and how many it grows; equal in sum.

    With statistics no layer loses its last connection, no more connections move than
    there are free slots in all, and what a full layer cannot take goes to the others in
    proportion to their statistics (`apportion`). Statistics that give no proportions
    (NaN or infinite, or 0 in so many layers that the rest has not the slots) count as
    none, with a warning.

    Args:
        rule: says how many connections go.
        values: active weights of each layer.
        fraction: share of the connections to move.
        free: free slots of each layer before the update.
        statistics: layer name -> statistic, or None: each layer regrows its own, at most
            as many as it had free slots.

    Returns:
        (given up, grown) of each layer.
    """
    if statistics is not None:
        caps = [max(layer.numel() - 1, 0) for layer in values]
        pruned = rule.numbers(values, fraction, caps, sum(free))
        shares = list(statistics.values())
        finite = all(math.isfinite(share) for share in shares)
        if finite and sum(slots for slots, share in zip(free, shares) if share) >= sum(pruned):
            weights = [Fraction(share) for share in shares]
            return pruned, apportion(sum(pruned), weights, free, least=0)
        _log.warning(
            "no proportions to share %d connections out by: %s; each layer regrows its own",
            sum(pruned),
            ", ".join(f"{name} {share}" for name, share in statistics.items()),
        )
    caps = [min(layer.numel(), slots) for layer, slots in zip(values, free)]
    pruned = rule.numbers(values, fraction, caps, sum(caps))
    return pruned, pruned


def _mean(values: Tensor) -> float:
    """The mean, NaN of nothing.

    Summed by numpy in double precision, so that it depends neither on the device nor on
    the number of threads.
    """
    return float(values.double().cpu().numpy().sum()) / values.numel() if len(values) else math.nan
