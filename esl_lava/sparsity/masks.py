"""Sampling positions exactly, and moving connections: the only place masks change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from esl_lava.sparsity.arrays import are_positions
from esl_lava.sparsity.sets import Listed, PositionSet, unite


def sample_free(taken: PositionSet, n: int, generator: torch.Generator) -> Tensor:
    """Draw `n` of the positions that are not in `taken`, uniformly, none twice.

    Positions are drawn one after the other and kept when free, so no dense random field
    is made; where that would mostly miss, the free slots are listed instead. Scratch
    space is of the order of n, and where slots are listed of the number free. What kind
    of set `taken` is makes no difference to the result.

    Args:
        taken: any set, on any device.
        n: 0 <= n <= free positions.
        generator: a CPU generator; its state and the arguments fix the result.

    Returns:
        (n,) int64 positions, ascending, on the device of `taken`.

    Raises:
        ValueError: when fewer than `n` positions are free.
    """
    size = taken.size
    free = size - taken.count
    if not 0 <= n <= free:
        raise ValueError(f"{n} positions asked for, {free} of {size} are free")
    # Listing is bounded: free < size / 4 means mostly taken, 2 n > free means mostly wanted.
    if 4 * free < size or 2 * n > free:
        slots = taken.free()
        order = torch.randperm(free, generator=generator)[:n]
        return slots.index_select(0, order.to(slots.device)).sort().values
    found = torch.empty(0, dtype=torch.int64)
    while found.numel() < n:
        # Never more draws than are missing: a round cannot overshoot, so nothing is cut
        # off and the set is that of the first n distinct free draws, hence uniform.
        drawn = torch.randint(size, (n - found.numel(),), generator=generator)
        drawn.numpy().sort()
        found = unite(found, drawn[~taken.contains(drawn).cpu()])
    return found.to(taken.device)


def draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Exactly `count` of `size` positions, uniformly without replacement.

    Returns:
        (count,) int64 positions, ascending, on the CPU.

    Raises:
        ValueError: when `count` is outside 0..size.
    """
    nothing = Listed(torch.empty(0, dtype=torch.int64), size)
    return sample_free(nothing, count, generator)


class Movable(Protocol):
    """A layer whose connections can move."""

    @property
    def taken(self) -> PositionSet:
        """Its connections."""

    def rewire(self, drop: Tensor, grow: Tensor) -> None:
        """Make the positions of `drop` no connections and those of `grow` connections."""


def move(layers: Sequence[Movable], drops: Sequence[Tensor], grows: Sequence[Tensor]) -> None:
    """Move connections of a network, in place: `drops` off, equally many `grows` on.

    Args:
        layers: the network's sparse layers.
        drops: one (n,) int64 of flat positions a layer, ascending.
        grows: as `drops`; a layer may grow more or fewer than it drops.

    Raises:
        AssertionError: when a dropped position is not active, a grown one is, positions
            are not strictly ascending within the layer, or the numbers over all layers
            differ. No layer is changed then.
    """
    for layer, drop, grow in zip(layers, drops, grows):
        taken = layer.taken
        for name, where in (("dropped", drop), ("grown", grow)):
            if not are_positions(where, taken.size):
                raise AssertionError(f"{name} positions are not strictly ascending within the mask")
        if not bool(taken.contains(drop).all()):
            raise AssertionError("a dropped connection was not active")
        if bool(taken.contains(grow).any()):
            raise AssertionError("a grown connection was active before the update")
    dropped, grown = (sum(part.numel() for part in parts) for parts in (drops, grows))
    if dropped != grown:
        raise AssertionError(f"{dropped} connections dropped but {grown} grown")
    for layer, drop, grow in zip(layers, drops, grows):
        layer.rewire(drop, grow)
