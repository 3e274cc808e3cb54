"""Sets of a layer's flat positions, what growth asks of taken slots and of past ones; draws.

`Mask` is a dense bool, `Listed` a list and `Bitmap` one bit a position. All answer alike, so a
rule picks the same slots over each. A `Record` is a set that grows, and `tensor` the form in
which it is stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from esl_lava.sparsity.arrays import are_positions, count, list_true

BLOCK = 1 << 18
"""Positions looked at together; bounds the scratch space of what streams over a layer."""

_CPU = torch.device("cpu")


class PositionSet(ABC):
    """A set of positions within 0..size-1.

    Attributes:
        size: possible positions; may exceed 2**32.
        device: where answers are given.
    """

    size: int
    device: torch.device = _CPU

    @property
    @abstractmethod
    def count(self) -> int:
        """How many positions are in the set."""

    @abstractmethod
    def contains(self, where: Tensor) -> Tensor:
        """Whether positions are in the set.

        Args:
            where: (k,) int64 within the layer, ascending, any device; repeated ones allowed.

        Returns:
            (k,) bool.
        """

    @abstractmethod
    def block(self, part: slice) -> Tensor:
        """Bool of a slice of positions; the slice may end beyond the last."""

    def blocks(self) -> Iterator[slice]:
        """Slices that cover all positions, `BLOCK` each."""
        return (slice(start, start + BLOCK) for start in range(0, self.size, BLOCK))

    def free(self) -> Tensor:
        """(size - count,) int64 positions that are not in the set, ascending."""
        return torch.cat([list_true(~self.block(part)) + part.start for part in self.blocks()])


class Mask(PositionSet):
    """The true positions of a contiguous bool tensor of any shape and device.

    Attributes:
        tensor: the bool itself, which `add` and `remove` write.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.size = tensor.numel()
        self.device = tensor.device
        self._flat = tensor.view(-1)

    @property
    def count(self) -> int:
        """How many are true."""
        return count(self.tensor)

    def contains(self, where: Tensor) -> Tensor:
        """(k,) bool on the tensor's device; `where` in any order."""
        return self._flat.index_select(0, where.to(self.device))

    def block(self, part: slice) -> Tensor:
        """A view."""
        return self._flat[part]

    def add(self, where: Tensor) -> Mask:
        """Make positions true, in place."""
        self._flat.index_fill_(0, where, True)
        return self

    def remove(self, where: Tensor) -> None:
        """Make positions false, in place."""
        self._flat.index_fill_(0, where, False)


class Listed(PositionSet):
    """A strictly ascending list of positions, 8 bytes each.

    Attributes:
        tensor: (count,) int64.
    """

    def __init__(self, tensor: Tensor, size: int) -> None:
        self.tensor = tensor
        self.size = size

    @property
    def count(self) -> int:
        """Length of the list."""
        return self.tensor.numel()

    def contains(self, where: Tensor) -> Tensor:
        """(k,) bool."""
        held, wanted = self.tensor.numpy(), where.numpy()
        return torch.from_numpy(np.append(held, -1)[np.searchsorted(held, wanted)] == wanted)

    def block(self, part: slice) -> Tensor:
        """Made of the list's part."""
        end = min(part.stop, self.size)
        block = torch.zeros(end - part.start, dtype=torch.bool)
        low, high = np.searchsorted(self.tensor.numpy(), [part.start, end])
        block[self.tensor[low:high] - part.start] = True
        return block

    def add(self, where: Tensor) -> Listed | Bitmap:
        """A longer list, or the bitmap where that is smaller."""
        return make_record(unite(self.tensor, where), self.size)


