"""Convolutional spiking networks: batch normalisation in training, integers in evaluation.

In training a layer convolves with weights rounded to the chip's grid (straight-through gradient),
normalises over batch and time, and fires above 1. In evaluation (`eval()`) a layer computes the
integer layer that the export makes from it: the range rule (`folding.fold`) turns its weights and
running statistics into integers. docs/convolutions.md derives the rule.
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
from esl_lava.engines.normalised import make_neuron, normalise_and_fire, update_running_statistics
from esl_lava.engines.sparse import draw_like_slayer
from esl_lava.engines.sparse_maps import RoundedWeights, weigh
from esl_lava.errors import LimitError
from esl_lava.folding import (
    NO_READOUT,
    NO_THRESHOLD,
    FoldedLayer,
    FoldedReadout,
    HostRows,
    Span,
    WeightedInput,
    compute_span,
    fold,
    fold_readout,
    gain_and_bias,
)
from esl_lava.models.config import Convolutional
from esl_lava.models.mlp import InitialWeights
from esl_lava.models.reference import SpikeReference
from esl_lava.models.stock import IntegerLayer, StockNetwork
from esl_lava.models.stored_convolutional import EPSILON, dense_shape, sum_shifts
from esl_lava.network import Network
from esl_lava.sparsity.ranks import sum_over_ranks
from esl_lava.sparsity.weights import SparseWeight
from esl_lava.topology import INPUT, READOUT, LayerSpec, Topology

ChannelRows = HostRows | DeviceRows
Folded = FoldedLayer[ChannelRows] | FoldedReadout[ChannelRows]


class NormalisedInput(nn.Module):
    """The weights of a layer or shortcut, and the batch normalisation of its weighted input.

    A readout has no normalisation.

    Args:
        layer: the layer or shortcut.
        span: the values that its input can have.
        stored: None for dense weights. Else only connections are stored, and this function of
            (inputs, outputs) gives their initial weights (`sparse.draw_like_slayer`). The layer
            begins without connections.
    """

    def __init__(self, layer: LayerSpec, span: Span, stored: InitialWeights | None = None) -> None:
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
        """The weight if it stores only its connections, else None."""
        weight = self.synapse.weight
        return weight if isinstance(weight, SparseWeight) else None

    def rows(self) -> ChannelRows:
        """Return the weights by output channel. They share the parameter's memory."""
        if self.stored is not None:
            return HostRows(self.stored.values.detach().numpy(), self.stored.starts.numpy())
        weight = self.synapse.weight.detach()
        if weight.device.type == "cpu":
            return HostRows.of(weight.numpy())
        return DeviceRows(weight.flatten(1))

    def gain_and_bias(self) -> tuple[Floats, Floats]:
        """Return gain and bias, (channels,) each, of the normalisation by running statistics."""
        norm: Any = self.norm
        parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        return gain_and_bias((part.detach().cpu().numpy() for part in parts), EPSILON)

    def expand_integers(self, rows: ChannelRows) -> Tensor:
        """Return folded rows as a dense weight, float32, 0 where there is no connection."""
        values = torch.as_tensor(rows.values).float()
        if self.stored is None:
            return values.view(self.shape)
        dense = torch.zeros(math.prod(self.shape))
        dense[self.stored.positions()] = values
        return dense.view(self.shape)

    def compute_sums(self, maps: Tensor, rows: ChannelRows, scale: Floats | float) -> Tensor:
        """Compute the weighted input in training, by weights rounded to `scale` times integers.

        Gradients pass as if the weights had not been rounded.

        Args:
            maps: (T, batch, *shape of the source), or already summed over the squares of a pool.
            rows: the folded rows.
            scale: as in `folding.FoldedLayer.scales`; where NaN, weights are not rounded.

        Returns:
            (T, batch, *shape of the layer's output) float32.
        """
        if self.stored is None:
            weight = self.round_weight(rows, scale)
            with contextlib.nullcontext() if self.norm is None else reduced_precision(weight):
                return _by_steps(weighted, maps, weight, self.layer).float()
        layer = self.layer
        if not maps.shape[1]:  # a rank without samples still takes part in the backward pass
            self.stored.zero_dense_gradient()
            zero = maps.sum() + 0 * self.stored.values.sum()
            return zero.expand(len(maps), 0, *layer.output_shape)
        pool = 1 if maps.shape[2:] == layer.input_shape else layer.pool
        scales = np.broadcast_to(np.asarray(scale), (self.shape[0],))
        integers = np.asarray(rows.values).astype(np.int16)
        sliding = {}
        if layer.kind == "conv":
            sliding = {"stride": (layer.stride,) * 2, "padding": (layer.padding,) * 2}
        rounded = RoundedWeights(integers, scales, self.span.unit)
        return weigh(maps.movedim(2, 0), self.stored, rounded, pool=pool, **sliding).movedim(0, 2)

    def round_weight(self, rows: ChannelRows, scale: Floats | float) -> Tensor:
        """Round the weight to `scale` times integers, in units of the input's integers.

        Gradients pass as if it had not been rounded. A channel whose scale is NaN stays unrounded.
        """
        weight = self.synapse.weight
        factors = torch.as_tensor(scale, dtype=weight.dtype).to(weight.device).view(-1, 1, 1, 1, 1)
        value = torch.where(factors.isnan(), weight.detach(), self.expand_integers(rows) * factors)
        return (weight + (value - weight.detach())) * self.span.unit


