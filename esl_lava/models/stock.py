"""A convolutional network's integers in stock SLAYER's synapses and neurons.

All passes are SLAYER's own. Where a pool is folded into a kernel, the weights of the kernel are
repeated. A bias takes the place of the neurons' normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.arrays import Array, Bytes, Int32s, Ints
from esl_lava.chip import STATE_SHIFT, WEIGHT_SCALE
from esl_lava.engines.slayer import slayer
from esl_lava.topology import INPUT, LayerSpec, Topology


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """The integers of a layer, before pools are folded in.

    Attributes:
        weights: dense weights of the layer and of its shortcut, if it has one: float32 whole
            numbers, (n_post, channels, rows, columns, 1) for kernels, (n_post, n_pre, 1, 1, 1)
            for fully connected layers.
        bias: (channels,); None for a readout, whose neurons never fire.
        thresholds: (1,) for all channels, or (channels,); None for a readout.
    """

    weights: Sequence[Tensor]
    bias: Int32s | None = None
    thresholds: Int32s | None = None


class StockNetwork:
    """A network of stock SLAYER's blocks.

    Args:
        topology: the layers of the network.
        voltage_decay: the voltage decay of all neurons.
        layers: layer name -> integers of the layer.
    """

    def __init__(
        self, topology: Topology, voltage_decay: float, layers: Mapping[str, IntegerLayer]
    ) -> None:
        self._input_shape = topology.input_shape
        self._stock = {
            layer.name: _StockLayer(layer, layers[layer.name], voltage_decay)
            for layer in topology.layers
        }

    def layers(self, inputs: Bytes) -> dict[str, Ints]:
        """Return the spikes of each layer, and the running sum of the readout as v.

        The result is that of `SpikeReference.layers`.

        Args:
            inputs: (samples, T, inputs) integers.

        Returns:
            Layer name -> (samples, T, neurons).
        """
        layers: dict[str, Ints] = {}
        for name, output in self._outputs(inputs).items():
            values = _by_step(output)
            if not self._stock[name].neurons:
                values = (values * WEIGHT_SCALE).cumsum(axis=1) * (1 << STATE_SHIFT)
            layers[name] = np.rint(values).astype(np.int64)
        return layers

    @torch.no_grad()
    def states(self, inputs: Bytes, layer: str) -> tuple[Ints, Ints]:
        """Return SLAYER's u and v of a layer after each step, in units of 1/64 integer weight.

        Args:
            inputs: (samples, T, inputs) integers.
            layer: name of the layer.

        Returns:
            Two arrays (samples, T, neurons); v is 0 where the neuron has just fired.
        """
        scale = WEIGHT_SCALE << STATE_SHIFT
        outputs = self._outputs(inputs)
        stock = self._stock[layer]
        summed = stock.weighted({INPUT: self._maps(inputs), **outputs})
        if not stock.neurons:
            sums = np.rint(_by_step(summed) * scale).astype(np.int64)
            return sums, sums.cumsum(axis=1)
        dynamics = [neuron.dynamics(part) for neuron, part in stock.split(summed)]
        current, voltage = (torch.cat(parts, 1) for parts in zip(*dynamics))
        u, v = (np.rint(_by_step(state) * scale).astype(np.int64) for state in (current, voltage))
        bias = np.concatenate([neuron.norm.bias.double().numpy() for neuron in stock.neurons])
        u -= np.rint(np.repeat(bias * scale, u.shape[2] // len(bias))).astype(np.int64)
        return u, np.where(_by_step(outputs[layer]) != 0, 0, v)

    @torch.no_grad()
    def _outputs(self, inputs: Bytes) -> dict[str, Tensor]:
        outputs = {INPUT: self._maps(inputs)}
        for name, stock in self._stock.items():
            summed = stock.weighted(outputs)
            fired = [neuron(part) for neuron, part in stock.split(summed)]
            outputs[name] = torch.cat(fired, 1) if fired else summed
        del outputs[INPUT]
        return outputs

    def _maps(self, inputs: Bytes) -> Tensor:
        """Turn inputs (samples, T, inputs) into maps (samples, channels, rows, columns, T)."""
        samples, steps, _ = inputs.shape
        maps = torch.from_numpy(np.ascontiguousarray(inputs.swapaxes(1, 2))).float()
        return maps.view(samples, *self._input_shape, steps)


class _Bias(nn.Module):
    """A bias that SLAYER's neurons add to their current, in place of a normalisation.

    Args:
        bias: (channels,) in units of weighted input.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Return x (batch, channels, ..., T) plus the bias of each channel."""
        return x + self.bias.view(-1, *(1,) * (x.ndim - 2))


class _StockLayer:
    """A layer's synapses for each of its inputs, and its neurons, all of SLAYER.

    Attributes:
        neurons: one neuron object for all channels or one for each channel, because an object
            has one threshold; empty for a readout.
    """

    def __init__(self, layer: LayerSpec, integers: IntegerLayer, voltage_decay: float) -> None:
        parts = [layer, *([layer.shortcut] if layer.shortcut else [])]
        self._synapses = [(part, _synapse(part, w)) for part, w in zip(parts, integers.weights)]
        self._identity = layer.identity
        self.neurons: list[Any] = []
        if integers.bias is None or integers.thresholds is None:
            return
        bias = torch.from_numpy(integers.bias).float() / WEIGHT_SCALE
        self._thresholds = torch.from_numpy(integers.thresholds).float() / WEIGHT_SCALE
        shifts = bias.tensor_split(len(self._thresholds))
        for threshold, shift in zip(self._thresholds.tolist(), shifts):
            neuron = slayer.neuron.cuba.Neuron(threshold, 1.0, voltage_decay)
            neuron.threshold_eps = 1 / neuron.s_scale
            neuron.norm = _Bias(shift)
            self.neurons.append(neuron)
        for _, synapse in self._synapses:
            synapse.pre_hook_fx = self.neurons[0].quantize_8bit

    def weighted(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted input from all inputs, given the outputs of the layers before."""
        total: Any = sum(
            synapse(_shaped(outputs[layer.source], layer)) for layer, synapse in self._synapses
        )
        if self._identity:
            total = total + outputs[self._identity] * self._thresholds.view(-1, 1, 1, 1)
        weighted: Tensor = total
        return weighted

    def split(self, summed: Tensor) -> list[tuple[Any, Tensor]]:
        """Return each neuron object with the weighted input of its channels."""
        parts = summed.tensor_split(max(len(self.neurons), 1), 1)
        return list(zip(self.neurons, parts))


