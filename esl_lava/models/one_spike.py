"""Networks whose neurons fire at most once. They are trained by the times of their spikes.

The method is Mostafa's (2018, "Supervised learning based on temporal coding in spiking neural
networks"), as ESL-SNNs uses it (Eq. 3-5). Times t are in units of the synaptic time constant. The
functions compute with z = exp(t). If a neuron does not fire, its z is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.arrays import Array, Bytes, Floats, Ints
from esl_lava.chip import DECAY_UNITY
from esl_lava.engines.autograd import apply
from esl_lava.kernels import causal
from esl_lava.models.reference import TimeReference
from esl_lava.network import Network
from esl_lava.topology import LayerSpec, Topology

GROUPS = 4
"""If a batch has at most this many distinct input times, matrix products sum the inputs of each
time. Otherwise the inputs are sorted."""

ROUNDING = 1e-9
"""A time that exceeds a point of the grid by at most this many steps counts as on the point: such
a difference is float64 rounding."""

INITIAL_SUM = 4.0
"""Mean sum of the initial weights of a neuron. A neuron fires only if the sum exceeds 1."""


def firing_times(z: Tensor, weight: Tensor, groups: int = GROUPS) -> Tensor:
    """Compute when neurons fire from the times at which their inputs fire (Eq. 5).

    The causal set C of a neuron contains the inputs before its own spike. Sort the inputs by
    time, and let S_i and N_i be the sums of w and of w z over the first i inputs. Take the
    smallest i with S_i > 1 and N_i / (S_i - 1) <= z_{i+1} (z_{i+1} is infinity after the last
    input). Then C contains the first i inputs, and z_out = N_i / (S_i - 1). If there is no such
    i, z_out is infinity. Inputs of the same time enter C together. An input at exactly the time
    of the spike is not in C (Eq. 4: t_i < t_j), because it adds nothing to the potential at that
    time.

    The function is differentiable. For p in C, dz_out/dw_p = (z_p - z_out) / (sum_C w - 1) and
    dz_out/dz_p = w_p / (sum_C w - 1). For other inputs, and for a silent neuron, both are 0.

    Memory is of the order batch x (n_pre + n_post) for both ways to sum.

    Args:
        z: (batch, n_pre) exp of the input times, at least 1; infinity for no spike.
        weight: (n_post, n_pre) in units of the threshold, of the dtype of `z` (float32 or
            float64); 0 at a pruned connection.
        groups: if the batch has at most this many distinct input times, matrix products sum the
            inputs of each time. Otherwise the inputs are sorted and added one after another.

    Returns:
        (batch, n_post) exp of the firing times.
    """
    return apply(_FiringTimes, z, weight, groups)


class _FiringTimes(torch.autograd.Function):
    """The forward and backward pass of `firing_times`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, groups: int) -> Tensor:
        shape = (len(z), len(weight))
        z_out, last = z.new_full(shape, math.inf), z.new_full(shape, -math.inf)
        slope = z.new_zeros(shape)
        times = distinct_times(z, groups)
        if times is None:
            order = z.argsort(dim=1, stable=True)
            arrays = (z, order, weight.T.contiguous(), z_out, last, slope)
            causal.fire(*(array.numpy() for array in arrays))
        else:
            z_out, last, slope = _fire_grouped(z, weight, times, z_out, last, slope)
        ctx.times = times
        ctx.save_for_backward(z, weight, z_out, last, slope)
        return z_out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        z, weight, z_out, last, slope = ctx.saved_tensors
        # Both are NaN for a silent neuron. Its `last` is -inf, so that they are never used.
        scaled = gradient * slope
        weighed = scaled * z_out
        if ctx.times is not None:
            by_z, by_weight = ctx.needs_input_grad[:2]
            return (
                _time_gradient(z, weight, ctx.times, last, scaled) if by_z else None,
                _weight_gradient(z, ctx.times, last, scaled, weighed) if by_weight else None,
                None,
            )
        w = weight.T.contiguous()
        gradient_z, gradient_w = torch.zeros_like(z), torch.zeros_like(w)
        arrays = (z, w, last, scaled, weighed, gradient_z, gradient_w)
        causal.propagate(*(array.numpy() for array in arrays))
        return gradient_z, gradient_w.T, None


