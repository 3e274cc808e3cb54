"""Connections that bring input to a layer: a matrix, a kernel slid over maps, or injection.

Neurons of feature maps are counted (channel, row, column) in C order. The words of this module
hold everywhere except in `sparsity/`, where the weights of a kernel are called connections too:

- *Positions* are the entries of a matrix or kernel (`possible`).
- *Weights* are the positions that the mask allows (`stored`). They are trained and stored. A
  weight may be the integer 0; the other weights are `nonzero`. *Density* is weights over
  positions.
- *Connections* are made by weights between two neurons (`count`). A weight of a matrix makes one
  connection. A weight of a kernel makes one at every place where it meets an input while the
  kernel slides; padding is not an input.
- *Synapses* are the connections whose integer weight is not 0 (`synapses`). Spikes cross
  synapses. A *synaptic operation* (SOP) is one spike that crosses one synapse and arrives within
  its sample (`arrivals`).

Costs in energy are counted in connections, synapses and operations.

The three kinds of connections share the methods and properties that counting and mapping need, so
that such code does not have to ask for the kind.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from esl_lava.arrays import Array, Bools, Int32s, Ints

BLOCK = 1 << 22
"""Entries of a dense pattern that `reached` processes at a time."""


def frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """Return a read-only copy of an array of integers or booleans.

    Raises:
        TypeError: when the array holds other values.
        ValueError: when `dtype` cannot hold the values.
    """
    source = np.asarray(array)
    if source.dtype.kind not in "iub":
        raise TypeError(f"the array must hold integers or booleans, but holds {source.dtype}")
    copy = source.astype(dtype)
    if not np.array_equal(copy, source):
        raise ValueError(f"the array has values outside the range of {np.dtype(dtype)}")
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True, eq=False)
class Immutable:
    """Base of classes that hold read-only arrays.

    Objects are copied and pickled through the constructor, because numpy's own copies and pickles
    of read-only arrays are writeable.
    """

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, eq=False)
class Matrix(Immutable):
    """The existing connections of a fully connected layer, compressed by output row.

    The weight of a connection may be 0 after quantisation; the connection still exists.

    Attributes:
        injects: whether inputs are added to membranes directly, without a synapse.
        shares: whether a weight makes several connections.
        n_post, n_pre: numbers of output and input neurons.
        indptr: (n_post + 1,) int64; row j owns entries indptr[j]:indptr[j+1].
        indices: (connections,) int32 input neuron of each entry, ascending in a row.
        weights: (connections,) int32.

    Raises:
        ValueError, TypeError: when the arrays do not describe such a matrix.
    """

    n_post: int
    n_pre: int
    indptr: Ints
    indices: Int32s
    weights: Int32s
    injects: ClassVar[bool] = False
    shares: ClassVar[bool] = False
    sliding: ClassVar[Mapping[str, int]] = MappingProxyType({})

    def __post_init__(self) -> None:
        for name in ("n_post", "n_pre"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        object.__setattr__(self, "indptr", frozen(self.indptr, np.int64))
        object.__setattr__(self, "indices", frozen(self.indices, np.int32))
        object.__setattr__(self, "weights", frozen(self.weights, np.int32))
        indptr, indices = self.indptr, self.indices
        if self.n_post < 1 or self.n_pre < 1:
            raise ValueError(f"a layer of {self.n_post} x {self.n_pre} neurons is empty")
        if indptr.shape != (self.n_post + 1,) or indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
            raise ValueError("indptr does not partition the connections into rows")
        if indices.shape != (indptr[-1],) or self.weights.shape != indices.shape:
            raise ValueError("indices and weights do not have one entry per connection")
        if indices.size:
            if indices.min() < 0 or indices.max() >= self.n_pre:
                raise ValueError(f"an input index lies outside 0..{self.n_pre - 1}")
            ascending = np.diff(indices) > 0
            row_starts = indptr[1:-1]
            row_starts = row_starts[(row_starts > 0) & (row_starts < indices.size)]
            ascending[row_starts - 1] = True
            if not ascending.all():
                raise ValueError("input indices are not strictly ascending within a row")

    @staticmethod
    def from_dense(weights: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> Matrix:
        """Make connections where `mask` (n_post, n_pre) is true, with `weights` of that shape.

        Without a mask every position is a connection.

        Raises:
            ValueError: when `weights` has not two axes, the shapes differ, or a weight outside the
                mask is not 0.
            TypeError: when the weights are not integers.
        """
        dense = np.asarray(weights)
        if dense.ndim != 2:
            raise ValueError(f"weights need shape (outputs, inputs), not {dense.shape}")
        allowed = np.ones(dense.shape, bool) if mask is None else np.asarray(mask, bool)
        if allowed.shape != dense.shape:
            raise ValueError(
                f"the mask has shape {allowed.shape}, but the weights have {dense.shape}"
            )
        if (dense[~allowed] != 0).any():
            raise ValueError("a weight outside the mask is not zero")
        n_post, n_pre = dense.shape
        indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(allowed, axis=1))])
        pre: Array = np.nonzero(allowed)[1]
        return Matrix(n_post, n_pre, indptr, pre, dense[allowed])

    @property
    def in_shape(self) -> tuple[int]:
        """(n_pre,), as a matrix has no maps."""
        return (self.n_pre,)

    @property
    def out_shape(self) -> tuple[int]:
        """(n_post,)."""
        return (self.n_post,)

    @property
    def possible(self) -> int:
        """Number of positions, connected or not."""
        return self.n_post * self.n_pre

    @property
    def stored(self) -> int:
        """Number of weights (positions that the mask allows)."""
        return int(self.indices.size)

    @property
    def nonzero(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.weights))

    # Each weight makes one connection.
    possible_connections, count, synapses = possible, stored, nonzero

    def rows(self) -> Ints:
        """Return the output neuron of each entry, (connections,)."""
        return np.repeat(np.arange(self.n_post), np.diff(self.indptr))

    def dense(self, dtype: npt.DTypeLike = np.int32) -> Array:
        """Return the weights as (n_post, n_pre), 0 without a connection; `dtype` must hold them."""
        full = np.zeros((self.n_post, self.n_pre), dtype)
        full[self.rows(), self.indices] = self.weights
        return full

    def mask(self) -> Bools:
        """Return an array (n_post, n_pre) of bool, true where a connection exists."""
        full = np.zeros((self.n_post, self.n_pre), bool)
        full[self.rows(), self.indices] = True
        return full

    def fan_out(self, onto: Bools | None = None) -> Ints:
        """Return the number of synapses that leave each input neuron, (n_pre,).

        Args:
            onto: (n_post,) whether the synapses of an output neuron count; all count if None.
        """
        used = self.weights != 0
        if onto is not None:
            used &= onto[self.rows()]
        return np.bincount(self.indices[used], minlength=self.n_pre).astype(np.int64)

    def signed_sums(self) -> tuple[Ints, Ints]:
        """Return the sums of each output's negative and of its positive weights, (n_post,) each."""
        # bincount sums in float64, exact below 2**53.
        negative, positive = (
            np.bincount(self.rows(), f(self.weights, 0), minlength=self.n_post).astype(np.int64)
            for f in (np.minimum, np.maximum)
        )
        return negative, positive

    def reached(self, active: Bools) -> Bools:
        """Find the outputs that spikes reach.

        Args:
            active: (n, n_pre) whether each input spikes.

        Returns:
            (n, n_post) whether a spike crosses a synapse to each output.
        """
        reached = np.empty((len(active), self.n_post), bool)
        spikes = active.astype(np.float32)
        rows = max(1, BLOCK // self.n_pre)
        for first in range(0, self.n_post, rows):
            last = min(first + rows, self.n_post)
            begin, end = self.indptr[first], self.indptr[last]
            pattern = np.zeros((last - first, self.n_pre), np.float32)
            post = np.repeat(np.arange(last - first), np.diff(self.indptr[first : last + 1]))
            pattern[post, self.indices[begin:end]] = self.weights[begin:end] != 0
            # Sums of ones are exact in float32 below 2**24, and never 0 by rounding.
            reached[:, first:last] = spikes @ pattern.T > 0
        return reached

    def unrolled(self) -> Matrix:
        """Return the matrix itself: it stores every connection between two neurons."""
        return self

    def positions(self) -> Ints:
        """Return the flat positions of the weights in (n_post, n_pre), (weights,), ascending."""
        return self.rows() * self.n_pre + self.indices

    def place(self, position: int) -> str:
        """Describe a flat position in words."""
        post, pre = divmod(int(position), self.n_pre)
        return f"neuron {post}, input {pre}"

    def geometry(self) -> str:
        """Describe the connected neurons in words."""
        return f"{self.n_pre} to {self.n_post} neurons"


@dataclass(frozen=True, eq=False)
class Convolution(Immutable):
    """A kernel slid over feature maps, like torch's conv2d (cross-correlation, zero padding).

    A weight is a position of the kernel. It makes a connection at every place to which it slides.

    Attributes:
        kernel: (out channels, in channels // groups, rows, columns) int32.
        in_shape: (channels, rows, columns) of the input.
        stride, padding, dilation: (rows, columns) each.
        groups: number of groups of channels; each group has its own share of the kernels.
        allowed: bool of the kernel's shape, true where a weight exists; None if all exist.

    Raises:
        ValueError, TypeError: when the parts do not fit together.
    """

    kernel: Int32s
    in_shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    allowed: Bools | None = None
    injects: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", frozen(self.kernel, np.int32))
        for name, length, least in (
            ("in_shape", 3, 1),
            ("stride", 2, 1),
            ("padding", 2, 0),
            ("dilation", 2, 1),
        ):
            value = tuple(operator.index(part) for part in getattr(self, name))
            if len(value) != length or min(value) < least:
                raise ValueError(f"{name} {value} is not {length} numbers of at least {least}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "groups", operator.index(self.groups))
        if self.kernel.ndim != 4 or 0 in self.kernel.shape:
            raise ValueError(
                f"a kernel of shape {self.kernel.shape} is not one of four lengths (out channels, "
                "in channels, rows, columns) of at least 1"
            )
        outputs, share = self.kernel.shape[:2]
        if self.groups < 1 or outputs % self.groups or share * self.groups != self.in_shape[0]:
            raise ValueError(
                f"a kernel of shape {self.kernel.shape} in {self.groups} groups does not fit "
                f"{self.in_shape[0]} input channels"
            )
        if min(self.out_shape) < 1:
            raise ValueError(
                f"a kernel of shape {self.kernel.shape} and dilation {self.dilation} is larger "
                f"than its input {self.in_shape} with padding {self.padding}"
            )
        allowed = np.ones(self.kernel.shape, bool) if self.allowed is None else self.allowed
        object.__setattr__(self, "allowed", frozen(allowed, bool))
        if self.mask().shape != self.kernel.shape:
            raise ValueError(
                f"the mask has shape {self.mask().shape}, but the kernel has {self.kernel.shape}"
            )
        if self.kernel[~self.mask()].any():
            raise ValueError("a weight outside the mask is not zero")

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the output."""
        rows, columns = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                self.in_shape[1:], self.padding, self.dilation, self.kernel.shape[2:], self.stride
            )
        )
        return self.kernel.shape[0], rows, columns

    @property
    def n_pre(self) -> int:
        """Number of input neurons."""
        return math.prod(self.in_shape)

    @property
    def n_post(self) -> int:
        """Number of output neurons."""
        return math.prod(self.out_shape)

    @property
    def weights(self) -> Int32s:
        """(weights,) the weights that the mask allows, in the order of the array `kernel`."""
        return self.kernel[self.mask()]

    @property
    def possible(self) -> int:
        """Number of positions of the kernel, connected or not."""
        return int(self.kernel.size)

    @property
    def stored(self) -> int:
        """Number of weights (positions of the kernel that the mask allows), each counted once."""
        return int(np.count_nonzero(self.mask()))

    @property
    def nonzero(self) -> int:
        """Number of weights that are not 0, each counted once."""
        return int(np.count_nonzero(self.kernel))

    @property
    def possible_connections(self) -> int:
        """Number of connections if the mask allowed every position of the kernel."""
        return self._slid(np.ones(self.kernel.shape, bool))

    @property
    def count(self) -> int:
        """Number of connections: one for each weight at every place where it meets an input."""
        return self._slid(self.mask())

    @property
    def synapses(self) -> int:
        """Number of connections whose integer weight is not 0."""
        return self._slid(self.kernel != 0)

    def _slid(self, positions: Bools) -> int:
        """Count how often these positions of the kernel meet an input while the kernel slides."""
        rows, columns = ([met.size for met, _ in self._taps(axis)] for axis in (0, 1))
        of_taps = np.count_nonzero(positions, axis=(0, 1))
        return int(np.array(rows, np.int64) @ of_taps @ np.array(columns, np.int64))

    def mask(self) -> Bools:
        """Return an array of bool of the kernel's shape, true where a weight exists."""
        assert self.allowed is not None
        return self.allowed

    def fan_out(self, onto: Bools | None = None) -> Ints:
        """Return the number of synapses that leave each input neuron, (n_pre,).

        Args:
            onto: (n_post,) whether the synapses of an output neuron count; all count if None.
        """
        channels = self.in_shape[0]
        # Products of float64 are much faster, and exact for whole numbers below 2**53.
        used = (self.kernel != 0).reshape(self.groups, -1, *self.kernel.shape[1:]).astype(float)
        reached = np.zeros(self.in_shape, np.int64)
        taps_y, taps_x = self._taps(0), self._taps(1)
        for ky, (ys, out_ys) in enumerate(taps_y):
            for kx, (xs, out_xs) in enumerate(taps_x):
                tap = used[..., ky, kx]  # (groups, outputs, inputs of a group)
                if onto is None:
                    met = tap.sum(axis=1).reshape(channels, 1, 1)
                else:
                    seen = onto.reshape(self.out_shape)[:, out_ys[:, None], out_xs]
                    seen = seen.reshape(*tap.shape[:2], ys.size * xs.size).astype(float)
                    met = (tap.transpose(0, 2, 1) @ seen).reshape(channels, ys.size, xs.size)
                reached[:, ys[:, None], xs] += met.astype(np.int64)
        return reached.ravel()

    def _taps(self, axis: int) -> list[tuple[Ints, Ints]]:
        """Find the inputs that each position of the kernel meets along an axis while sliding.

        Returns:
            For each position (inputs, outputs that see these inputs), as places along the axis.
        """
        out, size = self.out_shape[1 + axis], self.in_shape[1 + axis]
        starts = np.arange(out) * self.stride[axis] - self.padding[axis]
        met = [starts + k * self.dilation[axis] for k in range(self.kernel.shape[2 + axis])]
        inside = [np.flatnonzero((m >= 0) & (m < size)) for m in met]
        return [(places[outputs], outputs) for places, outputs in zip(met, inside)]

    def unrolled(self) -> Matrix:
        """Return a matrix with every connection between two neurons; for small layers.

        A weight 0 that the mask allows becomes connections of weight 0.
        """
        outputs, rows, columns = self.out_shape
        share = self.kernel.shape[1]
        co, ci, ky, kx = np.nonzero(self.mask())
        y, x = (grid.ravel() for grid in np.indices((rows, columns)))
        row = y * self.stride[0] - self.padding[0] + ky[:, None] * self.dilation[0]
        column = x * self.stride[1] - self.padding[1] + kx[:, None] * self.dilation[1]
        inside = (row >= 0) & (row < self.in_shape[1])
        inside &= (column >= 0) & (column < self.in_shape[2])
        channel = ci + co // (outputs // self.groups) * share
        pre = (channel[:, None] * self.in_shape[1] + row) * self.in_shape[2] + column
        post = co[:, None] * rows * columns + np.arange(rows * columns)
        weights = np.broadcast_to(self.kernel[co, ci, ky, kx][:, None], pre.shape)
        pre, post, weights = pre[inside], post[inside], weights[inside]
        order = np.lexsort((pre, post))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(post, minlength=self.n_post))])
        return Matrix(self.n_post, self.n_pre, indptr, pre[order], weights[order])

    def signed_sums(self) -> tuple[Ints, Ints]:
        """Return the sums of each kernel's negative and of its positive weights, (channels,) each.

        An output at the border of the maps meets only a part of its kernel.
        """
        kernel = self.kernel.reshape(len(self.kernel), -1).astype(np.int64)
        return np.minimum(kernel, 0).sum(axis=1), np.maximum(kernel, 0).sum(axis=1)

    def reached(self, active: Bools) -> Bools:
        """Find the outputs that spikes reach.

        Args:
            active: (n, n_pre) whether each input spikes.

        Returns:
            (n, n_post) whether a spike crosses a synapse to each output.
        """
        channels, rows, columns = self.out_shape
        share, own = self.kernel.shape[1], channels // self.groups
        (pad_y, pad_x), (down, right) = self.padding, self.stride
        maps = np.pad(
            active.reshape(-1, *self.in_shape).astype(np.float32),
            ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)),
        )
        reached = np.zeros((len(maps), channels, rows, columns), bool)
        for group, ky, kx in np.ndindex(self.groups, *self.kernel.shape[2:]):
            outputs = slice(group * own, (group + 1) * own)
            pattern = (self.kernel[outputs, :, ky, kx] != 0).astype(np.float32)
            y, x = ky * self.dilation[0], kx * self.dilation[1]
            window = maps[
                :,
                group * share : (group + 1) * share,
                y : y + (rows - 1) * down + 1 : down,
                x : x + (columns - 1) * right + 1 : right,
            ]
            reached[:, outputs] |= np.einsum("oc,ncyx->noyx", pattern, window, optimize=True) > 0
        return reached.reshape(len(maps), -1)

    def positions(self) -> Ints:
        """Return the flat positions of the weights in the kernel, (weights,), ascending."""
        return np.flatnonzero(self.mask())

    def place(self, position: int) -> str:
        """Describe a flat position in words."""
        index = tuple(int(i) for i in np.unravel_index(position, self.kernel.shape))
        return f"place {index} of the kernel"

    @property
    def sliding(self) -> dict[str, int]:
        """The largest kernel size, stride, padding and dilation of both axes, and the groups."""
        return {
            "kernel": max(self.kernel.shape[2:]),
            "stride": max(self.stride),
            "padding": max(self.padding),
            "dilation": max(self.dilation),
            "groups": self.groups,
        }

    def geometry(self) -> str:
        """Describe the connected neurons in words."""
        slide = f"stride {self.stride} padding {self.padding} dilation {self.dilation}"
        return f"a kernel {self.kernel.shape} over {self.in_shape} {slide} in {self.groups} groups"


