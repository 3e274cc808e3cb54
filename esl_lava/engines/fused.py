"""SLAYER's CUBA blocks with faster forward and backward passes that give the same spikes.

A block keeps its parameters, the keys of its state dict and its export. Only `forward` differs.
Time is folded into the batch, so that a synapse is one matrix product or one 2-D convolution. If
few inputs spike, it is a sum of the rows of weights that the spikes select. One kernel computes
the neurons over all steps, and another their surrogate gradient.

Tensors have SLAYER's axes, (batch, channels, [height, width,] time), but in memory time comes
first and channels last. Between blocks of this module nothing is copied.

Spikes are equal to stock SLAYER's bit for bit if inputs are integers or multiples of a power of
two (as average pools of spikes are). Then every sum is exact in float32, in any order. Gradients
are equal up to the order of sums and the last bits of an exponential. Further than 60 widths from
its threshold, the surrogate gradient of a neuron stays at exp(-60) of its height.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from esl_lava.arrays import Array
from esl_lava.engines.autograd import Context, apply, once_differentiable
from esl_lava.engines.neurons import TooWideError, fire
from esl_lava.engines.slayer import CubaNeuron, slayer
from esl_lava.engines.threads import run_in_parts
from esl_lava.kernels import narrow, rows

EVENT_ACTIVITY = 0.3
"""Rows of weights are summed if at most this share of the inputs spike. The time grows with the
share: at 13 % it was a third of the product's time, measured on 784 x 800 weights."""

EVENT_WIDTH = 64
"""Rows of weights are summed only in layers of at least this many neurons."""

NARROW = 16
"""Up to this many neurons, one pass computes both gradients faster than two matrix products. With
10 neurons it took two thirds of their time."""

SHORT = 1 << 15
"""Each thread rounds at least this many weights: for fewer, waking a thread takes too long."""

Network = TypeVar("Network", bound=nn.Module)

_logger = logging.getLogger(__name__)


def accelerate(network: Network) -> Network:
    """Give the CUBA blocks of a SLAYER network faster passes, in place, and return the network.

    A block that cannot have them keeps stock SLAYER's passes, and the log names the block and the
    reason. A convolution also keeps them for maps on which torch's convolution would crash
    (`FusedConv`). Modules that are not `slayer.block.cuba` blocks are not changed.
    """
    for name, module in network.named_modules():
        if not isinstance(module, slayer.block.cuba.AbstractCuba) or module.neuron is None:
            continue
        faster = _FASTER.get(type(module))
        reason = (
            find_obstacle(module)
            if faster
            else f"{type(module).__name__} blocks have no faster passes"
        )
        if faster and reason is None:
            module.__class__ = faster
            module.block_name = name or "network"
        elif type(module) not in _FASTER.values():
            _logger.warning("block %s keeps stock SLAYER's passes: %s", name or "network", reason)
    return network


def find_obstacle(block: Any) -> str | None:
    """Return why a Dense, Affine or Conv block needs stock SLAYER's passes, None if it does not."""
    neuron, synapse = block.neuron, block.synapse
    checks = {
        "its weights are complex": synapse.complex,
        "its synapse has a bias": synapse.complex is False and synapse.bias is not None,
        "its weights are not quantised by its neuron": synapse.pre_hook_fx != neuron.quantize_8bit,
        "it has axonal delays": block.delay is not None,
        "it logs event counts": block.count_log,
        "it has hooks": any(
            hooks
            for module in (neuron, synapse)
            for hooks in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
        ),
        "its readout has dynamics": getattr(block, "dynamics", False) is True,
        "its neurons' parameters differ or are trained": neuron.requires_grad
        or not neuron.shared_param,
        "it normalises currents": neuron.norm is not None,
        "it has dropout": neuron.drop is not None,
        "its state persists": neuron.persistent_state,
        "its spikes are graded": neuron.graded_spike,
        "its threshold is not positive": neuron.threshold is not None and neuron.threshold <= 0,
    }
    return next((reason for reason, applies in checks.items() if applies), None)


