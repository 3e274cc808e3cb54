"""Sets of flat positions of a layer, and random draws of positions outside a set.

`Mask` stores a dense bool tensor, `PositionList` a list and `Bitmap` one bit per position. All
give the same answers, so a rule chooses the same positions with each of them. A `Record` is a
set to which positions can be added; its `tensor` is the form in which files store it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from esl_lava.sparsity.arrays import are_positions, count, list_true

BLOCK = 1 << 18
"""Number of positions in a block. It bounds the scratch space of a pass over a layer."""

_CPU = torch.device("cpu")


class PositionSet(ABC):
    """A set of positions within 0..size-1.

    Attributes:
        size: number of possible positions; may exceed 2**32.
        device: the device of the tensors that the methods return.
    """

    size: int
    device: torch.device = _CPU

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of positions in the set."""

    @abstractmethod
    def contains(self, where: Tensor) -> Tensor:
        """Check which positions are in the set.

        Args:
            where: (k,) int64 positions of the layer, ascending, on the CPU or on the device of the
                set; they may repeat.

        Returns:
            (k,) bool.
        """

    @abstractmethod
    def block(self, part: slice) -> Tensor:
        """Return a bool for each position of a slice, which may end beyond the last position."""

    def blocks(self) -> Iterator[slice]:
        """Return slices of `BLOCK` positions that cover all positions."""
        return (slice(start, start + BLOCK) for start in range(0, self.size, BLOCK))

    def free(self) -> Tensor:
        """Return the (size - count,) int64 positions that are not in the set, ascending."""
        return torch.cat([list_true(~self.block(part)) + part.start for part in self.blocks()])


class Mask(PositionSet):
    """The true positions of a contiguous bool tensor of any shape and device.

    Attributes:
        tensor: the bool tensor, which `add` and `remove` change.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.size = tensor.numel()
        self.device = tensor.device
        self._flat = tensor.view(-1)

    @property
    def count(self) -> int:
        """Number of true positions."""
        return count(self.tensor)

    def contains(self, where: Tensor) -> Tensor:
        """Return (k,) bool: whether each position is true. `where` may have any order."""
        return self._flat.index_select(0, where.to(self.device))

    def block(self, part: slice) -> Tensor:
        """Return a bool for each position of a slice, as a view of the mask."""
        return self._flat[part]

    def add(self, where: Tensor) -> Mask:
        """Set positions to true, in place."""
        self._flat.index_fill_(0, where, True)
        return self

    def remove(self, where: Tensor) -> None:
        """Set positions to false, in place."""
        self._flat.index_fill_(0, where, False)


class PositionList(PositionSet):
    """A strictly ascending list of positions of 8 bytes each.

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
        """Return (k,) bool: whether each position is in the set."""
        listed, queries = self.tensor.numpy(), where.numpy()
        return torch.from_numpy(np.append(listed, -1)[np.searchsorted(listed, queries)] == queries)

    def block(self, part: slice) -> Tensor:
        """Return a bool for each position of a slice, in a new tensor."""
        end = min(part.stop, self.size)
        block = torch.zeros(end - part.start, dtype=torch.bool)
        low, high = np.searchsorted(self.tensor.numpy(), [part.start, end])
        block[self.tensor[low:high] - part.start] = True
        return block

    def add(self, where: Tensor) -> PositionList | Bitmap:
        """Return the set with these positions added: a list, or a bitmap if that is smaller."""
        return make_record(unite(self.tensor, where), self.size)


