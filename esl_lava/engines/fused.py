"""SLAYER's CUBA blocks with a faster forward and backward pass: the same spikes.

A block keeps its class's parameters, keys of the state dict and export; only what `forward`
does differs. Time is folded into the batch, so that a synapse is one matrix product or
convolution of two dimensions (or, where few inputs spike, sums of the weights' rows that
spikes select), and the neuron is one kernel over all steps, its surrogate gradient another.

Tensors look as SLAYER's, (batch, channels, [height, width,] time), but lie in memory with
time first and channels last: between blocks of this module nothing is copied.

Spikes are those of stock SLAYER bit for bit as long as input is integer, or in multiples of
a power of two as average pools of spikes are: then every sum is exact in float32, whatever its
order. Gradients are equal up to the order of sums and an exponential's last bits; further than 60
widths from its threshold a neuron's surrogate stays what it is there, exp(-60) of its height.
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
from esl_lava.engines.threads import in_parts
from esl_lava.kernels import narrow, rows

EVENT_ACTIVITY = 0.3
"""Share of inputs that spike up to which rows of weights are summed: at 13 % they took a third
of the products' time on 784 x 800, in proportion to what spikes."""

EVENT_WIDTH = 64
"""Neurons from which on that is worth it."""

NARROW = 16
"""Neurons up to which both gradients in one pass cost less than two products of matrices: of 10
they took two thirds."""

SHORT = 1 << 15
"""Weights a thread rounds before another is worth waking."""

Network = TypeVar("Network", bound=nn.Module)

_logger = logging.getLogger(__name__)


def accelerate(network: Network) -> Network:
    """Give every CUBA block of a SLAYER network its faster passes, in place; returns it.

    A block that cannot have them stays stock SLAYER's, as a line of the log says. So does, for
    the input at hand, a convolution of maps that torch's would die of (`FusedConv`).
    What is no `slayer.block.cuba` block is left alone.
    """
    for name, module in network.named_modules():
        if not isinstance(module, slayer.block.cuba.AbstractCuba) or module.neuron is None:
            continue
        faster = _FASTER.get(type(module))
        reason = (
            find_obstacle(module) if faster else f"{type(module).__name__} blocks are not served"
        )
        if faster and reason is None:
            module.__class__ = faster
            module.called = name or "network"
        elif type(module) not in _FASTER.values():
            _logger.warning("block %s keeps stock SLAYER's passes: %s", name or "network", reason)
    return network


def find_obstacle(block: Any) -> str | None:
    """Why a Dense, Affine or Conv block needs stock SLAYER's passes; None where it does not."""
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
    """Whether a kernel that slides along an axis meets nothing but padding, wherever it stops.

    Args:
        size: places of the axis without padding.
        kernel, stride, padding, dilation: along it, padding at either end.
    """
    stops = range(0, size + 2 * padding - dilation * (kernel - 1), stride)
    return len(stops) > 0 and not any(
        padding <= stop + tap * dilation < padding + size for stop in stops for tap in range(kernel)
    )


def view_lanes(x: Tensor) -> Tensor | None:
    """(channels, T * batch) view of (batch, channels, T) that lies so in memory, else None."""
    lanes = x.permute(1, 2, 0)
    return lanes.flatten(1) if lanes.is_contiguous() else None


class _Quantise(torch.autograd.Function):
    """Weights on SLAYER's grid; gradients pass but for weights beyond its ends."""

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
            gradient = gradient * is_on_grid(weight, ctx.step)
        return gradient, None


def _quantise(weight: Tensor, step: float) -> tuple[Tensor, bool]:
    """Weights on SLAYER's grid, and whether some were beyond its ends."""
    flat = weight.detach().reshape(-1)
    out = torch.empty_like(flat)
    source, target = flat.numpy(), out.numpy()
    clamped = in_parts(
        lambda a, b: rows.quantise(source, np.float32(step), a, b, target), flat.numel(), SHORT
    )
    return out.view(weight.shape), any(clamped)


