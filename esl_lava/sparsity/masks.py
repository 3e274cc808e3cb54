"""Sampling positions exactly, and moving connections: the only place masks change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from esl_lava.sparsity.arrays import count, positions


def sample_free(taken: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw `n` of the positions where `taken` is false, uniformly, none twice.

    Positions are drawn one after the other and kept when free, so no dense random field
    is made; where that would mostly miss, the free slots are listed instead. Scratch
    space is two bools a position, and of the order of n and the number taken.

    Args:
        taken: (size,) bool, any device.
        n: 0 <= n <= free positions.
        generator: a CPU generator; its state and the arguments fix the result.

    Returns:
        (n,) int64 positions, ascending, on the device of `taken`.

    Raises:
        ValueError: when fewer than `n` positions are free.
    """
    size = taken.numel()
    free = size - count(taken)
    if not 0 <= n <= free:
        raise ValueError(f"{n} positions asked for, {free} of {size} are free")
    # Listing is bounded: free < size / 4 means mostly taken, 2 n > free means mostly wanted.
    if 4 * free < size or 2 * n > free:
        slots = positions(~taken)
        order = torch.randperm(free, generator=generator)[:n]
        return slots[order.to(slots.device)].sort().values
    seen = taken.clone()
    missing = n
    while missing:
        # Never more draws than are missing: a round cannot overshoot, so nothing is cut
        # off and the set is that of the first n distinct free draws, hence uniform.
        drawn = torch.randint(size, (missing,), generator=generator)
        seen.index_fill_(0, drawn.to(taken.device), True)
        missing = n - (count(seen) - (size - free))
    return positions(seen ^ taken)


def draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Exactly `count` of `size` positions, uniformly without replacement.

    Returns:
        (count,) int64 positions, ascending, on the CPU.

    Raises:
        ValueError: when `count` is outside 0..size.
    """
    return sample_free(torch.zeros(size, dtype=torch.bool), count, generator)


def move(masks: Sequence[Tensor], drops: Sequence[Tensor], grows: Sequence[Tensor]) -> None:
    """Move connections of a network, in place: `drops` off, equally many `grows` on.

    Args:
        masks: one contiguous bool a layer, of any shape, true where a connection is.
        drops: one (n,) int64 of flat positions a layer, ascending.
        grows: as `drops`; a layer may grow more or fewer than it drops.

    Raises:
        AssertionError: when a dropped position is not active, a grown one is, positions
            are not strictly ascending within the mask, or the numbers over all layers
            differ. No mask is changed then.
    """
    flats = [mask.view(-1) for mask in masks]
    for flat, drop, grow in zip(flats, drops, grows):
        for name, where in (("dropped", drop), ("grown", grow)):
            if where.numel() == 0:
                continue
            ascending = bool((where[1:] > where[:-1]).all())
            if not ascending or int(where[0]) < 0 or int(where[-1]) >= flat.numel():
                raise AssertionError(f"{name} positions are not strictly ascending within the mask")
        if not bool(flat[drop].all()):
            raise AssertionError("a dropped connection was not active")
        if bool(flat[grow].any()):
            raise AssertionError("a grown connection was active before the update")
    dropped, grown = (sum(part.numel() for part in parts) for parts in (drops, grows))
    if dropped != grown:
        raise AssertionError(f"{dropped} connections dropped but {grown} grown")
    for flat, drop, grow in zip(flats, drops, grows):
        flat.index_fill_(0, drop, False)
        flat.index_fill_(0, grow, True)
