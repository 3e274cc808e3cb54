"""CUBA blocks of which only the existing connections are stored.

Forward pass, weight gradient and input gradient touch existing connections alone; Adam or SGD
sees one parameter, their values. Spikes are SLAYER's bit for bit as with `engines/fused`.
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
from esl_lava.engines.fused import is_on_grid
from esl_lava.engines.neurons import Dynamics, TooWideError, fire, take_shape
from esl_lava.engines.slayer import slayer
from esl_lava.engines.sparse_maps import (
    Rounded,
    find_everywhere,
    refuse_changed,
    weigh,
)
from esl_lava.engines.threads import in_parts
from esl_lava.kernels import nonzeros, surrogate
from esl_lava.sparsity.weights import SparseWeight

DRAWN = 1 << 20
"""Initial weights drawn at a time."""

LARGEST_MULTIPLE = 128
"""Of a weight on SLAYER's grid, in its steps."""


class _Sparse(nn.Module):
    """What both blocks share: a SLAYER neuron, and a synapse that holds a sparse weight."""

    def __init__(self, neuron: Mapping[str, object], weight: SparseWeight) -> None:
        super().__init__()
        self.neuron = slayer.neuron.cuba.Neuron(**neuron)
        self.synapse: Any = nn.Module()  # as a SLAYER block has it
        self.synapse.weight = weight

    @property
    def _step(self) -> float:
        """Distance of two weights on SLAYER's grid."""
        return 2 / float(self.neuron.w_scale)


class SparseDense(_Sparse):
    """A fully connected CUBA layer, or a readout without dynamics, of sparse weights.

    It begins without connections (`SparseWeight.begin`).

    Args:
        neuron: parameters of a SLAYER CUBA neuron.
        n_pre, n_post: input and output neurons.
        spiking: false for a readout.
        initial: weights to begin with, by flat position (`as_slayer_draws`, `zeros`).
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
        """(batch, n_post, T) spikes, or weighted input, of (batch, n_pre, T) float input.

        In memory, neurons come first and time second.

        Raises:
            ValueError: when the input is not float32 on the CPU, or of other neurons.
        """
        if not self.spiking:
            return self._computed(x, None)
        take_shape(self.neuron, torch.Size([self.synapse.weight.n_post]))
        try:
            return self._computed(x, Dynamics.of(self.neuron))
        except TooWideError:
            stock: Tensor = self.neuron(self._computed(x, None))
            return stock

    def _computed(self, x: Tensor, dynamics: Dynamics | None) -> Tensor:
        """(batch, n_post, T) spikes, or without dynamics weighted input."""
        weight = self.synapse.weight
        if x.shape[1] != weight.n_pre or x.dtype != torch.float32 or x.device.type != "cpu":
            raise ValueError(
                f"input of {x.shape[1]} channels of {x.dtype} on {x.device} to a sparse "
                f"layer, which takes {weight.n_pre} of torch.float32 on the CPU"
            )
        lanes = x.permute(1, 2, 0)
        found = apply(_Layer, lanes, weight.values, weight, self._step, dynamics)
        return found.permute(2, 0, 1)


class SparseConv(_Sparse):
    """A convolution of CUBA neurons with stride 1, of sparse kernels.

    It begins without connections (`SparseWeight.begin`); flat positions are those of a dense
    kernel (out, in, rows, columns).

    Args:
        neuron: as for `SparseDense`.
        n_pre, n_post: input and output channels.
        kernel, padding: (rows, columns).
        initial: as for `SparseDense`; `as_slayer_draws` of n_pre times the kernel's size.
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
        """(batch, n_post, rows, columns, T) spikes of (batch, n_pre, rows, columns, T) input.

        Raises:
            ValueError: as `sparse_maps.weigh`.
        """
        maps, axes = x.permute(1, 4, 0, 2, 3), (2, 0, 3, 4, 1)
        weigh_maps = functools.partial(
            weigh, maps, self.synapse.weight, self._rounded(), padding=self.padding
        )
        try:
            return fire(self.neuron, weigh_maps(), axes)
        except TooWideError:
            stock: Tensor = self.neuron(weigh_maps().permute(axes))
            return stock

    def _rounded(self) -> Rounded:
        """Its weights on SLAYER's grid."""
        weight, step = self.synapse.weight, self._step
        multiples, clamped = _quantised(weight.values, step)
        passing = is_on_grid(weight.values.detach(), step).numpy() if clamped else None
        return Rounded(multiples, np.full(weight.n_post, step), passing=passing)


def zeros(positions: Tensor) -> Tensor:
    """No weights to begin with."""
    return torch.zeros(positions.numel())


