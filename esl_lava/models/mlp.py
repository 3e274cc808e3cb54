"""Fully connected spiking networks of SLAYER blocks (lava-dl 0.6.0) or of our sparse blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import takewhile
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from esl_lava.arrays import Bytes, Floats, Ints
from esl_lava.chip import STATE_SHIFT, WEIGHT_SCALE
from esl_lava.engines import sparse
from esl_lava.engines.slayer import slayer
from esl_lava.models.config import MultiSpike
from esl_lava.models.reference import SpikeReference
from esl_lava.network import Network
from esl_lava.sparsity.evolver import weight_layers
from esl_lava.topology import READOUT, LayerSpec, Topology

InitialWeights = Callable[[int, int], Callable[[torch.Tensor], torch.Tensor]]
"""(n_pre, n_post) -> function from flat positions to the initial weights there."""


class SpikingMLP(nn.Module):
    """A network of CUBA layers `hidden1`, `hidden2`, ... and a `readout` that does not spike.

    Hidden neurons follow Eq. 7-9 of ESL-SNNs. With `current_decay` 1 the synaptic current
    lasts one step. tau of Eq. 7 is 1 - `voltage_decay`. The reset is hard. Every forward pass
    rounds the weights to 8 bits (even integers / 64), so that training and export compute the
    same function.

    The blocks have two settings, so that they compute as Lava and Loihi: `delay_shift=False`
    (otherwise each block loses one step of the sample) and `threshold_eps = 1 / s_scale`
    (SLAYER compares with >=, the chip with >; the difference is one unit of the state).

    Args:
        topology: the layers, at least one of them hidden.
        config: the parameters of the neurons.
        sparse_layers: names of the layers that store only their connections
            (`engines/sparse.SparseDense`). They begin without connections.
        initial: returns the function that gives these layers their initial weights.

    Raises:
        ValueError: if the topology lacks one of `sparse_layers`.
    """

    def __init__(
        self,
        topology: Topology,
        config: MultiSpike,
        sparse_layers: Collection[str] = (),
        initial: InitialWeights = sparse.draw_like_slayer,
    ) -> None:
        super().__init__()
        neuron: dict[str, float] = {
            "threshold": config.threshold,
            "current_decay": config.current_decay,
            "voltage_decay": config.voltage_decay,
            # SLAYER has other units for these two: its tau_grad of 1 is a width of 100 thresholds.
            "tau_grad": config.tau_grad / (config.threshold * slayer.neuron.cuba.TAU_RHO_MULT),
            "scale_grad": config.scale_grad / slayer.neuron.cuba.SCALE_RHO_MULT,
        }
        self.topology = topology
        if unknown := sorted(set(sparse_layers) - set(topology.names)):
            raise ValueError(
                f"sparse_layers: unknown layers {', '.join(unknown)}; the network has "
                f"{', '.join(topology.names)}"
            )
        for layer in topology.layers:
            stored = initial if layer.name in sparse_layers else None
            # Each block gets a copy of the parameters, because some blocks write into them.
            self.add_module(layer.name, BLOCKS[layer.kind](layer, dict(neuron), stored))

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return O(t), the weighted input of the readout at each step.

        Args:
            spikes: (batch, inputs, T) float: spikes 0 or 1, or pixels as whole numbers.

        Returns:
            (batch, classes, T) float; multiples of 1/64.
        """
        return self.layer_outputs(spikes)[-1]

    def layer_outputs(self, spikes: torch.Tensor) -> list[torch.Tensor]:
        """Return the spikes of each hidden layer (batch, neurons, T), then O(t) as `forward`."""
        outputs = []
        for block in self._blocks().values():
            spikes = block(spikes)
            outputs.append(spikes)
        return outputs

    def _blocks(self) -> dict[str, Any]:
        """Return the blocks by layer name, in order."""
        return {name: self.get_submodule(name) for name in self.topology.names}

    def reference(self, inputs: Bytes, network: Network) -> SpikeReference:
        """Return SLAYER's spikes of each hidden layer, and the running sum of the readout as v.

        Args:
            inputs: (samples, T, inputs) spikes or pixels.
            network: the integer network; not read, because all networks have the same units.
        """
        with torch.no_grad():
            outputs = dict(zip(self._blocks(), self.layer_outputs(_by_channel(inputs))))
        layers = {
            name: _by_step(output).astype(np.int64)
            if name != READOUT
            else _running_sum(_by_step(output))
            for name, output in outputs.items()
        }
        return SpikeReference("SLAYER", layers, self.states)

    def states(self, inputs: Bytes, layer: str) -> tuple[Ints, Ints]:
        """Return SLAYER's u and v of a layer after each step, in units of 1/64 integer weight.

        Args:
            inputs: (samples, T, inputs) spikes or pixels.
            layer: name of the layer.

        Returns:
            Two arrays (samples, T, neurons); v is 0 where the neuron has just fired.
        """
        block = self._blocks()[layer]
        with torch.no_grad():
            arriving = _by_channel(inputs)
            for before in takewhile(lambda before: before is not block, self._blocks().values()):
                arriving = before(arriving)
            output = _by_step(block(arriving))
            if layer == READOUT:  # it keeps no current from step to step
                weighted = (output * WEIGHT_SCALE).astype(np.int64) << STATE_SHIFT
                return weighted, _running_sum(output)
            current, voltage = block.neuron.dynamics(block.synapse(arriving))
        scale = WEIGHT_SCALE << STATE_SHIFT
        u, v = (np.rint(_by_step(state) * scale).astype(np.int64) for state in (current, voltage))
        return u, np.where(output != 0, 0, v)


