"""Growth rules: the choice of the free positions of a layer that become connections.

A rule chooses positions that were free before the update. So no connection that an update prunes
returns in the same update. A new rule is one more entry of `GROW`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from esl_lava.errors import UserError
from esl_lava.sparsity.arrays import find_above, find_smallest
from esl_lava.sparsity.sets import ExclusionSet, PositionSet, sample_free

Scores = Callable[[slice | Tensor], Tensor]
"""(slice or int64 tensor of flat positions) -> float scores of these positions."""


@dataclass(frozen=True, eq=False)
class Site:
    """The input of a growth rule: one flattened layer before the update.

    Attributes:
        name: the name of the layer.
        mask: the connections, including those that the update prunes.
        ever: the positions that were ever a connection.
        generator: the CPU generator of the layer, which a rule may advance.
        gradient: returns the gradient of the last backward pass at any position; raises
            ConfigError if there is none.
        momentum: returns the momentum scores of the optimiser (`optimizer.momentum`); raises
            ConfigError if there are none.
    """

    name: str
    mask: PositionSet
    ever: PositionSet
    generator: torch.Generator
    gradient: Callable[[], Scores]
    momentum: Callable[[], Scores]


GrowthRule = Callable[[Site, int], Tensor]
"""(site, n) -> (n,) int64 flat positions that are not in site.mask, ascending.

n is at most the number of free positions."""


def draw_random(site: Site, n: int) -> Tensor:
    """Draw `n` free positions uniformly without replacement (the rule "random" of the paper)."""
    return sample_free(site.mask, n, site.generator)


def draw_unfired(site: Site, n: int) -> Tensor:
    """Draw `n` free positions, preferring those that were never a connection (rule of ITOP).

    If at least n positions were never a connection, n of them are drawn uniformly. Otherwise
    all of them are chosen, and the rest is drawn uniformly from the other free positions.
    """
    unfired = site.ever.size - site.ever.count
    if n <= unfired:
        return sample_free(site.ever, n, site.generator)
    # The second draw excludes the connections and the positions that were never one.
    others = sample_free(ExclusionSet(site.mask, site.ever), n - unfired, site.generator)
    return torch.cat([site.ever.free(), others]).sort().values


def find_top(site: Site, scores: Scores, n: int) -> Tensor:
    """Find the `n` free positions of the largest |score|; ties: lower position first.

    The function streams over blocks of positions and keeps those that may be among the best n.
    Its scratch space is of the order of a block and n, whatever the size of the layer.

    Raises:
        UserError: if the score of a free position is NaN or infinite.
    """
    best = torch.empty(0, dtype=torch.int64, device=site.mask.device)
    values = torch.empty(0, device=site.mask.device)
    if n == 0:
        return best
    bound = -1.0  # below any magnitude
    for part in site.mask.blocks():
        # At a tie with the bound the kept position wins, because it is lower.
        indices, magnitudes, broken = find_above(scores(part), site.mask.block(part), bound)
        if broken:
            raise UserError(
                f"layer {site.name}: {broken} of the scores (gradients or momenta) of free "
                "positions are NaN or infinite, so growth cannot rank them; the training diverged",
                "not-finite",
                value=broken,
                layer=site.name,
            )
        best = torch.cat([best, indices + part.start])
        values = torch.cat([values, magnitudes])
        if values.numel() >= 2 * n:
            best, values = _keep_largest(best, values, n)
            bound = float(values.min())
    return _keep_largest(best, values, n)[0]


def _keep_largest(positions: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the ascending positions of the `n` largest values, and the values there.

    At a tie the lower position comes first.
    """
    chosen = find_smallest(-values, n)
    return positions.index_select(0, chosen), values.index_select(0, chosen)


GROW: Mapping[str, GrowthRule] = MappingProxyType(
    {
        "random": draw_random,
        "random_unfired": draw_unfired,
        # The largest magnitudes: Evci et al. 2020; Dettmers & Zettlemoyer 2019.
        "gradient": lambda site, n: find_top(site, site.gradient(), n),
        "momentum": lambda site, n: find_top(site, site.momentum(), n),
    }
)
"""Growth rules by name."""