def sees_only_padding(size: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    """Return whether a kernel that slides along an axis meets only padding at all of its stops.

    Args:
        size: length of the axis without padding.
        kernel, stride, padding, dilation: those of the kernel along the axis; padding at each end.
    """
    stops = range(0, size + 2 * padding - dilation * (kernel - 1), stride)
    return len(stops) > 0 and not any(
        padding <= stop + tap * dilation < padding + size for stop in stops for tap in range(kernel)
    )


def view_lanes(x: Tensor) -> Tensor | None:
    """View (batch, channels, T) as (channels, T * batch), or return None if that needs a copy."""
    lanes = x.permute(1, 2, 0)
    return lanes.flatten(1) if lanes.is_contiguous() else None


class _Quantise(torch.autograd.Function):
    """Weights rounded to SLAYER's grid. Weights beyond the ends of the grid get no gradient."""

    @staticmethod
    def forward(ctx: Context, weight: Tensor, step: float) -> Tensor:
        out, ctx.clamped = _quantise(weight, step)
        ctx.step = step
        ctx.save_for_backward(weight if ctx.clamped else torch.empty(0))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.clamped:
            (weight,) = ctx.saved_tensors
            gradient = gradient * is_within_grid(weight, ctx.step)
        return gradient, None


def _quantise(weight: Tensor, step: float) -> tuple[Tensor, bool]:
    """Round weights to SLAYER's grid, and return whether some were beyond its ends."""
    flat = weight.detach().reshape(-1)
    out = torch.empty_like(flat)
    source, target = flat.numpy(), out.numpy()
    clamped = run_in_parts(
        lambda a, b: rows.quantise(source, np.float32(step), a, b, target), flat.numel(), SHORT
    )
    return out.view(weight.shape), any(clamped)


def is_within_grid(weight: Tensor, step: float) -> Tensor:
    """Return for each weight whether, rounded, it is within the ends of SLAYER's grid."""
    multiples = torch.round(weight / step)
    return (multiples >= -128) & (multiples <= 127)


class _EventRows(torch.autograd.Function):
    """Weighted input of a dense layer by sums of rows of weights, for few spikes."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, step: float, events: Array, counts: Array
    ) -> Tensor:
        n_post, n_pre = weight.shape
        source = weight.detach().numpy()
        turned = np.empty((n_pre, n_post), np.int16)
        size = np.float32(step)
        clamped = run_in_parts(
            lambda a, b: rows.quantise_turned(source, size, a, b, turned), n_pre, rows.INPUTS
        )
        z = np.empty((len(counts), n_post), np.float32)
        run_in_parts(lambda a, b: rows.add_rows(events, counts, a, b, turned, size, z), len(counts))
        ctx.step, ctx.clamped = step, any(clamped)
        ctx.events, ctx.counts = events, counts
        ctx.shape = x.shape
        ctx.save_for_backward(weight)
        return torch.from_numpy(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        by_x, by_weight = None, None
        gradient = gradient.contiguous()
        if ctx.needs_input_grad[0]:
            batch, n_pre, steps = ctx.shape
            flat = gradient @ _quantise(weight, ctx.step)[0]
            by_x = flat.view(steps, batch, n_pre).permute(1, 2, 0)
        if ctx.needs_input_grad[1]:
            n_post, n_pre = weight.shape
            starts = np.empty(n_pre + 1, np.int64)
            listed = np.empty(int(ctx.counts.sum()), np.uint32)
            rows.by_input(ctx.events, ctx.counts, starts, listed)
            by_weight = torch.empty(n_post, n_pre)
            source, target = gradient.numpy(), by_weight.numpy()
            run_in_parts(
                lambda a, b: rows.add_gradients(starts, listed, source, a, b, target),
                n_pre,
                rows.INPUTS,
            )
            if ctx.clamped:
                by_weight *= is_within_grid(weight, ctx.step)
        return by_x, by_weight, None, None, None


class _MatrixProduct(torch.autograd.Function):
    """Weighted input of a dense layer by matrix products, (T, batch, n_post).

    If the input lies channel by channel in memory (`view_lanes`), the result is (n_post, T, batch).
    One autograd function does everything, because around the products of a readout Python takes
    more time than the products.
    """

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, step: float) -> Tensor:
        batch, n_pre, steps = x.shape
        quantised, ctx.clamped = _quantise(weight, step)
        lanes = view_lanes(x)
        flat = x.permute(2, 0, 1).reshape(-1, n_pre) if lanes is None else lanes
        ctx.step, ctx.shape, ctx.by_lanes = step, x.shape, lanes is not None
        ctx.save_for_backward(flat, quantised, weight)
        if ctx.by_lanes:
            return (quantised @ flat).view(-1, steps, batch)
        return (flat @ quantised.t()).view(steps, batch, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, quantised, weight = ctx.saved_tensors
        batch, n_pre, steps = ctx.shape
        by_flat, by_weight = None, None
        needs_x, needs_weight, _ = ctx.needs_input_grad
        if ctx.by_lanes:
            g = gradient.reshape(len(weight), -1)
            if needs_x and needs_weight and len(weight) <= NARROW:
                by_flat, by_weight = _compute_gradients(quantised, flat, g)
            else:
                by_flat = quantised.t() @ g if needs_x else None
                by_weight = g @ flat.t() if needs_weight else None
        else:
            g = gradient.reshape(-1, len(weight))
            by_flat = g @ quantised if needs_x else None
            by_weight = g.t() @ flat if needs_weight else None
        if by_weight is not None and ctx.clamped:
            by_weight *= is_within_grid(weight, ctx.step)
        if by_flat is None:
            return None, by_weight, None
        if ctx.by_lanes:
            return by_flat.view(n_pre, steps, batch).permute(2, 0, 1), by_weight, None
        return by_flat.view(steps, batch, n_pre).permute(1, 2, 0), by_weight, None


def _compute_gradients(weight: Tensor, flat: Tensor, by_z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to `flat` and `weight`, from that of their product."""
    by_flat, by_weight = torch.empty_like(flat), torch.empty_like(weight)
    w, x, g, by_x, by_w = (
        tensor.detach().numpy() for tensor in (weight, flat, by_z, by_flat, by_weight)
    )
    run_in_parts(lambda a, b: narrow.gradients(w, x, g, a, b, by_x, by_w), len(x))
    return by_flat, by_weight


class _FusedBlock:
    """The common part of the three blocks. It decides for each input which passes to use.

    Attributes:
        axes: number of axes of the input.
        block_name: the name of the block in its network, for the log.
        has_warned: whether the log has named an input that needs stock SLAYER's passes.
    """

    axes: int = 3
    block_name: str = "network"
    has_warned: bool = False
    delay_shift: bool
    neuron: CubaNeuron
    synapse: Any
    mask: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Return the same as the stock block; x is (batch, channels, [height, width,] T) float."""
        fits = (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.dim() == self.axes
            and x.shape[1] == self.synapse.in_channels  # otherwise stock SLAYER raises its error
        )
        if fits and x.numel() and find_obstacle(self) is None and self._supports(x):
            if getattr(self, "mask", None) is not None:
                self.synapse.weight.data *= self.mask
            with contextlib.suppress(TooWideError):
                return self._compute(x)
        stock: Tensor = super().forward(x)  # type: ignore[misc]
        return stock

    def _supports(self, x: Tensor) -> bool:
        """Return whether the faster passes can compute this input; if not, the log says why."""
        return True

    def _compute(self, x: Tensor) -> Tensor:
        spikes = fire(self.neuron, *self._weigh(x))
        return slayer.block.base.step_delay(self, spikes) if self.delay_shift else spikes

    def _weigh(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Compute the weighted input of a dense synapse from x (batch, n_pre, T).

        Returns:
            The weighted input with the axes in the order of memory, and the order of the axes
            that turns it into (batch, n_post, T).
        """
        weight = self.synapse.weight.flatten(1)
        batch, n_pre, steps = x.shape
        if len(weight) >= EVENT_WIDTH:
            events = np.empty((steps, batch, n_pre), np.uint32)
            counts = np.empty((steps, batch), np.int64)
            source = x.detach().numpy()
            binary = run_in_parts(
                lambda a, b: rows.list_events(source, a, b, events, counts), batch
            )
            if all(binary) and counts.sum() <= EVENT_ACTIVITY * x.numel():
                listed = events.reshape(-1, n_pre), counts.reshape(-1)
                z = apply(_EventRows, x, weight, self._grid_step, *listed)
                return z.view(steps, batch, -1), (1, 2, 0)
        axes = (1, 2, 0) if view_lanes(x) is None else (2, 0, 1)
        return apply(_MatrixProduct, x, weight, self._grid_step), axes

    @property
    def _grid_step(self) -> float:
        """The distance between neighbouring weights on SLAYER's grid."""
        return 2 / float(self.neuron.w_scale)


class FusedDense(_FusedBlock, slayer.block.cuba.Dense):  # type: ignore[misc]
    """A faster `slayer.block.cuba.Dense`."""


class FusedAffine(_FusedBlock, slayer.block.cuba.Affine):  # type: ignore[misc]
    """A faster `slayer.block.cuba.Affine` without dynamics."""

    def _compute(self, x: Tensor) -> Tensor:
        z, axes = self._weigh(x)
        return z.permute(axes)


class FusedConv(_FusedBlock, slayer.block.cuba.Conv):  # type: ignore[misc]
    """A faster `slayer.block.cuba.Conv`.

    It keeps stock SLAYER's pass if every column of the output sees only padding. With channels
    last, oneDNN 3.3.6 (in torch 2.3) then usually calls a kernel that it has not generated
    (`brgconv`, `perform_outwork`). Rows of the output that see only padding are no problem for it.
    """

    axes = 5

    def _supports(self, x: Tensor) -> bool:
        _, _, height, width, _ = x.shape
        synapse = self.synapse
        kernel, stride, padding, dilation = (
            getattr(synapse, name)[1] for name in ("kernel_size", "stride", "padding", "dilation")
        )
        if not sees_only_padding(width, kernel, stride, padding, dilation):
            return True
        if not self.has_warned:
            self.has_warned = True
            _logger.warning(
                "block %s keeps stock SLAYER's passes on maps of %d x %d: every column of its "
                "output sees only padding (kernel %d, stride %d, padding %d, dilation %d along "
                "columns), and torch's convolution with channels last would crash",
                self.block_name,
                height,
                width,
                kernel,
                stride,
                padding,
                dilation,
            )
        return False

    def _weigh(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        batch, channels, height, width, steps = x.shape
        synapse = self.synapse
        flat = x.permute(4, 0, 1, 2, 3).reshape(steps * batch, channels, height, width)
        # With 1 x 1 kernels, a stride and channels last, torch 2.3 corrupts the heap.
        skips = max(synapse.kernel_size) == 1 and max(synapse.stride) > 1
        order = torch.contiguous_format if skips else torch.channels_last
        z = functional.conv2d(
            flat.contiguous(memory_format=order),
            apply(_Quantise, synapse.weight, self._grid_step).squeeze(4),
            None,
            synapse.stride[:2],
            synapse.padding[:2],
            synapse.dilation[:2],
            synapse.groups,
        )
        last = z.permute(0, 2, 3, 1).contiguous()
        return last.view(steps, batch, *last.shape[1:]), (1, 4, 2, 3, 0)


_FASTER = {
    slayer.block.cuba.Dense: FusedDense,
    slayer.block.cuba.Affine: FusedAffine,
    slayer.block.cuba.Conv: FusedConv,
}
