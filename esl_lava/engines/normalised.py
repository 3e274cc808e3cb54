"""Batch normalisation and spiking neurons in one function, to train convolutions on CPUs.

A neuron without synaptic filter takes the normalised weighted input of its channel:

    v <- (1 - d) v + gamma (z - mean) / sqrt(variance + epsilon) + beta
    a spike and v <- 0 where v > 1

Mean and variance are over samples, steps and places of the batch. Values are float32, sums over a
channel are float64. `folding` turns the same equations, with running statistics, into integers.
For the backward pass only z of a layer is kept. It computes v again, which costs less than writing
and reading v. If a pool follows, the function writes the sums of the pool and not the spikes.
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
from esl_lava.engines.threads import run_in_parts
from esl_lava.kernels import normalised
from esl_lava.kernels.normalised import Constants, Neuron, Part, Tiling

Reduce = Callable[[Floats], None]
"""Function that replaces an array by its sum over all ranks, which call it in the same order."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The statistics by which a batch was normalised.

    Attributes:
        mean, variance: (channels,) of weighted input; the variance is biased.
        count: number of values of a channel, over all ranks.
    """

    mean: Floats
    variance: Floats
    count: int


def make_neuron(voltage_decay: float, tau_grad: float, scale_grad: float) -> Neuron:
    """Return the kernels' parameters of neurons that fire above 1.

    Args:
        voltage_decay: d, the share of v lost per step.
        tau_grad, scale_grad: tau and scale of the surrogate gradient, which is
            scale / (2 tau) * exp(-|v - 1| / tau).
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
    """Normalise weighted input and compute the spikes of neurons that start at rest.

    The surrogate gradient ignores resets, as in SLAYER (`slayer/neuron/cuba.py`). The gradients of
    gamma and beta are sums over this rank's samples. In the gradient of z, the part that passes
    through the statistics is a sum over all ranks.

    Args:
        z: (T, batch, channels, ...) float32 weighted input. It is not copied if in memory
            channels come last or, without a pool, channels come first and time second.
        gamma, beta: (channels,) float32, scale and shift.
        epsilon: added to the variance.
        neuron: see `make_neuron`.
        steps: T if `z` holds one step that is the same at all T steps.
        pool: side of the squares over which spikes are summed; z is then (T, batch, channels,
            rows, columns). Rows and columns that do not fill a square are left out.
        reduce: sums over ranks, if several ranks each have a share of the batch, which may be
            empty.

    Returns:
        Spikes 0 and 1 (T, batch, channels, ...) with the memory layout of `z`, or their sums
        (T, batch, channels, rows // pool, columns // pool) with channels last in memory; and the
        statistics over the batch of all ranks.

    Raises:
        ValueError: if `z` is not float32 on the CPU, has a number of steps other than 1 and
            `steps`, or is empty on all ranks.
    """
    if z.dtype != torch.float32 or z.device.type != "cpu":
        raise ValueError(
            f"the weighted input is {z.dtype} on {z.device}, but torch.float32 on the CPU is needed"
        )
    z_steps, _, channels = z.shape[:3]
    steps = z_steps if steps is None else steps
    if z_steps not in (1, steps):
        raise ValueError(f"the weighted input has {z_steps} steps, but 1 or {steps} are needed")
    by_channel = pool == 1 and z.movedim(2, 0).is_contiguous()
    place = 0 if by_channel and not z.movedim(2, -1).is_contiguous() else -1
    moved = z.movedim(2, place).contiguous()
    groups = channels if place == 0 else 1
    grouped = moved.view(groups, z_steps, moved.numel() // (groups * z_steps))
    tiling = normalised.choose_tiling(channels // groups, steps, grouped.shape[2])
    plan = _Plan(tiling, steps)
    if pool > 1:
        plan = _PooledPlan(tiling, steps, tuple(moved.shape[1:]), pool)
    statistics = _compute_statistics(grouped.detach().numpy(), plan, reduce)
    spikes = apply(_Spikes, grouped, gamma, beta, epsilon, neuron, statistics, plan, reduce)
    if pool == 1:
        time = 1 if place == 0 else 0
        spikes = spikes.view(*moved.shape[:time], steps, *moved.shape[time + 1 :])
    return spikes.movedim(place, 2), statistics


def update_running_statistics(norm: nn.BatchNorm1d, batch: Statistics) -> None:
    """Move running statistics towards those of a batch, as torch's normalisation does in training.

    Args:
        norm: a normalisation with a momentum. Its running variance is unbiased.
        batch: statistics of the batch. The variance of a single value, which is undefined,
            counts as 0.
    """
    running: Any = norm
    unbiased = batch.variance * (batch.count / max(1, batch.count - 1))
    for values, target in ((batch.mean, running.running_mean), (unbiased, running.running_var)):
        target.lerp_(torch.from_numpy(values).to(target.dtype), norm.momentum)
    running.num_batches_tracked += 1


def _compute_statistics(z: Array, plan: _Plan, reduce: Reduce | None) -> Statistics:
    """Return the statistics of each channel of the weighted input z (groups, T or 1, n).

    They are over all steps and samples and, with `reduce`, over all ranks. The groups are those of
    `kernels.normalised`.

    Raises:
        ValueError: if the weighted input of all ranks is empty.
    """
    sums = _allocate_sums(z, plan.tiling)
    _run_by_blocks(lambda part: normalised.add_up(z, part, plan.tiling, sums), z, plan.tiling)
    total, squares = _add_blocks(sums)
    totals = np.concatenate(([z.size // len(total)], total, squares)) * plan.repeats(z)
    if reduce:
        reduce(totals)
    count = int(totals[0])
    if not count:
        raise ValueError("the weighted input is empty: nothing to normalise")
    mean, mean_square = totals[1:].reshape(2, -1) / count
    return Statistics(mean, np.maximum(mean_square - mean**2, 0), count)


@dataclass(frozen=True)
class _Plan:
    """The division of passes over neurons (groups, T, n) into parts: groups, or blocks of a group.

    Attributes:
        tiling: how n is divided into tiles and blocks.
        steps: T.
    """

    tiling: Tiling
    steps: int

    def repeats(self, z: Array) -> int:
        """Return how often each step of weighted input (groups, T or 1, n) is used."""
        return self.steps // z.shape[1]

    def by_group(self, values: Floats) -> Array:
        """Turn values of all channels into (groups, channels) float32."""
        return values.astype(np.float32).reshape(-1, self.tiling.channels)

    def fire(self, z: Array, gain: Array, shift: Array, keep: np.float32) -> Tensor:
        """Compute the spikes (groups, T, n) with gain and shift (groups, channels)."""
        groups, _, n = z.shape
        spikes = torch.empty(groups, self.steps, n)
        target = spikes.numpy()
        _run_by_blocks(
            lambda part: normalised.fire(z, part, self.tiling, gain, shift, keep, target),
            z,
            self.tiling,
        )
        return spikes

    def gradients(
        self, gradient: Array, z: Array, constants: Constants, neuron: Neuron, by_input: Array
    ) -> Floats:
        """Run `fire_gradients`, which fills `by_input`, and return its sums."""
        sums = _allocate_sums(z, self.tiling)
        _run_by_blocks(
            lambda part: normalised.fire_gradients(
                gradient, z, part, self.tiling, constants, neuron, by_input, sums
            ),
            z,
            self.tiling,
        )
        return sums


@dataclass(frozen=True)
class _PooledPlan(_Plan):
    """The division of passes that sum spikes over squares of the maps: by samples.

    Attributes:
        maps: (batch, rows, columns, channels) of a step.
        side: the side of a square.
    """

    maps: tuple[int, ...]
    side: int

    @property
    def pooled(self) -> tuple[int, ...]:
        """Shape (batch, rows, columns, channels) of a step's spikes, summed over pool windows."""
        batch, rows, columns, channels = self.maps
        return batch, rows // self.side, columns // self.side, channels

    def fire(self, z: Array, gain: Array, shift: Array, keep: np.float32) -> Tensor:
        """Compute the spikes and return their sums over the windows of the pool.

        Returns:
            (T, batch, rows // side, columns // side, channels).
        """
        sums = torch.empty(self.steps, *self.pooled)
        maps, target = _by_row(z[0], self.maps), _by_row(sums.numpy(), self.pooled)
        run_in_parts(
            lambda first, last: normalised.fire_and_pool(
                maps, first, last, self.side, gain[0], shift[0], keep, target
            ),
            len(maps[0]),
        )
        return sums

    def gradients(
        self, gradient: Array, z: Array, constants: Constants, neuron: Neuron, by_input: Array
    ) -> Floats:
        """Run `pooled_gradients`, which fills `by_input`, and return its sums."""
        batch, _, _, channels = self.maps
        sums = np.empty((1, batch, 2, channels))
        by_sums = _by_row(gradient, self.pooled)
        maps, target = _by_row(z[0], self.maps), _by_row(by_input[0], self.maps)
        gain, shift, mean = (values[0] for values in constants)
        run_in_parts(
            lambda first, last: normalised.pooled_gradients(
                by_sums, maps, first, last, self.side, (gain, shift, mean), neuron, target, sums
            ),
            batch,
        )
        return sums


def _by_row(values: Array, maps: tuple[int, ...]) -> Array:
    """View the maps of all steps as (steps, batch, rows, columns * channels)."""
    batch, rows, columns, channels = maps
    return values.reshape(len(values), batch, rows, columns * channels)


class _Spikes(torch.autograd.Function):
    """Spikes, or their sums over pool windows, from weighted input (groups, T or 1, n)."""

    @staticmethod
    def forward(
        ctx: Context,
        z: Tensor,
        gamma: Tensor,
        beta: Tensor,
        epsilon: float,
        neuron: Neuron,
        statistics: Statistics,
        plan: _Plan,
        reduce: Reduce | None,
    ) -> Tensor:
        ctx.inverse = 1 / np.sqrt(statistics.variance + epsilon)
        ctx.gain = gamma.detach().numpy() * ctx.inverse
        ctx.shift = beta.detach().numpy() - ctx.gain * statistics.mean
        ctx.neuron, ctx.statistics, ctx.plan, ctx.reduce = neuron, statistics, plan, reduce
        ctx.save_for_backward(z)
        gain, shift = plan.by_group(ctx.gain), plan.by_group(ctx.shift)
        return plan.fire(z.detach().numpy(), gain, shift, neuron.keep)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (z,) = ctx.saved_tensors
        plan, statistics, gain, inverse = ctx.plan, ctx.statistics, ctx.gain, ctx.inverse
        by_z = torch.empty_like(z)
        source, target = z.numpy(), by_z.numpy()
        constants = plan.by_group(gain), plan.by_group(ctx.shift), plan.by_group(statistics.mean)
        totals = _add_blocks(
            plan.gradients(gradient.contiguous().numpy(), source, constants, ctx.neuron, target)
        )
        by_gamma, by_beta = totals[1] * inverse, totals[0].copy()
        if ctx.reduce:
            ctx.reduce(totals)
        total, product = totals / statistics.count
        repeats = plan.repeats(source)
        slope = -gain * inverse**2 * product
        shift = -gain * total - slope * statistics.mean
        factors = tuple(map(plan.by_group, (gain, repeats * slope, repeats * shift)))
        _run_by_blocks(
            lambda part: normalised.input_gradients(source, part, plan.tiling, factors, target),
            source,
            plan.tiling,
        )
        by_parameters = (torch.from_numpy(by).float() for by in (by_gamma, by_beta))
        return by_z, *by_parameters, None, None, None, None, None


def _blocks(z: Array, tiling: Tiling) -> int:
    """Return the number of blocks of n in (groups, T, n)."""
    return -(-z.shape[2] // tiling.block)


def _allocate_sums(z: Array, tiling: Tiling) -> Floats:
    """Return an empty array (groups, blocks, 2, channels) for two sums over (groups, T, n)."""
    return np.empty((len(z), _blocks(z, tiling), 2, tiling.channels))


def _add_blocks(sums: Floats) -> Floats:
    """Add up the blocks in their order, and return sums (2, channels of all groups)."""
    return sums.sum(axis=1).swapaxes(0, 1).reshape(2, -1)


def _run_by_blocks(work: Callable[[Part], None], z: Array, tiling: Tiling) -> None:
    """Run work on (groups, T, n) in parts: by groups, or by blocks if there is one group."""
    groups, blocks = len(z), _blocks(z, tiling)
    if groups > 1:
        run_in_parts(lambda first, last: work((first, last, 0, blocks)), groups)
    else:
        run_in_parts(lambda first, last: work((0, groups, first, last)), blocks)
