"""Convolutional spiking networks: normalised while they learn, integers while they are judged.

In training a layer convolves with weights rounded to the chip's (straight through), normalises
over batch and time, and fires above 1. When the network is evaluated (`eval()`), a layer is the
integer layer that it lowers to: the range rule (`folding.fold`) of its weights and running
statistics, in SLAYER's arithmetic. docs/convolutions.md derives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from esl_lava.arrays import Bytes, Floats, Ints
from esl_lava.chip import STATE_SHIFT, WEIGHT_SCALE
from esl_lava.engines.neurons import fire
from esl_lava.engines.normalised import follow, neuron_of, normalise_and_fire
from esl_lava.engines.slayer import slayer
from esl_lava.folding import (
    FoldedLayer,
    FoldedReadout,
    Span,
    fold,
    fold_readout,
    gain_and_bias,
    span_of,
)
from esl_lava.models.config import Convolutional
from esl_lava.models.reference import SpikeReference
from esl_lava.models.stored_convolutional import EPSILON
from esl_lava.network import Network
from esl_lava.sparsity.ranks import add_up
from esl_lava.topology import INPUT, READOUT, LayerSpec, Topology


class Normalised(nn.Module):
    """A layer of weights, a batch normalisation over batch and time, and neurons.

    A readout has neither normalisation nor neurons that fire.

    Args:
        layer: its place in the network.
        config: of its neurons.
        span: of its input.
        steps: T.

    Attributes:
        pool_behind: side of the squares over which it sums its spikes while it trains, as
            whatever takes them does that first.
    """

    def __init__(self, layer: LayerSpec, config: Convolutional, span: Span, steps: int) -> None:
        super().__init__()
        self.pool_behind = 1
        self.layer, self.config, self.span, self.steps = layer, config, span, steps
        shape = (*layer.weight_shape, 1) if layer.kind == "conv" else (*layer.weight_shape, 1, 1, 1)
        self.synapse: Any = nn.Module()  # as a SLAYER block has it
        self.synapse.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_uniform_(self.synapse.weight, a=5**0.5)
        self.norm = None if layer.readout else nn.BatchNorm1d(shape[0], eps=EPSILON)

    def folded(self) -> FoldedLayer | FoldedReadout:
        """The integers of this layer, by its weights and running statistics now.

        Raises:
            ValueError: naming the layer, where the range rule finds none.
        """
        weights = self.synapse.weight.detach().numpy()
        flat = weights.reshape(len(weights), -1)
        found: FoldedLayer | FoldedReadout | None
        if self.norm is None:
            found = fold_readout(flat, self.span, self.steps)
        else:
            gain, bias = self.gain_and_bias()
            found = fold(flat, gain, bias, self.span, self.config.voltage_decay)
        if found is None:
            raise ValueError(f"layer {self.layer.name}: no threshold keeps the chip's ranges")
        return found

    def gain_and_bias(self) -> tuple[Floats, Floats]:
        """What the normalisation does with its running statistics."""
        norm: Any = self.norm
        parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        return gain_and_bias((part.detach().numpy() for part in parts), EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, or of a readout weighted input, of the source's output.

        Args:
            x: (T, batch, channels, rows, columns) or (T, batch, inputs) float32.

        Returns:
            (T, batch, *output shape). While the network is evaluated a readout's are integers.
        """
        folded = self.folded()
        if self.training:
            return self._trained(x, folded)
        return self._evaluated(x, folded)

    def _trained(self, x: Tensor, folded: FoldedLayer | FoldedReadout) -> Tensor:
        weight = self.synapse.weight
        flat = weight.detach().view(len(weight), -1)
        integers = torch.from_numpy(folded.weights).to(flat.dtype)
        scale = torch.as_tensor(folded.scale, dtype=flat.dtype).reshape(-1, 1)
        rounded = torch.where(scale.isnan(), flat, integers * scale)
        straight = weight + (rounded - flat).view_as(weight)
        z = self._weighted(x, straight * self.span.unit)
        if self.norm is None:
            return z
        norm: Any = self.norm
        config = self.config
        spikes, statistics = normalise_and_fire(
            z,
            norm.weight,
            norm.bias,
            norm.eps,
            neuron_of(config.voltage_decay, config.tau_grad, config.scale_grad),
            pool=self.pool_behind,
            reduce=add_up,
        )
        follow(norm, statistics)
        return spikes

    def _evaluated(self, x: Tensor, folded: FoldedLayer | FoldedReadout) -> Tensor:
        integers = torch.from_numpy(folded.weights).float().view_as(self.synapse.weight)
        z = self._weighted(x, integers)  # whole numbers below 2**24
        if isinstance(folded, FoldedReadout):
            return z
        bias = torch.from_numpy(folded.bias).float()
        z = (z + bias.view(-1, *(1,) * (z.ndim - 3))) / WEIGHT_SCALE
        return self._fired(z, folded.threshold / WEIGHT_SCALE)

    def _weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        """Sums over the squares of a pool, then over the weights."""
        steps, batch, *source = x.shape
        maps = x.reshape(steps * batch, *source)
        if self.layer.pool > 1 and maps.shape[1:] != self.layer.input_shape:
            maps = functional.avg_pool2d(maps, self.layer.pool, divisor_override=1)
        if self.layer.kind == "conv":
            # Kernels that torch 2.3 gets wrong so (`engines.fused.FusedConv`) have no layer here.
            maps = maps.contiguous(memory_format=torch.channels_last)
            z = functional.conv2d(
                maps, weight.squeeze(4), None, self.layer.stride, self.layer.padding
            )
        else:
            z = functional.linear(maps.flatten(1), weight.flatten(1))
        return z.view(steps, batch, *self.layer.output_shape)

    def neuron(self, threshold: float) -> Any:
        """SLAYER's CUBA neurons of this layer, with what the chip compares."""
        config = self.config
        neuron = slayer.neuron.cuba.Neuron(
            threshold=threshold,
            current_decay=1.0,
            voltage_decay=config.voltage_decay,
            tau_grad=config.tau_grad / (threshold * slayer.neuron.cuba.TAU_RHO_MULT),
            scale_grad=config.scale_grad / slayer.neuron.cuba.SCALE_RHO_MULT,
        )
        neuron.threshold_eps = 1 / neuron.s_scale
        return neuron

    def _fired(self, z: Tensor, threshold: float) -> Tensor:
        axes = (1, *range(2, z.ndim), 0)
        spikes = fire(self.neuron(threshold), z.contiguous(), axes)
        return spikes.permute(z.ndim - 1, *range(z.ndim - 1))


