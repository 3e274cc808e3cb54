"""Weighted input of feature maps by layers of which only the existing connections are stored.

Tensors of maps have neurons first: (channels, T, batch, rows, columns). Forward pass, weight
gradient and input gradient touch existing connections alone.
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
from esl_lava.engines.threads import in_parts
from esl_lava.kernels import maps, nonzeros
from esl_lava.sparsity.growth import Scores
from esl_lava.sparsity.weights import SparseWeight

T = TypeVar("T")

Pair = tuple[int, int]
"""(rows, columns)."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """What the weights of a layer count as in a forward pass.

    Attributes:
        integers: (connections,) int16, in the order of the weights.
        scale: (n_post,) what an integer counts; where NaN, the weights count as they are.
        unit: what an input of 1 counts.
        passing: (connections,) bool, which weights the gradient reaches; None for all.
    """

    integers: npt.NDArray[np.int16]
    scale: npt.NDArray[np.floating]
    unit: float = 1.0
    passing: Bools | None = None


def weigh(
    x: Tensor,
    weight: SparseWeight,
    rounded: Rounded,
    *,
    pool: int = 1,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
) -> Tensor:
    """Weighted input of kernels that slide over maps, or of neurons that each see everything.

    z = unit * scale * (sum of integers times x), x summed over the squares of a pool before.
    With integer inputs the sum is exact below 2**24; it is computed in integers where inputs
    have 8 bits and 8 products fit into 16. The gradient by `weight.values` is that by the
    rounded weights. Rows and columns that fill no square are not seen.

    Args:
        x: (channels, T, batch, rows, columns) float32 on the CPU, read fastest where it is
            contiguous; or (n_pre, T, batch) of neurons without maps.
        weight: of kernels (rows, columns); or without kernels, its inputs those of a step,
            pooled, the channel outermost.
        rounded: what the weights count as.
        pool: side of the squares.
        stride, padding: of kernels.

    Returns:
        (n_post, T, batch, rows, columns), contiguous; without kernels (n_post, T, batch).

    Raises:
        ValueError: when these do not fit each other.
    """
    _check(x, weight, rounded)
    if not weight.kernel and (stride, padding) != ((1, 1), (0, 0)):
        raise ValueError(f"stride {stride}, padding {padding} of a layer without kernels")
    steps, batch = x.shape[1:3]
    kernel: tuple[int, ...] = weight.kernel
    if x.ndim == 3:
        x = x.reshape(len(x), 1, 1, 1, steps * batch)  # one map of one row costs least
        kernel = (1, 1)
    sides = x.shape[3] // pool, x.shape[4] // pool
    if min(sides) < 1:
        raise ValueError(f"maps of {tuple(x.shape[3:])} are smaller than a pool's side of {pool}")
    if not kernel:
        kernel = stride = sides
    layout = _layout(pool, sides, (kernel[0], kernel[1]), stride, padding, x.shape[1] * x.shape[2])
    if weight.n_pre != len(x) * len(layout.offsets):
        raise ValueError(
            f"input of {len(x)} channels, {len(layout.offsets)} places of each, to a sparse layer, "
            f"which takes {weight.n_pre} places"
        )
    z = apply(_Weighted, x, weight.values, weight, rounded, layout)
    return z if weight.kernel else z.view(weight.n_post, steps, batch)


def _check(x: Tensor, weight: SparseWeight, rounded: Rounded) -> None:
    dimensions = (5,) if weight.kernel else (3, 5)
    if x.ndim not in dimensions or x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(
            f"input of shape {tuple(x.shape)}, {x.dtype} on {x.device}, to a sparse layer, which "
            f"takes {' or '.join(map(str, dimensions))} dimensions of torch.float32 on the CPU"
        )
    given = rounded.integers.dtype, rounded.integers.shape, rounded.scale.shape
    due = np.dtype(np.int16), (weight.values.numel(),), (weight.n_post,)
    if given != due:
        raise ValueError(
            f"integers and scales are {', '.join(map(str, given))}, the layer needs "
            f"{', '.join(map(str, due))}"
        )


@dataclass(frozen=True, eq=False)
class _Layout:
    """How sums of maps, and what kernels make of them, lie in lanes.

    Attributes:
        inputs, outputs: grids of what kernels meet, and of their results.
        offsets: (places of the kernel,) int64, lanes from a result to what the place meets.
        phases: (places of the kernel,) int64, in which phase that lies.
        lanes: of a phase, and of an output channel.
        before, behind: lanes by which offsets lead out of a phase at its beginning and end.
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
        """(places,) where a place meets its first lane, `before` in front of the first channel."""
        return self.before + self.phases * self.lanes + self.offsets


