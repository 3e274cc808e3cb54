"""The integer network: what a chip executes, and nothing of torch, Lava or HDF5.

Export makes it from a trained model, `netfile` stores it, and every simulator,
counter and report reads it. All quantities are integers as on Loihi. One step of a
layer (lava-nc 0.10.0, `lava/proc/lif/models.py`, PyLifModelBitAcc), with
`trunc(x) = sign(x) * (abs(x) >> 12)`:

    a = sum of weight * input over its synapses: the feed-forward ones (late by the
        neuron's delay), those of skips, and the recurrent ones with the spikes of the
        layer's own previous step
    u = trunc(u * (4096 - current_decay)) + (a << 6)      wrapped to 24 bits
    v = trunc(v * (4096 - voltage_decay)) + u + ((bias + injected) << 6)
                                                          clipped to +-(2**23 - 1)
    s = v > (threshold << 6);   v = 0 where s, and in the `refractory` steps that follow

Sums are 32-bit and wrap; what one convolution brings wraps to 24 bits first. A sample
starts from rest: u = v = 0 and nothing under way. Neurons of feature maps are
counted (channel, row, column) in C order, wherever a layer is flat.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from esl_lava.chip import DECAY_UNITY, MAX_DELAY, MAX_REFRACTORY, NEVER
from esl_lava.connections import Connections, Convolution, Injection, IntArray, frozen
from esl_lava.topology import INPUT

__all__ = [
    "INPUT",
    "INTEGRATOR",
    "Connections",
    "Convolution",
    "Cuba",
    "End",
    "Injection",
    "Layer",
    "Network",
    "Skip",
    "ends",
    "parts",
]


@dataclass(frozen=True, eq=False)
class Cuba:
    """Current-based leaky integrate-and-fire neurons.

    A parameter is an integer, shared in the layer, or (n,) integers: one for each neuron
    or, where the layer has feature maps, for each channel.

    Attributes:
        current_decay, voltage_decay: 0..4096, fraction lost per step times 4096.
        threshold: 1..NEVER; the neuron fires when v > threshold << 6.
        refractory: 0..MAX_REFRACTORY, steps after a spike in which v stays 0 while u goes
            on; the same for all neurons. (Loihi 1 counts to 63; Lava's fixed-point neuron
            has none.)

    Raises:
        ValueError, TypeError: when a parameter is out of range, or no integer.
    """

    current_decay: int | IntArray
    voltage_decay: int | IntArray
    threshold: int | IntArray
    refractory: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "refractory", operator.index(self.refractory))
        if not 0 <= self.refractory <= MAX_REFRACTORY:
            raise ValueError(f"refractory {self.refractory} is outside 0..{MAX_REFRACTORY}")
        limits = {"current_decay": (0, DECAY_UNITY), "voltage_decay": (0, DECAY_UNITY)}
        for name, (low, high) in {**limits, "threshold": (1, NEVER)}.items():
            value = getattr(self, name)
            if np.ndim(value) == 0:
                value = operator.index(value)
            else:
                value = frozen(value, np.int32)
                if value.ndim != 1 or value.size == 0:
                    raise ValueError(f"{name} of shape {value.shape} is not a list of values")
            object.__setattr__(self, name, value)
            outside = np.ravel(value)[(np.ravel(value) < low) | (np.ravel(value) > high)]
            if outside.size:
                raise ValueError(f"{name} {outside[0]} is outside {low}..{high}")

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.current_decay, self.voltage_decay, self.threshold)
        return Cuba, (*parts, self.refractory)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cuba) and all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(self.__reduce__()[1], other.__reduce__()[1])
        )

    @property
    def fires(self) -> bool:
        """Whether any membrane potential can exceed its threshold."""
        return bool(np.min(self.threshold) < NEVER)

    def fires_once(self, steps: int) -> bool:
        """Whether the pause after a spike lasts to the end of any sample of so many steps."""
        return self.refractory >= max(1, steps - 1)


INTEGRATOR = Cuba(current_decay=DECAY_UNITY, voltage_decay=0, threshold=NEVER)
"""The readout: v holds the running sum of the weighted input and never fires."""


@dataclass(frozen=True, eq=False)
class Skip:
    """A further input of a layer, from earlier than the layer before it.

    Attributes:
        source: name of an earlier layer, or `INPUT`; its spikes of the same step.
        connections: as many outputs as the layer has neurons.
    """

    source: str
    connections: Connections | Convolution


@dataclass(frozen=True, eq=False)
class Layer:
    """Connections into a group of neurons.

    Attributes:
        name: unique within the network, as reports and errors print it.
        connections: from the layer before, or from the network's input.
        neuron: dynamics of its `connections.n_post` neurons.
        bias: (n_post,) int32 added to v (times 2**6) every step, or None.
        delays: (n_post,) int32, 0..62: steps by which what `connections` brings to a
            neuron is late, or None. (SLAYER's axonal delay of a neuron's spikes is the
            same shift, where the neuron has no bias.)
        recurrent: connections from the layer's own spikes of the step before, or None.
        skips: further inputs.

    Raises:
        ValueError, TypeError: when the parts do not fit together.
    """

    name: str
    connections: Connections | Convolution | Injection
    neuron: Cuba
    bias: IntArray | None = None
    delays: IntArray | None = None
    recurrent: Connections | None = None
    skips: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "skips", tuple(self.skips))
        for name in ("bias", "delays"):
            value = getattr(self, name)
            if value is None:
                continue
            object.__setattr__(self, name, frozen(value, np.int32))
            if getattr(self, name).shape != (self.neurons,):
                raise ValueError(
                    f"layer {self.name}: {name} of shape {np.shape(value)}, "
                    f"not one value for each of {self.neurons} neurons"
                )
        if self.delays is not None:
            outside = self.delays[(self.delays < 0) | (self.delays > MAX_DELAY)]
            if outside.size:
                raise ValueError(f"layer {self.name}: delay {outside[0]} is outside 0..{MAX_DELAY}")
        for parameter in ("current_decay", "voltage_decay", "threshold"):
            values = getattr(self.neuron, parameter)
            if np.ndim(values) and len(values) not in (self.neurons, self.shape[0]):
                raise ValueError(
                    f"layer {self.name}: {parameter} has {len(values)} values for "
                    f"{self.neurons} neurons"
                )
        ends: list[tuple[str, Connections | Convolution]] = []
        if self.recurrent is not None:
            ends.append(("recurrent", self.recurrent))
        ends += [(f"skip from {skip.source}", skip.connections) for skip in self.skips]
        for what, connections in ends:
            if connections.n_post != self.neurons:
                raise ValueError(
                    f"layer {self.name}: {what} has {connections.n_post} outputs for "
                    f"{self.neurons} neurons"
                )
        if self.recurrent is not None and self.recurrent.n_pre != self.neurons:
            raise ValueError(
                f"layer {self.name}: recurrent has {self.recurrent.n_pre} inputs from "
                f"{self.neurons} neurons"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.name, self.connections, self.neuron, self.bias, self.delays)
        return Layer, (*parts, self.recurrent, self.skips)

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer."""
        return self.connections.n_post

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, rows, columns) of feature maps, else (neurons,)."""
        if isinstance(self.connections, Convolution):
            return self.connections.out_shape
        if isinstance(self.connections, Injection):
            return self.connections.shape
        return (self.neurons,)

    def parameter(self, name: str) -> npt.NDArray[np.int64]:
        """(neurons,) values of a parameter of `neuron`, by name."""
        values = np.asarray(getattr(self.neuron, name), np.int64)
        if values.ndim and values.size != self.neurons:  # one for each channel
            values = np.repeat(values, self.neurons // values.size)
        return np.broadcast_to(values, (self.neurons,)).copy()


@dataclass(frozen=True, eq=False)
class Network:
    """An integer network, its presentation time and where it came from.

    Attributes:
        layers: at least one, each fed by the one before; only the last may be a
            non-firing readout.
        steps: T, the number of steps a sample is presented, or None where the
            network's file does not say.
        provenance: text facts stored with the network (format and package version,
            digest of the source checkpoint, configuration as TOML).
        input_bits: 0 where inputs are spikes, 0 or 1; else inputs are integers (graded
            spikes) of so many bits and a sign, 1..24.

    Raises:
        ValueError, TypeError: when layers do not fit together, or `steps` is no integer.
    """

    layers: tuple[Layer, ...]
    steps: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    input_bits: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        if not self.layers:
            raise ValueError("a network needs at least one layer")
        if self.steps is not None:
            object.__setattr__(self, "steps", operator.index(self.steps))
            if self.steps < 1:
                raise ValueError(f"a sample of {self.steps} steps is empty")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError(f"layer names are not unique: {', '.join(names)}")
        object.__setattr__(self, "input_bits", operator.index(self.input_bits))
        if not 0 <= self.input_bits <= 24:
            raise ValueError(f"inputs of {self.input_bits} bits are outside 0..24")
        if INPUT in names:
            raise ValueError(f"a layer is called {INPUT!r}, as the network's input is")
        for before, after in zip(self.layers, self.layers[1:]):
            if before.neurons != after.connections.n_pre:
                raise ValueError(
                    f"layer {after.name} expects {after.connections.n_pre} inputs, "
                    f"layer {before.name} has {before.neurons} neurons"
                )
            if not before.neuron.fires:
                raise ValueError(f"layer {before.name} never fires but feeds layer {after.name}")
            if isinstance(after.connections, Injection):
                raise ValueError(f"layer {after.name} takes injected input, but is not the first")
        known = {INPUT: self.inputs}
        for layer in self.layers:
            for skip in layer.skips:
                if skip.source not in known:
                    raise ValueError(
                        f"layer {layer.name}: skip from {skip.source!r}, which is not before it"
                    )
                if skip.connections.n_pre != known[skip.source]:
                    raise ValueError(
                        f"layer {layer.name}: skip from {skip.source} has "
                        f"{skip.connections.n_pre} inputs from {known[skip.source]} neurons"
                    )
            known[layer.name] = layer.neurons

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view of a dictionary cannot be pickled.
        return Network, (self.layers, self.steps, dict(self.provenance), self.input_bits)

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.layers[0].connections.n_pre

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, rows, columns) of the input; (inputs,) where the first layer says no more."""
        first = self.layers[0].connections
        if isinstance(first, Convolution):
            return first.in_shape
        return first.shape if isinstance(first, Injection) else (first.n_pre,)

    @property
    def readout(self) -> Layer | None:
        """The last layer where it never fires (an integrator to be read), else None."""
        last = self.layers[-1]
        return None if last.neuron.fires else last

    @property
    def weights(self) -> int:
        """Weights of all layers together; of a kernel each once (see `connections`)."""
        return sum(part.stored for layer in self.layers for part in parts(layer))

    @property
    def connections(self) -> int:
        """Connections between two neurons, of all layers together."""
        return sum(part.count for layer in self.layers for part in parts(layer))

    @property
    def synapses(self) -> int:
        """Connections whose integer weight is not 0, of all layers together."""
        return sum(part.synapses for layer in self.layers for part in parts(layer))

    @property
    def density(self) -> float:
        """Weights over positions of all layers together, 0..1."""
        possible = sum(part.possible for layer in self.layers for part in parts(layer))
        return self.weights / possible if possible else 0.0


def parts(layer: Layer) -> list[Connections | Convolution | Injection]:
    """Everything that brings input to a layer: feed-forward, recurrent, skips."""
    recurrent = [] if layer.recurrent is None else [layer.recurrent]
    return [layer.connections, *recurrent, *(skip.connections for skip in layer.skips)]


class End(NamedTuple):
    """Connections that end at a layer.

    Attributes:
        source: whose spikes they bring: a layer's name, or `INPUT`; the layer's own name
            where they are recurrent.
        connections: they themselves.
        late: steps after a spike until it arrives; one for all neurons of the layer, or
            (n_post,) of them.
    """

    source: str
    connections: Connections | Convolution | Injection
    late: int | IntArray


def ends(network: Network, index: int) -> list[End]:
    """Everything that brings input to a layer: feed-forward, skips, recurrent."""
    layer = network.layers[index]
    before = network.layers[index - 1].name if index else INPUT
    found = [End(before, layer.connections, 0 if layer.delays is None else layer.delays)]
    found += [End(skip.source, skip.connections, 0) for skip in layer.skips]
    if layer.recurrent is not None:
        found.append(End(layer.name, layer.recurrent, 1))
    return found
