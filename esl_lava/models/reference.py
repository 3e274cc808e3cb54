"""The reference results of a trained model, which a simulator of its integer network must match.

A model that can be verified has a method `reference(inputs, network)`. `inputs` are spikes or
pixels (samples, T, inputs). `network` is the integer network that the export makes from the model.
The results are in the units and on the time grid of that network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from esl_lava.arrays import Array, Bytes, Ints


@dataclass(frozen=True, eq=False)
class SpikeReference:
    """The spikes of a model, which a simulator must find exactly.

    Attributes:
        name: the name of the program that computed them.
        layers: layer name -> (samples, T, neurons) spikes, or v of neurons that never fire.
        states: (inputs, layer name) -> u and v after each step, (samples, T, neurons) in units of
            1/64 integer weight; v is 0 where a neuron has just fired.
    """

    name: str
    layers: Mapping[str, Ints]
    states: Callable[[Bytes, str], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class TimeReference:
    """The firing steps of a model with exact spike times, which the integer network approximates.

    Attributes:
        name: the name of the program that computed the times.
        steps: layer name -> (samples, neurons) step into which a neuron's firing time falls; T if
            the neuron does not fire.
    """

    name: str
    steps: Mapping[str, Ints]