def _synapse(layer: LayerSpec, integers: Tensor) -> Any:
    """Return SLAYER's synapse of a layer or shortcut, with its pool folded into the weights."""
    p, weight = layer.pool, integers / WEIGHT_SCALE
    if layer.kind == "conv":
        outputs, channels, side = weight.shape[:3]
        synapse = slayer.synapse.Conv(
            channels, outputs, side * p, layer.stride * p, layer.padding * p
        )
        repeated = weight.repeat_interleave(p, 2).repeat_interleave(p, 3)
    else:
        repeated = weight.view(len(weight), *layer.input_shape)
        if p > 1:
            repeated = repeated.repeat_interleave(p, 2).repeat_interleave(p, 3)
        repeated = repeated.reshape(len(weight), -1, 1, 1, 1)
        synapse = slayer.synapse.Dense(repeated.shape[1], len(weight))
    synapse.weight.data = repeated
    return synapse


def _shaped(maps: Tensor, layer: LayerSpec) -> Tensor:
    """Return maps as a synapse takes them.

    A fully connected layer gets flat maps, without the rows and columns that its pool leaves out.
    """
    if layer.kind == "conv" or maps.ndim == 3:
        return maps
    rows, columns = (side // layer.pool * layer.pool for side in maps.shape[2:4])
    return maps[:, :, :rows, :columns].flatten(1, 3)


def _by_step(values: Tensor) -> Array:
    """Turn values of SLAYER (samples, ..., T) into (samples, T, neurons) float64."""
    by_step: Array = values.flatten(1, -2).swapaxes(1, 2).double().numpy()
    return by_step
