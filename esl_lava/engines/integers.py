"""Layers of integers by plain operations of torch, on whatever device: what the chip does.

Sums of weights and inputs are whole numbers below 2**24, which float32 holds; `weighted_sums`
rounds what a convolution computes, so that any algorithm of it gives them whose error is below
one half (a Winograd convolution's is).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from esl_lava.chip import DECAY_UNITY, STATE_SHIFT
from esl_lava.topology import LayerSpec


def sum_pools(maps: Tensor, side: int) -> Tensor:
    """Sums over squares of maps (n, channels, rows, columns)."""
    return maps if side == 1 else functional.avg_pool2d(maps, side, divisor_override=1)


def weighted(maps: Tensor, weight: Tensor, layer: LayerSpec) -> Tensor:
    """What a layer's weights make of what feeds it.

    Args:
        maps: (n, *shape of its source), or already summed over the squares of its pool.
        weight: (n_post, channels, rows, columns, 1) of kernels, (n_post, n_pre, 1, 1, 1) of a
            fully connected layer.

    Returns:
        (n, *output shape).
    """
    summed = maps if maps.shape[1:] == layer.input_shape else sum_pools(maps, layer.pool)
    if layer.kind == "conv":
        summed = summed.contiguous(memory_format=torch.channels_last)
        return functional.conv2d(summed, weight.squeeze(4), None, layer.stride, layer.padding)
    return functional.linear(summed.flatten(1), weight.flatten(1))


def weighted_sums(maps: Tensor, weight: Tensor, layer: LayerSpec) -> Tensor:
    """As `weighted`, of whole numbers: exact."""
    return weighted(maps, weight, layer).round()


def integrate(currents: Tensor, threshold: Tensor | int, voltage_decay: int) -> Tensor:
    """Spikes of neurons without synaptic filter (`network.py`).

    Args:
        currents: (T, batch, channels, ...) whole numbers, bias included, with which v stays
            within 2**23.
        threshold: one, or (channels,).
        voltage_decay: of 4096.

    Returns:
        Like `currents`, 0 or 1.
    """
    keep = DECAY_UNITY - voltage_decay
    halves = keep & (keep - 1) == 0  # a power of two: float32 then divides without an error
    v = torch.zeros_like(currents[0], dtype=torch.float32 if halves else torch.float64)
    if isinstance(threshold, Tensor):
        threshold = threshold.to(v.dtype).view(-1, *(1,) * (currents.ndim - 3))
    spikes = torch.empty_like(currents)
    for current, out in zip(currents, spikes):
        v.mul_(keep / DECAY_UNITY).trunc_().add_(current, alpha=1 << STATE_SHIFT)
        fired = v > threshold * (1 << STATE_SHIFT)
        v.masked_fill_(fired, 0)
        out.copy_(fired)
    return spikes
