"""Networks whose neurons fire at most once, trained by the times of their spikes.

Mostafa 2018 ("Supervised learning based on temporal coding in spiking neural networks"),
as ESL-SNNs uses it (Eq. 3-5). Times are in units of the synaptic time constant and appear
as z = exp(t); z of a neuron without a spike is infinite.
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
"""Up to so many distinct input times are summed by matrix products; more are sorted."""

ROUNDING = 1e-9
"""Steps by which a time may exceed a point of the grid and count as on it: float64's."""

INITIAL_SUM = 4.0
"""Sum of a neuron's initial weights on average: it must exceed 1 for the neuron to fire."""


def firing_times(z: Tensor, weight: Tensor, groups: int = GROUPS) -> Tensor:
    """When neurons fire, given when their inputs do (Eq. 5).

    The causal set C of a neuron are its inputs before its own spike. With the inputs sorted,
    and S_i and N_i the sums of w and of w z over the first i of them, C are the first i for
    the smallest i with S_i > 1 and N_i / (S_i - 1) <= z_{i+1} (infinity after the last);
    then z_out = N_i / (S_i - 1), and without such i infinity. Inputs of one time belong to C
    together. One at the very time of the spike does not (Eq. 4: t_i < t_j): it adds nothing
    to the potential there.

    Differentiable: for p in C, dz_out/dw_p = (z_p - z_out) / (sum_C w - 1) and
    dz_out/dz_p = w_p / (sum_C w - 1); else, and for a silent neuron, 0.

    Memory is of the order batch x (n_pre + n_post), whatever the path.

    Args:
        z: (batch, n_pre) exp of the input times, at least 1; infinity for no spike.
        weight: (n_post, n_pre) in units of the threshold, of the dtype of `z` (float32 or
            float64); a pruned connection is 0.
        groups: inputs of at most so many distinct times in the batch are summed group by
            group in matrix products, others one after another as sorted.

    Returns:
        (batch, n_post) exp of the firing times.
    """
    return apply(_FiringTimes, z, weight, groups)


class _FiringTimes(torch.autograd.Function):
    """`firing_times` and its gradient."""

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
        # NaN for a silent neuron, of which `last` keeps both from being used.
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
    """The finite values in `z` in ascending order, or None where there are more than `limit`."""
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
    """As `causal.fire`, by groups of inputs of one time."""
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
    """(batch, n_pre) gradient of the input times."""
    gradient = torch.zeros_like(z)
    for time in times:
        gradient += (z == time) * (torch.where(last >= time, scaled, 0) @ weight)
    return gradient


def _weight_gradient(
    z: Tensor, times: Sequence[float], last: Tensor, scaled: Tensor, weighed: Tensor
) -> Tensor:
    """(n_post, n_pre) gradient of the weights."""
    remainder = _remainder(z, times)
    gradient = z.new_zeros(last.shape[1], z.shape[1])
    common: Tensor | float = 0.0
    # The last group first: where it is what remains, the others add their difference to it.
    for time in reversed(times):
        share = torch.where(last >= time, scaled * time - weighed, 0)
        if time == remainder:
            common = share
            gradient += share.sum(0)[:, None]
        else:
            gradient.addmm_((share - common).T, (z == time).to(z.dtype))
    return gradient


def _remainder(z: Tensor, times: Sequence[float]) -> float | None:
    """The last time, where every input that is not of the others is of it; else None.

    Sums over that group follow from those over all inputs, which costs no matrix product.
    """
    return times[-1] if times and z.isfinite().all() else None


def grid_step(current_decay: float) -> float:
    """The chip's time step in units of its synaptic time constant.

    Decays are 12-bit integers: a current keeps (4096 - d) / 4096 of itself a step, so that
    a step lasts -ln of that.

    Args:
        current_decay: share of the current lost per step, above 0 and below 1.
    """
    return -math.log1p(-round(current_decay * DECAY_UNITY) / DECAY_UNITY)


