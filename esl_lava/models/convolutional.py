"""Convolutional spiking networks: normalised while they learn, integers while they are judged.

In training a layer convolves with weights rounded to the chip's (straight through), normalises
over batch and time, and fires above 1. When the network is evaluated (`eval()`), a layer is the
integer layer that it lowers to: the range rule (`folding.fold`) of its weights and running
statistics, in integers. docs/convolutions.md derives it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esl_lava.arrays import Bytes, Floats
from esl_lava.chip import DECAY_UNITY, SPIKE_RANGE
from esl_lava.engines.integers import integrate, weighted, weighted_sums
from esl_lava.engines.native import DeviceRows, fire, normalise, reduced_precision
from esl_lava.engines.normalised import follow, neuron_of, normalise_and_fire
from esl_lava.engines.sparse import as_slayer_draws
from esl_lava.engines.sparse_maps import Rounded, weigh
from esl_lava.errors import LimitError
from esl_lava.folding import (
    NO_READOUT,
    NO_THRESHOLD,
    FoldedLayer,
    FoldedReadout,
    HostRows,
    Span,
    Weighing,
    fold,
    fold_readout,
    gain_and_bias,
    span_of,
)
from esl_lava.models.config import Convolutional
from esl_lava.models.mlp import Initial
from esl_lava.models.reference import SpikeReference
from esl_lava.models.stock import IntegerLayer, StockNetwork
from esl_lava.models.stored_convolutional import EPSILON, dense_shape, sum_shifts
from esl_lava.network import Network
from esl_lava.sparsity.ranks import add_up
from esl_lava.sparsity.weights import SparseWeight
from esl_lava.topology import INPUT, READOUT, LayerSpec, Topology

ChannelRows = HostRows | DeviceRows
Folded = FoldedLayer[ChannelRows] | FoldedReadout[ChannelRows]


class NormalisedInput(nn.Module):
    """Weights, and the batch normalisation of what they bring; a readout has none.

    Args:
        layer: whose they are, or the shortcut.
        span: of its input.
        stored: where only connections are stored, what gives them initial weights, of inputs and
            outputs (`sparse.as_slayer_draws`); they begin without any.
    """

    def __init__(self, layer: LayerSpec, span: Span, stored: Initial | None = None) -> None:
        super().__init__()
        self.layer, self.span = layer, span
        self.shape = dense_shape(layer)
        self.synapse: Any = nn.Module()  # as a SLAYER block has it
        if stored is None:
            self.synapse.weight = nn.Parameter(torch.empty(self.shape))
            nn.init.kaiming_uniform_(self.synapse.weight, a=5**0.5)
        else:
            n_post, n_pre = self.shape[0], math.prod(self.shape[1:])
            initial = stored(n_pre, n_post)
            weight = SparseWeight(n_pre, n_post, initial, kernel=layer.weight_shape[2:])
            self.synapse.weight = weight
        self.norm = None if layer.readout else nn.BatchNorm1d(self.shape[0], eps=EPSILON)

    @property
    def stored(self) -> SparseWeight | None:
        """The weight where only its connections are stored."""
        weight = self.synapse.weight
        return weight if isinstance(weight, SparseWeight) else None

    def rows(self) -> ChannelRows:
        """The weights by output channel, in their own memory."""
        if self.stored is not None:
            return HostRows(self.stored.values.detach().numpy(), self.stored.starts.numpy())
        weight = self.synapse.weight.detach()
        if weight.device.type == "cpu":
            return HostRows.of(weight.numpy())
        return DeviceRows(weight.flatten(1))

    def gain_and_bias(self) -> tuple[Floats, Floats]:
        """What the normalisation does with its running statistics."""
        norm: Any = self.norm
        parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        return gain_and_bias((part.detach().cpu().numpy() for part in parts), EPSILON)

    def integers(self, rows: ChannelRows) -> Tensor:
        """Folded rows as a weight for every position, float32."""
        values = torch.as_tensor(rows.values).float()
        if self.stored is None:
            return values.view(self.shape)
        every = torch.zeros(math.prod(self.shape))
        every[self.stored.positions()] = values
        return every.view(self.shape)

    def sums(self, maps: Tensor, rows: ChannelRows, scale: Floats | float) -> Tensor:
        """Sums, in training, of weights rounded to `scale` times an integer, and inputs.

        Gradients pass as if weights had not been rounded.

        Args:
            maps: (T, batch, *shape of the source), or already summed over the squares of a pool.
            rows: folded.
        """
        if self.stored is None:
            weight = self.rounded(rows, scale)
            with contextlib.nullcontext() if self.norm is None else reduced_precision(weight):
                return _by_steps(weighted, maps, weight, self.layer).float()
        layer = self.layer
        if not maps.shape[1]:  # of a rank without samples; the backward pass is to go on
            self.stored.had_no_samples()
            nothing = maps.sum() + 0 * self.stored.values.sum()
            return nothing.expand(len(maps), 0, *layer.output_shape)
        pool = 1 if maps.shape[2:] == layer.input_shape else layer.pool
        scales = np.broadcast_to(np.asarray(scale), (self.shape[0],))
        integers = np.asarray(rows.values).astype(np.int16)
        sliding = {}
        if layer.kind == "conv":
            sliding = {"stride": (layer.stride,) * 2, "padding": (layer.padding,) * 2}
        rounded = Rounded(integers, scales, self.span.unit)
        return weigh(maps.movedim(2, 0), self.stored, rounded, pool=pool, **sliding).movedim(0, 2)

    def rounded(self, rows: ChannelRows, scale: Floats | float) -> Tensor:
        """The trained weight rounded to `scale` times an integer, in units of the input's integers.

        Gradients pass as if it had not been rounded.
        """
        weight = self.synapse.weight
        factors = torch.as_tensor(scale, dtype=weight.dtype).to(weight.device).view(-1, 1, 1, 1, 1)
        value = torch.where(factors.isnan(), weight.detach(), self.integers(rows) * factors)
        return (weight + (value - weight.detach())) * self.span.unit


class SpikingCNN(nn.Module):
    """Normalised layers, and a readout that sums its weighted input.

    Args:
        topology: its layers, at least one before the readout.
        config: of its neurons.
        steps: T.
        input_range: the least and the largest value of an input (`folding.span_of`).
        sparse_layers: names of layers and shortcuts of which only connections are stored.
        initial: what gives these their weights, of inputs and outputs.

    Attributes:
        native: whether training passes are plain torch's (`engines/native.py`) on a CPU too; on
            other devices they always are.
    """

    def __init__(
        self,
        topology: Topology,
        config: Convolutional,
        steps: int,
        input_range: tuple[int, int] = SPIKE_RANGE,
        sparse_layers: Collection[str] = (),
        initial: Initial = as_slayer_draws,
    ) -> None:
        super().__init__()
        self.topology, self.config, self.steps = topology, config, steps
        self.native = False
        self.register_buffer("input_shape", torch.tensor(topology.input_shape))
        for part in topology.weighted:
            span = span_of(part.pool, input_range if part.source == INPUT else SPIKE_RANGE)
            stored = initial if part.name in sparse_layers else None
            self.add_module(part.name, NormalisedInput(part, span, stored))
        # All that takes a layer's spikes first sums them over squares of one side.
        self._pools = {layer.source: layer.pool for layer in topology.layers}

    def forward(self, x: Tensor) -> Tensor:
        """The readout's weighted input at each step, (batch, classes, T).

        In training in the units of its weights, in evaluation an integer.

        Args:
            x: (batch, inputs, T) float32; of a stride of 0 over T where all steps are alike.
        """
        return _by_channel(self._maps_of_layers(x)[READOUT])

    def layer_outputs(self, x: Tensor) -> list[Tensor]:
        """What each layer puts out, (batch, neurons, T); of the readout as `forward`.

        In training a layer may put out sums of its spikes, where a pool follows.
        """
        return [_by_channel(maps) for maps in self._maps_of_layers(x).values()]

    def _maps_of_layers(self, x: Tensor) -> dict[str, Tensor]:
        """Layer name -> what it puts out, (T, batch, *output shape), pooled where it pools."""
        steps = x if x.stride(2) else x[..., :1]  # what is always alike is weighted once
        maps = steps.permute(2, 0, 1).reshape(steps.shape[2], len(x), *self.topology.input_shape)
        outputs = {INPUT: maps}
        run = self._trained if self.training else self._evaluated
        for layer in self.topology.layers:
            outputs[layer.name] = run(layer, outputs, x.shape[2])
        del outputs[INPUT]
        return outputs

    def folded(self, layer: LayerSpec) -> Folded:
        """The integers of a layer, by its weights and running statistics now.

        Raises:
            LimitError: naming the layer, where the range rule finds none.
        """
        parts = self._parts(layer)
        found: Folded | None
        if layer.readout:
            found = fold_readout(parts[0].rows(), parts[0].span, self.steps)
        else:
            gains, shifts = zip(*(part.gain_and_bias() for part in parts))
            found = fold(
                [Weighing(part.rows(), gain, part.span) for part, gain in zip(parts, gains)],
                sum_shifts(shifts),
                self.config.held_decay,
                identity=bool(layer.identity),
                per_channel=self.config.thresholds == "channel",
            )
        if found is None:
            why = NO_READOUT if layer.readout else NO_THRESHOLD
            raise LimitError([f"layer {layer.name}: {why}"])
        return found

    def _parts(self, layer: LayerSpec) -> list[NormalisedInput]:
        """What weighs a layer's inputs: its own weights, and those of its shortcut."""
        named: Any = (layer.name, *([layer.shortcut.name] if layer.shortcut else []))
        return [self.get_submodule(name) for name in named]  # type: ignore[misc]

    def _trained(self, layer: LayerSpec, outputs: dict[str, Tensor], steps: int) -> Tensor:
        folded = self.folded(layer)
        if isinstance(folded, FoldedReadout):
            (part,) = self._parts(layer)
            return part.sums(outputs[layer.source], folded.rows, folded.scale)
        config = self.config
        neuron = neuron_of(config.held_decay, config.tau_grad, config.scale_grad)
        parts = self._parts(layer)
        sums = [
            part.sums(outputs[part.layer.source], rows, scale)
            for part, rows, scale in zip(parts, folded.rows, folded.scales)
        ]
        alone = len(parts) == 1 and not layer.identity
        if alone and not self.native and self.input_shape.device.type == "cpu":
            norm: Any = parts[0].norm
            spikes, found = normalise_and_fire(
                sums[0],
                norm.weight,
                norm.bias,
                norm.eps,
                neuron,
                steps=steps,
                # What lies by channels is pooled where it is taken.
                pool=1 if parts[0].stored is not None else self._pools.get(layer.name, 1),
                reduce=add_up,
            )
            follow(norm, found)
            return spikes
        total: Any = sum(normalise(z, part.norm) for part, z in zip(parts, sums))
        if layer.identity:
            total = total + outputs[layer.identity]
        return fire(total.expand(steps, *total.shape[1:]), neuron)

    def _evaluated(self, layer: LayerSpec, outputs: dict[str, Tensor], steps: int) -> Tensor:
        folded = self.folded(layer)
        parts = self._parts(layer)
        rows = (folded.rows,) if isinstance(folded, FoldedReadout) else folded.rows
        total: Any = sum(
            _by_steps(weighted_sums, outputs[part.layer.source], part.integers(one), part.layer)
            for part, one in zip(parts, rows)
        )
        if isinstance(folded, FoldedReadout):
            return total
        threshold = torch.as_tensor(folded.threshold).to(total.device)
        shape = (-1, *(1,) * (total.ndim - 3))
        if layer.identity:
            total += outputs[layer.identity] * threshold.view(shape)
        total += torch.from_numpy(folded.bias).to(total.device).view(shape)
        decay = round(self.config.voltage_decay * DECAY_UNITY)
        return integrate(total.expand(steps, *total.shape[1:]), threshold, decay)

    def reference(self, inputs: Bytes, network: Network) -> SpikeReference:
        """What stock SLAYER's blocks of the same integers do (`stock.StockNetwork`).

        Args:
            inputs: (samples, T, inputs) integers.
            network: the integer network; it has the units that all have.
        """
        stock = StockNetwork(
            self.topology,
            self.config.voltage_decay,
            {layer.name: self._integer_layer(layer) for layer in self.topology.layers},
        )
        return SpikeReference("SLAYER", stock.layers(inputs), stock.states)

    def _integer_layer(self, layer: LayerSpec) -> IntegerLayer:
        folded = self.folded(layer)
        parts = self._parts(layer)
        if isinstance(folded, FoldedReadout):
            return IntegerLayer([parts[0].integers(folded.rows)])
        weights = [part.integers(rows) for part, rows in zip(parts, folded.rows)]
        return IntegerLayer(weights, folded.bias, np.atleast_1d(folded.threshold))


def _by_steps(operation: Any, maps: Tensor, weight: Tensor, layer: LayerSpec) -> Tensor:
    """An operation on (n, ...) of (T, batch, ...)."""
    found: Tensor = operation(maps.flatten(0, 1), weight, layer)
    return found.view(*maps.shape[:2], *found.shape[1:])


def _by_channel(maps: Tensor) -> Tensor:
    """(T, batch, ...) as (batch, neurons, T)."""
    return maps.flatten(2).permute(1, 2, 0)