@dataclass(frozen=True)
class Injection:
    """Direct input: every input is added to the membrane of its own neuron, without a synapse.

    This is the input block of netx, whose neurons the host drives through their bias. An input
    does not pass through u.

    Attributes:
        shape: shape of the inputs and of the neurons, (channels, rows, columns) or (neurons,).

    Raises:
        ValueError, TypeError: when the shape does not consist of positive integers.
    """

    shape: tuple[int, ...]
    injects: ClassVar[bool] = True
    shares: ClassVar[bool] = False
    sliding: ClassVar[Mapping[str, int]] = MappingProxyType({})

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(operator.index(n) for n in self.shape))
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(
                f"shape {self.shape} is neither (neurons,) nor (channels, rows, columns), each at "
                "least 1"
            )

    @property
    def n_pre(self) -> int:
        """Number of inputs, which is the number of neurons."""
        return math.prod(self.shape)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the inputs, which is the shape of the layer."""
        return self.shape

    n_post, out_shape = n_pre, in_shape

    @property
    def weights(self) -> Int32s:
        """(0,) as there are no weights."""
        return np.empty(0, np.int32)

    possible = stored = nonzero = possible_connections = count = synapses = 0

    def fan_out(self, onto: Bools | None = None) -> Ints:
        """Return zeros, (n_pre,), as there are no synapses."""
        return np.zeros(self.n_pre, np.int64)

    def signed_sums(self) -> tuple[Ints, Ints]:
        """Return zeros, (1,) each, which hold for all neurons."""
        return np.zeros(1, np.int64), np.zeros(1, np.int64)

    def reached(self, active: Bools) -> Bools:
        """Return false, (n, n_post), as there are no synapses."""
        return np.zeros((len(active), self.n_post), bool)

    def unrolled(self) -> Matrix:
        """Return a matrix without any connection."""
        none = np.empty(0, np.int32)
        return Matrix(self.n_post, self.n_pre, np.zeros(self.n_post + 1, int), none, none)

    def positions(self) -> Ints:
        """Return an empty array, as there are no weights."""
        return np.empty(0, np.int64)

    def place(self, position: int) -> str:
        """Raise an IndexError, as there are no positions."""
        raise IndexError(position)

    def geometry(self) -> str:
        """Describe the connected neurons in words."""
        return f"injection into {self.shape}"


Connections = Matrix | Convolution | Injection
"""Connections of one of the three kinds."""
