"""CUBA blocks that store only the existing connections.

The forward pass, the weight gradient and the input gradient process only existing connections. Adam
or SGD sees one parameter of a block, the values of its connections. As with `engines/fused`, spikes
are equal to SLAYER's bit for bit.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.arrays import Array
from esl_lava.engines.autograd import Context, apply, once_differentiable
from esl_lava.engines.fused import is_within_grid
from esl_lava.engines.neurons import Dynamics, TooWideError, fire, take_shape
from esl_lava.engines.slayer import slayer
from esl_lava.engines.sparse_maps import (
    RoundedWeights,
    make_dense_gradient,
    refuse_changed,
    weigh,
)
from esl_lava.engines.threads import run_in_parts
from esl_lava.kernels import nonzeros, surrogate
from esl_lava.sparsity.weights import SparseWeight

DRAWN = 1 << 20
"""Number of initial weights that are drawn at a time."""

LARGEST_MULTIPLE = 128
"""Largest absolute weight on SLAYER's grid, in steps of the grid."""


class _Sparse(nn.Module):
    """What all blocks here share: a SLAYER neuron, and a synapse with a sparse weight."""

    def __init__(self, neuron: Mapping[str, object], weight: SparseWeight) -> None:
        super().__init__()
        self.neuron = slayer.neuron.cuba.Neuron(**neuron)
        self.synapse: Any = nn.Module()  # as a SLAYER block has it
        self.synapse.weight = weight

    @property
    def _grid_step(self) -> float:
        """The distance between neighbouring weights on SLAYER's grid."""
        return 2 / float(self.neuron.w_scale)


