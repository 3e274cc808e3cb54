"""Passes of a normalised layer by operations of torch alone, for devices without our kernels.

A GPU trains with these passes. They do not need SLAYER's compiled extension. GPU and CPU wait for
each other only to exchange a few numbers of each channel. The passes also run on a CPU, where the
tests compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.nn import functional as collective

from esl_lava.arrays import Floats
from esl_lava.engines.autograd import Context, apply, once_differentiable
from esl_lava.kernels.normalised import Neuron


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """Weights by output channel on the device of a tensor (see `folding.Rows`).

    Attributes:
        values: (rows, n) float32 or int32.
    """

    values: Tensor

    def measure(self) -> tuple[Floats, Floats, Floats]:
        """Return each row's largest absolute weight, sum of negative and of positive weights."""
        wide = self.values.double()
        measures = torch.stack(
            (wide.abs().amax(1), wide.clamp(max=0).sum(1), wide.clamp(min=0).sum(1))
        )
        largest, below, above = measures.cpu().numpy()
        return largest, below, above

    def rounded(self, factors: Floats, step: int) -> DeviceRows:
        """Round each row times its factor to multiples of `step`, ties to even; int32."""
        by_row = torch.from_numpy(factors / step).to(self.values.device)[:, None]
        return DeviceRows((self.values.double() * by_row).round_().int() * step)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, currents: Tensor, neuron: Neuron) -> Tensor:
        v_trace, spikes = torch.empty_like(currents), torch.empty_like(currents)
        v = torch.zeros_like(currents[0])
        for current, before_reset, spike in zip(currents, v_trace, spikes):
            torch.add(current, v, alpha=float(neuron.keep), out=before_reset)
            torch.gt(before_reset, 1, out=spike)
            v = before_reset * (1 - spike)
        ctx.save_for_backward(v_trace)
        ctx.neuron = neuron
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None]:
        (v_trace,) = ctx.saved_tensors
        keep, slope, rate = map(float, ctx.neuron)
        surrogate = (v_trace - 1).abs_().mul_(-rate).exp_().mul_(slope)
        by_currents = surrogate.mul_(gradient)
        for step in range(len(by_currents) - 1, 0, -1):
            by_currents[step - 1].add_(by_currents[step], alpha=keep)
        return by_currents, None


def fire(currents: Tensor, neuron: Neuron) -> Tensor:
    """Compute the spikes of a layer that starts at rest. The gradient ignores resets, as in SLAYER.

    Args:
        currents: (T, ...) float32.
        neuron: see `engines.normalised.make_neuron`.

    Returns:
        0 or 1, in the shape of `currents`.
    """
    return apply(_Fire, currents, neuron)


def normalise(z: Tensor, norm: Any) -> Tensor:
    """Normalise weighted input by channel, with statistics over the batch of all ranks.

    Args:
        z: (T, batch, channels, ...) float32.
        norm: the `BatchNorm1d` with the parameters. Its running statistics are updated.

    Returns:
        Normalised input in the shape of `z`.
    """
    axes = [axis for axis in range(z.ndim) if axis != 2]
    count = torch.full((1,), z.numel() // z.shape[2], dtype=torch.float64, device=z.device)
    shape = (1, 1, -1, *(1,) * (z.ndim - 3))
    total = z.sum(axes, dtype=torch.float64)
    mean = _sum_over_ranks(total) / (n := _sum_over_ranks(count))
    squares = (z - mean.float().view(shape)).square().sum(axes, dtype=torch.float64)
    variance = _sum_over_ranks(squares) / n
    with torch.no_grad():
        unbiased = variance * n / (n - 1).clamp(min=1)
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_(unbiased.to(norm.running_var), norm.momentum)
        norm.num_batches_tracked += 1
    gain = norm.weight / (variance.float() + norm.eps).sqrt()
    normalised: Tensor = (z - mean.float().view(shape)) * gain.view(shape) + norm.bias.view(shape)
    return normalised


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over the ranks of the default process group. Gradients pass through it."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    summed: Tensor = collective.all_reduce(tensor)  # type: ignore[no-untyped-call]
    return summed


def reduced_precision(tensor: Tensor) -> torch.autocast:
    """Return a context in which a GPU computes products in bfloat16, if it supports bfloat16.

    Use it in training only: results of 16 bits are not the integers of the chip.
    """
    kind = tensor.device.type
    return torch.autocast(kind, torch.bfloat16, kind == "cuda" and torch.cuda.is_bf16_supported())
