"""Stock SLAYER's synapses and neurons with the integers of a convolutional network.

Nothing of SLAYER's passes is ours: kernels are repeated where a pool is folded in, and a bias
stands in the place of the neurons' normalisation.
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
        weights: of the layer and of its shortcut, if it has one, for every position: float32
            whole numbers, (n_post, channels, rows, columns, 1) of kernels, else (n_post, n_pre,
            1, 1, 1).
        bias: (channels,); None of a readout, whose neurons never fire.
        thresholds: (1,) of all channels, or (channels,).
    """

    weights: Sequence[Tensor]
    bias: Int32s | None = None
    thresholds: Int32s | None = None


class StockNetwork:
    """A network of stock SLAYER's blocks.

    Args:
        topology: its layers.
        voltage_decay: of all neurons.
        layers: layer name -> its integers.
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
        """Spikes of each layer, and the running sum of the readout as v (`SpikeReference`).

        Args:
            inputs: (samples, T, inputs) integers.

        Returns:
            Layer name -> (samples, T, neurons).
        """
        found: dict[str, Ints] = {}
        for name, output in self._outputs(inputs).items():
            values = _by_step(output)
            if not self._stock[name].neurons:
                values = (values * WEIGHT_SCALE).cumsum(axis=1) * (1 << STATE_SHIFT)
            found[name] = np.rint(values).astype(np.int64)
        return found

    @torch.no_grad()
    def states(self, inputs: Bytes, layer: str) -> tuple[Ints, Ints]:
        """What u and v of a layer are after each step in SLAYER, in units of 2**-6 weights.

        Args:
            inputs: (samples, T, inputs) integers.
            layer: its name.

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
        found = [neuron.dynamics(part) for neuron, part in stock.split(summed)]
        current, voltage = (torch.cat(parts, 1) for parts in zip(*found))
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
        """(samples, T, inputs) as SLAYER has maps, (samples, channels, rows, columns, T)."""
        samples, steps, _ = inputs.shape
        maps = torch.from_numpy(np.ascontiguousarray(inputs.swapaxes(1, 2))).float()
        return maps.view(samples, *self._input_shape, steps)


class _Bias(nn.Module):
    """What SLAYER's neurons add to their current, in the place of its normalisations.

    Args:
        bias: (channels,) in units of weighted input.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """X (batch, channels, ..., T) plus the bias of its channel."""
        return x + self.bias.view(-1, *(1,) * (x.ndim - 2))


class _StockLayer:
    """SLAYER's synapses of every input of a layer, and its neurons.

    Attributes:
        neurons: one object for all channels or for each, as SLAYER's have one threshold; none of
            a readout.
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
        """The sum of what all inputs bring, of what the layers before put out."""
        total: Any = sum(
            synapse(_shaped(outputs[layer.source], layer)) for layer, synapse in self._synapses
        )
        if self._identity:
            total = total + outputs[self._identity] * self._thresholds.view(-1, 1, 1, 1)
        found: Tensor = total
        return found

    def split(self, summed: Tensor) -> list[tuple[Any, Tensor]]:
        """Each object of neurons and the channels that are its."""
        parts = summed.tensor_split(max(len(self.neurons), 1), 1)
        return list(zip(self.neurons, parts))


def _synapse(layer: LayerSpec, integers: Tensor) -> Any:
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
    """Maps for a kernel; for a fully connected layer without the rows that no pool sees."""
    if layer.kind == "conv" or maps.ndim == 3:
        return maps
    rows, columns = (side // layer.pool * layer.pool for side in maps.shape[2:4])
    return maps[:, :, :rows, :columns].flatten(1, 3)


def _by_step(values: Tensor) -> Array:
    """(samples, ..., T) of SLAYER as (samples, T, neurons)."""
    found: Array = values.flatten(1, -2).swapaxes(1, 2).double().numpy()
    return found
