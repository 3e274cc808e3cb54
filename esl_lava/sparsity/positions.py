"""Sets of a layer's flat positions: what growth asks of taken slots and of past ones.

`Mask` is a dense bool, `Connections` the rows of a `SparseWeight`, `Listed` a list and
`Bitmap` one bit a position. All answer alike, so a rule picks the same slots over each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from esl_lava.kernels import positions as kernels
from esl_lava.sparsity.arrays import are_positions, count, positions
from esl_lava.sparsity.weights import SparseWeight

BLOCK = 1 << 18
"""Positions looked at together; bounds the scratch space of what streams over a layer."""

_CPU = torch.device("cpu")


class Positions(ABC):
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
        return torch.cat([positions(~self.block(part)) + part.start for part in self.blocks()])


class Record(Positions):
    """A set that grows.

    Attributes:
        tensor: the set as it is stored; not to be written.
    """

    tensor: Tensor

    @abstractmethod
    def add(self, where: Tensor) -> Record:
        """The set with further positions; this one is not to be used any more.

        Args:
            where: (k,) int64 within the layer, strictly ascending; may be in the set.
        """


class Mask(Record):
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


class Connections(Positions):
    """The connections of a `SparseWeight`, as they are when asked."""

    def __init__(self, weight: SparseWeight) -> None:
        self.size = weight.size
        self._weight = weight

    @property
    def count(self) -> int:
        """How many connections there are."""
        return self._weight.pre.numel()

    def contains(self, where: Tensor) -> Tensor:
        """(k,) bool."""
        return self._weight.find(where) >= 0

    def block(self, part: slice) -> Tensor:
        """Made of the rows within the slice."""
        weight = self._weight
        block = torch.zeros(min(part.stop, self.size) - part.start, dtype=torch.bool)
        kernels.mark(
            weight.starts.numpy(), weight.pre.numpy(), weight.n_pre, part.start, block.numpy()
        )
        return block


class Listed(Record):
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
        found = torch.empty(where.shape, dtype=torch.bool)
        kernels.within(self.tensor.numpy(), where.numpy(), found.numpy())
        return found

    def block(self, part: slice) -> Tensor:
        """Made of the list's part."""
        end = min(part.stop, self.size)
        block = torch.zeros(end - part.start, dtype=torch.bool)
        low, high = np.searchsorted(self.tensor.numpy(), [part.start, end])
        block[self.tensor[low:high] - part.start] = True
        return block

    def add(self, where: Tensor) -> Record:
        """A longer list, or the bitmap where that is smaller."""
        return lean(union(self.tensor, where).clone(), self.size)


class Bitmap(Record):
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
        found = torch.empty(where.shape, dtype=torch.bool)
        kernels.get_bits(self.tensor.numpy(), where.numpy(), found.numpy())
        return found

    def block(self, part: slice) -> Tensor:
        """Unpacked."""
        end = min(part.stop, self.size)
        first = part.start // 8
        bits = np.unpackbits(self.tensor.numpy()[first : -(-end // 8)], bitorder="little")
        return torch.from_numpy(bits[part.start - 8 * first : end - 8 * first].view(np.bool_))

    def add(self, where: Tensor) -> Bitmap:
        """Set bits, in place."""
        self._count += kernels.set_bits(self.tensor.numpy(), where.numpy())
        return self


class Excluded(Positions):
    """What one set holds or another lacks.

    Args:
        held, lacked: of one layer.
    """

    def __init__(self, held: Positions, lacked: Positions) -> None:
        self.size = held.size
        self.device = held.device
        self._held = held
        self._lacked = lacked

    @property
    def count(self) -> int:
        """Counted block by block."""
        return sum(count(self.block(part)) for part in self.blocks())

    def contains(self, where: Tensor) -> Tensor:
        """(k,) bool."""
        return self._held.contains(where) | ~self._lacked.contains(where)

    def block(self, part: slice) -> Tensor:
        """Made of both sets' blocks."""
        return self._held.block(part) | ~self._lacked.block(part)


def lean(where: Tensor, size: int) -> Record:
    """The smaller of list and bitmap; the list where they are equal.

    Args:
        where: (k,) int64 on the CPU, strictly ascending within 0..size-1.
        size: possible positions.
    """
    if where.nbytes <= _bytes(size):
        return Listed(where, size)
    return Bitmap(torch.zeros(_bytes(size), dtype=torch.uint8), size).add(where)


def read(tensor: Tensor, size: int) -> Record:
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
        return lean(tensor, size)
    raise ValueError(
        f"has shape {tuple(tensor.shape)} of {tensor.dtype}, neither a bitmap "
        f"({_bytes(size)},) of torch.uint8 nor a list of torch.int64"
    )


def union(first: Tensor, second: Tensor) -> Tensor:
    """Two ascending int64 lists on the CPU as one, strictly ascending."""
    both = np.empty(first.numel() + second.numel(), np.int64)
    number = kernels.union(first.numpy(), second.numpy(), both)
    return torch.from_numpy(both[:number])


def ascending(where: Tensor, size: int) -> Tensor:
    """Positions within 0..size-1 in ascending order; (k,) int64, overwritten on the CPU."""
    if where.device != _CPU:
        return where.sort().values
    spare = np.empty(where.numel(), np.int64)
    return torch.from_numpy(kernels.ascending(where.numpy(), spare, (size - 1).bit_length()))


def _bytes(size: int) -> int:
    """Length of a bitmap."""
    return -(-size // 8)