class Bitmap(PositionSet):
    """One bit a position: position p is bit p % 8 of byte p // 8, the lowest being 0.

    Attributes:
        tensor: (ceil(size / 8),) uint8, which `add` writes.
    """

    def __init__(self, tensor: Tensor, size: int) -> None:
        self.tensor = tensor
        self.size = size
        self._count = sum(count(self.block(part)) for part in self.blocks())

    @property
    def count(self) -> int:
        """How many bits are set."""
        return self._count

    def contains(self, where: Tensor) -> Tensor:
        """(k,) bool; `where` in any order."""
        return (self.tensor[where >> 3] >> (where & 7)).bitwise_and(1).bool()

    def block(self, part: slice) -> Tensor:
        """Unpacked."""
        end = min(part.stop, self.size)
        first = part.start // 8
        bits = np.unpackbits(self.tensor.numpy()[first : -(-end // 8)], bitorder="little")
        return torch.from_numpy(bits[part.start - 8 * first : end - 8 * first].view(np.bool_))

    def add(self, where: Tensor) -> Bitmap:
        """Set bits, in place."""
        self._count += count(~self.contains(where))
        np.bitwise_or.at(
            self.tensor.numpy(), (where >> 3).numpy(), (1 << (where & 7)).byte().numpy()
        )
        return self


class Excluded(PositionSet):
    """What one set of a layer holds or another, which has all of the first, lacks."""

    def __init__(self, held: PositionSet, lacked: PositionSet) -> None:
        self.size = held.size
        self.device = held.device
        self._held = held
        self._lacked = lacked

    @property
    def count(self) -> int:
        """Without counting either again."""
        return self._held.count + self.size - self._lacked.count

    def contains(self, where: Tensor) -> Tensor:
        """(k,) bool."""
        return self._held.contains(where) | ~self._lacked.contains(where)

    def block(self, part: slice) -> Tensor:
        """Made of both sets' blocks."""
        return self._held.block(part) | ~self._lacked.block(part)


Record = Mask | Listed | Bitmap
"""A set with `add`, after which the set that it returns takes its place."""


def make_record(where: Tensor, size: int) -> Listed | Bitmap:
    """The smaller of list and bitmap; the list where they are equal.

    Args:
        where: (k,) int64 on the CPU, strictly ascending within 0..size-1.
        size: possible positions.
    """
    if where.nbytes <= _bytes(size):
        return Listed(where, size)
    return Bitmap(torch.zeros(_bytes(size), dtype=torch.uint8), size).add(where)


def read(tensor: Tensor, size: int) -> Listed | Bitmap:
    """A record from the tensor of a `Listed` or a `Bitmap`.

    The record keeps the tensor.

    Raises:
        ValueError: in a clause, when it is neither.
    """
    tensor = tensor.cpu().contiguous()
    if tensor.dtype == torch.uint8 and tensor.shape == (_bytes(size),):
        if size % 8 and int(tensor[-1]) >> size % 8:
            raise ValueError(f"sets bits beyond the last of {size} positions")
        return Bitmap(tensor, size)
    if tensor.dtype == torch.int64 and tensor.dim() == 1:
        if not are_positions(tensor, size):
            raise ValueError(f"lists positions that do not ascend within 0..{size - 1}")
        return make_record(tensor, size)
    raise ValueError(
        f"has shape {tuple(tensor.shape)} of {tensor.dtype}, neither a bitmap "
        f"({_bytes(size)},) of torch.uint8 nor a list of torch.int64"
    )


def unite(first: Tensor, second: Tensor) -> Tensor:
    """Two ascending int64 lists of positions on the CPU as one, strictly ascending."""
    # A stable sort finds the two runs and merges them.
    both = np.sort(np.concatenate([first.numpy(), second.numpy()]), kind="stable")
    return torch.from_numpy(both[np.diff(both, prepend=-1) > 0])


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
    """Exactly `count` of `size` positions on the CPU, as `sample_free` where none is taken."""
    nothing = Listed(torch.empty(0, dtype=torch.int64), size)
    return sample_free(nothing, count, generator)


def _bytes(size: int) -> int:
    """Length of a bitmap."""
    return -(-size // 8)