class SpikingCNN(nn.Module):
    """A network of normalised layers, and a readout that never fires and gives its weighted input.

    Args:
        topology: the layers, at least one before the readout.
        config: the parameters of the neurons.
        steps: T, the number of steps of a sample.
        input_range: the least and the largest value of an input (`folding.compute_span`).
        sparse_layers: names of the layers and shortcuts that store only their connections.
        initial: returns the function that gives these their initial weights.

    Attributes:
        native: whether a CPU too uses the forward and backward passes of plain torch
            (`engines/native.py`). Other devices always use them.
    """

    def __init__(
        self,
        topology: Topology,
        config: Convolutional,
        steps: int,
        input_range: tuple[int, int] = SPIKE_RANGE,
        sparse_layers: Collection[str] = (),
        initial: InitialWeights = draw_like_slayer,
    ) -> None:
        super().__init__()
        self.topology, self.config, self.steps = topology, config, steps
        self.native = False
        self.register_buffer("input_shape", torch.tensor(topology.input_shape))
        for part in topology.weighted:
            span = compute_span(part.pool, input_range if part.source == INPUT else SPIKE_RANGE)
            stored = initial if part.name in sparse_layers else None
            self.add_module(part.name, NormalisedInput(part, span, stored))
        # All layers that a layer feeds pool its spikes over squares of the same side.
        self._pools = {layer.source: layer.pool for layer in topology.layers}

    def forward(self, x: Tensor) -> Tensor:
        """Return the readout's weighted input at each step, (batch, classes, T).

        In training it is in the units of the weights, in evaluation it is an integer.

        Args:
            x: (batch, inputs, T) float32. If its stride over T is 0, all steps are equal, and the
                first layer computes its weighted input once.
        """
        return _by_channel(self._maps_of_layers(x)[READOUT])

    def layer_outputs(self, x: Tensor) -> list[Tensor]:
        """Return the output of each layer, (batch, neurons, T); the readout's is as `forward`.

        In training the output of a layer before a pool may be the sums of its spikes.
        """
        return [_by_channel(maps) for maps in self._maps_of_layers(x).values()]

    def _maps_of_layers(self, x: Tensor) -> dict[str, Tensor]:
        """Return the outputs by layer name, (T, batch, *output shape), or their pooled sums."""
        steps = x if x.stride(2) else x[..., :1]  # equal steps are weighted once
        maps = steps.permute(2, 0, 1).reshape(steps.shape[2], len(x), *self.topology.input_shape)
        outputs = {INPUT: maps}
        run = self._train_layer if self.training else self._evaluate_layer
        for layer in self.topology.layers:
            outputs[layer.name] = run(layer, outputs, x.shape[2])
        del outputs[INPUT]
        return outputs

    def fold_layer(self, layer: LayerSpec) -> Folded:
        """Compute the integers of a layer from its present weights and running statistics.

        Raises:
            LimitError: if the range rule finds no integers within the chip's ranges.
        """
        parts = self._parts(layer)
        folded: Folded | None
        if layer.readout:
            folded = fold_readout(parts[0].rows(), parts[0].span, self.steps)
        else:
            gains, shifts = zip(*(part.gain_and_bias() for part in parts))
            folded = fold(
                [WeightedInput(part.rows(), gain, part.span) for part, gain in zip(parts, gains)],
                sum_shifts(shifts),
                self.config.chip_decay,
                identity=bool(layer.identity),
                per_channel=self.config.thresholds == "channel",
            )
        if folded is None:
            reason = NO_READOUT if layer.readout else NO_THRESHOLD
            raise LimitError(f"layer {layer.name}: {reason}", "limit", layer=layer.name)
        return folded

    def _parts(self, layer: LayerSpec) -> list[NormalisedInput]:
        """Return the modules that weigh a layer's inputs: its own, and that of its shortcut."""
        names: Any = (layer.name, *([layer.shortcut.name] if layer.shortcut else []))
        return [self.get_submodule(name) for name in names]  # type: ignore[misc]

    def _train_layer(self, layer: LayerSpec, outputs: dict[str, Tensor], steps: int) -> Tensor:
        """Compute the output of a layer in training, and update its running statistics."""
        folded = self.fold_layer(layer)
        if isinstance(folded, FoldedReadout):
            (part,) = self._parts(layer)
            return part.compute_sums(outputs[layer.source], folded.rows, folded.scale)
        config = self.config
        neuron = make_neuron(config.chip_decay, config.tau_grad, config.scale_grad)
        parts = self._parts(layer)
        sums = [
            part.compute_sums(outputs[part.layer.source], rows, scale)
            for part, rows, scale in zip(parts, folded.rows, folded.scales)
        ]
        has_one_input = len(parts) == 1 and not layer.identity
        if has_one_input and not self.native and self.input_shape.device.type == "cpu":
            norm: Any = parts[0].norm
            spikes, statistics = normalise_and_fire(
                sums[0],
                norm.weight,
                norm.bias,
                norm.eps,
                neuron,
                steps=steps,
                # The sums of stored connections lie channel by channel; the next layer pools them.
                pool=1 if parts[0].stored is not None else self._pools.get(layer.name, 1),
                reduce=sum_over_ranks,
            )
            update_running_statistics(norm, statistics)
            return spikes
        total: Any = sum(normalise(z, part.norm) for part, z in zip(parts, sums))
        if layer.identity:
            total = total + outputs[layer.identity]
        return fire(total.expand(steps, *total.shape[1:]), neuron)

    def _evaluate_layer(self, layer: LayerSpec, outputs: dict[str, Tensor], steps: int) -> Tensor:
        """Compute the output of a layer in evaluation, with its folded integers."""
        folded = self.fold_layer(layer)
        parts = self._parts(layer)
        rows = (folded.rows,) if isinstance(folded, FoldedReadout) else folded.rows
        total: Any = sum(
            _by_steps(
                weighted_sums,
                outputs[part.layer.source],
                part.expand_integers(part_rows),
                part.layer,
            )
            for part, part_rows in zip(parts, rows)
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
        """Return what stock SLAYER computes with the same integers (`stock.StockNetwork`).

        Args:
            inputs: (samples, T, inputs) integers.
            network: the integer network; not read, because all networks have the same units.
        """
        stock = StockNetwork(
            self.topology,
            self.config.voltage_decay,
            {layer.name: self._integer_layer(layer) for layer in self.topology.layers},
        )
        return SpikeReference("SLAYER", stock.layers(inputs), stock.states)

    def _integer_layer(self, layer: LayerSpec) -> IntegerLayer:
        folded = self.fold_layer(layer)
        parts = self._parts(layer)
        if isinstance(folded, FoldedReadout):
            return IntegerLayer([parts[0].expand_integers(folded.rows)])
        weights = [part.expand_integers(rows) for part, rows in zip(parts, folded.rows)]
        return IntegerLayer(weights, folded.bias, np.atleast_1d(folded.threshold))


def _by_steps(operation: Any, maps: Tensor, weight: Tensor, layer: LayerSpec) -> Tensor:
    """Apply an operation on maps (n, ...) to maps (T, batch, ...)."""
    outputs: Tensor = operation(maps.flatten(0, 1), weight, layer)
    return outputs.view(*maps.shape[:2], *outputs.shape[1:])


def _by_channel(maps: Tensor) -> Tensor:
    """Turn maps (T, batch, ...) into (batch, neurons, T)."""
    return maps.flatten(2).permute(1, 2, 0)