class SparseDense(_Sparse):
    """A fully connected CUBA layer, or a readout without dynamics, with sparse weights.

    It begins without connections (`SparseWeight.begin`).

    Args:
        neuron: parameters of a SLAYER CUBA neuron.
        n_pre, n_post: number of input and output neurons.
        spiking: false for a readout.
        initial: flat positions -> initial weights there (`draw_like_slayer`, `zeros`).
    """

    def __init__(
        self,
        neuron: Mapping[str, object],
        n_pre: int,
        n_post: int,
        *,
        spiking: bool,
        initial: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(neuron, SparseWeight(n_pre, n_post, initial))
        self.spiking = spiking
        if not spiking:
            self.neuron._threshold = None  # as SLAYER's Affine

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes (batch, n_post, T), or the weighted input of a readout.

        In the memory of the result, neurons come first and time second.

        Args:
            x: (batch, n_pre, T) float32.

        Raises:
            ValueError: if the input is not float32 on the CPU, or has another number of neurons.
        """
        if not self.spiking:
            return self._compute(x, None)
        take_shape(self.neuron, torch.Size([self.synapse.weight.n_post]))
        try:
            return self._compute(x, Dynamics.of(self.neuron))
        except TooWideError:
            stock: Tensor = self.neuron(self._compute(x, None))
            return stock

    def _compute(self, x: Tensor, dynamics: Dynamics | None) -> Tensor:
        """Return spikes (batch, n_post, T), or weighted input if there are no dynamics."""
        weight = self.synapse.weight
        if x.shape[1] != weight.n_pre or x.dtype != torch.float32 or x.device.type != "cpu":
            raise ValueError(
                f"the input has {x.shape[1]} channels of {x.dtype} on {x.device}, but the sparse "
                f"layer needs {weight.n_pre} channels of torch.float32 on the CPU"
            )
        lanes = x.permute(1, 2, 0)
        outputs = apply(_Layer, lanes, weight.values, weight, self._grid_step, dynamics)
        return outputs.permute(2, 0, 1)


class SparseConv(_Sparse):
    """A convolution with stride 1 and sparse kernels, and its CUBA neurons.

    It begins without connections (`SparseWeight.begin`). Flat positions are the positions in a
    dense kernel (out, in, rows, columns).

    Args:
        neuron: as for `SparseDense`.
        n_pre, n_post: number of input and output channels.
        kernel, padding: (rows, columns).
        initial: as for `SparseDense`; the n_pre of `draw_like_slayer` is then the number of input
            channels times the size of the kernel.
    """

    def __init__(
        self,
        neuron: Mapping[str, object],
        n_pre: int,
        n_post: int,
        kernel: tuple[int, int],
        padding: tuple[int, int],
        *,
        initial: Callable[[Tensor], Tensor],
    ) -> None:
        fan_in = n_pre * math.prod(kernel)
        super().__init__(neuron, SparseWeight(fan_in, n_post, initial, kernel=kernel))
        self.kernel = kernel
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes (batch, n_post, rows, columns, T) for x (batch, n_pre, rows, columns, T).

        Raises:
            ValueError: as `sparse_maps.weigh`.
        """
        maps, axes = x.permute(1, 4, 0, 2, 3), (2, 0, 3, 4, 1)
        weigh_maps = functools.partial(
            weigh, maps, self.synapse.weight, self._round(), padding=self.padding
        )
        try:
            return fire(self.neuron, weigh_maps(), axes)
        except TooWideError:
            stock: Tensor = self.neuron(weigh_maps().permute(axes))
            return stock

    def _round(self) -> RoundedWeights:
        """Return the weights rounded to SLAYER's grid."""
        weight, step = self.synapse.weight, self._grid_step
        multiples, clamped = _quantise(weight.values, step)
        passing = is_within_grid(weight.values.detach(), step).numpy() if clamped else None
        return RoundedWeights(multiples, np.full(weight.n_post, step), passing=passing)


def zeros(positions: Tensor) -> Tensor:
    """Return (positions,) initial weights, all 0."""
    return torch.zeros(positions.numel())


def draw_like_slayer(n_pre: int, n_post: int) -> Callable[[Tensor], Tensor]:
    """Return a function from flat positions to the initial weights of a SLAYER block.

    They are the weights that a SLAYER block built now would have. Torch's generator is left in the
    state in which that block would leave it, so that the layers of a model get the same weights
    no matter which of them are sparse. All weights are drawn twice, block by block: now, and
    again when the positions are known.
    """
    state = torch.get_rng_state()
    # The bound of kaiming_uniform_ with a = sqrt(5), by the same operations.
    bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + math.sqrt(5) ** 2)) / math.sqrt(n_pre))
    size = n_pre * n_post
    for start in range(0, size, DRAWN):
        torch.empty(min(DRAWN, size - start)).uniform_(-bound, bound)

    def values(positions: Tensor) -> Tensor:
        generator = torch.Generator().set_state(state)
        edges = torch.arange(0, size + DRAWN, DRAWN)
        ends = torch.searchsorted(positions, edges).tolist()
        weights = torch.empty(positions.numel())
        for k, (first, last) in enumerate(itertools.pairwise(ends)):
            start = k * DRAWN
            block = torch.empty(min(DRAWN, size - start))
            block.uniform_(-bound, bound, generator=generator)
            weights[first:last] = block[positions[first:last] - start]
        return weights

    return values


def _quantise(values: Tensor, step: float) -> tuple[Array, bool]:
    """Round weights to int16 multiples of a step, and return whether some were beyond the range."""
    multiples = np.empty(values.numel(), np.int16)
    clamped = nonzeros.quantise(values.detach().numpy(), np.float32(step), multiples)
    return multiples, clamped > 0


