"""A core's share of a layer, and the ways to share a layer among cores."""

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
"""Ranges of channels, about, that tell a partition that may fit from one that cannot."""

Range = tuple[int, int]


@dataclass(frozen=True)
class Region:
    """Neurons of a layer in one core: a box of channels, rows and columns.

    A layer without feature maps has one row and one column, and its neurons as channels.

    Attributes:
        channels, rows, columns: (first, behind the last).
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
        """How many there are."""
        channels, rows, columns = self.shape
        return channels * rows * columns

    def members(self, shape: tuple[int, ...]) -> Ints:
        """(neurons,) their places in a layer of this shape, in C order."""
        _, rows, columns = maps(shape)
        c, y, x = (np.arange(*pair) for pair in (self.channels, self.rows, self.columns))
        return ((c[:, None, None] * rows + y[:, None]) * columns + x).ravel()


@dataclass(frozen=True)
class Grid:
    """A layer shared among cores, evenly along every axis.

    Attributes:
        lengths: channels, rows and columns of the layer.
        shares: how many ranges each of these is split into.
    """

    lengths: tuple[int, int, int]
    shares: tuple[int, int, int]

    def __len__(self) -> int:
        return math.prod(self.shares)

    @property
    def largest(self) -> int:
        """Neurons of the largest region."""
        return math.prod(-(-n // share) for n, share in zip(self.lengths, self.shares))

    def ranges(self, axis: int) -> tuple[Range, ...]:
        """Of channels (axis 0), rows (1) or columns (2)."""
        return splits(self.lengths[axis], self.shares[axis])

    def regions(self) -> list[Region]:
        """The region of every core, columns fastest."""
        return [Region(c, y, x) for c, y, x in product(*map(self.ranges, range(3)))]

    def sums(self, totals: Ints) -> Ints:
        """(channels, rows, columns) of the grid: sums of each region, from `running_totals`."""
        for axis in range(3):
            totals = np.diff(totals.take(self.bounds(axis), axis), axis=axis)
        return totals

    def chosen(self, some: bool) -> slice:
        """All ranges of channels, or about `SOME` of them."""
        return slice(None, None, max(1, self.shares[0] // SOME) if some else 1)

    def bounds(self, axis: int) -> Ints:
        """(shares + 1,) where the ranges of an axis begin, and where the last one ends."""
        return _bounds(self.lengths[axis], self.shares[axis])


@lru_cache(maxsize=1 << 14)
def _bounds(length: int, number: int) -> Ints:
    return length * np.arange(number + 1) // number


def running_totals(values: Ints, shape: tuple[int, ...]) -> Ints:
    """Sums over all boxes from a layer's first neuron on; one longer along every axis."""
    totals = np.pad(values.reshape(maps(shape)), ((1, 0), (1, 0), (1, 0)))
    for axis in range(3):
        totals = totals.cumsum(axis=axis)
    return totals


def maps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A layer's shape as (channels, rows, columns)."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)


@lru_cache(maxsize=1 << 14)
def splits(length: int, number: int) -> tuple[Range, ...]:
    """`number` ranges that cover 0..length-1, of lengths that differ by 1 at most."""
    return tuple(pairwise(_bounds(length, number).tolist()))


def partitions(layer: Layer, least: int, largest: int, parts: int = 1) -> Iterator[Grid]:
    """Ways to share a layer among cores, by their number, from `least` on.

    None of them has a region of more than `largest` neurons. Neurons of feature maps are
    shared by rows, columns and channels, few splits of channels first; others in equal
    ranges.

    Args:
        layer: to share.
        least: number of cores.
        largest: number of neurons of a region.
        parts: that the channels, or neurons, are in, equally long: none lies in two of them.
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
