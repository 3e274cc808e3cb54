"""Weighted input from feature maps to layers that store only the existing connections.

Tensors of maps have channels first: (channels, T, batch, rows, columns). The forward pass, the
weight gradient and the input gradient process only existing connections.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from esl_lava.arrays import Array, Bools, Ints
from esl_lava.engines.autograd import Context, apply, once_differentiable
from esl_lava.engines.threads import run_in_parts
from esl_lava.kernels import maps, nonzeros
from esl_lava.sparsity.growth import Scores
from esl_lava.sparsity.weights import SparseWeight

T = TypeVar("T")

Pair = tuple[int, int]
"""(rows, columns)."""


@dataclass(frozen=True, eq=False)
class RoundedWeights:
    """The rounded weights of a layer in a forward pass: scale times integers.

    Attributes:
        integers: (connections,) int16, in the order of the weights.
        scale: (n_post,) the weight that an integer of 1 stands for. Where it is NaN, the weights
            are not rounded.
        unit: the value that an input of 1 stands for.
        passing: (connections,) bool, the weights that get a gradient; None for all.
    """

    integers: npt.NDArray[np.int16]
    scale: npt.NDArray[np.floating]
    unit: float = 1.0
    passing: Bools | None = None


def weigh(
    x: Tensor,
    weight: SparseWeight,
    rounded: RoundedWeights,
    *,
    pool: int = 1,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
) -> Tensor:
    """Compute the weighted input of a convolution, or of a fully connected layer.

    z = unit * scale * (sum of integers times x), where x is first summed over the squares of a
    pool; rows and columns that do not fill a square are left out. With integer inputs the sum is
    exact below 2**24. It is computed in integers if all summed inputs are integers within
    -127..127, all weights are rounded, and 8 products fit into 16 bits and all into 32. The
    gradient of `weight.values` is the gradient of the rounded weights.

    Args:
        x: (channels, T, batch, rows, columns) float32 on the CPU, fastest if contiguous; or
            (n_pre, T, batch) from neurons without maps.
        weight: a weight with kernels (rows, columns); or a weight without kernels, whose inputs
            are the pooled maps of a step, the channel outermost.
        rounded: the rounded weights.
        pool: side of the squares.
        stride, padding: stride and padding of kernels.

    Returns:
        (n_post, T, batch, rows, columns), contiguous; (n_post, T, batch) without kernels.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    _check(x, weight, rounded)
    if not weight.kernel and (stride, padding) != ((1, 1), (0, 0)):
        raise ValueError(
            f"stride {stride} and padding {padding} are given, but a layer without kernels has none"
        )
    steps, batch = x.shape[1:3]
    kernel: tuple[int, ...] = weight.kernel
    if x.ndim == 3:
        x = x.reshape(len(x), 1, 1, 1, steps * batch)  # one map of one row is fastest
        kernel = (1, 1)
    sides = x.shape[3] // pool, x.shape[4] // pool
    if min(sides) < 1:
        raise ValueError(f"maps of {tuple(x.shape[3:])} are smaller than a pool of side {pool}")
    if not kernel:
        kernel = stride = sides
    layout = _layout(pool, sides, (kernel[0], kernel[1]), stride, padding, x.shape[1] * x.shape[2])
    if weight.n_pre != len(x) * len(layout.offsets):
        raise ValueError(
            f"a neuron has {len(layout.offsets)} inputs in each of {len(x)} channels, but the "
            f"sparse layer needs {weight.n_pre} inputs"
        )
    z = apply(_Weighted, x, weight.values, weight, rounded, layout)
    return z if weight.kernel else z.view(weight.n_post, steps, batch)


def _check(x: Tensor, weight: SparseWeight, rounded: RoundedWeights) -> None:
    dimensions = (5,) if weight.kernel else (3, 5)
    if x.ndim not in dimensions or x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(
            f"the input has shape {tuple(x.shape)}, {x.dtype} on {x.device}, but the sparse layer "
            f"needs {' or '.join(map(str, dimensions))} dimensions of torch.float32 on the CPU"
        )
    actual = rounded.integers.dtype, rounded.integers.shape, rounded.scale.shape
    expected = np.dtype(np.int16), (weight.values.numel(),), (weight.n_post,)
    if actual != expected:
        raise ValueError(
            "type of the integers, their shape and the shape of the scales are "
            f"{', '.join(map(str, actual))}, but the layer needs {', '.join(map(str, expected))}"
        )