def is_on_grid(weight: Tensor, step: float) -> Tensor:
    """Whether rounded weights lie within the grid's ends."""
    multiples = torch.round(weight / step)
    return (multiples >= -128) & (multiples <= 127)


class _Rows(torch.autograd.Function):
    """Weighted input of a dense layer few of whose inputs spike."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, step: float, events: Array, counts: Array
    ) -> Tensor:
        n_post, n_pre = weight.shape
        source = weight.detach().numpy()
        turned = np.empty((n_pre, n_post), np.int16)
        size = np.float32(step)
        clamped = in_parts(
            lambda a, b: rows.quantise_turned(source, size, a, b, turned), n_pre, rows.INPUTS
        )
        z = np.empty((len(counts), n_post), np.float32)
        in_parts(lambda a, b: rows.add_rows(events, counts, a, b, turned, size, z), len(counts))
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
            in_parts(
                lambda a, b: rows.add_gradients(starts, listed, source, a, b, target),
                n_pre,
                rows.INPUTS,
            )
            if ctx.clamped:
                by_weight *= is_on_grid(weight, ctx.step)
        return by_x, by_weight, None, None, None


class _Product(torch.autograd.Function):
    """Weighted input of a dense layer by products of matrices: (T, batch, n_post).

    Or, of input that lies by lanes, (n_post, T, batch). One function, as for a readout what
    surrounds the products costs more than they do.
    """

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, step: float) -> Tensor:
        batch, n_pre, steps = x.shape
        quantised, ctx.clamped = _quantise(weight, step)
        lanes = view_lanes(x)
        flat = x.permute(2, 0, 1).reshape(-1, n_pre) if lanes is None else lanes
        ctx.step, ctx.shape, ctx.lying = step, x.shape, lanes is not None
        ctx.save_for_backward(flat, quantised, weight)
        if ctx.lying:
            return (quantised @ flat).view(-1, steps, batch)
        return (flat @ quantised.t()).view(steps, batch, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, quantised, weight = ctx.saved_tensors
        batch, n_pre, steps = ctx.shape
        by_flat, by_weight = None, None
        by_x_too, by_weight_too, _ = ctx.needs_input_grad
        if ctx.lying:
            g = gradient.reshape(len(weight), -1)
            if by_x_too and by_weight_too and len(weight) <= NARROW:
                by_flat, by_weight = _find_gradients(quantised, flat, g)
            else:
                by_flat = quantised.t() @ g if by_x_too else None
                by_weight = g @ flat.t() if by_weight_too else None
        else:
            g = gradient.reshape(-1, len(weight))
            by_flat = g @ quantised if by_x_too else None
            by_weight = g.t() @ flat if by_weight_too else None
        if by_weight is not None and ctx.clamped:
            by_weight *= is_on_grid(weight, ctx.step)
        if by_flat is None:
            return None, by_weight, None
        if ctx.lying:
            return by_flat.view(n_pre, steps, batch).permute(2, 0, 1), by_weight, None
        return by_flat.view(steps, batch, n_pre).permute(1, 2, 0), by_weight, None


def _find_gradients(weight: Tensor, flat: Tensor, by_z: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the product of `weight` and `flat`, by `flat` and by `weight`."""
    by_flat, by_weight = torch.empty_like(flat), torch.empty_like(weight)
    w, x, g, by_x, by_w = (
        tensor.detach().numpy() for tensor in (weight, flat, by_z, by_flat, by_weight)
    )
    in_parts(lambda a, b: narrow.gradients(w, x, g, a, b, by_x, by_w), len(x))
    return by_flat, by_weight


