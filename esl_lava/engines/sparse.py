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
from torch.nn import functional

from esl_lava.arrays import Array, Ints
from esl_lava.engines.autograd import Context, apply, once_differentiable
from esl_lava.engines.fused import is_on_grid
from esl_lava.engines.neurons import Dynamics, TooWideError, take_shape
from esl_lava.engines.slayer import slayer
from esl_lava.engines.threads import in_parts
from esl_lava.kernels import nonzeros, surrogate
from esl_lava.sparsity.growth import Scores
from esl_lava.sparsity.weights import SparseWeight

DRAWN = 1 << 20
"""Initial weights drawn at a time."""


class _Sparse(nn.Module):
    """What both blocks share: a SLAYER neuron, and a synapse that holds a sparse weight."""

    def __init__(self, neuron: Mapping[str, object], weight: SparseWeight) -> None:
        super().__init__()
        self.neuron = slayer.neuron.cuba.Neuron(**neuron)
        self.synapse: Any = nn.Module()  # as a SLAYER block has it
        self.synapse.weight = weight

    def _weighted(self, lanes: Tensor, offsets: Ints, dynamics: Dynamics | None) -> Tensor:
        """(n_post, T, n) spikes, or without dynamics weighted input, of (channels, T, n).

        Raises:
            ValueError: when that is not float32 on the CPU, or of another number of channels.
        """
        weight, step = self.synapse.weight, 2 / self.neuron.w_scale
        channels = weight.n_pre // len(offsets)
        if len(lanes) != channels or lanes.dtype != torch.float32 or lanes.device.type != "cpu":
            raise ValueError(
                f"input of {len(lanes)} channels of {lanes.dtype} on {lanes.device} to a sparse "
                f"layer, which takes {channels} of torch.float32 on the CPU"
            )
        return apply(_Layer, lanes, weight.values, weight, step, dynamics, offsets)

    def _fired(
        self, lanes: Tensor, offsets: Ints, shape: torch.Size, arranged: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Spikes of neurons of a shape, by stock SLAYER's where 32 bits do not suffice.

        Args:
            lanes, offsets: as for `_weighted`.
            shape: of the neurons of a sample.
            arranged: (n_post, T, n) -> SLAYER's order of dimensions.
        """
        take_shape(self.neuron, shape)
        try:
            return arranged(self._weighted(lanes, offsets, Dynamics.of(self.neuron)))
        except TooWideError:
            stock: Tensor = self.neuron(arranged(self._weighted(lanes, offsets, None)))
            return stock


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
        """
        lanes = x.permute(1, 2, 0)
        if not self.spiking:
            return self._weighted(lanes, _NO_OFFSET, None).permute(2, 0, 1)
        shape = torch.Size([self.synapse.weight.n_post])
        return self._fired(lanes, _NO_OFFSET, shape, lambda found: found.permute(2, 0, 1))


class SparseConv(_Sparse):
    """A convolution of CUBA neurons with stride 1, of sparse kernels.

    Maps are laid out with their padding, so that what a connection meets while its kernel
    slides over all maps of a channel is one piece; places no kernel belongs to are computed
    too and cut off. It begins without connections (`SparseWeight.begin`); flat positions are
    those of a dense kernel (out, in, rows, columns).

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
        """(batch, n_post, rows, columns, T) spikes of (batch, n_pre, rows, columns, T) input."""
        (above, beside), (height, width) = self.padding, self.kernel
        if x.shape[2] + 2 * above < height or x.shape[3] + 2 * beside < width:
            raise ValueError(
                f"maps of {tuple(x.shape[2:4])}, padded by {self.padding}, are smaller than the "
                f"kernel of {self.kernel}"
            )
        maps = functional.pad(x.permute(1, 4, 0, 2, 3), (beside, beside, above, above))
        _, steps, batch, rows, columns = maps.shape
        lanes = maps.flatten(2)
        offsets = np.add.outer(np.arange(height) * columns, np.arange(width)).reshape(-1)
        inside = (..., slice(rows - height + 1), slice(columns - width + 1))
        order = (2, 0, 3, 4, 1)

        def cropped(found: Tensor) -> Tensor:
            return found.view(-1, steps, batch, rows, columns)[inside].permute(order)

        n_post = self.synapse.weight.n_post
        shape = torch.Size([n_post, rows - height + 1, columns - width + 1])
        return self._fired(lanes, offsets, shape, cropped)


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
    """(n_post, T, n) spikes of (channels, T, n) input; weighted input without dynamics.

    A connection from place k of a channel's kernel meets the channel's lanes offsets[k] later;
    without a kernel there is one place, and the offset is 0. Each thread takes neurons all
    the way, as it costs about as much to wake one as a kernel takes.
    """

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        values: Tensor,
        weight: SparseWeight,
        step: float,
        dynamics: Dynamics | None,
        offsets: Ints,
    ) -> Tensor:
        _, steps, n = x.shape
        ctx.starts = weight.starts
        starts = ctx.starts.numpy()
        multiples = np.empty(values.numel(), np.int16)
        size = np.float32(step)
        clamped = nonzeros.quantise(values.detach().numpy(), size, multiples)
        inputs = _lanes(x.detach(), int(offsets[-1]))
        # Where what each connection meets begins, and what that counts.
        at, stride = weight.pre.numpy(), steps * n
        if len(offsets) > 1:
            channel, place = np.divmod(at, len(offsets))
            at, stride = channel * np.int64(stride) + offsets[place], 1
        binary = inputs.dtype == np.int8
        graded = _NONE if binary else multiples * size
        spikes = torch.empty(weight.n_post, steps, n)
        s = spikes.numpy()
        v = np.empty_like(s) if dynamics else s
        sums = v.reshape(weight.n_post, -1)

        def rows(a: int, b: int) -> bool:
            met = (inputs, at, stride, starts)
            if not binary:
                nonzeros.add_weighted(*met, _STRAIGHT, graded, a, b, sums)
            elif dynamics:
                return nonzeros.fire(*met, multiples, size, dynamics.neuron, a, b, v, s)
            else:
                nonzeros.add_masked(*met, multiples, size, a, b, sums)
            return dynamics is None or surrogate.spike(v, (a, b, 0, n), dynamics.neuron, s)

        if not all(in_parts(rows, weight.n_post)):
            raise TooWideError
        ctx.weight, ctx.inputs, ctx.multiples, ctx.step = weight, inputs, multiples, size
        ctx.dynamics, ctx.shape, ctx.met, ctx.offsets = dynamics, x.shape, (at, stride), offsets
        ctx.v = v if dynamics else None
        if clamped:
            ctx.save_for_backward(values)
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, inputs, offsets, dynamics = ctx.weight, ctx.inputs, ctx.offsets, ctx.dynamics
        if weight.starts is not ctx.starts:
            raise RuntimeError("connections changed between a layer's forward and backward pass")
        starts = ctx.starts.numpy()
        channels, steps, n = ctx.shape
        margin = int(offsets[-1])
        by_spikes = gradient.contiguous().numpy()
        # Before the first neuron's lanes, room for what an offset reaches back to.
        spaced = np.empty(margin + by_spikes.size, np.float32)
        spaced[:margin] = 0
        by_z = spaced[margin:].reshape(by_spikes.shape)
        if not dynamics:
            by_z[:] = by_spikes
        by_values = torch.empty(ctx.multiples.size)
        target, lanes = by_values.numpy(), by_z.reshape(weight.n_post, -1)
        at, stride = ctx.met
        met = (inputs, at, stride, starts)
        binary = inputs.dtype == np.int8

        def rows(a: int, b: int) -> None:
            if binary and dynamics:
                slopes = dynamics.surrogate
                nonzeros.fire_gradients(by_spikes, ctx.v, slopes, *met, a, b, by_z, target)
                return
            if dynamics:
                slopes, part = dynamics.surrogate, (a, b, 0, n)
                surrogate.spike_gradient(by_spikes, part, ctx.v, slopes, by_z)
            if binary:
                nonzeros.add_products(lanes.view(np.int32), *met, a, b, target)
            else:
                nonzeros.add_graded_products(lanes, *met, a, b, target)

        in_parts(rows, weight.n_post)
        for clamped in ctx.saved_tensors:
            by_values *= is_on_grid(clamped, ctx.step)
        if weight.wants_dense_gradient:
            weight.dense_gradient = _everywhere(torch.from_numpy(lanes), inputs, offsets, channels)
        if not ctx.needs_input_grad[0]:
            return None, by_values, None, None, None, None
        columns, post, order = (array.numpy() for array in weight.by_pre())
        back, stride = post, steps * n
        if margin:
            pre = np.repeat(np.arange(weight.n_pre), np.diff(columns))
            back = margin + post * np.int64(stride) - offsets[pre % len(offsets)]
            stride = 1
        w = ctx.multiples * ctx.step
        by_x = torch.empty(channels, steps, n)
        out = by_x.numpy().reshape(channels, -1)
        by_channel, order = columns[:: len(offsets)], order.view(np.uint32)
        in_parts(
            lambda a, b: nonzeros.add_weighted(
                spaced, back, stride, by_channel, order, w, a, b, out
            ),
            channels,
        )
        return by_x, by_values, None, None, None, None


_NONE = np.empty(0, np.float32)
_NO_OFFSET = np.zeros(1, np.int64)
_STRAIGHT = np.empty(0, np.uint32)
"""For `add_weighted`: entries lie in the order of weights."""


def _everywhere(gradient: Tensor, inputs: Array, offsets: Ints, channels: int) -> Scores:
    """The gradient at any flat positions, those of no connection too.

    A weight that does not exist is 0, which SLAYER's grid holds: its gradient passes.

    Args:
        gradient: (n_post, lanes), that of weighted input.
        inputs, offsets, channels: as `_Layer` has them.
    """
    n_pre, lanes = channels * len(offsets), gradient.shape[1]

    @functools.cache
    def shifted() -> list[Tensor]:
        """For each place of the kernel (channels, lanes) input that it meets."""
        values = torch.from_numpy(-inputs.astype(np.float32) if inputs.dtype == np.int8 else inputs)
        return [
            torch.as_strided(values, (channels, lanes), (lanes, 1), int(offset))
            for offset in offsets
        ]

    def at(where: slice | Tensor) -> Tensor:
        if isinstance(where, slice):
            first, last = where.start // n_pre, -(-where.stop // n_pre)
            places = [gradient[first:last] @ x.t() for x in shifted()]
            rows = torch.stack(places, 2).view(-1)
            return rows[where.start - first * n_pre :][: where.stop - where.start]
        post, pre = where // n_pre, where % n_pre
        channel, place = pre // len(offsets), pre % len(offsets)
        found = [
            gradient[j] @ shifted()[k][i]
            for j, i, k in zip(post.tolist(), channel.tolist(), place.tolist())
        ]
        return torch.stack(found) if found else torch.empty(0)

    return at


def _lanes(x: Tensor, margin: int) -> Array:
    """Flat (channels, T, n) with a margin behind: int8 masks of binary spikes, else float32."""
    masks = np.empty(x.numel() + margin, np.int8)
    masks[x.numel() :] = 0
    if x.is_contiguous():
        flat = x.numpy().reshape(-1)
        binary = in_parts(lambda a, b: nonzeros.mark(flat[a:b], masks[a:b]), flat.size)
    else:
        source, shaped = x.permute(2, 0, 1).numpy(), masks[: x.numel()].reshape(x.shape)
        binary = in_parts(lambda a, b: nonzeros.mark_turned(source, a, b, shaped), len(x))
    if all(binary):
        return masks
    return np.concatenate([x.reshape(-1).numpy(), np.zeros(margin, np.float32)])