@dataclass(frozen=True, eq=False)
class _Layout:
    """The arrangement of summed maps, and of the kernels' results, in lanes (`kernels.maps`).

    Attributes:
        inputs, outputs: grids of the inputs of kernels, and of their results.
        offsets: (places of the kernel,) int64, number of lanes from a result to the input that
            this place of the kernel meets.
        phases: (places of the kernel,) int64, the phase that holds this input.
        lanes: number of lanes of a phase, and of an output channel.
        before, behind: number of lanes by which offsets point beyond the beginning and the end
            of a phase.
    """

    inputs: maps.Grid
    outputs: maps.Grid
    offsets: Ints
    phases: Ints
    lanes: int
    before: int
    behind: int

    @property
    def pieces(self) -> Ints:
        """(places,) index of the first input of each place, with `before` lanes in front of all."""
        return self.before + self.phases * self.lanes + self.offsets


@dataclass(frozen=True)
class _Axis:
    """A kernel that slides along an axis.

    Attributes:
        stops: number of stops.
        shifts, remainders: for each place of the kernel; at stop i its input is at
            (i + shift) * stride + remainder.
        length: length of the axis in lanes. It includes zeros between one row and the next for
            the places at which the kernel extends beyond the ends of a row.
    """

    stops: int
    shifts: tuple[int, ...]
    remainders: tuple[int, ...]
    length: int

    @staticmethod
    def of(size: int, kernel: int, stride: int, padding: int) -> _Axis:
        """Return the axis of `size` places, padded at each end.

        Raises:
            ValueError: if the kernel is longer than the padded axis.
        """
        stops = (size + 2 * padding - kernel) // stride + 1
        if stops < 1:
            raise ValueError(
                f"maps with a side of {size}, padded by {padding}, are smaller than the kernel, "
                f"whose side is {kernel}"
            )
        shifts, remainders = zip(*(divmod(k - padding, stride) for k in range(kernel)))
        inputs = max(0, -((min(remainders) - size) // stride))
        length = max(inputs - min(0, *shifts), stops + max(0, *shifts))
        return _Axis(stops, shifts, remainders, length)


@functools.lru_cache(maxsize=256)
def _layout(
    pool: int, sides: Pair, kernel: Pair, stride: Pair, padding: Pair, samples: int
) -> _Layout:
    """Return the layout for maps of these sides, pooled, and these kernels."""
    rows, columns = map(_Axis.of, sides, kernel, stride, padding)
    tops, lefts = sorted(set(rows.remainders)), sorted(set(columns.remainders))
    firsts = list(itertools.product(tops, lefts))
    places = list(itertools.product(range(kernel[0]), range(kernel[1])))
    offsets = [rows.shifts[i] * columns.length + columns.shifts[j] for i, j in places]
    phases = [firsts.index((rows.remainders[i], columns.remainders[j])) for i, j in places]
    lengths, zero = (rows.length, columns.length), np.zeros(1, np.int64)
    return _Layout(
        inputs=maps.Grid(*lengths, pool, *sides, *stride, np.array(tops), np.array(lefts)),
        outputs=maps.Grid(*lengths, 1, rows.stops, columns.stops, 1, 1, zero, zero),
        offsets=np.array(offsets),
        phases=np.array(phases),
        lanes=samples * rows.length * columns.length,
        before=max(0, -min(offsets)),
        behind=max(0, *offsets),
    )


class _Weighted(torch.autograd.Function):
    """The forward and backward pass of `weigh` on maps (channels, T, batch, rows, columns)."""

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        values: Tensor,
        weight: SparseWeight,
        rounded: RoundedWeights,
        layout: _Layout,
    ) -> Tensor:
        starts, source, grid = weight.starts.numpy(), x.detach().numpy(), layout.outputs
        fan_in, places = np.diff(starts), len(layout.offsets)
        shape = len(x), layout.inputs.phases, layout.lanes
        # For each connection, the index in the lanes at which its input begins.
        channel, place = np.divmod(weight.pre.numpy(), np.int32(places))
        at = channel * np.int64(shape[1] * shape[2]) + layout.pieces[place]

        integers, counted = rounded.integers, rounded.integers.astype(np.float32)
        scale = (rounded.scale * np.float64(rounded.unit)).astype(np.float32)
        unrounded = np.isnan(scale)
        if unrounded.any():
            scale[unrounded] = rounded.unit
            counted = np.where(np.repeat(unrounded, fan_in), values.detach().numpy(), counted)

        margins = layout.before, layout.behind
        inputs, maxima = _lay_out(
            maps.lay_out_small, np.int8, source, layout.inputs, shape, margins
        )
        terms, largest = 0, max(maxima)
        if largest != nonzeros.OTHER and not unrounded.any():
            size = int(np.abs(integers.astype(np.int32)).max(initial=0))
            terms = nonzeros.terms_at_once(size, largest, int(fan_in.max()))
        z = torch.empty(weight.n_post, *x.shape[1:3], grid.rows, grid.columns)
        out = z.numpy().reshape(weight.n_post, -1, grid.rows, grid.columns)
        if terms:
            operands = inputs, at, starts, integers, terms, scale, grid
            run_in_parts(lambda a, b: maps.add_small(*operands, a, b, out), weight.n_post)
        else:
            inputs, _ = _lay_out(maps.lay_out, np.float32, source, layout.inputs, shape, margins)
            summed = inputs, at, starts, counted, grid
            run_in_parts(lambda a, b: maps.add_weighted(*summed, a, b, out), weight.n_post)
            out *= scale[:, None, None, None]
        ctx.weight, ctx.starts, ctx.rounded, ctx.layout = weight, weight.starts, rounded, layout
        ctx.inputs, ctx.at, ctx.shape = inputs, at, x.shape
        ctx.counted = counted * np.repeat(scale, fan_in)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, layout, inputs = ctx.weight, ctx.layout, ctx.inputs
        refuse_changed(weight, ctx.starts)
        starts, channels, phases = ctx.starts.numpy(), ctx.shape[0], layout.inputs.phases
        source, shape = gradient.contiguous().numpy(), (weight.n_post, 1, layout.lanes)
        # The transpose has the same offsets with the opposite sign.
        margins = layout.behind, layout.before
        by_z, _ = _lay_out(maps.lay_out, np.float32, source, layout.outputs, shape, margins)
        lanes = by_z[layout.behind :][: weight.n_post * layout.lanes].reshape(weight.n_post, -1)

        by_values = torch.empty(len(ctx.at))
        target = by_values.numpy()
        operands = inputs, ctx.at, 1, starts
        run_in_parts(
            lambda a, b: nonzeros.add_products(lanes, *operands, a, b, target), weight.n_post
        )
        by_values *= ctx.rounded.unit
        if ctx.rounded.passing is not None:
            by_values *= torch.from_numpy(ctx.rounded.passing)
        if weight.wants_dense_gradient:
            weight.dense_gradient = make_dense_gradient(
                lanes, inputs, layout.pieces, phases * layout.lanes, channels, ctx.rounded.unit
            )
        if not ctx.needs_input_grad[0]:
            return None, by_values, None, None, None
        by_x = torch.from_numpy(np.zeros(ctx.shape, np.float32))
        out = by_x.numpy().reshape(channels, -1, *ctx.shape[3:])
        columns, order, back = _group_by_phase(weight, layout)
        summed = by_z, back, columns, ctx.counted[order], layout.inputs
        run_in_parts(lambda a, b: maps.add_weighted(*summed, a, b, out), channels)
        return by_x, by_values, None, None, None


def _lay_out(
    kernel: Callable[..., T],
    dtype: npt.DTypeLike,
    x: Array,
    grid: maps.Grid,
    lanes: tuple[int, int, int],
    margins: Pair,
) -> tuple[Array, list[T]]:
    """Lay out x in lanes by `maps.lay_out` or `maps.lay_out_small`, with zeros at each end.

    Args:
        kernel: one of these two functions.
        dtype: the type that the kernel writes.
        x: maps with channels first.
        grid: the grid of the maps.
        lanes: (channels, phases, lanes of a phase).
        margins: numbers of zeros at the beginning and at the end.

    Returns:
        The flat lanes, and the result of the kernel for each part of the channels.
    """
    size = math.prod(lanes)
    flat = np.empty(margins[0] + size + margins[1] + maps.WHOLE, dtype)
    flat[: margins[0]], flat[margins[0] + size :] = 0, 0
    target = flat[margins[0] :][:size].reshape(lanes)
    return flat, run_in_parts(lambda a, b: kernel(x, grid, a, b, target), len(x))


def _group_by_phase(weight: SparseWeight, layout: _Layout) -> tuple[Array, Array, Array]:
    """Group the connections by input channel and phase, for the gradient of the input.

    Returns:
        The first entry of each phase; the index of each entry's weight; the index in the lanes of
        the output channels at which the gradient of each entry begins.
    """
    columns, post, order = (array.numpy() for array in weight.by_pre())
    places, phases = len(layout.offsets), layout.inputs.phases
    turn = np.argsort(layout.phases, kind="stable")
    counts = np.diff(columns).reshape(-1, places)[:, turn]
    # Reorder the entries from (channel, place) to (channel, phase).
    firsts = columns[:-1].reshape(-1, places)[:, turn]
    ends = counts.cumsum().reshape(counts.shape)
    picked = np.repeat((firsts - ends + counts).ravel(), counts.ravel()) + np.arange(len(order))
    shifts = np.repeat(np.broadcast_to(layout.offsets[turn], counts.shape).ravel(), counts.ravel())
    back = layout.behind + post[picked] * np.int64(layout.lanes) - shifts
    edges = np.searchsorted(layout.phases[turn], np.arange(phases))
    starts = np.append(0, np.add.reduceat(counts, edges, axis=1).cumsum())
    return starts, order[picked], back


def refuse_changed(weight: SparseWeight, starts: Tensor) -> None:
    """Refuse a backward pass if the connections have changed since the forward pass.

    Args:
        weight: the weight now.
        starts: its `starts` in the forward pass.

    Raises:
        RuntimeError: if the connections have changed.
    """
    if weight.starts is not starts:
        raise RuntimeError("the connections of a layer changed between forward and backward pass")


def make_dense_gradient(
    gradient: Array, inputs: Array, pieces: Ints, stride: int, channels: int, unit: float
) -> Scores:
    """Return a function that gives the gradient at any flat positions, with or without connection.

    A position without a connection has the weight 0. Zero is on every grid of weights, so its
    gradient passes.

    Args:
        gradient: (n_post, lanes) float32, the gradient of the weighted input.
        inputs: (n,) int8 or float32.
        pieces: (places,) index in `inputs` at which the inputs of a place begin, for the kernel of
            the first channel. A layer whose inputs are not maps has one place.
        stride: distance in `inputs` from the inputs of a channel to those of the next channel.
        channels: number of input channels.
        unit: the value that an input of 1 stands for.
    """
    by_z, places, lanes = torch.from_numpy(gradient), len(pieces), gradient.shape[1]
    n_pre = channels * places

    @functools.cache
    def inputs_of_places() -> list[Tensor]:
        """Return the input of each place, (channels, lanes)."""
        values = torch.from_numpy(inputs.astype(np.float32) * np.float32(unit))
        return [
            torch.as_strided(values, (channels, lanes), (stride, 1), int(piece)) for piece in pieces
        ]

    def at(where: slice | Tensor) -> Tensor:
        if isinstance(where, slice):
            first, last = where.start // n_pre, -(-where.stop // n_pre)
            by_place = [by_z[first:last] @ x.t() for x in inputs_of_places()]
            rows = torch.stack(by_place, 2).view(-1)
            return rows[where.start - first * n_pre :][: where.stop - where.start]
        post, pre = where // n_pre, where % n_pre
        channel, place = pre // places, pre % places
        products = [
            by_z[j] @ inputs_of_places()[k][i]
            for j, i, k in zip(post.tolist(), channel.tolist(), place.tolist())
        ]
        return torch.stack(products) if products else torch.empty(0)

    return at
