"""Lay out synapses for the kernels, and choose the kernel with the lowest cost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from esl_lava import arrivals
from esl_lava.arrays import Array, Int32s, Ints
from esl_lava.kernels import synapses as kernels
from esl_lava.network import Connections, Convolution, Matrix

INT16_BOUND = 32767
VECTOR = 16
"""Dense rows are padded to a multiple of this number of weights."""
MAX_ROWS = 1 << 28
"""The most weights of a dense matrix that is worth its memory."""

# Nanoseconds on one core, fitted to measured times of layers of many sizes, densities and rates.
# A table has one value for each number of bytes of a stored weight.
COST_INPUT = 0.3
"""Cost to check whether an input spikes."""
COST_SPIKE = 3.0
"""Cost to fetch a spike and to begin a row."""
COST_ROW_WEIGHT = {1: 0.03, 2: 0.045, 4: 0.09}
"""Cost to add a weight in a dense row."""
COST_RUN = 10.0
"""Cost to begin a run."""
COST_RUN_WEIGHT = {2: 0.04, 4: 0.085}
"""Cost to add a weight in a run."""
COST_SYNAPSE = 0.9
"""Cost to add a single synapse."""
COST_CANVAS = 0.6
"""Cost to clear a place of a canvas and to copy it."""
COST_LANE = {2: 0.08, 4: 0.11}
"""Cost to add a synapse in one of many lanes."""
COST_TURN = 1.4
"""Cost to transpose an input or a sum of one lane."""

LANES = 16
"""The least number of lanes: a vector of int16."""
PIECE = 64
"""Synapses are added in pieces of at least this number of lanes."""
MASKS_BYTES = 1 << 26
"""The most bytes for the masks of one thread."""


def place_order(connections: Connections) -> Ints | None:
    """Return (n_post,) the output neuron at each place, or None if they are in order.

    The output maps of a kernel are simulated in the order (row, column, channel). Neurons have the
    order (channel, row, column).
    """
    if not connections.shares:
        return None
    maps = np.arange(connections.n_post).reshape(connections.out_shape)
    return maps.transpose(1, 2, 0).ravel()


class _Runs(NamedTuple):
    """Arguments of `kernels.add_runs`."""

    base: Array
    which: Array
    starts: Array
    run_offsets: Array
    run_lengths: Array
    run_weights: Array
    weights: Array
    canvas_rows: Array


class _Scattered(NamedTuple):
    """Arguments of `kernels.add_scattered`."""

    base: Array
    which: Array
    starts: Array
    targets: Array
    weights: Array
    canvas_rows: Array


class _Lanes(NamedTuple):
    """Arguments of `kernels.add_lanes`."""

    place: Array
    starts: Array
    offsets: Array
    weights: Array
    geometry: Array


KERNELS: dict[str, Callable[..., None]] = {
    "rows": kernels.add_rows,
    "runs": kernels.add_runs,
    "scattered": kernels.add_scattered,
    "lanes": kernels.add_lanes,
}
"""Name -> kernel.

