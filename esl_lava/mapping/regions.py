"""The share of a layer that a core holds, and the ways to divide a layer among cores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import numpy as np

from esl_lava.arrays import Ints
from esl_lava.network import Layer

SOME = 4
"""About this many ranges of channels are checked first, to rule a partition out quickly."""

Range = tuple[int, int]


@dataclass(frozen=True)
class Region:
    """The neurons of a layer in one core: a box of channels, rows and columns.

    In a layer without feature maps each neuron is a channel of one row and one column.

    Attributes:
        channels, rows, columns: (first, last + 1).
    """

    channels: Range
    rows: Range = (0, 1)
    columns: Range = (0, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the box."""
        (c0, c1), (y0, y1), (x0, x1) = self.channels, self.rows, self.columns
        return c1 - c0, y1 - y0, x1 - x0

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        channels, rows, columns = self.shape
        return channels * rows * columns

    def members(self, shape: tuple[int, ...]) -> Ints:
        """Return (neurons,) the neurons' flat indices in a layer of this shape, in C order."""
        _, rows, columns = maps(shape)
        c, y, x = (np.arange(*pair) for pair in (self.channels, self.rows, self.columns))
        return ((c[:, None, None] * rows + y[:, None]) * columns + x).ravel()


@dataclass(frozen=True)
class Grid:
    """A layer divided among cores, evenly along every axis.

    Attributes:
        lengths: channels, rows and columns of the layer.
        shares: number of ranges that each of these is split into.
    """

    lengths: tuple[int, int, int]
    shares: tuple[int, int, int]

    def __len__(self) -> int:
        return math.prod(self.shares)

    @property
    def largest(self) -> int:
        """Number of neurons of the largest region."""
        return math.prod(-(-n // share) for n, share in zip(self.lengths, self.shares))

    def ranges(self, axis: int) -> tuple[Range, ...]:
        """Return the ranges of channels (axis 0), rows (1) or columns (2)."""
        return splits(self.lengths[axis], self.shares[axis])

    def regions(self) -> list[Region]:
        """Return the region of every core. Columns vary fastest."""
        return [Region(c, y, x) for c, y, x in product(*map(self.ranges, range(3)))]

    def sums(self, totals: Ints) -> Ints:
        """Return (channels, rows, columns) of the grid: the sum over each region of `totals`.

        Args:
            totals: as `running_totals` returns them.
        """
        for axis in range(3):
            totals = np.diff(totals.take(self.bounds(axis), axis), axis=axis)
        return totals

    def chosen(self, some: bool) -> slice:
        """Return a slice of all ranges of channels, or of about `SOME` of them."""
        return slice(None, None, max(1, self.shares[0] // SOME) if some else 1)

    def bounds(self, axis: int) -> Ints:
        """Return (shares + 1,) the start of each range of an axis, and the end of the last."""
        return _bounds(self.lengths[axis], self.shares[axis])


@lru_cache(maxsize=1 << 14)
def _bounds(length: int, number: int) -> Ints:
    return length * np.arange(number + 1) // number


def running_totals(values: Ints, shape: tuple[int, ...]) -> Ints:
    """Return running totals of a layer's values, which are one longer on every axis.

    Entry (i, j, k) is the sum in the first i channels, j rows and k columns.
    """
    totals = np.pad(values.reshape(maps(shape)), ((1, 0), (1, 0), (1, 0)))
    for axis in range(3):
        totals = totals.cumsum(axis=axis)
    return totals


def maps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a layer's shape as (channels, rows, columns)."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)


@lru_cache(maxsize=1 << 14)
def splits(length: int, number: int) -> tuple[Range, ...]:
    """Return `number` ranges that cover 0..length-1. Their lengths differ by at most 1."""
    return tuple(pairwise(_bounds(length, number).tolist()))


def partitions(layer: Layer, least: int, largest: int, parts: int = 1) -> Iterator[Grid]:
    """Yield the ways to divide a layer among cores, in order of the number of cores.

    Feature maps are divided by rows, columns and channels, with few splits of channels first.
    Other layers are divided into equal ranges of neurons.

    Args:
        layer: the layer to divide.
        least: the smallest number of cores.
        largest: the largest number of neurons of a region.
        parts: number of equally long parts of the channels, or neurons. No region lies in two
            parts.
    """
    lengths = maps(layer.shape)
    for number in range(max(1, -(-least // parts)) * parts, layer.neurons + 1, parts):
        for channels in (parts * share for share in _divisors(number // parts)):
            for rows in _divisors(number // channels):
                grid = Grid(lengths, (channels, rows, number // channels // rows))
                possible = all(share <= n for n, share in zip(lengths, grid.shares))
                if possible and grid.largest <= largest:
                    yield grid


def _divisors(number: int) -> list[int]:
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})
