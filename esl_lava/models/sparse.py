"""CUBA blocks of which only the existing connections are stored.

Forward pass, weight gradient and input gradient touch existing connections alone; Adam or SGD
sees one parameter, their values. Spikes are SLAYER's bit for bit as with `models.fused`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.kernels import nonzeros
from esl_lava.models.fused import by_lanes, on_grid
from esl_lava.models.neurons import Dynamics, TooWideError, take_shape
from esl_lava.models.slayer import slayer
from esl_lava.models.threads import in_parts
from esl_lava.sparsity.weights import SparseWeight

DRAWN = 1 << 20
"""Initial weights drawn at a time."""


class Synapse(nn.Module):
    """Holds the weight where a SLAYER block's synapse does."""

    def __init__(self, weight: SparseWeight) -> None:
        super().__init__()
        self.weight = weight


class Block(nn.Module):
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
        neuron: dict[str, Any],
        n_pre: int,
        n_post: int,
        *,
        spiking: bool,
        initial: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.neuron = slayer.neuron.cuba.Neuron(**neuron)
        self.spiking = spiking
        if not spiking:
            self.neuron._threshold = None  # as SLAYER's Affine
        self.synapse = Synapse(SparseWeight(n_pre, n_post, initial))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_post, T) spikes, or weighted input, of (batch, n_pre, T) float input.

        In memory, neurons come first and time second.
        """
        weight = self.synapse.weight
        step = 2 / self.neuron.w_scale
        if not self.spiking:
            z: Tensor = _Layer.apply(x, weight.values, weight, step, None)
            return z.permute(2, 0, 1)
        take_shape(self.neuron, torch.Size([weight.n_post]))
        try:
            dynamics = Dynamics.of(self.neuron)
            spikes: Tensor = _Layer.apply(x, weight.values, weight, step, dynamics)
        except TooWideError:
            z = _Layer.apply(x, weight.values, weight, step, None)
            stock: Tensor = self.neuron(z.permute(2, 0, 1))
            return stock
        return spikes.permute(2, 0, 1)


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


class _Layer(torch.autograd.Function):
    """(n_post, T, batch) spikes of (batch, n_pre, T) input; weighted input without dynamics.

    Each thread takes neurons all the way, as it costs about as much to wake one as a kernel
    takes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        weight: SparseWeight,
        step: float,
        dynamics: Dynamics | None,
    ) -> Tensor:
        batch, _, steps = x.shape
        starts = weight.starts.numpy()
        multiples = np.empty(values.numel(), np.int16)
        size = np.float32(step)
        clamped = nonzeros.quantise(values.detach().numpy(), size, multiples)
        inputs = _lanes(x.detach())
        binary = inputs.dtype == np.int16
        graded = _NONE if binary else multiples * size
        z = torch.empty(weight.n_post, steps, batch)
        spikes = torch.empty_like(z) if dynamics else z
        v, s = z.numpy(), spikes.numpy()
        sums = v.reshape(weight.n_post, -1)
        flat, at = inputs.reshape(-1), weight.pre.numpy() * np.int64(inputs.shape[1])

        def rows(a: int, b: int) -> bool:
            if binary:
                nonzeros.add_masked(flat, at, starts, multiples, size, a, b, sums)
            else:
                nonzeros.add_weighted(flat, at, starts, _STRAIGHT, graded, a, b, sums)
            return dynamics is None or dynamics.run(v, (a, b, 0, batch), s)

        if not all(in_parts(rows, weight.n_post)):
            raise TooWideError
        ctx.weight, ctx.inputs, ctx.multiples, ctx.step = weight, inputs, multiples, size
        ctx.dynamics, ctx.shape, ctx.at = dynamics, x.shape, at
        ctx.save_for_backward(values if clamped else _EMPTY, z if dynamics else _EMPTY)
        return spikes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, inputs, at = ctx.weight, ctx.inputs, ctx.at
        starts = weight.starts.numpy()
        clamped, v = ctx.saved_tensors
        batch, n_pre, steps = ctx.shape
        by_spikes = gradient.contiguous()
        by_z = torch.empty_like(by_spikes) if ctx.dynamics else by_spikes
        by_values = torch.empty(at.size)
        source, trace, target = by_spikes.numpy(), v.numpy(), by_values.numpy()
        g = by_z.numpy()
        lanes = g.reshape(weight.n_post, -1)
        flat, binary = inputs.reshape(-1), inputs.dtype == np.int16

        def rows(a: int, b: int) -> None:
            if ctx.dynamics:
                ctx.dynamics.gradient(source, (a, b, 0, batch), trace, g)
            if binary:
                nonzeros.add_products(lanes.view(np.int32), flat, at, starts, a, b, target)
            else:
                nonzeros.add_graded_products(lanes, flat, at, starts, a, b, target)

        in_parts(rows, weight.n_post)
        if clamped.numel():
            by_values *= on_grid(clamped, ctx.step)
        if weight.wants_dense_gradient:
            weight.dense_gradient = _Everywhere(by_z.flatten(1), inputs)
        if not ctx.needs_input_grad[0]:
            return None, by_values, None, None, None
        columns, post, order = (array.numpy() for array in weight.by_pre())
        at, order = post * np.int64(lanes.shape[1]), order.view(np.uint32)
        source, w = lanes.reshape(-1), ctx.multiples * ctx.step
        by_x = torch.empty(n_pre, steps, batch)
        out = by_x.numpy().reshape(n_pre, -1)
        in_parts(
            lambda a, b: nonzeros.add_weighted(source, at, columns, order, w, a, b, out), n_pre
        )
        return by_x.permute(2, 0, 1), by_values, None, None, None


