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

from esl_lava.sparsity.masks import sample_free


@dataclass(frozen=True, eq=False)
class Site:
    """What a growth rule may look at: one layer before the update, flattened.

    Attributes:
        mask: (size,) bool, true where a connection is, those about to go included.
        ever: (size,) bool, true where a connection ever was.
        generator: the layer's own CPU generator; a rule may advance it.
    """

    mask: Tensor
    ever: Tensor
    generator: torch.Generator


GrowthRule = Callable[[Site, int], Tensor]
"""(site, n) -> (n,) int64 flat positions where site.mask is false, ascending."""


def uniformly(site: Site, n: int) -> Tensor:
    """Exactly `n` of the free slots, uniformly without replacement (the paper's "random")."""
    return sample_free(site.mask, n, site.generator)


GROW: Mapping[str, GrowthRule] = MappingProxyType({"random": uniformly})
"""Growth rules by name."""