def window_end(step: float, steps: int, place: int) -> float:
    """Exp of the last time at which a layer's spike is one within the sample.

    Step n of the layer at `place` (0 for the inputs, 1 for the first hidden layer) is the time
    (n + place) step, as each layer's potential is looked at one step after what it sums; `step` is
    that of the grid (`grid_step`), `steps` T of the sample.
    """
    return math.exp((steps - 1 + place) * step)


def first_spikes(spikes: Array) -> Ints:
    """(samples, neurons) step of the first spike of (samples, T, neurons), T for none."""
    return np.where(spikes.any(axis=1), spikes.argmax(axis=1), spikes.shape[1])


def times_of(spikes: Array, step: float, place: int) -> Floats:
    """(samples, neurons) exp of the times of first spikes, infinity for none.

    Args:
        spikes: (samples, T, neurons) of a layer.
        step, place: as `window_end`.
    """
    steps = first_spikes(spikes)
    return np.where(steps < spikes.shape[1], np.exp((steps + place) * step), np.inf)


def steps_of(z: Tensor, step: float, place: int, steps: int) -> Ints:
    """Into which steps of the grid times of a layer fall, the reverse of `times_of`.

    Args:
        z: exp of the times, float64.
        step, place: as `window_end`.
        steps: T, which stands for no time and for those after the sample.
    """
    with np.errstate(invalid="ignore"):
        late = np.ceil(np.log(z.numpy()) / step - ROUNDING) - place
    return np.where(late < steps, late, steps).astype(np.int64)


class SingleSpikeLayer(nn.Module):
    """Weights of non-leaky neurons with an exponential synaptic current (Eq. 3).

    Attributes:
        weight: (n_post, n_pre) in units of the threshold; at first uniform from 0 to
            `INITIAL_SUM` 2 / n_pre, so that a neuron's weights sum to about `INITIAL_SUM`.
    """

    def __init__(self, n_pre: int, n_post: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n_post, n_pre) * (2 * INITIAL_SUM / n_pre))

    def forward(self, z: Tensor) -> Tensor:
        """`firing_times` of the layer's neurons, (batch, n_pre) -> (batch, n_post)."""
        return firing_times(z, self.weight)


def _dense(layer: LayerSpec) -> SingleSpikeLayer:
    n_post, n_pre = layer.weight_shape
    return SingleSpikeLayer(n_pre, n_post)


LAYERS: Mapping[str, Callable[[LayerSpec], nn.Module]] = MappingProxyType({"dense": _dense})
"""Modules by the kind of the layer."""


class SingleSpikeMLP(nn.Module):
    """Fully connected layers `hidden1`, `hidden2`, ..., `readout` that all fire once (Eq. 5).

    There is at least one hidden layer. The class whose readout neuron fires first is the answer.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.topology = topology
        for layer in topology.layers:
            self.add_module(layer.name, LAYERS[layer.kind](layer))

    def forward(self, z: Tensor) -> Tensor:
        """Exp of the readout's firing times.

        Args:
            z: (batch, inputs) exp of the input times, infinity for no spike.

        Returns:
            (batch, classes), infinity where a class stays silent.
        """
        return self.layer_outputs(z)[-1]

    def layer_outputs(self, z: Tensor) -> list[Tensor]:
        """Exp of each layer's firing times, (batch, neurons) each, the readout's last."""
        outputs = []
        for name in self.topology.names:
            z = self.get_submodule(name)(z)
            outputs.append(z)
        return outputs

    def reference(self, inputs: Bytes, network: Network) -> TimeReference:
        """Into which steps of the network's grid the firing times of training fall.

        Args:
            inputs: (samples, T, inputs), at most one spike of an input in a sample.
            network: the integer network that the model lowers to.
        """
        step = grid_step(int(network.layers[0].neuron.current_decay) / DECAY_UNITY)
        dtype = self.get_parameter("readout.weight").dtype
        z = torch.from_numpy(times_of(inputs, step, 0)).to(dtype)
        with torch.no_grad():
            times = self.layer_outputs(z)
        steps = {
            layer.name: steps_of(z.double(), step, place, inputs.shape[1])
            for place, (layer, z) in enumerate(zip(network.layers, times), 1)
        }
        return TimeReference("training", steps)