"rows" (dense rows) serves only matrices, and "runs" serves only convolutions. The others add
single synapses: "lanes" adds each synapse for many sample-steps at once.
"""


class Synapses:
    """The synapses of one set of connections, laid out for the kernels.

    Attributes:
        connections: the connections.
        order: the neuron at each place of the sums, or None if the sums are in order.
        bound: an upper bound of the absolute value of a sum of spikes.
        unit: the divisor of int16 weights: 2 if all weights are even, else 1.
        exact16: whether sums of spikes in this unit fit int16.
        fan_out: (rows, n_pre) synapses that a spike of the input at each place crosses, by the
            steps that are left to it (`arrivals.fan_out`).
    """

    def __init__(
        self, connections: Connections, arriving: Ints | None, late: int | Int32s = 0
    ) -> None:
        """Lay out connections.

        Args:
            connections: the connections.
            arriving: (n_pre,) the input neuron at each place, or None if they are in order.
            late: steps until spikes arrive, one value or (n_post,) values.
        """
        self.connections = connections
        self._arriving: slice | Ints = slice(None) if arriving is None else arriving
        self.order = place_order(connections)
        negative, positive = connections.signed_sums()
        self.bound = int((positive - negative).max())
        self.unit = 1 if (connections.weights & 1).any() else 2
        self.exact16 = self.bound // self.unit <= INT16_BOUND
        # Make it contiguous, because numba would compile again for another layout.
        table = arrivals.fan_out(connections, late)[:, self._arriving]
        self.fan_out = np.ascontiguousarray(table)
        self._crossings = int(self.fan_out[-1].sum())
        self._grid = _Grid.of(connections)
        self._tables: dict[tuple[str, int], tuple[Array, ...]] = {}
        self._per_spike: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    @property
    def width(self) -> int:
        """Number of columns of the sums, with the padding of dense rows."""
        return -(-self.connections.n_post // VECTOR) * VECTOR

    def kinds(self) -> tuple[str, ...]:
        """Return the names of the kernels that can sum these synapses."""
        if self.connections.shares:
            kinds: tuple[str, ...] = ("runs", "scattered")
        elif self.connections.possible <= MAX_ROWS:
            kinds = ("rows", "scattered")
        else:
            kinds = ("scattered",)
        return (*kinds, "lanes") if 4 * self._grid.size <= MASKS_BYTES else kinds

    def cost(self, kind: str, size: int, spikes: float, sample_steps: int) -> float:
        """Estimate the nanoseconds of a sample-step (one step of one sample) on one core.

        Args:
            kind: one of `kinds`.
            size: bytes of a sum.
            spikes: mean number of input spikes of a sample-step.
            sample_steps: number of sample-steps that run together.
        """
        if kind == "lanes":
            lanes = self._grid.lanes
            wasted = -(-sample_steps // lanes) * lanes / sample_steps
            transposed = COST_TURN * (self.connections.n_pre + self.connections.n_post)
            return wasted * (transposed + COST_LANE[size] * self._crossings)
        if (kind, size) not in self._per_spike:
            self._per_spike[kind, size] = self._cost_of_spike(kind, size)
        fixed = COST_INPUT * self.connections.n_pre
        if kind != "rows":
            fixed += COST_CANVAS * self.connections.n_post
        return fixed + spikes * self._per_spike[kind, size]

    def cheapest(self, kinds: tuple[str, ...], size: int, spikes: float, sample_steps: int) -> str:
        """Return the cheapest of `kinds`. The arguments are those of `cost`."""
        if len(kinds) == 1:
            return kinds[0]
        return min(kinds, key=lambda kind: self.cost(kind, size, spikes, sample_steps))

    def _cost_of_spike(self, kind: str, size: int) -> float:
        if kind == "rows":
            stored = self.tables("rows", size)[0].itemsize
            return COST_SPIKE + self.width * COST_ROW_WEIGHT[stored]
        if kind == "runs":
            runs = _Runs(*self.tables("runs", size))
            ends = np.concatenate([[0], np.cumsum(runs.run_lengths, dtype=np.int64)])
            of_list = np.diff(runs.starts) * COST_RUN
            of_list = of_list + np.diff(ends[runs.starts]) * COST_RUN_WEIGHT[size]
            return COST_SPIKE + float(of_list[runs.which].mean())
        return COST_SPIKE + COST_SYNAPSE * self._crossings / self.connections.n_pre

    def add(self, kind: str, inputs: Array, sums: Array) -> int:
        """Fill `sums` with the weighted sums of `inputs`, and count the synapses crossed.

        Args:
            kind: one of `kinds`; "scattered" if inputs are graded.
            inputs: (samples, T, n_pre) uint8 of 0 and 1, or int32.
            sums: (samples, T, width) int16 in units of `unit` if `exact16`, or int32.
        """
        crossed = np.empty(len(inputs), np.int64)
        tables = self.tables(kind, sums.itemsize)
        KERNELS[kind](inputs, *tables, self.fan_out, sums, crossed)
        return int(crossed.sum())

    def tables(self, kind: str, size: int) -> tuple[Array, ...]:
        """Return the arguments of a kernel that hold its weights, for sums of `size` bytes each."""
        key = kind, size
        if key in self._tables:
            return self._tables[key]
        with self._lock:
            if key not in self._tables:
                self._tables[key] = self._lay_out(kind, size)
        return self._tables[key]

    def _lay_out(self, kind: str, size: int) -> tuple[Array, ...]:
        unit, dtype = (self.unit, np.int16) if size == 2 else (1, np.int32)
        if isinstance(self.connections, Convolution):
            kernel = (self.connections.kernel // unit).astype(dtype)
            if kind == "lanes":
                return self._grid.of_kernel(self.connections, kernel, self._arriving)
            slide = _Slide(self.connections, kernel, self._arriving)
            return slide.runs() if kind == "runs" else slide.scattered()
        matrix = self.connections.unrolled()
        n_pre, n_post = matrix.n_pre, matrix.n_post
        if kind == "scattered":
            starts, targets, values = outgoing(matrix, None)
            return _Scattered(
                base=np.zeros(n_pre, np.uint32),
                which=np.arange(n_pre, dtype=np.uint32)[self._arriving],
                starts=starts,
                targets=targets,
                weights=(values // unit).astype(dtype),
                canvas_rows=np.array([0, n_post, n_post], np.int64),
            )
        weights: Array = (matrix.weights // unit).astype(dtype)
        if kind == "lanes":
            return self._grid.of_matrix(matrix, weights, self._arriving)
        if size == 2 and np.array_equal(weights, weights.astype(np.int8)):
            weights = weights.astype(np.int8)
        rows = np.zeros((n_pre, self.width), weights.dtype)
        rows[matrix.indices, matrix.rows()] = weights
        return (np.ascontiguousarray(rows[self._arriving]),)


def outgoing(connections: Matrix, order: Ints | None) -> tuple[Array, Array, Array]:
    """Return the synapses in the order of the neurons that they leave.

    Args:
        connections: the connections. They must be recurrent if an order is given.
        order: (n,) the neuron at each place, or None if the neurons are in order.

    Returns:
        Starts, targets (uint32 places) and int32 weights.
    """
    present = connections.weights != 0
    pre, post = connections.indices[present], connections.rows()[present]
    if order is not None:
        place = np.argsort(order)
        pre, post = place[pre], place[post]
    leaving = np.argsort(pre, kind="stable")
    targets = post[leaving].astype(np.uint32)
    return _starts(pre, connections.n_pre), targets, connections.weights[present][leaving]


def _starts(keys: Array, lists: int) -> Array:
    """Return the start of each list if entries are sorted by the number of their list."""
    starts = np.zeros(lists + 1, np.uint32)
    starts[1:] = np.cumsum(np.bincount(keys, minlength=lists))
    return starts


class _Grid(NamedTuple):
    """The layout of the masks of all inputs for `kernels.add_lanes`.

    An input lies at (row, channel, rest, quotient, lane), where rest and quotient are those of its
    padded column divided by the stride. A weight then meets neighbouring quotients for neighbouring
    outputs. Fully connected inputs are channels of a map of one pixel.

    Attributes:
        lanes: number of sample-steps side by side.
        channels: number of input channels.
        stride: stride of the rows.
        rests: number of rests, which is the stride of the columns.
        width: number of quotients.
        size: number of places of the grid, lanes included.
    """

    lanes: int
    channels: int
    stride: int
    rests: int
    width: int
    size: int

    @staticmethod
    def of(connections: Connections) -> _Grid:
        """Return the grid of all inputs that meet a synapse."""
        if not isinstance(connections, Convolution):
            return _Grid(PIECE, connections.n_pre, 1, 1, 1, PIECE * connections.n_pre)
        (_, rows, columns), (down, right) = connections.out_shape, connections.stride
        reach = [(k - 1) * d for k, d in zip(connections.kernel.shape[2:], connections.dilation)]
        lanes = max(LANES, -(-PIECE // columns // LANES) * LANES)
        channels = connections.in_shape[0]
        width = ((columns - 1) * right + reach[1]) // right + 1
        height = (rows - 1) * down + reach[0] + 1
        return _Grid(lanes, channels, down, right, width, height * channels * right * width * lanes)

    def at(self, row: Array, channel: Array, column: Array) -> Array:
        """Return the place of the first lane of a padded row and column."""
        place = (row * self.channels + channel) * self.rests + column % self.rests
        return (place * self.width + column // self.rests) * self.lanes

    def of_kernel(self, conv: Convolution, kernel: Array, arriving: slice | Ints) -> _Lanes:
        """Return the synapses of each output channel of a kernel."""
        channel, row, column = np.indices(conv.in_shape)
        row, column = (n + p for n, p in zip((row, column), conv.padding))
        place = self.at(row, channel, column)
        place[(place >= self.size) | (column // self.rests >= self.width)] = -1
        out, within, ky, kx = np.nonzero(kernel)
        channel = out // (len(kernel) // conv.groups) * kernel.shape[1] + within
        down, right = conv.dilation
        offset = self.at(ky * down, channel, kx * right)
        weights = kernel[out, within, ky, kx]
        return self._lanes(place.ravel()[arriving], conv.out_shape, out, offset, weights)

    def of_matrix(self, matrix: Matrix, weights: Array, arriving: slice | Ints) -> _Lanes:
        """Return the synapses of each output neuron of a matrix."""
        place = np.arange(matrix.n_pre) * self.lanes
        present = weights != 0
        offset = matrix.indices[present] * np.int64(self.lanes)
        out = matrix.rows()[present]
        return self._lanes(place[arriving], (matrix.n_post, 1, 1), out, offset, weights[present])

    def _lanes(
        self, place: Ints, shape: tuple[int, int, int], out: Ints, offset: Ints, weights: Array
    ) -> _Lanes:
        """Return the synapses in order of output channel.

        The list of each channel is padded with weights of 0 to a multiple of eight synapses.
        """
        outputs, rows, columns = shape
        count = np.bincount(out, minlength=outputs)
        starts = np.concatenate([[0], np.cumsum(-(-count // 8) * 8)])
        order = np.argsort(out, kind="stable")
        first = np.concatenate([[0], np.cumsum(count)])
        slot = starts[out[order]] + np.arange(out.size) - first[out[order]]
        offsets = np.zeros(starts[-1], np.int64)
        padded = np.zeros(starts[-1], weights.dtype)
        offsets[slot], padded[slot] = offset[order], weights[order]
        distance = self.stride * self.channels * self.rests * self.width * self.lanes
        geometry = np.array([self.lanes, rows, columns, distance, self.size], np.int64)
        return _Lanes(place.astype(np.int64), starts, offsets, padded, geometry)


class _Slide:
    """The places of a kernel's weights on a canvas that covers every place the kernel reaches.

    An input of channel c at row y meets those rows k of the kernel for which
    `y + padding - k * dilation` is a multiple of the stride. Inputs of one channel whose padded row
    and column leave the same rests therefore have the same list of weights. Each weight lies at a
    fixed distance on the canvas, which is (rows, columns, channels).
    """

    def __init__(self, conv: Convolution, kernel: Array, arriving: slice | Ints) -> None:
        self.kernel = kernel
        outputs, self.share, *taps = kernel.shape
        self.own = outputs // conv.groups
        self.groups = conv.groups
        self.stride = conv.stride
        bases, rests, self.steps, cuts, extents = [], [], [], [], []
        for axis in (0, 1):
            stride, size = conv.stride[axis], conv.in_shape[1 + axis]
            reach = np.arange(taps[axis]) * conv.dilation[axis]
            back = reach // stride  # outputs by which a tap comes earlier
            quotients, rest = np.divmod(np.arange(size) + conv.padding[axis], stride)
            before = max(0, int(back.max() - quotients[0]))
            bases.append(quotients + before - back.max())
            rests.append(rest)
            self.steps.append((back.max() - back, reach % stride))
            cuts.append(before)
            extents.append(before + max(conv.out_shape[1 + axis], int(quotients[-1]) + 1))
        self.row = extents[1] * outputs
        channel = np.arange(conv.in_shape[0])[:, None, None]
        base = bases[0][:, None] * self.row + bases[1] * outputs
        self.base = (base + channel // self.share * self.own).astype(np.uint32).ravel()[arriving]
        which = (channel * conv.stride[0] + rests[0][:, None]) * conv.stride[1] + rests[1]
        self.which = which.astype(np.uint32).ravel()[arriving]
        self.lists = conv.in_shape[0] * conv.stride[0] * conv.stride[1]
        first = (np.arange(conv.out_shape[1]) + cuts[0]) * self.row + cuts[1] * outputs
        length = conv.out_shape[2] * outputs
        self.canvas_rows = np.array([*first, length, extents[0] * self.row], np.int64)

    def _list_and_offset(self, channel: Array, ky: Array, kx: Array) -> tuple[Array, Array]:
        """Return the list of a tap, and its distance on the canvas from an input's base."""
        (down, rest_y), (right, rest_x) = self.steps
        number = (channel * self.stride[0] + rest_y[ky]) * self.stride[1] + rest_x[kx]
        return number, down[ky] * self.row + right[kx] * len(self.kernel)

    def scattered(self) -> _Scattered:
        """Return the arguments of `kernels.add_scattered`, which adds weights one by one."""
        out, within, ky, kx = np.nonzero(self.kernel)
        number, offset = self._list_and_offset(out // self.own * self.share + within, ky, kx)
        offset = offset + out % self.own
        order = np.lexsort((offset, number))
        return _Scattered(
            self.base,
            self.which,
            _starts(number, self.lists),
            offset[order].astype(np.uint32),
            self.kernel[out, within, ky, kx][order],
            self.canvas_rows,
        )

    def runs(self) -> _Runs:
        """Return runs: all output channels of a tap, joined with those of adjacent taps."""
        by_tap = self.kernel.reshape(self.groups, self.own, *self.kernel.shape[1:])
        by_tap = by_tap.transpose(0, 2, 3, 4, 1)  # (group, its input, ky, kx, its output)
        group, within, ky, kx = np.nonzero(by_tap.any(axis=4))
        number, offset = self._list_and_offset(group * self.share + within, ky, kx)
        order = np.lexsort((offset, number))
        number, offset = number[order], offset[order]
        follows = (np.diff(number) == 0) & (np.diff(offset) == self.own)
        heads = np.flatnonzero(np.concatenate([[True], ~follows])[: number.size])
        lengths = np.diff(np.concatenate([heads, [number.size]])) * self.own
        return _Runs(
            self.base,
            self.which,
            _starts(number[heads], self.lists),
            offset[heads].astype(np.uint32),
            lengths.astype(np.uint32),
            (heads * self.own).astype(np.uint32),
            by_tap[group, within, ky, kx][order].ravel(),
            self.canvas_rows,
        )