_EMPTY = torch.empty(0)
_NONE = np.empty(0, np.float32)
_STRAIGHT = np.empty(0, np.uint32)
"""For `add_weighted`: entries lie in the order of weights."""


class _Everywhere:
    """The gradient at any flat positions, those of no connection too.

    A weight that does not exist is 0, which SLAYER's grid holds: its gradient passes.
    """

    def __init__(self, gradient: Tensor, inputs: np.ndarray) -> None:
        self._gradient = gradient
        self._inputs = inputs

    def __call__(self, where: slice | Tensor) -> Tensor:
        n_pre = len(self._inputs)
        if isinstance(where, slice):
            first, last = where.start // n_pre, -(-where.stop // n_pre)
            rows = self._gradient[first:last] @ self._spikes(slice(None)).t()
            return rows.view(-1)[where.start - first * n_pre :][: where.stop - where.start]
        post, pre = where // n_pre, where % n_pre
        return (self._gradient[post] * self._spikes(pre.numpy())).sum(1)

    def _spikes(self, where: Any) -> Tensor:
        """(k, T * batch) inputs."""
        chosen = self._inputs[where]
        return torch.from_numpy(-chosen.astype(np.float32) if chosen.dtype == np.int16 else chosen)


def _lanes(x: Tensor) -> np.ndarray:
    """(n_pre, T * batch) of x (batch, n_pre, T): int16 masks of binary spikes, else float32."""
    batch, n_pre, steps = x.shape
    masks = np.empty((n_pre, steps, batch), np.int16)
    lying = by_lanes(x)
    if lying is not None:
        flat, marks = lying.numpy().reshape(-1), masks.reshape(-1)
        binary = in_parts(lambda a, b: nonzeros.mark(flat[a:b], marks[a:b]), flat.size)
    else:
        source = x.numpy()
        binary = in_parts(lambda a, b: nonzeros.mark_turned(source, a, b, masks), n_pre)
    if all(binary):
        return masks.reshape(n_pre, -1)
    return x.permute(1, 2, 0).reshape(n_pre, -1).contiguous().numpy()
