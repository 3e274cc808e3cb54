"""SLAYER's CUBA neurons: one kernel computes all steps, another the surrogate gradient."""

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
from esl_lava.engines.threads import run_in_parts
from esl_lava.kernels import surrogate

T = TypeVar("T")

Part = tuple[int, int, int, int]
"""(first group, end of groups, first neuron, end of neurons); the ends are exclusive."""


class TooWideError(Exception):
    """The state of a neuron exceeds 2**29, so that 32 bits may not hold it."""


@dataclass(frozen=True)
class Dynamics:
    """The parameters of a SLAYER CUBA neuron that the kernels take, in SLAYER's units."""

    neuron: surrogate.Neuron
    surrogate: surrogate.Surrogate

    @staticmethod
    def of(neuron: CubaNeuron) -> Dynamics:
        """Return the parameters of a SLAYER neuron that are shared and not trained."""
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
    """Spikes from contiguous weighted input (groups, T, n). The input is overwritten."""

    @staticmethod
    def forward(ctx: Context, z: Tensor, dynamics: Dynamics) -> Tensor:
        # No product needs its result for its gradient, so v may take the memory of z.
        v, spikes = z.detach(), torch.empty_like(z)
        source, s = v.numpy(), spikes.numpy()
        neuron = dynamics.neuron
        within = _run_by_neurons(lambda part: surrogate.spike(source, part, neuron, s), z.shape)
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
        _run_by_neurons(
            lambda part: surrogate.spike_gradient(g, part, trace, constants, target), v.shape
        )
        return by_z, None


def _run_by_neurons(work: Callable[[Part], T], shape: torch.Size) -> list[T]:
    """Run work on (groups, T, n) in parts: by groups, or by neurons if there is one group."""
    groups, _, n = shape
    if groups > 1:
        return run_in_parts(lambda first, last: work((first, last, 0, n)), groups)
    return run_in_parts(lambda first, last: work((0, groups, first, last)), n, surrogate.TILE)


def fire(neuron: CubaNeuron, z: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Compute the spikes of SLAYER's CUBA neurons.

    Args:
        neuron: a neuron in whose block `fused.find_obstacle` finds no obstacle.
        z: contiguous weighted input, time on the first or second axis. It is overwritten.
        axes: the axes of `z` in SLAYER's order, (batch, channels, [height, width,] time).

    Returns:
        Spikes in SLAYER's order of axes, with the memory layout of `z`.

    Raises:
        TooWideError: if the absolute value of a state exceeds 2**29.
        AssertionError: if the neurons had another shape before, as in stock SLAYER.
    """
    take_shape(neuron, z.permute(axes).shape[1:-1])
    grouped = z.flatten(2) if axes[-1] else z.flatten(1)[None]
    return apply(_Spikes, grouped, Dynamics.of(neuron)).view(z.shape).permute(axes)


def take_shape(neuron: CubaNeuron, shape: torch.Size) -> None:
    """Record the shape of the neurons at their first input and check it later, as SLAYER does.

    Raises:
        AssertionError: if the neurons had another shape before.
    """
    if neuron.shape is None:
        neuron.shape = shape
        neuron.num_neurons = math.prod(shape)
    elif neuron.shape != shape:
        raise AssertionError(
            f"the input is for neurons of shape {tuple(shape)}, but the layer has neurons of shape "
            f"{tuple(neuron.shape)}"
        )