def distinct_times(z: Tensor, limit: int) -> list[float] | None:
    """Return the distinct finite values of `z`, ascending, or None if there are over `limit`."""
    times: list[float] = []
    rest = z
    while rest.numel() and (least := rest.min().item()) < math.inf:
        if len(times) == limit:
            return None
        times.append(least)
        rest = torch.where(rest > least, rest, math.inf)
    return times


def _fire_grouped(
    z: Tensor, weight: Tensor, times: Sequence[float], z_out: Tensor, last: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the same as `causal.fire`, with one matrix product for the inputs of each time."""
    s, n = torch.full_like(slope, -1), torch.zeros_like(slope)
    remainder = _remainder(z, times)
    for time, following in zip(times, [*times[1:], math.inf]):
        if time == remainder:
            arriving = weight.sum(1) - 1 - s
        else:
            arriving = (z == time).to(z.dtype) @ weight.T
        s = s + arriving
        n = n + arriving * time
        first = (s > 0) & (slope == 0) & (n <= s * following)
        z_out = torch.where(first, n / s, z_out)
        last = torch.where(first, time, last)
        slope = torch.where(first, 1 / s, slope)
    return z_out, last, slope


def _time_gradient(
    z: Tensor, weight: Tensor, times: Sequence[float], last: Tensor, scaled: Tensor
) -> Tensor:
    """Compute the gradient of the input times, (batch, n_pre)."""
    gradient = torch.zeros_like(z)
    for time in times:
        gradient += (z == time) * (torch.where(last >= time, scaled, 0) @ weight)
    return gradient


def _weight_gradient(
    z: Tensor, times: Sequence[float], last: Tensor, scaled: Tensor, weighed: Tensor
) -> Tensor:
    """Compute the gradient of the weights, (n_post, n_pre)."""
    remainder = _remainder(z, times)
    gradient = z.new_zeros(last.shape[1], z.shape[1])
    common: Tensor | float = 0.0
    # The last time comes first. If it is the remainder, the others add their difference to it.
    for time in reversed(times):
        share = torch.where(last >= time, scaled * time - weighed, 0)
        if time == remainder:
            common = share
            gradient += share.sum(0)[:, None]
        else:
            gradient.addmm_((share - common).T, (z == time).to(z.dtype))
    return gradient


def _remainder(z: Tensor, times: Sequence[float]) -> float | None:
    """Return the last of the times if every input fires, else None.

    Then the sum over the inputs of the last time is the sum over all inputs less the sums of the
    other times. This saves a matrix product.
    """
    return times[-1] if times and z.isfinite().all() else None


def grid_step(current_decay: float) -> float:
    """Return the chip's time step in units of its synaptic time constant.

    Decays are 12-bit integers d. In one step a current decays to (4096 - d) / 4096 of its value,
    so that a step lasts -ln((4096 - d) / 4096).

    Args:
        current_decay: share of the current lost per step, above 0 and below 1.
    """
    return -math.log1p(-round(current_decay * DECAY_UNITY) / DECAY_UNITY)


def window_end(step: float, steps: int, place: int) -> float:
    """Return exp of the last time at which a spike of a layer is within the sample.

    Step n of a layer is the time (n + place) step, because a layer checks its potential one step
    after its inputs arrive.

    Args:
        step: step of the time grid (`grid_step`).
        steps: T of the sample.
        place: index of the layer, 0 for the inputs and 1 for the first hidden layer.
    """
    return math.exp((steps - 1 + place) * step)


def first_spikes(spikes: Array) -> Ints:
    """Return the step of the first spike of each neuron, T if it has none.

    Args:
        spikes: (samples, T, neurons).

    Returns:
        (samples, neurons).
    """
    return np.where(spikes.any(axis=1), spikes.argmax(axis=1), spikes.shape[1])


def spikes_to_times(spikes: Array, step: float, place: int) -> Floats:
    """Return exp of the time of each neuron's first spike, infinity if it has none.

    Args:
        spikes: (samples, T, neurons) of a layer.
        step, place: as in `window_end`.

    Returns:
        (samples, neurons) float64.
    """
    steps = first_spikes(spikes)
    return np.where(steps < spikes.shape[1], np.exp((steps + place) * step), np.inf)


def times_to_steps(z: Tensor, step: float, place: int, steps: int) -> Ints:
    """Return the steps of the grid in which times of a layer fall, inverse to `spikes_to_times`.

    Args:
        z: exp of the times, float64.
        step, place: as in `window_end`.
        steps: T, the result for an infinite time and for a time after the sample.
    """
    with np.errstate(invalid="ignore"):
        late = np.ceil(np.log(z.numpy()) / step - ROUNDING) - place
    return np.where(late < steps, late, steps).astype(np.int64)


class SingleSpikeLayer(nn.Module):
    """A layer of non-leaky neurons with an exponential synaptic current (Eq. 3).

    Attributes:
        weight: (n_post, n_pre) in units of the threshold. Initial weights are uniform from 0 to
            2 `INITIAL_SUM` / n_pre, so that the weights of a neuron sum to about `INITIAL_SUM`.
    """

    def __init__(self, n_pre: int, n_post: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n_post, n_pre) * (2 * INITIAL_SUM / n_pre))

    def forward(self, z: Tensor) -> Tensor:
        """Return `firing_times` of the layer's neurons, (batch, n_pre) -> (batch, n_post)."""
        return firing_times(z, self.weight)


def _dense(layer: LayerSpec) -> SingleSpikeLayer:
    n_post, n_pre = layer.weight_shape
    return SingleSpikeLayer(n_pre, n_post)


LAYERS: Mapping[str, Callable[[LayerSpec], nn.Module]] = MappingProxyType({"dense": _dense})
"""Kind of layer -> function that builds its module."""


class SingleSpikeMLP(nn.Module):
    """A network of fully connected layers `hidden1`, ..., `readout` that fire once (Eq. 5).

    It has at least one hidden layer. It decides for the class whose readout neuron fires first.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.topology = topology
        for layer in topology.layers:
            self.add_module(layer.name, LAYERS[layer.kind](layer))

    def forward(self, z: Tensor) -> Tensor:
        """Return exp of the readout's firing times.

        Args:
            z: (batch, inputs) exp of the input times, infinity for no spike.

        Returns:
            (batch, classes); infinity if the neuron of a class stays silent.
        """
        return self.layer_outputs(z)[-1]

    def layer_outputs(self, z: Tensor) -> list[Tensor]:
        """Return exp of the firing times of each layer, (batch, neurons), the readout's last."""
        outputs = []
        for name in self.topology.names:
            z = self.get_submodule(name)(z)
            outputs.append(z)
        return outputs

    def reference(self, inputs: Bytes, network: Network) -> TimeReference:
        """Return the steps of the network's grid into which the model's firing times fall.

        Args:
            inputs: (samples, T, inputs), at most one spike of each input in a sample.
            network: the integer network that the export makes from the model.
        """
        step = grid_step(int(network.layers[0].neuron.current_decay) / DECAY_UNITY)
        dtype = self.get_parameter("readout.weight").dtype
        z = torch.from_numpy(spikes_to_times(inputs, step, 0)).to(dtype)
        with torch.no_grad():
            times = self.layer_outputs(z)
        steps = {
            layer.name: times_to_steps(z.double(), step, place, inputs.shape[1])
            for place, (layer, z) in enumerate(zip(network.layers, times), 1)
        }
        return TimeReference("training", steps)
