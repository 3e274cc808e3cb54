"""What brings input to a layer: connections of their own, a kernel slid over maps, injection.

Neurons of feature maps are counted (channel, row, column) in C order. Words, everywhere:

- *Positions* are the entries of a matrix or kernel (`possible`).
- *Weights* are the positions that the mask allows (`stored`): what is trained and stored. A
  weight may be the integer 0; those that are not are `nonzero`. *Density* is weights over
  positions.
- *Connections* are what weights make between two neurons (`count`). In a matrix each weight
  makes one. In a kernel it makes one at every place where it meets an input while the kernel
  slides; padding is no input.
- *Synapses* are the connections whose integer weight is not 0 (`synapses`): what a spike
  crosses. A *synaptic operation* (SOP) is one spike that crosses one synapse and arrives within
  its sample (`arrivals`).

Whatever costs energy is counted in connections, synapses and operations.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


def frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A read-only copy of `array` as `dtype`; refuses values the dtype cannot hold."""
    source = np.asarray(array)
    if source.dtype.kind not in "iub":
        raise TypeError(f"an integer array is needed, not {source.dtype}")
    copy = source.astype(dtype)
    if not np.array_equal(copy, source):
        raise ValueError(f"values outside the range of {np.dtype(dtype)}")
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True, eq=False)
class Connections:
    """The existing connections of a fully connected layer, compressed by output row.

    A connection may carry weight 0 (it was quantised away); it stays a connection.

    Attributes:
        n_post, n_pre: numbers of output and input neurons.
        indptr: (n_post + 1,) int64; row j owns entries indptr[j]:indptr[j+1].
        indices: (connections,) int32 input neuron of each entry, ascending in a row.
        weights: (connections,) int32.

    Raises:
        ValueError, TypeError: when the arrays do not describe such a matrix.
    """

    n_post: int
    n_pre: int
    indptr: npt.NDArray[np.int64]
    indices: IntArray
    weights: IntArray

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

    def __reduce__(self) -> tuple[Any, ...]:
        # numpy forgets "read-only" in copies and pickles; the constructor does not.
        return Connections, (self.n_post, self.n_pre, self.indptr, self.indices, self.weights)

    @staticmethod
    def from_dense(weights: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> Connections:
        """Connections where `mask` (n_post, n_pre) is true, with `weights` of that shape.

        Without a mask every position is a connection.

        Raises:
            ValueError: on a shape mismatch, or a non-zero weight outside the mask.
        """
        dense = np.asarray(weights)
        if dense.ndim != 2:
            raise ValueError(f"weights need shape (outputs, inputs), not {dense.shape}")
        allowed = np.ones(dense.shape, bool) if mask is None else np.asarray(mask, bool)
        if allowed.shape != dense.shape:
            raise ValueError(f"mask of shape {allowed.shape}, weights of shape {dense.shape}")
        if (dense[~allowed] != 0).any():
            raise ValueError("a weight outside the mask is not zero")
        post, pre = np.nonzero(allowed)
        indptr = np.zeros(dense.shape[0] + 1, np.int64)
        np.cumsum(np.bincount(post, minlength=dense.shape[0]), out=indptr[1:])
        return Connections(dense.shape[0], dense.shape[1], indptr, pre, dense[allowed])

    @property
    def possible(self) -> int:
        """Number of positions, connected or not."""
        return self.n_post * self.n_pre

    @property
    def stored(self) -> int:
        """Number of weights (positions the mask allows): one for each connection."""
        return int(self.indices.size)

    @property
    def nonzero(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.weights))

    @property
    def possible_connections(self) -> int:
        """Number of connections if the mask allowed every position."""
        return self.possible

    @property
    def count(self) -> int:
        """Number of connections."""
        return self.stored

    @property
    def synapses(self) -> int:
        """Number of connections whose integer weight is not 0."""
        return self.nonzero

    def rows(self) -> npt.NDArray[np.int64]:
        """(connections,) output neuron of each entry."""
        return np.repeat(np.arange(self.n_post), np.diff(self.indptr))

    def dense(self, dtype: npt.DTypeLike = np.int32) -> npt.NDArray[Any]:
        """(n_post, n_pre) weights, 0 where there is no connection; `dtype` is to hold them."""
        full = np.zeros((self.n_post, self.n_pre), dtype)
        full[self.rows(), self.indices] = self.weights
        return full

    def mask(self) -> npt.NDArray[np.bool_]:
        """(n_post, n_pre) bool, true where a connection exists."""
        full = np.zeros((self.n_post, self.n_pre), bool)
        full[self.rows(), self.indices] = True
        return full

    def fan_out(self, onto: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(n_pre,) number of synapses that leave each input neuron.

        Args:
            onto: (n_post,) of which output neurons synapses count; of all, if None.
        """
        used = self.weights != 0
        if onto is not None:
            used &= np.repeat(onto, np.diff(self.indptr))
        return np.bincount(self.indices[used], minlength=self.n_pre).astype(np.int64)

    def unrolled(self) -> Connections:
        """Itself: every synapse between two neurons is stored."""
        return self


@dataclass(frozen=True, eq=False)
class Convolution:
    """A kernel slid over feature maps, as torch's conv2d (cross-correlation, zero padding).

    A weight is a position of the kernel, and makes a connection at every place it slides to.

    Attributes:
        kernel: (out channels, in channels // groups, rows, columns) int32.
        in_shape: (channels, rows, columns) of the input.
        stride, padding, dilation: (rows, columns) each.
        groups: of channels, each seen by its own share of the kernels.
        allowed: bool of the kernel's shape, true where a weight exists; all, if None.

    Raises:
        ValueError, TypeError: when the parts do not fit together.
    """

    kernel: IntArray
    in_shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    allowed: npt.NDArray[np.bool_] | None = None

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
            raise ValueError(f"a kernel of shape {self.kernel.shape} is not one of four lengths")
        outputs, share = self.kernel.shape[:2]
        if self.groups < 1 or outputs % self.groups or share * self.groups != self.in_shape[0]:
            raise ValueError(
                f"a kernel of shape {self.kernel.shape} in {self.groups} groups does not fit "
                f"{self.in_shape[0]} input channels"
            )
        if min(self.out_shape) < 1:
            raise ValueError(
                f"a kernel of shape {self.kernel.shape} is larger than its padded input "
                f"{self.in_shape}"
            )
        allowed = np.ones(self.kernel.shape, bool) if self.allowed is None else self.allowed
        object.__setattr__(self, "allowed", frozen(allowed, bool))
        if self.mask().shape != self.kernel.shape:
            raise ValueError(
                f"mask of shape {self.mask().shape}, kernel of shape {self.kernel.shape}"
            )
        if self.kernel[~self.mask()].any():
            raise ValueError("a weight outside the mask is not zero")

    def __reduce__(self) -> tuple[Any, ...]:
        # numpy forgets "read-only" in copies and pickles; the constructor does not.
        parts = (self.kernel, self.in_shape, self.stride, self.padding, self.dilation)
        return Convolution, (*parts, self.groups, self.allowed)

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
    def possible(self) -> int:
        """Number of positions of the kernel, connected or not."""
        return int(self.kernel.size)

    @property
    def stored(self) -> int:
        """Number of weights (positions of the kernel the mask allows), each counted once."""
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
        """Number of connections: of each weight at every place where it meets an input."""
        return self._slid(self.mask())

    @property
    def synapses(self) -> int:
        """Number of connections whose integer weight is not 0."""
        return self._slid(self.kernel != 0)

    def _slid(self, positions: npt.NDArray[np.bool_]) -> int:
        """How often these positions of the kernel meet an input while it slides."""
        rows, columns = ([met.size for met, _ in self._taps(axis)] for axis in (0, 1))
        of_taps = np.count_nonzero(positions, axis=(0, 1))
        return int(np.array(rows, np.int64) @ of_taps @ np.array(columns, np.int64))

    def mask(self) -> npt.NDArray[np.bool_]:
        """Bool of the kernel's shape, true where a weight exists."""
        assert self.allowed is not None
        return self.allowed

    def fan_out(self, onto: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(n_pre,) number of synapses that leave each input neuron.

        Args:
            onto: (n_post,) of which output neurons synapses count; of all, if None.
        """
        channels = self.in_shape[0]
        # Whole numbers below 2**53 are exact in float64, whose products are much faster.
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

    def _taps(self, axis: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """For each position of the kernel along an axis, the inputs it meets while sliding.

        Returns:
            (inputs, the outputs that see them) by their places along the axis.
        """
        out, size = self.out_shape[1 + axis], self.in_shape[1 + axis]
        starts = np.arange(out) * self.stride[axis] - self.padding[axis]
        met = [starts + k * self.dilation[axis] for k in range(self.kernel.shape[2 + axis])]
        inside = [np.flatnonzero((m >= 0) & (m < size)) for m in met]
        return [(m[there], there) for m, there in zip(met, inside)]

    def unrolled(self) -> Connections:
        """Every connection between two neurons on its own; for small layers.

        Where the kernel has a weight of 0 but a connection, so has every place.
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
        indptr = np.zeros(self.n_post + 1, np.int64)
        np.cumsum(np.bincount(post, minlength=self.n_post), out=indptr[1:])
        return Connections(self.n_post, self.n_pre, indptr, pre[order], weights[order])


@dataclass(frozen=True)
class Injection:
    """Every input is added to the membrane of its own neuron, without a synapse.

    The input block of netx, whose neurons the host drives through their bias: an input
    does not pass through u.

    Attributes:
        shape: of inputs and neurons, (channels, rows, columns) or (neurons,).

    Raises:
        ValueError, TypeError: when the shape is not of positive integers.
    """

    shape: tuple[int, ...]
    possible = stored = nonzero = possible_connections = count = synapses = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(operator.index(n) for n in self.shape))
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"a layer of shape {self.shape} is not one of neurons or of maps")

    @property
    def n_pre(self) -> int:
        """Number of inputs."""
        return math.prod(self.shape)

    @property
    def n_post(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    def fan_out(self, onto: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(n_pre,) zeros: there are no synapses."""
        return np.zeros(self.n_pre, np.int64)