class Bias(nn.Module):
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


class SpikingCNN(nn.Module):
    """Normalised layers, and a readout that sums its weighted input.

    Args:
        topology: its layers, at least one before the readout.
        config: of its neurons.
        steps: T.
        input_bits: 0 of spikes; else of signed pixels (`folding.span_of`).
    """

    def __init__(
        self, topology: Topology, config: Convolutional, steps: int, input_bits: int = 0
    ) -> None:
        super().__init__()
        self.topology = topology
        self.register_buffer("input_shape", torch.tensor(topology.input_shape))
        for layer in topology.layers:
            span = span_of(layer.pool, input_bits if layer.source == INPUT else 0)
            self.add_module(layer.name, Normalised(layer, config, span, steps))
        for layer in topology.layers[1:]:
            source: Any = self.get_submodule(layer.source)
            source.pool_behind = layer.pool

    def forward(self, x: Tensor) -> Tensor:
        """The readout's weighted input at each step, (batch, classes, T).

        Args:
            x: (batch, inputs, T) float; see `Normalised.forward` for the result's units.
        """
        for maps in self._each_output(x):
            last = maps
        return last.flatten(2).permute(1, 2, 0)

    def layer_outputs(self, x: Tensor) -> list[Tensor]:
        """What each layer puts out, (batch, neurons, T); of the readout as `forward`."""
        return [maps.flatten(2).permute(1, 2, 0) for maps in self._each_output(x)]

    def _each_output(self, x: Tensor) -> Iterator[Tensor]:
        """What each layer puts out, (T, batch, *output shape), with channels last in memory."""
        batch, _, steps = x.shape
        maps = x.permute(2, 0, 1).reshape(steps, batch, *self.topology.input_shape)
        for block in self._blocks().values():
            maps = block(maps)
            yield maps

    def _blocks(self) -> dict[str, Any]:
        """Layer name -> its block, in order."""
        return {name: self.get_submodule(name) for name in self.topology.names}

    def reference(self, inputs: Bytes, network: Network) -> SpikeReference:
        """Spikes of each layer by stock SLAYER blocks, and the running sum of the readout as v.

        Args:
            inputs: (samples, T, inputs) integers.
            network: the integer network; it has the units that all have.
        """
        layers: dict[str, Ints] = {}
        with torch.no_grad():
            outputs = self._stock_outputs(inputs)
        for name, output in outputs.items():
            found = output.flatten(1, -2).swapaxes(1, 2).double().numpy()
            if name == READOUT:
                found = (found * WEIGHT_SCALE).cumsum(axis=1) * (1 << STATE_SHIFT)
            layers[name] = np.rint(found).astype(np.int64)
        return SpikeReference("SLAYER", layers, self.states)

    def states(self, inputs: Bytes, layer: str) -> tuple[Ints, Ints]:
        """What u and v of a layer are after each step in SLAYER, in units of 2**-6 weights.

        Args:
            inputs: (samples, T, inputs) integers.
            layer: its name.

        Returns:
            Two arrays (samples, T, neurons); v is 0 where the neuron has just fired.
        """
        scale = WEIGHT_SCALE << STATE_SHIFT
        with torch.no_grad():
            outputs = self._stock_outputs(inputs)
            names = list(outputs)
            place = names.index(layer)
            arriving = outputs[names[place - 1]] if place else self._maps(inputs)
            synapse, neuron = self._stock(layer)
            weighted = synapse(self._shaped(arriving, layer))
            if neuron is None:
                sums = np.rint(_by_step(weighted) * scale).astype(np.int64)
                return sums, sums.cumsum(axis=1)
            current, voltage = neuron.dynamics(weighted)
        u, v = (np.rint(_by_step(state) * scale).astype(np.int64) for state in (current, voltage))
        bias = neuron.norm.bias.double().numpy() * scale
        u -= np.rint(np.repeat(bias, u.shape[2] // len(bias))).astype(np.int64)
        return u, np.where(_by_step(outputs[layer]) != 0, 0, v)

    def _maps(self, inputs: Bytes) -> Tensor:
        """(samples, T, inputs) as SLAYER has maps, (samples, channels, rows, columns, T)."""
        samples, steps, _ = inputs.shape
        maps = torch.from_numpy(np.ascontiguousarray(inputs.swapaxes(1, 2))).float()
        return maps.view(samples, *self.topology.input_shape, steps)

    def _stock_outputs(self, inputs: Bytes) -> dict[str, Tensor]:
        maps = self._maps(inputs)
        outputs = {}
        for name in self.topology.names:
            synapse, neuron = self._stock(name)
            weighted = synapse(self._shaped(maps, name))
            maps = weighted if neuron is None else neuron(weighted)
            outputs[name] = maps
        return outputs

    def _shaped(self, maps: Tensor, name: str) -> Tensor:
        """Maps for a kernel; for a fully connected layer without the rows that no pool sees."""
        layer: LayerSpec = self._blocks()[name].layer
        if layer.kind == "conv" or maps.ndim == 3:
            return maps
        rows, columns = (side // layer.pool * layer.pool for side in maps.shape[2:4])
        return maps[:, :, :rows, :columns].flatten(1, 3)

    def _stock(self, name: str) -> tuple[Any, Any]:
        """SLAYER's own synapse and neurons of a layer, with its integers; no neurons to read."""
        block: Normalised = self._blocks()[name]
        layer, folded, p = block.layer, block.folded(), block.layer.pool
        weight = torch.from_numpy(folded.weights).float().view_as(block.synapse.weight)
        weight = weight / WEIGHT_SCALE
        synapse: Any
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
        if isinstance(folded, FoldedReadout):
            return synapse, None
        neuron = block.neuron(folded.threshold / WEIGHT_SCALE)
        synapse.pre_hook_fx = neuron.quantize_8bit
        neuron.norm = Bias(torch.from_numpy(folded.bias).float() / WEIGHT_SCALE)
        return synapse, neuron


def _by_step(values: Tensor) -> Floats:
    """(samples, ..., T) of SLAYER as (samples, T, neurons)."""
    found: Floats = values.flatten(1, -2).swapaxes(1, 2).double().numpy()
    return found
