"""Where new connections appear: rules on one layer's free slots, in one table.

A rule picks positions that were inactive before the update, so what the same update
prunes cannot come straight back. A new rule is one more entry of `GROW`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from esl_lava.errors import UserError
from esl_lava.sparsity.arrays import find_above, find_smallest
from esl_lava.sparsity.sets import Excluded, PositionSet, sample_free

Scores = Callable[[slice | Tensor], Tensor]
"""(a slice or int64 tensor of flat positions) -> their values, float."""


@dataclass(frozen=True, eq=False)
class Site:
    """What a growth rule may look at: one layer before the update, flattened.

    Attributes:
        name: as errors print it.
        mask: where a connection is, those about to go included.
        ever: where a connection ever was.
        generator: the layer's own CPU generator; a rule may advance it.
        gradient: what gives the dense gradient of the last backward pass; raises
            ConfigError where there is none.
        momentum: what gives the optimiser's momentum scores (`optimizer.momentum`);
            raises ConfigError where there are none.
    """

    name: str
    mask: PositionSet
    ever: PositionSet
    generator: torch.Generator
    gradient: Callable[[], Scores]
    momentum: Callable[[], Scores]


GrowthRule = Callable[[Site, int], Tensor]
"""(site, n) -> (n,) int64 flat positions that are not in site.mask, ascending.

n is at most the number of free slots."""


def uniformly(site: Site, n: int) -> Tensor:
    """Exactly `n` of the free slots, uniformly without replacement (the paper's "random")."""
    return sample_free(site.mask, n, site.generator)


def unfired_first(site: Site, n: int) -> Tensor:
    """Exactly `n` of the free slots, those never active before first (ITOP's rule).

    With at least n slots never active, n of them uniformly; otherwise all of them, and
    the rest uniformly from the other free slots.
    """
    fresh = site.ever.size - site.ever.count
    if n <= fresh:
        return sample_free(site.ever, n, site.generator)
    # Taken for the second draw: what is active, and what was never.
    again = sample_free(Excluded(site.mask, site.ever), n - fresh, site.generator)
    return torch.cat([site.ever.free(), again]).sort().values


def find_top(site: Site, scores: Scores, n: int) -> Tensor:
    """The `n` free slots of the largest |score|, ties to the lower flat index.

    Streams over blocks of positions and keeps those that may still be among the first n:
    scratch space is of the order of a block and n, whatever the layer's size.

    Raises:
        UserError: when a free slot's score is NaN or infinite.
    """
    best = torch.empty(0, dtype=torch.int64, device=site.mask.device)
    values = torch.empty(0, device=site.mask.device)
    if n == 0:
        return best
    least = -1.0  # below any magnitude
    for part in site.mask.blocks():
        # A tie with the least one kept is lost: its position is higher.
        found, magnitudes, broken = find_above(scores(part), site.mask.block(part), least)
        if broken:
            raise UserError(
                f"layer {site.name}: {broken} of the scores to grow by are NaN or infinite; "
                "the training diverged"
            )
        best = torch.cat([best, found + part.start])
        values = torch.cat([values, magnitudes])
        if values.numel() >= 2 * n:
            best, values = _largest(best, values, n)
            least = float(values.min())
    return _largest(best, values, n)[0]


def _largest(where: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The `n` largest values with their ascending positions; ties to the lower one."""
    chosen = find_smallest(-values, n)
    return where.index_select(0, chosen), values.index_select(0, chosen)


GROW: Mapping[str, GrowthRule] = MappingProxyType(
    {
        "random": uniformly,
        "random_unfired": unfired_first,
        # The largest magnitudes: Evci et al. 2020; Dettmers & Zettlemoyer 2019.
        "gradient": lambda site, n: find_top(site, site.gradient(), n),
        "momentum": lambda site, n: find_top(site, site.momentum(), n),
    }
)
"""Growth rules by name."""
