"""SLAYER's CUBA neurons by one kernel over all steps, and their surrogate gradient by another."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from esl_lava.chip import DECAY_UNITY
from esl_lava.engines.autograd import Context, apply, once_differentiable
from esl_lava.engines.slayer import CubaNeuron, slayer
from esl_lava.engines.threads import in_parts
from esl_lava.kernels import surrogate

T = TypeVar("T")

Part = tuple[int, int, int, int]
"""Of groups and of neurons the first and the one behind the last."""


class TooWideError(Exception):
    """The state of a neuron needs more than 32 bits."""


@dataclass(frozen=True)
class Dynamics:
    """What the kernels take of a SLAYER CUBA neuron, in its units."""

    neuron: surrogate.Neuron
    surrogate: surrogate.Surrogate

    @staticmethod
    def of(neuron: CubaNeuron) -> Dynamics:
        """Those of a neuron whose parameters are shared and not trained."""
        return _dynamics(
            neuron.threshold + neuron.threshold_eps,
            neuron.s_scale,
            (neuron.tau_rho, neuron.scale_rho),
            round(neuron.current_decay.item()),
            round(neuron.voltage_decay.item()),
        )


@functools.lru_cache(maxsize=64)
def _dynamics(
    threshold: float,
    scale: int,
    rho: tuple[float, float],
    current_decay: int,
    voltage_decay: int,
) -> Dynamics:
    tau = np.float32(rho[0] * slayer.neuron.cuba.TAU_RHO_MULT)
    height = np.float32(rho[1] * slayer.neuron.cuba.SCALE_RHO_MULT)
    kept = DECAY_UNITY - current_decay, DECAY_UNITY - voltage_decay
    return Dynamics(
        neuron=surrogate.Neuron(
            scale=np.float32(scale),
            keep_current=np.uint32(kept[0]),
            keep_voltage=np.uint32(kept[1]),
            reset_at=np.float32(threshold * scale),
            fire_at=np.float32(threshold),
        ),
        surrogate=surrogate.Surrogate(
            threshold=np.float32(threshold),
            slope=height / np.float32(2) / tau,
            tau=tau,
            keep_current=np.float32(kept[0] / DECAY_UNITY),
            keep_voltage=np.float32(kept[1] / DECAY_UNITY),
        ),
    )


class _Spikes(torch.autograd.Function):
    """From weighted input (groups, T, n), contiguous, to spikes; overwrites what it takes."""

    @staticmethod
    def forward(ctx: Context, z: Tensor, dynamics: Dynamics) -> Tensor:
        # No product keeps its result for its gradient, so it can make room for v.
        v, spikes = z.detach(), torch.empty_like(z)
        source, s = v.numpy(), spikes.numpy()
        neuron = dynamics.neuron
        within = _by_neurons(lambda part: surrogate.spike(source, part, neuron, s), z.shape)
        if not all(within):
            raise TooWideError
        ctx.surrogate = dynamics.surrogate
        ctx.save_for_backward(v)
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        by_z = torch.empty_like(v)
        g, trace, target = (tensor.numpy() for tensor in (gradient.contiguous(), v, by_z))
        constants = ctx.surrogate
        _by_neurons(
            lambda part: surrogate.spike_gradient(g, part, trace, constants, target), v.shape
        )
        return by_z, None


def _by_neurons(work: Callable[[Part], T], shape: torch.Size) -> list[T]:
    """`in_parts` of (groups, T, n): of groups, or of a single one's neurons."""
    groups, _, n = shape
    if groups > 1:
        return in_parts(lambda first, last: work((first, last, 0, n)), groups)
    return in_parts(lambda first, last: work((0, groups, first, last)), n, surrogate.TILE)


def fire(neuron: CubaNeuron, z: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Spikes of SLAYER's CUBA neurons.

    Args:
        neuron: without `fused.find_obstacle`.
        z: weighted input as it lies in memory, contiguous, time first or second; overwritten.
        axes: its dimensions in SLAYER's order, (batch, channels, [height, width,] time).

    Returns:
        Spikes in SLAYER's order, in memory as `z`.

    Raises:
        TooWideError: when a state leaves 32 bits.
        AssertionError: when the neurons had another shape before, as stock SLAYER.
    """
    take_shape(neuron, z.permute(axes).shape[1:-1])
    grouped = z.flatten(2) if axes[-1] else z.flatten(1)[None]
    return apply(_Spikes, grouped, Dynamics.of(neuron)).view(z.shape).permute(axes)


def take_shape(neuron: CubaNeuron, shape: torch.Size) -> None:
    """What stock SLAYER's neurons do at their first input, and check at others.

    Raises:
        AssertionError: when they had another shape before.
    """
    if neuron.shape is None:
        neuron.shape = shape
        neuron.num_neurons = math.prod(shape)
    elif neuron.shape != shape:
        raise AssertionError(f"input to {tuple(shape)} neurons, of which {tuple(neuron.shape)} are")