class _Layer(torch.autograd.Function):
    """Spikes (n_post, T, n) from input (n_pre, T, n), or weighted input if there are no dynamics.

    Each thread computes its neurons from weighted input to spikes, because waking a thread takes
    about as long as a kernel.
    """

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        values: Tensor,
        weight: SparseWeight,
        step: float,
        dynamics: Dynamics | None,
    ) -> Tensor:
        _, steps, n = x.shape
        starts, at, stride = weight.starts.numpy(), weight.pre.numpy(), steps * n
        multiples, clamped = _quantise(values, step)
        size = np.float32(step)
        inputs, largest = _mark_inputs(x.detach())
        fan_in = int(np.diff(starts).max())
        terms = nonzeros.terms_at_once(LARGEST_MULTIPLE, largest, fan_in)
        graded = _NONE
        if not terms:
            inputs, graded = x.detach().reshape(-1).numpy(), multiples * size
        operands = inputs, at, stride, starts
        spikes = torch.empty(weight.n_post, steps, n)
        s = spikes.numpy()
        v = np.empty_like(s) if dynamics else s
        sums = v.reshape(weight.n_post, -1)

        def rows(a: int, b: int) -> bool:
            if not terms:
                nonzeros.add_weighted(*operands, graded, a, b, sums)
            elif dynamics:
                neuron = dynamics.neuron
                return nonzeros.fire(*operands, multiples, terms, size, neuron, a, b, v, s)
            else:
                nonzeros.add_small(*operands, multiples, terms, size, a, b, sums)
            return dynamics is None or surrogate.spike(v, (a, b, 0, n), dynamics.neuron, s)

        if not all(run_in_parts(rows, weight.n_post)):
            raise TooWideError
        ctx.weight, ctx.starts, ctx.multiples, ctx.step = weight, weight.starts, multiples, size
        ctx.dynamics, ctx.shape, ctx.operands = dynamics, x.shape, operands
        ctx.v = v if dynamics else None
        if clamped:
            ctx.save_for_backward(values)
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, dynamics = ctx.weight, ctx.dynamics
        operands: tuple[Array, Array, int, Array] = ctx.operands
        refuse_changed(weight, ctx.starts)
        n_pre, steps, n = ctx.shape
        by_spikes = gradient.contiguous().numpy()
        by_z = np.empty_like(by_spikes) if dynamics else by_spikes
        lanes = by_z.reshape(weight.n_post, -1)
        by_values = torch.empty(ctx.multiples.size)
        target = by_values.numpy()

        def rows(a: int, b: int) -> None:
            if dynamics:
                slopes = dynamics.surrogate
                nonzeros.fire_gradients(by_spikes, ctx.v, slopes, *operands, a, b, by_z, target)
            else:
                nonzeros.add_products(lanes, *operands, a, b, target)

        run_in_parts(rows, weight.n_post)
        for clamped in ctx.saved_tensors:
            by_values *= is_within_grid(clamped, ctx.step)
        if weight.wants_dense_gradient:
            weight.dense_gradient = make_dense_gradient(
                lanes, operands[0], _NO_OFFSET, steps * n, n_pre, 1
            )
        if not ctx.needs_input_grad[0]:
            return None, by_values, None, None, None
        columns, post, order = (array.numpy() for array in weight.by_pre())
        w = (ctx.multiples * ctx.step)[order]
        by_x = torch.empty(n_pre, steps, n)
        out, flat = by_x.numpy().reshape(n_pre, -1), by_z.reshape(-1)
        run_in_parts(
            lambda a, b: nonzeros.add_weighted(flat, post, steps * n, columns, w, a, b, out), n_pre
        )
        return by_x, by_values, None, None, None


_NONE = np.empty(0, np.float32)
_NO_OFFSET = np.zeros(1, np.int64)


def _mark_inputs(x: Tensor) -> tuple[Array, int]:
    """Return inputs (n_pre, T, n) as flat int8, and the result of `nonzeros.mark` for all."""
    small = np.empty(x.numel(), np.int8)
    if x.is_contiguous():
        flat = x.numpy().reshape(-1)
        largest = run_in_parts(lambda a, b: nonzeros.mark(flat[a:b], small[a:b]), flat.size)
    else:
        source, shaped = x.permute(2, 0, 1).numpy(), small.reshape(x.shape)
        largest = run_in_parts(lambda a, b: nonzeros.mark_turned(source, a, b, shaped), len(x))
    return small, max(largest)