def _by_channel(spikes: Bytes) -> torch.Tensor:
    """Turn spikes (samples, T, n) into SLAYER's order of axes, (samples, n, T) float."""
    return torch.from_numpy(np.ascontiguousarray(spikes.swapaxes(1, 2))).float()


def _by_step(values: torch.Tensor) -> Floats:
    """Turn values of SLAYER (samples, n, T) into (samples, T, n) float64."""
    by_step: Floats = values.swapaxes(1, 2).double().numpy()
    return by_step


def _running_sum(readout: Floats) -> Ints:
    """Return v of the readout after each step, from its weighted input (samples, T, classes)."""
    weighted = readout * WEIGHT_SCALE  # whole numbers: weights are multiples of 1/64
    return weighted.cumsum(axis=1).astype(np.int64) << STATE_SHIFT


def _dense(layer: LayerSpec, neuron: dict[str, float], stored: InitialWeights | None) -> nn.Module:
    n_post, n_pre = layer.weight_shape
    spiking = not layer.readout
    if stored is not None:
        weights = stored(n_pre, n_post)
        block = sparse.SparseDense(neuron, n_pre, n_post, spiking=spiking, initial=weights)
    elif spiking:
        block = slayer.block.cuba.Dense(neuron, n_pre, n_post, delay_shift=False)
    else:
        block = slayer.block.cuba.Affine(neuron, n_pre, n_post, dynamics=False)
    if spiking:
        block.neuron.threshold_eps = 1 / block.neuron.s_scale
    return block


BLOCKS: Mapping[str, Callable[[LayerSpec, dict[str, float], InitialWeights | None], nn.Module]] = (
    MappingProxyType({"dense": _dense})
)
"""Kind of layer -> function that builds its block. Its arguments are the layer, the parameters of
its neurons, and the initial weights if the layer stores only its connections (else None)."""


def scale_initial_weights(model: nn.Module, factors: dict[str, float]) -> None:
    """Multiply the weights of each named layer by its factor, in place.

    A factor of 1/sqrt(density), for example, makes up for a smaller fan-in.
    """
    weights = weight_layers(model)
    with torch.no_grad():
        for name, factor in factors.items():
            weights[name].mul_(factor)
