"""Prune rules: the number of connections that each layer loses, and their choice.

A rule consists of two pure functions. They see only the weights of the connections, as a flat
array in ascending order of position, never a dense tensor. A new rule is one more entry of
`PRUNE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

import torch
from torch import Tensor

from esl_lava.sparsity.arrays import count, find_smallest, list_true
from esl_lava.sparsity.density import round_half_up, round_shares


@dataclass(frozen=True)
class PruneRule:
    """A prune rule.

    Attributes:
        count: (weights of the connections of each layer, fraction in 0..1, caps, limit) ->
            number of connections that each layer loses, at most its cap, and at most `limit` in
            total. A cap is at most the number of connections of the layer.
        pick: (weights of the connections of one layer without NaN, n) -> (n,) int64 indices
            into these weights, ascending; ties: lower index first. n is at most their number.
    """

    count: Callable[[Sequence[Tensor], float, Sequence[int], int], list[int]]
    pick: Callable[[Tensor, int], Tensor]


def count_per_layer(
    values: Sequence[Tensor], fraction: float, caps: Sequence[int], limit: int
) -> list[int]:
    """Compute how many connections each layer loses: round-half-up(fraction * its connections).

    The product is computed in double precision. A layer's excess over its cap is not moved to
    other layers. An excess over `limit` is subtracted from all layers in proportion
    (`round_shares`).
    """
    counts = [
        min(cap, round_half_up(Fraction(fraction * layer.numel())))
        for layer, cap in zip(values, caps)
    ]
    total = sum(counts)
    if total > limit:
        return round_shares([Fraction(number * limit, total) for number in counts])
    return counts


def count_globally(
    values: Sequence[Tensor], fraction: float, caps: Sequence[int], limit: int
) -> list[int]:
    """Compute how many connections each layer loses by one ranking of the weights of all layers.

    The layers together lose the round-half-up(fraction * all connections) weights of the smallest
    |w|, at most `limit`; ties: lower layer first. A layer that would exceed its cap, or lose its
    last connection, loses as many as it may, and the ranking continues without it. The product is
    computed in double precision.
    """
    caps = [min(cap, max(layer.numel() - 1, 0)) for layer, cap in zip(values, caps)]
    connections = sum(layer.numel() for layer in values)
    remaining = min(round_half_up(Fraction(fraction * connections)), limit, sum(caps))
    counts = [0] * len(values)
    ranked = list(range(len(values)))
    while ranked:
        chosen = find_smallest(torch.cat([values[i].abs() for i in ranked]), remaining)
        ends = torch.tensor([values[i].numel() for i in ranked]).cumsum(0).to(chosen.device)
        up_to = torch.searchsorted(chosen, ends).tolist()
        for i, first, last in zip(ranked, [0, *up_to], up_to):
            counts[i] = last - first
        over = [i for i in ranked if counts[i] > caps[i]]
        if not over:
            break
        for i in over:
            counts[i] = caps[i]
            remaining -= caps[i]
        ranked = [i for i in ranked if i not in over]
    return counts


def pick_tails(values: Tensor, n: int) -> Tensor:
    """Return the ascending indices of the `n` weights that SET prunes, of both signs and near 0.

    Exact zeros are picked first and count among the n; if there are more than n, the lower
    indices are picked. The rest of n is divided between the positive and the negative tail in
    proportion to their sizes by largest remainder; an exact tie goes to the positive tail. Each
    tail loses its values closest to 0. Source: Mocanu et al. 2018, step "weights removal". There
    the zeros are removed in addition to the fraction, so the number of connections would drift.
    """
    chosen = values == 0
    zeros = count(chosen)
    if zeros >= n:
        return list_true(chosen)[:n]
    tails = [list_true(side) for side in (values > 0, values < 0)]
    rest, nonzero = n - zeros, values.numel() - zeros
    counts = round_shares([Fraction(rest * tail.numel(), nonzero) for tail in tails])
    for tail, k in zip(tails, counts):
        nearest = find_smallest(values.index_select(0, tail).abs(), k)
        chosen.index_fill_(0, tail.index_select(0, nearest), True)
    return list_true(chosen)


def pick_smallest(values: Tensor, n: int) -> Tensor:
    """Return the ascending indices of the `n` smallest |values|; ties: lower index first."""
    return find_smallest(values.abs(), n)


PRUNE: Mapping[str, PruneRule] = MappingProxyType(
    {
        "set": PruneRule(count=count_per_layer, pick=pick_tails),
        "magnitude": PruneRule(count=count_per_layer, pick=pick_smallest),
        "global_magnitude": PruneRule(count=count_globally, pick=pick_smallest),
    }
)
"""Prune rules by name."""
