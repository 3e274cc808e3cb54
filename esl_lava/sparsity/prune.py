"""Which connections go: rules on active values, in one table.

A rule is two pure functions: how many connections each layer gives up, and which. Both
see active values only (a flat array in ascending order of position), never a dense
tensor. A new rule is one more entry of `PRUNE`.
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
        numbers: (active values of each layer, fraction in 0..1, caps, limit) ->
            connections each layer is to give up: at most its cap, at most `limit`
            together. A cap is at most the layer's connections.
        pick: (active values of one layer without NaN, n of them at most) -> (n,) int64
            indices into these values, ascending; ties go to the lower index.
    """

    numbers: Callable[[Sequence[Tensor], float, Sequence[int], int], list[int]]
    pick: Callable[[Tensor, int], Tensor]


def each_alike(
    values: Sequence[Tensor], fraction: float, caps: Sequence[int], limit: int
) -> list[int]:
    """Every layer gives up round-half-up(fraction * active) of its own connections.

    The product is taken in double precision. A layer's excess over its cap is not moved;
    an excess over `limit` is taken off every layer in proportion (`round_shares`).
    """
    numbers = [
        min(cap, round_half_up(Fraction(fraction * layer.numel())))
        for layer, cap in zip(values, caps)
    ]
    total = sum(numbers)
    if total > limit:
        return round_shares([Fraction(number * limit, total) for number in numbers])
    return numbers


def ranked_together(
    values: Sequence[Tensor], fraction: float, caps: Sequence[int], limit: int
) -> list[int]:
    """The round-half-up(fraction * active) connections closest to 0 of all layers go.

    One ranking by |w|, ties to the lower layer. A layer that would exceed its cap, or
    lose its last connection, gives up that many and the ranking goes on without it. The
    product is taken in double precision.
    """
    caps = [min(cap, max(layer.numel() - 1, 0)) for layer, cap in zip(values, caps)]
    active = sum(layer.numel() for layer in values)
    left = min(round_half_up(Fraction(fraction * active)), limit, sum(caps))
    numbers = [0] * len(values)
    ranked = list(range(len(values)))
    while ranked:
        chosen = find_smallest(torch.cat([values[i].abs() for i in ranked]), left)
        ends = torch.tensor([values[i].numel() for i in ranked]).cumsum(0).to(chosen.device)
        upto = torch.searchsorted(chosen, ends).tolist()
        for i, first, last in zip(ranked, [0, *upto], upto):
            numbers[i] = last - first
        over = [i for i in ranked if numbers[i] > caps[i]]
        if not over:
            break
        for i in over:
            numbers[i] = caps[i]
            left -= caps[i]
        ranked = [i for i in ranked if i not in over]
    return numbers


def set_tails(values: Tensor, n: int) -> Tensor:
    """SET: the positive values closest to 0 and the negative ones, each tail on its own.

    Rounding: exact zeros go first and count among the n (lower index first where there
    are more than n). The rest of n is split over the two tails in proportion to their
    sizes by largest remainder, an exact tie to the positive tail; each tail loses its
    values closest to 0. (Mocanu et al. 2018, step "weights removal": there zeros go on
    top of the fraction, which would let the number of connections drift.)
    """
    chosen = values == 0
    zeros = count(chosen)
    if zeros >= n:
        return list_true(chosen)[:n]
    tails = [list_true(side) for side in (values > 0, values < 0)]
    rest, nonzero = n - zeros, values.numel() - zeros
    numbers = round_shares([Fraction(rest * tail.numel(), nonzero) for tail in tails])
    for tail, k in zip(tails, numbers):
        nearest = find_smallest(values.index_select(0, tail).abs(), k)
        chosen.index_fill_(0, tail.index_select(0, nearest), True)
    return list_true(chosen)


def closest_to_zero(values: Tensor, n: int) -> Tensor:
    """The `n` values smallest in magnitude; exact zeros first, ties to the lower index."""
    return find_smallest(values.abs(), n)


PRUNE: Mapping[str, PruneRule] = MappingProxyType(
    {
        "set": PruneRule(numbers=each_alike, pick=set_tails),
        "magnitude": PruneRule(numbers=each_alike, pick=closest_to_zero),
        "global_magnitude": PruneRule(numbers=ranked_together, pick=closest_to_zero),
    }
)
"""Prune rules by name."""