class Bitmap(PositionSet):
    """One bit per position: position p is bit p % 8 of byte p // 8; bit 0 is the lowest.

    Attributes:
        tensor: (ceil(size / 8),) uint8, which `add` changes.
    """

    def __init__(self, tensor: Tensor, size: int) -> None:
        self.tensor = tensor
        self.size = size
        self._count = sum(count(self.block(part)) for part in self.blocks())

    @property
    def count(self) -> int:
        """Number of bits that are set."""
        return self._count

    def contains(self, where: Tensor) -> Tensor:
        """Return (k,) bool: whether each position is in the set. `where` may have any order."""
        return (self.tensor[where >> 3] >> (where & 7)).bitwise_and(1).bool()

    def block(self, part: slice) -> Tensor:
        """Return a bool for each position of a slice, unpacked from its bit."""
        end = min(part.stop, self.size)
        first = part.start // 8
        bits = np.unpackbits(self.tensor.numpy()[first : -(-end // 8)], bitorder="little")
        return torch.from_numpy(bits[part.start - 8 * first : end - 8 * first].view(np.bool_))

    def add(self, where: Tensor) -> Bitmap:
        """Set the bits of positions, in place."""
        self._count += count(~self.contains(where))
        np.bitwise_or.at(
            self.tensor.numpy(), (where >> 3).numpy(), (1 << (where & 7)).byte().numpy()
        )
        return self


class ExclusionSet(PositionSet):
    """The positions that are in `active` or not in `ever`; `ever` contains all of `active`."""

    def __init__(self, active: PositionSet, ever: PositionSet) -> None:
        self.size = active.size
        self.device = active.device
        self._active = active
        self._ever = ever

    @property
    def count(self) -> int:
        """Number of positions in the set, from the counts of the two sets."""
        return self._active.count + self.size - self._ever.count

    def contains(self, where: Tensor) -> Tensor:
        """Return (k,) bool: whether each position is in the set."""
        return self._active.contains(where) | ~self._ever.contains(where)

    def block(self, part: slice) -> Tensor:
        """Return a bool for each position of a slice, in a new tensor."""
        return self._active.block(part) | ~self._ever.block(part)


Record = Mask | PositionList | Bitmap
"""A set with a method `add`. The set that `add` returns replaces the set."""


def make_record(where: Tensor, size: int) -> PositionList | Bitmap:
    """Return the smaller of list and bitmap; the list if they have the same size.

    Args:
        where: (k,) int64 on the CPU, strictly ascending within 0..size-1.
        size: number of possible positions.
    """
    if where.nbytes <= _count_bytes(size):
        return PositionList(where, size)
    return Bitmap(torch.zeros(_count_bytes(size), dtype=torch.uint8), size).add(where)


def read(tensor: Tensor, size: int) -> PositionList | Bitmap:
    """Return the record that the tensor of a `PositionList` or a `Bitmap` stores.

    A list becomes a bitmap if that is smaller. Otherwise a record shares the memory of a contiguous
    tensor on the CPU.

    Raises:
        ValueError: if the tensor is neither. The error's text is a clause without a subject.
    """
    tensor = tensor.cpu().contiguous()
    if tensor.dtype == torch.uint8 and tensor.shape == (_count_bytes(size),):
        if size % 8 and int(tensor[-1]) >> size % 8:
            raise ValueError(f"is a bitmap that sets bits beyond the last of {size} positions")
        return Bitmap(tensor, size)
    if tensor.dtype == torch.int64 and tensor.dim() == 1:
        if not are_positions(tensor, size):
            raise ValueError(
                f"is a list of positions that do not strictly ascend within 0..{size - 1}"
            )
        return make_record(tensor, size)
    raise ValueError(
        f"has the shape {tuple(tensor.shape)} of {tensor.dtype}; it must be a bitmap "
        f"({_count_bytes(size)},) of torch.uint8 or a list (k,) of torch.int64"
    )


def unite(first: Tensor, second: Tensor) -> Tensor:
    """Merge two ascending int64 lists of positions on the CPU into one strictly ascending list."""
    # A stable sort detects the two ascending runs and merges them.
    both = np.sort(np.concatenate([first.numpy(), second.numpy()]), kind="stable")
    return torch.from_numpy(both[np.diff(both, prepend=-1) > 0])


def sample_free(taken: PositionSet, n: int, generator: torch.Generator) -> Tensor:
    """Draw `n` positions that are not in `taken`, uniformly without replacement.

    Positions are drawn and kept if they are free, so no dense random field is needed. If most
    positions are taken, or most free positions are needed, the free positions are listed instead.
    The scratch space is of the order of n, or of the number of free positions if they are listed.
    The result does not depend on the type of the set.

    Args:
        taken: any set, on any device.
        n: 0 <= n <= number of free positions.
        generator: a CPU generator; its state and the arguments determine the result.

    Returns:
        (n,) int64 positions, ascending, on the device of `taken`.

    Raises:
        ValueError: if fewer than `n` positions are free.
    """
    size = taken.size
    free = size - taken.count
    if not 0 <= n <= free:
        raise ValueError(f"cannot draw {n} positions: {free} of {size} are free")
    # List the free positions if most positions are taken, or if most free positions are drawn.
    if 4 * free < size or 2 * n > free:
        positions = taken.free()
        order = torch.randperm(free, generator=generator)[:n]
        return positions.index_select(0, order.to(positions.device)).sort().values
    sample = torch.empty(0, dtype=torch.int64)
    while sample.numel() < n:
        # A round draws only as many positions as are missing, so none has to be removed. The
        # result is the set of the first n distinct free draws, which is uniform.
        drawn = torch.randint(size, (n - sample.numel(),), generator=generator)
        drawn.numpy().sort()
        sample = unite(sample, drawn[~taken.contains(drawn).cpu()])
    return sample.to(taken.device)


def draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw `count` of `size` positions on the CPU, as `sample_free` from an empty set."""
    empty = PositionList(torch.empty(0, dtype=torch.int64), size)
    return sample_free(empty, count, generator)


def _count_bytes(size: int) -> int:
    """Return the number of bytes of a bitmap of `size` positions."""
    return -(-size // 8)
