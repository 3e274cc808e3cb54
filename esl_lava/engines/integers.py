"""Integer layers as the chip computes them, by plain operations of torch on any device.

Sums of weights times inputs are whole numbers below 2**24, which float32 holds exactly.
`weighted_sums` rounds the results of a convolution. So the sums are exact with any algorithm whose
error is below one half, for example a Winograd convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from esl_lava.chip import DECAY_UNITY, STATE_SHIFT
from esl_lava.topology import LayerSpec


def sum_pools(maps: Tensor, side: int) -> Tensor:
    """Return the sums over squares of `side` x `side` of maps (n, channels, rows, columns)."""
    return maps if side == 1 else functional.avg_pool2d(maps, side, divisor_override=1)


def weighted(maps: Tensor, weight: Tensor, layer: LayerSpec) -> Tensor:
    """Compute the weighted input of a layer.

    Args:
        maps: (n, *shape of the layer's source), or these maps already summed over the squares
            of the layer's pool.
        weight: (n_post, channels, rows, columns, 1) for kernels, (n_post, n_pre, 1, 1, 1) for a
            fully connected layer.
        layer: the layer or shortcut that the weights belong to.

    Returns:
        (n, *output shape).
    """
    summed = maps if maps.shape[1:] == layer.input_shape else sum_pools(maps, layer.pool)
    if layer.kind == "conv":
        summed = summed.contiguous(memory_format=torch.channels_last)
        return functional.conv2d(summed, weight.squeeze(4), None, layer.stride, layer.padding)
    return functional.linear(summed.flatten(1), weight.flatten(1))


def weighted_sums(maps: Tensor, weight: Tensor, layer: LayerSpec) -> Tensor:
    """Compute the same as the function `weighted`, exactly, if all values are whole numbers."""
    return weighted(maps, weight, layer).round()


def integrate(currents: Tensor, threshold: Tensor | int, voltage_decay: int) -> Tensor:
    """Compute the spikes of neurons without synaptic filter (`network.py`).

    Args:
        currents: (T, batch, channels, ...) whole numbers, including the bias; they must keep v
            within +-2**23.
        threshold: one threshold, or (channels,).
        voltage_decay: in units of 1/4096.

    Returns:
        0 or 1, in the shape of `currents`.
    """
    keep = DECAY_UNITY - voltage_decay
    power_of_two = keep & (keep - 1) == 0  # then v decays in float32 without rounding
    v = torch.zeros_like(currents[0], dtype=torch.float32 if power_of_two else torch.float64)
    if isinstance(threshold, Tensor):
        threshold = threshold.to(v.dtype).view(-1, *(1,) * (currents.ndim - 3))
    spikes = torch.empty_like(currents)
    for current, out in zip(currents, spikes):
        v.mul_(keep / DECAY_UNITY).trunc_().add_(current, alpha=1 << STATE_SHIFT)
        fired = v > threshold * (1 << STATE_SHIFT)
        v.masked_fill_(fired, 0)
        out.copy_(fired)
    return spikes
