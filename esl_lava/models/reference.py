"""What a trained model does on samples, as a simulator of its integer network is to do it.

A model that can be verified has one method, `reference(inputs, network)`, of (samples, T,
inputs) spikes and the integer network it lowers to, whose units and grid of steps it answers
in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from esl_lava.arrays import Array, Bytes, Ints


@dataclass(frozen=True, eq=False)
class SpikeReference:
    """Of a model with spikes, which are to be found exactly.

    Attributes:
        name: whose they are.
        layers: layer -> (samples, T, neurons) spikes, or v of neurons that never fire.
        states: (samples, layer) -> u and v after each step, (samples, T, neurons) in units of
            2**-6 weights; v is 0 where a neuron has just fired.
    """

    name: str
    layers: Mapping[str, Ints]
    states: Callable[[Bytes, str], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class TimeReference:
    """Of a model with exact times, which the integer network's steps are to follow.

    Attributes:
        name: whose they are.
        steps: layer -> (samples, neurons) step into which a neuron's time falls, T for none.
    """

    name: str
    steps: Mapping[str, Ints]
