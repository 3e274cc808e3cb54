"""Fully connected spiking networks of SLAYER blocks (lava-dl 0.6.0), or of sparse ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import torch
from torch import nn

from esl_lava.engines import sparse
from esl_lava.engines.slayer import slayer
from esl_lava.sparsity.evolver import weight_layers
from esl_lava.topology import LayerSpec, Topology

Initial = Callable[[int, int], Callable[[torch.Tensor], torch.Tensor]]
"""(n_pre, n_post) -> weights to begin with, by flat position."""


class SpikingMLP(nn.Module):
    """CUBA layers `hidden1`, `hidden2`, ... and a non-spiking `readout`.

    Hidden neurons follow Eq. 7-9 of ESL-SNNs: with `current_decay` 1 the synaptic
    current does not outlive its step, `voltage_decay` 0.5 is tau = 0.5, the reset is
    hard. Weights are rounded to 8 bits (even integers / 64) in every forward pass, so
    that the trained function is the exported one.

    Two settings make SLAYER compute what Lava and Loihi compute: `delay_shift=False`
    (otherwise each block swallows a step of the sample) and `threshold_eps =
    1 / s_scale` (SLAYER compares >=, the chip >, one state unit apart).

    Args:
        topology: its layers, at least one hidden.
        current_decay, voltage_decay: fraction lost per step, 0..1.
        threshold: firing threshold; weights are in the same unit.
        tau_grad, scale_grad: the surrogate gradient of a spike by its potential v is
            scale_grad / (2 tau_grad) * exp(-|v - threshold| / tau_grad).
        sparse_layers: names of layers of which only connections are stored
            (`engines/sparse.SparseDense`); they begin without any.
        initial: what gives these their weights.

    Raises:
        ValueError: for a sparse layer that there is not.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        current_decay: float = 1.0,
        voltage_decay: float = 0.5,
        threshold: float = 1.0,
        tau_grad: float = 0.5,
        scale_grad: float = 1.0,
        sparse_layers: Collection[str] = (),
        initial: Initial = sparse.as_slayer_draws,
    ) -> None:
        super().__init__()
        neuron: dict[str, float] = {
            "threshold": threshold,
            "current_decay": current_decay,
            "voltage_decay": voltage_decay,
            # SLAYER takes its two in other units: "tau_grad=1" is a width of 100 thresholds.
            "tau_grad": tau_grad / (threshold * slayer.neuron.cuba.TAU_RHO_MULT),
            "scale_grad": scale_grad / slayer.neuron.cuba.SCALE_RHO_MULT,
        }
        self.topology = topology
        self.hidden_names = topology.hidden_names
        if unknown := sorted(set(sparse_layers) - set(topology.names)):
            raise ValueError(
                f"sparse layers {', '.join(unknown)}: there are {', '.join(topology.names)}"
            )
        for layer in topology.layers:
            stored = initial if layer.name in sparse_layers else None
            # A copy of the parameters each: some blocks write into theirs.
            self.add_module(layer.name, BLOCKS[layer.kind](layer, dict(neuron), stored))

    def hidden_blocks(self) -> list[nn.Module]:
        """The spiking blocks in order."""
        return [self.get_submodule(name) for name in self.hidden_names]

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """O(t), the readout's weighted input at each step.

        Args:
            spikes: (batch, inputs, T) float, 0 or 1.

        Returns:
            (batch, classes, T) float; multiples of 1/64.
        """
        return self.layer_outputs(spikes)[-1]

    def layer_outputs(self, spikes: torch.Tensor) -> list[torch.Tensor]:
        """Spikes of each hidden layer (batch, neurons, T), then O(t) as `forward`."""
        outputs = []
        for block in self.hidden_blocks():
            spikes = block(spikes)
            outputs.append(spikes)
        outputs.append(self.readout(spikes))
        return outputs


def _dense(layer: LayerSpec, neuron: dict[str, float], stored: Initial | None) -> nn.Module:
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


BLOCKS: Mapping[str, Callable[[LayerSpec, dict[str, float], Initial | None], nn.Module]] = (
    MappingProxyType({"dense": _dense})
)
"""(layer, parameters of its neurons, what gives weights of which only connections are stored)
-> block, by the layer's kind."""


def scale_initial_weights(model: nn.Module, factors: dict[str, float]) -> None:
    """Multiply the named layers' weights, e.g. by 1/sqrt(density) for a thinned fan-in.

    Args:
        model: any network; its weights are changed in place.
        factors: layer name -> factor.
    """
    weights = weight_layers(model)
    with torch.no_grad():
        for name, factor in factors.items():
            weights[name].mul_(factor)