class _Fast:
    """What the three blocks share: when their own passes are taken.

    Attributes:
        called: the block's name in its network, for the log.
        told: whether the log has said that input kept stock SLAYER's passes.
    """

    axes: int = 3
    called: str = "network"
    told: bool = False
    delay_shift: bool
    neuron: CubaNeuron
    synapse: Any
    mask: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """As the stock block; x (batch, channels, [height, width,] T) float."""
        served = (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.dim() == self.axes
            and x.shape[1] == self.synapse.in_channels  # else stock SLAYER's error
        )
        if served and x.numel() and find_obstacle(self) is None and self._takes(x):
            if getattr(self, "mask", None) is not None:
                self.synapse.weight.data *= self.mask
            with contextlib.suppress(TooWideError):
                return self._fast(x)
        stock: Tensor = super().forward(x)  # type: ignore[misc]
        return stock

    def _takes(self, x: Tensor) -> bool:
        """Whether the faster pass can compute this input; the log names why it cannot."""
        return True

    def _fast(self, x: Tensor) -> Tensor:
        spikes = fire(self.neuron, *self._weighted(x))
        return slayer.block.base.step_delay(self, spikes) if self.delay_shift else spikes

    def _weighted(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Weighted input; here of a dense synapse, of x (batch, n_pre, T).

        Returns:
            It as it lies in memory, and the order of its dimensions that makes it
            (batch, n_post, T).
        """
        weight = self.synapse.weight.flatten(1)
        batch, n_pre, steps = x.shape
        if len(weight) >= EVENT_WIDTH:
            events = np.empty((steps, batch, n_pre), np.uint32)
            counts = np.empty((steps, batch), np.int64)
            source = x.detach().numpy()
            binary = in_parts(lambda a, b: rows.list_events(source, a, b, events, counts), batch)
            if all(binary) and counts.sum() <= EVENT_ACTIVITY * x.numel():
                listed = events.reshape(-1, n_pre), counts.reshape(-1)
                z = apply(_Rows, x, weight, self._step, *listed)
                return z.view(steps, batch, -1), (1, 2, 0)
        axes = (1, 2, 0) if view_lanes(x) is None else (2, 0, 1)
        return apply(_Product, x, weight, self._step), axes

    @property
    def _step(self) -> float:
        """Distance of two weights on SLAYER's grid."""
        return 2 / float(self.neuron.w_scale)


class FusedDense(_Fast, slayer.block.cuba.Dense):  # type: ignore[misc]
    """`slayer.block.cuba.Dense`, faster."""


class FusedAffine(_Fast, slayer.block.cuba.Affine):  # type: ignore[misc]
    """`slayer.block.cuba.Affine` without dynamics, faster."""

    def _fast(self, x: Tensor) -> Tensor:
        z, axes = self._weighted(x)
        return z.permute(axes)


class FusedConv(_Fast, slayer.block.cuba.Conv):  # type: ignore[misc]
    """`slayer.block.cuba.Conv`, faster.

    But where no column of the output sees anything but padding: with channels last oneDNN 3.3.6,
    torch 2.3's, then mostly calls a kernel that it has not made (`brgconv`, `perform_outwork`).
    Rows of the output that see padding alone it computes.
    """

    axes = 5

    def _takes(self, x: Tensor) -> bool:
        _, _, height, width, _ = x.shape
        synapse = self.synapse
        kernel, stride, padding, dilation = (
            getattr(synapse, name)[1] for name in ("kernel_size", "stride", "padding", "dilation")
        )
        if not sees_only_padding(width, kernel, stride, padding, dilation):
            return True
        if not self.told:
            self.told = True
            _logger.warning(
                "block %s keeps stock SLAYER's passes on maps of %d x %d: every column of its "
                "output sees padding alone (kernel %d, stride %d, padding %d, dilation %d along "
                "columns), of which torch's convolution with channels last dies",
                self.called,
                height,
                width,
                kernel,
                stride,
                padding,
                dilation,
            )
        return False

    def _weighted(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        batch, channels, height, width, steps = x.shape
        synapse = self.synapse
        flat = x.permute(4, 0, 1, 2, 3).reshape(steps * batch, channels, height, width)
        # Of one-point kernels that skip, with channels last, torch 2.3 corrupts the heap.
        skips = max(synapse.kernel_size) == 1 and max(synapse.stride) > 1
        order = torch.contiguous_format if skips else torch.channels_last
        z = functional.conv2d(
            flat.contiguous(memory_format=order),
            apply(_Quantise, synapse.weight, self._step).squeeze(4),
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