@dataclass(frozen=True)
class _Axis:
    """A kernel that slides along an axis.

    Attributes:
        stops: how often it stops.
        shifts, remainders: for each place of the kernel; at stop i it meets what is at
            (i + shift) * stride + remainder.
        length: of the axis in lanes, with zeros between one row and the next for all that the
            kernel meets beyond a row's ends.
    """

    stops: int
    shifts: tuple[int, ...]
    remainders: tuple[int, ...]
    length: int

    @staticmethod
    def of(size: int, kernel: int, stride: int, padding: int) -> _Axis:
        """Along `size` places, padded at either end.

        Raises:
            ValueError: when the kernel is longer.
        """
        stops = (size + 2 * padding - kernel) // stride + 1
        if stops < 1:
            raise ValueError(
                f"maps of a side of {size}, padded by {padding}, are smaller than the kernel's "
                f"of {kernel}"
            )
        shifts, remainders = zip(*(divmod(k - padding, stride) for k in range(kernel)))
        inputs = max(0, -((min(remainders) - size) // stride))
        length = max(inputs - min(0, *shifts), stops + max(0, *shifts))
        return _Axis(stops, shifts, remainders, length)


@functools.lru_cache(maxsize=256)
def _layout(
    pool: int, sides: Pair, kernel: Pair, stride: Pair, padding: Pair, samples: int
) -> _Layout:
    rows, columns = map(_Axis.of, sides, kernel, stride, padding)
    tops, lefts = sorted(set(rows.remainders)), sorted(set(columns.remainders))
    firsts = list(itertools.product(tops, lefts))
    places = list(itertools.product(range(kernel[0]), range(kernel[1])))
    offsets = [rows.shifts[i] * columns.length + columns.shifts[j] for i, j in places]
    phases = [firsts.index((rows.remainders[i], columns.remainders[j])) for i, j in places]
    lying, zero = (rows.length, columns.length), np.zeros(1, np.int64)
    return _Layout(
        inputs=maps.Grid(*lying, pool, *sides, *stride, np.array(tops), np.array(lefts)),
        outputs=maps.Grid(*lying, 1, rows.stops, columns.stops, 1, 1, zero, zero),
        offsets=np.array(offsets),
        phases=np.array(phases),
        lanes=samples * rows.length * columns.length,
        before=max(0, -min(offsets)),
        behind=max(0, *offsets),
    )


class _Weighted(torch.autograd.Function):
    """`weigh` of (channels, T, batch, rows, columns), by a layout."""

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        values: Tensor,
        weight: SparseWeight,
        rounded: Rounded,
        layout: _Layout,
    ) -> Tensor:
        starts, source, grid = weight.starts.numpy(), x.detach().numpy(), layout.outputs
        fan_in, places = np.diff(starts), len(layout.offsets)
        shape = len(x), layout.inputs.phases, layout.lanes
        # Where in what is laid out the piece begins that a connection meets.
        channel, place = np.divmod(weight.pre.numpy(), np.int32(places))
        at = channel * np.int64(shape[1] * shape[2]) + layout.pieces[place]

        integers, counted = rounded.integers, rounded.integers.astype(np.float32)
        scale = (rounded.scale * np.float64(rounded.unit)).astype(np.float32)
        loose = np.isnan(scale)
        if loose.any():
            scale[loose] = rounded.unit
            counted = np.where(np.repeat(loose, fan_in), values.detach().numpy(), counted)

        margins = layout.before, layout.behind
        inputs, found = _laid_out(
            maps.lay_out_small, np.int8, source, layout.inputs, shape, margins
        )
        terms, largest = 0, max(found)
        if largest != nonzeros.OTHER and not loose.any():
            size = int(np.abs(integers.astype(np.int32)).max(initial=0))
            terms = nonzeros.terms_at_once(size, largest, int(fan_in.max()))
        z = torch.empty(weight.n_post, *x.shape[1:3], grid.rows, grid.columns)
        out = z.numpy().reshape(weight.n_post, -1, grid.rows, grid.columns)
        if terms:
            met = inputs, at, starts, integers, terms, scale, grid
            in_parts(lambda a, b: maps.add_small(*met, a, b, out), weight.n_post)
        else:
            inputs, _ = _laid_out(maps.lay_out, np.float32, source, layout.inputs, shape, margins)
            summed = inputs, at, starts, counted, grid
            in_parts(lambda a, b: maps.add_weighted(*summed, a, b, out), weight.n_post)
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
        # The transpose reaches as far, in the other direction.
        margins = layout.behind, layout.before
        by_z, _ = _laid_out(maps.lay_out, np.float32, source, layout.outputs, shape, margins)
        lanes = by_z[layout.behind :][: weight.n_post * layout.lanes].reshape(weight.n_post, -1)

        by_values = torch.empty(len(ctx.at))
        target = by_values.numpy()
        met = inputs, ctx.at, 1, starts
        in_parts(lambda a, b: nonzeros.add_products(lanes, *met, a, b, target), weight.n_post)
        by_values *= ctx.rounded.unit
        if ctx.rounded.passing is not None:
            by_values *= torch.from_numpy(ctx.rounded.passing)
        if weight.wants_dense_gradient:
            weight.dense_gradient = find_everywhere(
                lanes, inputs, layout.pieces, phases * layout.lanes, channels, ctx.rounded.unit
            )
        if not ctx.needs_input_grad[0]:
            return None, by_values, None, None, None
        by_x = torch.from_numpy(np.zeros(ctx.shape, np.float32))
        out = by_x.numpy().reshape(channels, -1, *ctx.shape[3:])
        columns, order, back = _by_phase(weight, layout)
        summed = by_z, back, columns, ctx.counted[order], layout.inputs
        in_parts(lambda a, b: maps.add_weighted(*summed, a, b, out), channels)
        return by_x, by_values, None, None, None


def _laid_out(
    kernel: Callable[..., T],
    dtype: npt.DTypeLike,
    x: Array,
    grid: maps.Grid,
    lanes: tuple[int, int, int],
    margins: Pair,
) -> tuple[Array, list[T]]:
    """What `maps.lay_out` or `lay_out_small` makes of x, flat and with zeros at either end.

    Args:
        dtype: of what the kernel writes.
        lanes: (channels, phases, lanes of a phase).
        margins: numbers of zeros.

    Returns:
        It, and what the kernel returned for each part of the channels.
    """
    size = math.prod(lanes)
    flat = np.empty(margins[0] + size + margins[1] + maps.WHOLE, dtype)
    flat[: margins[0]], flat[margins[0] + size :] = 0, 0
    target = flat[margins[0] :][:size].reshape(lanes)
    return flat, in_parts(lambda a, b: kernel(x, grid, a, b, target), len(x))


def _by_phase(weight: SparseWeight, layout: _Layout) -> tuple[Array, Array, Array]:
    """The connections by phase of each input channel, for the gradient by the input.

    Returns:
        First entry of each phase; the weight of each entry; the piece of an output channel's
        lanes that it meets.
    """
    columns, post, order = (array.numpy() for array in weight.by_pre())
    places, phases = len(layout.offsets), layout.inputs.phases
    turn = np.argsort(layout.phases, kind="stable")
    counts = np.diff(columns).reshape(-1, places)[:, turn]
    # From entries by channel and place to entries by channel and phase.
    firsts = columns[:-1].reshape(-1, places)[:, turn]
    ends = counts.cumsum().reshape(counts.shape)
    picked = np.repeat((firsts - ends + counts).ravel(), counts.ravel()) + np.arange(len(order))
    shifts = np.repeat(np.broadcast_to(layout.offsets[turn], counts.shape).ravel(), counts.ravel())
    back = layout.behind + post[picked] * np.int64(layout.lanes) - shifts
    edges = np.searchsorted(layout.phases[turn], np.arange(phases))
    starts = np.append(0, np.add.reduceat(counts, edges, axis=1).cumsum())
    return starts, order[picked], back


def refuse_changed(weight: SparseWeight, starts: Tensor) -> None:
    """Refuse a backward pass of a weight whose `starts` its forward pass had not."""
    if weight.starts is not starts:
        raise RuntimeError("connections changed between a layer's forward and backward pass")


def find_everywhere(
    gradient: Array, inputs: Array, pieces: Ints, stride: int, channels: int, unit: float
) -> Scores:
    """The gradient at any flat positions, those of no connection too.

    A weight that does not exist is 0, which every grid of weights holds: its gradient passes.

    Args:
        gradient: (n_post, lanes) float32, that of weighted input.
        inputs: (n,) int8 or float32.
        pieces: (places,) where in `inputs` the piece begins that a place of the first channel's
            kernel meets; one place without kernels.
        stride: from a piece to the next channel's.
        unit: what an input of 1 counts.
    """
    by_z, places, lanes = torch.from_numpy(gradient), len(pieces), gradient.shape[1]
    n_pre = channels * places

    @functools.cache
    def met() -> list[Tensor]:
        """For each place (channels, lanes) input."""
        values = torch.from_numpy(inputs.astype(np.float32) * np.float32(unit))
        return [
            torch.as_strided(values, (channels, lanes), (stride, 1), int(piece)) for piece in pieces
        ]

    def at(where: slice | Tensor) -> Tensor:
        if isinstance(where, slice):
            first, last = where.start // n_pre, -(-where.stop // n_pre)
            found = [by_z[first:last] @ x.t() for x in met()]
            rows = torch.stack(found, 2).view(-1)
            return rows[where.start - first * n_pre :][: where.stop - where.start]
        post, pre = where // n_pre, where % n_pre
        channel, place = pre // places, pre % places
        found = [
            by_z[j] @ met()[k][i]
            for j, i, k in zip(post.tolist(), channel.tolist(), place.tolist())
        ]
        return torch.stack(found) if found else torch.empty(0)

    return at