def as_slayer_draws(n_pre: int, n_post: int) -> Callable[[Tensor], Tensor]:
    """Initial weights that a SLAYER block built here and now would have, by flat position.

    Torch's generator is left as that block would have left it, so the layers of a model get
    the same weights whichever of them are sparse. Draws are made block by block, all of
    them, once here and once when positions are known.
    """
    state = torch.get_rng_state()
    # kaiming_uniform_ of a = sqrt(5), in its own operations.
    bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + math.sqrt(5) ** 2)) / math.sqrt(n_pre))
    size = n_pre * n_post
    for start in range(0, size, DRAWN):
        torch.empty(min(DRAWN, size - start)).uniform_(-bound, bound)

    def values(positions: Tensor) -> Tensor:
        generator = torch.Generator().set_state(state)
        edges = torch.arange(0, size + DRAWN, DRAWN)
        ends = torch.searchsorted(positions, edges).tolist()
        found = torch.empty(positions.numel())
        for k, (first, last) in enumerate(itertools.pairwise(ends)):
            start = k * DRAWN
            block = torch.empty(min(DRAWN, size - start))
            block.uniform_(-bound, bound, generator=generator)
            found[first:last] = block[positions[first:last] - start]
        return found

    return values


def _quantised(values: Tensor, step: float) -> tuple[Array, bool]:
    """(connections,) int16 multiples of a step, and whether weights were beyond their range."""
    multiples = np.empty(values.numel(), np.int16)
    clamped = nonzeros.quantise(values.detach().numpy(), np.float32(step), multiples)
    return multiples, clamped > 0


class _Layer(torch.autograd.Function):
    """(n_post, T, n) spikes of (n_pre, T, n) input; weighted input without dynamics.

    Each thread takes neurons all the way, as it costs about as much to wake one as a kernel
    takes.
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
        multiples, clamped = _quantised(values, step)
        size = np.float32(step)
        inputs, largest = _lanes(x.detach())
        fan_in = int(np.diff(starts).max())
        terms = nonzeros.terms_at_once(LARGEST_MULTIPLE, largest, fan_in)
        graded = _NONE
        if not terms:
            inputs, graded = x.detach().reshape(-1).numpy(), multiples * size
        met = inputs, at, stride, starts
        spikes = torch.empty(weight.n_post, steps, n)
        s = spikes.numpy()
        v = np.empty_like(s) if dynamics else s
        sums = v.reshape(weight.n_post, -1)

        def rows(a: int, b: int) -> bool:
            if not terms:
                nonzeros.add_weighted(*met, graded, a, b, sums)
            elif dynamics:
                neuron = dynamics.neuron
                return nonzeros.fire(*met, multiples, terms, size, neuron, a, b, v, s)
            else:
                nonzeros.add_small(*met, multiples, terms, size, a, b, sums)
            return dynamics is None or surrogate.spike(v, (a, b, 0, n), dynamics.neuron, s)

        if not all(in_parts(rows, weight.n_post)):
            raise TooWideError
        ctx.weight, ctx.starts, ctx.multiples, ctx.step = weight, weight.starts, multiples, size
        ctx.dynamics, ctx.shape, ctx.met = dynamics, x.shape, met
        ctx.v = v if dynamics else None
        if clamped:
            ctx.save_for_backward(values)
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, dynamics = ctx.weight, ctx.dynamics
        met: tuple[Array, Array, int, Array] = ctx.met
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
                nonzeros.fire_gradients(by_spikes, ctx.v, slopes, *met, a, b, by_z, target)
            else:
                nonzeros.add_products(lanes, *met, a, b, target)

        in_parts(rows, weight.n_post)
        for clamped in ctx.saved_tensors:
            by_values *= is_on_grid(clamped, ctx.step)
        if weight.wants_dense_gradient:
            weight.dense_gradient = find_everywhere(lanes, met[0], _NO_OFFSET, steps * n, n_pre, 1)
        if not ctx.needs_input_grad[0]:
            return None, by_values, None, None, None
        columns, post, order = (array.numpy() for array in weight.by_pre())
        w = (ctx.multiples * ctx.step)[order]
        by_x = torch.empty(n_pre, steps, n)
        out, flat = by_x.numpy().reshape(n_pre, -1), by_z.reshape(-1)
        in_parts(
            lambda a, b: nonzeros.add_weighted(flat, post, steps * n, columns, w, a, b, out), n_pre
        )
        return by_x, by_values, None, None, None


_NONE = np.empty(0, np.float32)
_NO_OFFSET = np.zeros(1, np.int64)


def _lanes(x: Tensor) -> tuple[Array, int]:
    """Flat (n_pre, T, n) as `nonzeros.mark` makes it, and what that returns."""
    small = np.empty(x.numel(), np.int8)
    if x.is_contiguous():
        flat = x.numpy().reshape(-1)
        found = in_parts(lambda a, b: nonzeros.mark(flat[a:b], small[a:b]), flat.size)
    else:
        source, shaped = x.permute(2, 0, 1).numpy(), small.reshape(x.shape)
        found = in_parts(lambda a, b: nonzeros.mark_turned(source, a, b, shaped), len(x))
    return small, max(found)
