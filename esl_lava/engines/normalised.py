"""Batch normalisation and spiking neurons as one function: the training of convolutions on CPUs.

A neuron without synaptic filter takes the normalised weighted input of its channel,

    v <- (1 - d) v + gamma (z - mean) / sqrt(variance + epsilon) + beta
    a spike and v <- 0 where v > 1

with mean and variance over samples, steps and places of the batch. Values are float32, sums over a
channel float64. `folding` makes integers of the same with running statistics. Of a layer only z is
kept for the backward pass, which computes v again: that costs less than writing and reading it.
Where a pool follows, its sums are what is written, and spikes are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.arrays import Array, Floats
from esl_lava.engines.autograd import Context, apply, once_differentiable
from esl_lava.engines.threads import in_parts
from esl_lava.kernels import normalised
from esl_lava.kernels.normalised import Constants, Neuron, Part, Tiling

Reduce = Callable[[Floats], None]
"""Replaces an array by its sum over all ranks, which all call it in the same order."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a batch was normalised by.

    Attributes:
        mean, variance: (channels,) of weighted input; the variance is biased.
        count: values of a channel, of all ranks.
    """

    mean: Floats
    variance: Floats
    count: int


def neuron_of(voltage_decay: float, tau_grad: float, scale_grad: float) -> Neuron:
    """Neurons that fire above 1.

    Args:
        voltage_decay: d, the share of v lost per step.
        tau_grad, scale_grad: of the surrogate gradient scale / (2 tau) exp(-|v - 1| / tau).
    """
    return Neuron(
        keep=np.float32(1 - voltage_decay),
        slope=np.float32(scale_grad / (2 * tau_grad)),
        rate=np.float32(1 / tau_grad),
    )


def normalise_and_fire(
    z: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    neuron: Neuron,
    *,
    steps: int | None = None,
    pool: int = 1,
    reduce: Reduce | None = None,
) -> tuple[Tensor, Statistics]:
    """Spikes of neurons at rest before the first step, and what their input was normalised by.

    The surrogate gradient passes over resets, as SLAYER's (`slayer/neuron/cuba.py`). Gradients
    by gamma and beta are of this rank's samples; in that by z the statistics' part is of all
    ranks.

    Args:
        z: (T, batch, channels, ...) float32 weighted input. It is not copied where in memory
            channels come last or, without a pool, come first and time second.
        gamma, beta: (channels,) float32, scale and shift.
        epsilon: added to the variance.
        neuron: see `neuron_of`.
        steps: T of input that is the same at every step, and z of one.
        pool: side of squares over which spikes are summed, of z (T, batch, channels, rows,
            columns); rows and columns that fill none are left out.
        reduce: of several ranks, each with its share of the batch, which may be empty.

    Returns:
        Spikes 0 and 1 (T, batch, channels, ...), in memory like `z`, or their sums (T, batch,
        channels, rows // pool, columns // pool) with channels last in memory; statistics over
        the batch of all ranks.

    Raises:
        ValueError: for input that is not float32 on the CPU, of another number of steps, or none.
    """
    if z.dtype != torch.float32 or z.device.type != "cpu":
        raise ValueError(f"weighted input is {z.dtype} on {z.device}, not torch.float32 on the CPU")
    given, _, channels = z.shape[:3]
    steps = given if steps is None else steps
    if given not in (1, steps):
        raise ValueError(f"weighted input of {given} steps is for neither 1 nor {steps}")
    by_channel = pool == 1 and z.movedim(2, 0).is_contiguous()
    place = 0 if by_channel and not z.movedim(2, -1).is_contiguous() else -1
    moved = z.movedim(2, place).contiguous()
    groups = channels if place == 0 else 1
    grouped = moved.view(groups, given, moved.numel() // (groups * given))
    tiling = normalised.tiled(channels // groups, steps, grouped.shape[2])
    plan = _Plan(tiling, steps)
    if pool > 1:
        plan = _Squares(tiling, steps, tuple(moved.shape[1:]), pool)
    found = _statistics(grouped.detach().numpy(), plan, reduce)
    spikes = apply(_Passes, grouped, gamma, beta, epsilon, neuron, found, plan, reduce)
    if pool == 1:
        time = 1 if place == 0 else 0
        spikes = spikes.view(*moved.shape[:time], steps, *moved.shape[time + 1 :])
    return spikes.movedim(place, 2), found


def follow(norm: nn.BatchNorm1d, found: Statistics) -> None:
    """Move running statistics towards those of a batch, as torch's normalisation in training.

    Args:
        norm: with a momentum; its running variance is unbiased.
        found: of a single value the variance, of which nothing is known, is taken for 0.
    """
    running: Any = norm
    unbiased = found.variance * (found.count / max(1, found.count - 1))
    for values, target in ((found.mean, running.running_mean), (unbiased, running.running_var)):
        target.lerp_(torch.from_numpy(values).to(target.dtype), norm.momentum)
    running.num_batches_tracked += 1


def _statistics(z: Array, plan: _Plan, reduce: Reduce | None) -> Statistics:
    """Those of (groups, T or 1, n) over all steps and what of n is a channel's."""
    sums = _room_for_sums(z, plan.tiling)
    _by_blocks(lambda part: normalised.add_up(z, part, plan.tiling, sums), z, plan.tiling)
    total, squares = _summed(sums)
    together = np.concatenate(([z.size // len(total)], total, squares)) * plan.repeats(z)
    if reduce:
        reduce(together)
    count = int(together[0])
    if not count:
        raise ValueError("there is no weighted input to normalise")
    mean, of_squares = together[1:].reshape(2, -1) / count
    return Statistics(mean, np.maximum(of_squares - mean**2, 0), count)


@dataclass(frozen=True)
class _Plan:
    """How the passes of neurons (groups, T, n) are shared out: by groups, or one's blocks.

    Attributes:
        tiling: of n.
        steps: T.
    """

    tiling: Tiling
    steps: int

    def repeats(self, z: Array) -> int:
        """How often each step of weighted input (groups, T or 1, n) is met."""
        return self.steps // z.shape[1]

    def by_group(self, values: Floats) -> Array:
        """(groups, channels) float32 of values of all channels."""
        return values.astype(np.float32).reshape(-1, self.tiling.channels)

    def fire(self, z: Array, gain: Array, shift: Array, keep: np.float32) -> Tensor:
        """Spikes (groups, T, n), by gain and shift (groups, channels)."""
        groups, _, n = z.shape
        spikes = torch.empty(groups, self.steps, n)
        target = spikes.numpy()
        _by_blocks(
            lambda part: normalised.fire(z, part, self.tiling, gain, shift, keep, target),
            z,
            self.tiling,
        )
        return spikes

    def gradients(
        self, gradient: Array, z: Array, constants: Constants, neuron: Neuron, by_input: Array
    ) -> Floats:
        """`fire_gradients` into `by_input`; its sums."""
        sums = _room_for_sums(z, self.tiling)
        _by_blocks(
            lambda part: normalised.fire_gradients(
                gradient, z, part, self.tiling, constants, neuron, by_input, sums
            ),
            z,
            self.tiling,
        )
        return sums


@dataclass(frozen=True)
class _Squares(_Plan):
    """The same where spikes are summed over squares: by samples.

    Attributes:
        maps: (batch, rows, columns, channels) of a step.
        side: of a square.
    """

    maps: tuple[int, ...]
    side: int

    @property
    def pooled(self) -> tuple[int, ...]:
        """The shape of a step's sums over squares."""
        batch, rows, columns, channels = self.maps
        return batch, rows // self.side, columns // self.side, channels

    def fire(self, z: Array, gain: Array, shift: Array, keep: np.float32) -> Tensor:
        """Sums over squares, (T, batch, rows // side, columns // side, channels)."""
        sums = torch.empty(self.steps, *self.pooled)
        maps, target = _by_row(z[0], self.maps), _by_row(sums.numpy(), self.pooled)
        in_parts(
            lambda first, last: normalised.fire_and_pool(
                maps, first, last, self.side, gain[0], shift[0], keep, target
            ),
            len(maps[0]),
        )
        return sums

    def gradients(
        self, gradient: Array, z: Array, constants: Constants, neuron: Neuron, by_input: Array
    ) -> Floats:
        """`pooled_gradients` into `by_input`; its sums."""
        batch, _, _, channels = self.maps
        sums = np.empty((1, batch, 2, channels))
        by_sums = _by_row(gradient, self.pooled)
        maps, target = _by_row(z[0], self.maps), _by_row(by_input[0], self.maps)
        gain, shift, mean = (values[0] for values in constants)
        in_parts(
            lambda first, last: normalised.pooled_gradients(
                by_sums, maps, first, last, self.side, (gain, shift, mean), neuron, target, sums
            ),
            batch,
        )
        return sums


def _by_row(values: Array, maps: tuple[int, ...]) -> Array:
    """(steps, batch, rows, columns * channels) of steps of maps."""
    batch, rows, columns, channels = maps
    return values.reshape(len(values), batch, rows, columns * channels)


class _Passes(torch.autograd.Function):
    """From weighted input (groups, T or 1, n) to spikes or their sums."""

    @staticmethod
    def forward(
        ctx: Context,
        z: Tensor,
        gamma: Tensor,
        beta: Tensor,
        epsilon: float,
        neuron: Neuron,
        found: Statistics,
        plan: _Plan,
        reduce: Reduce | None,
    ) -> Tensor:
        ctx.inverse = 1 / np.sqrt(found.variance + epsilon)
        ctx.gain = gamma.detach().numpy() * ctx.inverse
        ctx.shift = beta.detach().numpy() - ctx.gain * found.mean
        ctx.neuron, ctx.found, ctx.plan, ctx.reduce = neuron, found, plan, reduce
        ctx.save_for_backward(z)
        gain, shift = plan.by_group(ctx.gain), plan.by_group(ctx.shift)
        return plan.fire(z.detach().numpy(), gain, shift, neuron.keep)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (z,) = ctx.saved_tensors
        plan, found, gain, inverse = ctx.plan, ctx.found, ctx.gain, ctx.inverse
        by_z = torch.empty_like(z)
        source, target = z.numpy(), by_z.numpy()
        constants = plan.by_group(gain), plan.by_group(ctx.shift), plan.by_group(found.mean)
        together = _summed(
            plan.gradients(gradient.contiguous().numpy(), source, constants, ctx.neuron, target)
        )
        by_gamma, by_beta = together[1] * inverse, together[0].copy()
        if ctx.reduce:
            ctx.reduce(together)
        total, product = together / found.count
        repeats = plan.repeats(source)
        slope = -gain * inverse**2 * product
        shift = -gain * total - slope * found.mean
        factors = tuple(map(plan.by_group, (gain, repeats * slope, repeats * shift)))
        _by_blocks(
            lambda part: normalised.input_gradients(source, part, plan.tiling, factors, target),
            source,
            plan.tiling,
        )
        by_parameters = (torch.from_numpy(by).float() for by in (by_gamma, by_beta))
        return by_z, *by_parameters, None, None, None, None, None


def _blocks(z: Array, tiling: Tiling) -> int:
    """How many blocks of n there are in (groups, T, n)."""
    return -(-z.shape[2] // tiling.block)


def _room_for_sums(z: Array, tiling: Tiling) -> Floats:
    """(groups, blocks, 2, channels) for two sums over (groups, T, n)."""
    return np.empty((len(z), _blocks(z, tiling), 2, tiling.channels))


def _summed(sums: Floats) -> Floats:
    """(2, channels of all groups), blocks in their order."""
    return sums.sum(axis=1).swapaxes(0, 1).reshape(2, -1)


def _by_blocks(work: Callable[[Part], None], z: Array, tiling: Tiling) -> None:
    """`in_parts` of (groups, T, n): of groups, or of a single one's blocks."""
    groups, blocks = len(z), _blocks(z, tiling)
    if groups > 1:
        in_parts(lambda first, last: work((first, last, 0, blocks)), groups)
    else:
        in_parts(lambda first, last: work((0, groups, first, last)), blocks)
