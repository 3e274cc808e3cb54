"""Redistribution rules: the number of connections that each layer grows.

With "none" a layer grows as many connections as it pruned. The other rules divide all pruned
connections in proportion to a statistic of each layer (Dettmers & Zettlemoyer 2019), at most as
many as the layer had free positions. A new rule is one more entry of `REDISTRIBUTE`.
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
class ActiveWeights:
    """The connections of a layer before an update, in order of position.

    Attributes:
        values: (connections,) weights.
        momentum: returns their (connections,) momentum scores (`optimizer.momentum`).
        positions: (connections,) int64 flat positions.
    """

    values: Tensor
    momentum: Callable[[], Tensor]
    positions: Tensor


Statistic = Callable[[ActiveWeights], float]
"""(connections of a layer) -> the layer's weight in the division, at least 0."""


REDISTRIBUTE: Mapping[str, Statistic | None] = MappingProxyType(
    {
        "none": None,
        "momentum": lambda active: _mean(active.momentum()),
        "magnitude": lambda active: _mean(active.values.abs()),
        "nonzero": lambda active: float(active.values.count_nonzero()),
    }
)
"""Name -> statistic: mean momentum score, mean |weight|, or number of nonzero weights."""


def share_out(
    rule: PruneRule,
    values: Sequence[Tensor],
    fraction: float,
    free: Sequence[int],
    statistics: Mapping[str, float] | None,
) -> tuple[list[int], list[int]]:
    """Compute the number of connections that each layer prunes and grows. The sums are equal.

    With statistics, no layer loses its last connection, and no more connections move than there
    are free positions in all layers. The excess of a full layer goes to the other layers in
    proportion to their statistics (`apportion`). If the statistics are NaN or infinite, or are 0
    in so many layers that the other layers have too few free positions, they are ignored with a
    warning.

    Args:
        rule: the prune rule.
        values: weights of the connections of each layer.
        fraction: share of the connections to move.
        free: number of free positions of each layer before the update.
        statistics: layer name -> statistic, in the order of the layers. With None each layer grows
            as many connections as it prunes, and prunes at most as many as it has free positions.

    Returns:
        The number of pruned and the number of grown connections of each layer.
    """
    if statistics is not None:
        caps = [max(layer.numel() - 1, 0) for layer in values]
        pruned = rule.count(values, fraction, caps, sum(free))
        shares = list(statistics.values())
        finite = all(math.isfinite(share) for share in shares)
        if finite and sum(slots for slots, share in zip(free, shares) if share) >= sum(pruned):
            weights = [Fraction(share) for share in shares]
            return pruned, apportion(sum(pruned), weights, free, least=0)
        _log.warning(
            "the statistics of the layers cannot divide %d connections: %s; each layer grows as "
            "many connections as it prunes",
            sum(pruned),
            ", ".join(f"{name} {share}" for name, share in statistics.items()),
        )
    caps = [min(layer.numel(), slots) for layer, slots in zip(values, free)]
    pruned = rule.count(values, fraction, caps, sum(caps))
    return pruned, pruned


def _mean(values: Tensor) -> float:
    """Return the mean; NaN for no values.

    numpy sums in double precision, so the result does not depend on the device or on the number
    of threads.
    """
    return float(values.double().cpu().numpy().sum()) / values.numel() if len(values) else math.nan
