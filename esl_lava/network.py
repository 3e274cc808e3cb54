"""The integer network: what a chip executes, and nothing of torch, Lava or HDF5.

Export makes it from a trained model, `netfile` stores it, and every simulator,
counter and report reads it. All quantities are integers as on Loihi. One step of a
layer (lava-nc 0.10.0, `lava/proc/lif/models.py`, PyLifModelBitAcc), with
`trunc(x) = sign(x) * (abs(x) >> 12)`:

    a = sum of weight * input over the synapses of all its inputs: spikes of the same step, of
        an earlier one where an input has delays, of the step before where it is the layer's own
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

import numpy as np

from esl_lava.arrays import Int32s, Ints
from esl_lava.chip import (
    DECAY_UNITY,
    MAX_DELAY,
    MAX_REFRACTORY,
    MESSAGE_BITS,
    NEVER,
    SPIKE_RANGE,
)
from esl_lava.connections import Connections, Convolution, Frozen, Injection, Matrix, frozen
from esl_lava.topology import INPUT

__all__ = [
    "INPUT",
    "INTEGRATOR",
    "Connections",
    "Convolution",
    "Cuba",
    "Injection",
    "Input",
    "Layer",
    "Matrix",
    "Network",
    "Origin",
]

PARAMETERS = {
    "current_decay": (0, DECAY_UNITY),
    "voltage_decay": (0, DECAY_UNITY),
    "threshold": (1, NEVER),
}
"""What a neuron of `Cuba` may have for itself, and the least and the largest value."""


@dataclass(frozen=True, eq=False)
class Cuba(Frozen):
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

    current_decay: int | Int32s
    voltage_decay: int | Int32s
    threshold: int | Int32s
    refractory: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "refractory", operator.index(self.refractory))
        if not 0 <= self.refractory <= MAX_REFRACTORY:
            raise ValueError(f"refractory {self.refractory} is outside 0..{MAX_REFRACTORY}")
        for name, (low, high) in PARAMETERS.items():
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cuba) and all(
            np.array_equal(getattr(self, one.name), getattr(other, one.name))
            for one in fields(self)
        )

    @property
    def fires(self) -> bool:
        """Whether any membrane potential can exceed its threshold."""
        return bool(np.min(self.threshold) < NEVER)


INTEGRATOR = Cuba(current_decay=DECAY_UNITY, voltage_decay=0, threshold=NEVER)
"""The readout: v holds the running sum of the weighted input and never fires."""


@dataclass(frozen=True)
class Origin:
    """The weights that connections were made of, where these hold other numbers of them.

    A pool that is folded into a kernel repeats each of its weights; spikes of a residual block are
    added through connections that nobody trained.

    Attributes:
        name: of the trained weights: that of the layer, or of a shortcut; empty where there are
            none.
        weights: that their mask allows.
        positions: that there are.
    """

    name: str
    weights: int
    positions: int


@dataclass(frozen=True, eq=False)
class Input(Frozen):
    """What feeds a layer from one place.

    Attributes:
        source: whose spikes: an earlier layer's name, `INPUT`, or the layer's own name for
            recurrent connections, which bring what it did one step before.
        connections: from the source's neurons to the layer's.
        delays: (n_post,) int32, 0..62: steps by which what comes is late at each neuron, or
            None. (SLAYER's axonal delay of a neuron's spikes is the same shift, where the
            neuron has no bias.)
        origin: of the connections; None where weights are those that they hold.

    Raises:
        ValueError, TypeError: when the delays are no integers of 32 bits, or the connections
            cannot be of the origin. What delays have to be besides, the layer checks, which has
            a name.
    """

    source: str
    connections: Connections
    delays: Int32s | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.delays is not None:
            object.__setattr__(self, "delays", frozen(self.delays, np.int32))
        if self.origin is not None:
            weights, positions = self.origin.weights, self.origin.positions
            held = self.connections.stored, self.connections.possible
            if not (0 <= weights <= positions <= held[1] and weights <= held[0]):
                raise ValueError(
                    f"connections of {held[0]} weights at {held[1]} positions cannot be made of "
                    f"{weights} at {positions}"
                )

    @property
    def weights(self) -> int:
        """Weights that were trained, or that the connections hold."""
        return self.connections.stored if self.origin is None else self.origin.weights

    @property
    def positions(self) -> int:
        """Positions of these weights."""
        return self.connections.possible if self.origin is None else self.origin.positions


@dataclass(frozen=True, eq=False)
class Layer(Frozen):
    """A group of neurons and all that feeds it.

    Attributes:
        name: unique within the network, as reports and errors print it.
        inputs: at least one. The first is not the layer itself, and its connections say what
            shape the layer has; at most one is the layer itself.
        neuron: dynamics of the neurons.
        bias: (neurons,) int32 added to v (times 2**6) every step, or None.

    Raises:
        ValueError, TypeError: when the parts do not fit together.
    """

    name: str
    inputs: tuple[Input, ...]
    neuron: Cuba
    bias: Int32s | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"layer {self.name}: {error}") from None

    def _check(self) -> None:
        if self.name == INPUT:
            raise ValueError("it is called as the network's input is")
        if not self.inputs or self.inputs[0].source == self.name:
            raise ValueError("it needs a first input that is not itself, and a name of its own")
        if self.bias is not None:
            object.__setattr__(self, "bias", frozen(self.bias, np.int32))
        for what, values in (("bias", self.bias), *(("delays", one.delays) for one in self.inputs)):
            if values is not None and values.shape != (self.neurons,):
                raise ValueError(
                    f"{what} of shape {values.shape}, not one value for each of {self.neurons} "
                    "neurons"
                )
            if what == "delays" and values is not None:
                outside = values[(values < 0) | (values > MAX_DELAY)]
                if outside.size:
                    raise ValueError(f"delay {outside[0]} is outside 0..{MAX_DELAY}")
        for parameter in PARAMETERS:
            values = getattr(self.neuron, parameter)
            if np.ndim(values) and len(values) not in (self.neurons, self.shape[0]):
                raise ValueError(f"{parameter} has {len(values)} values for {self.neurons} neurons")
        for given in self.inputs[1:]:
            if given.connections.n_post != self.neurons:
                raise ValueError(
                    f"{self._called(given)} has {given.connections.n_post} outputs for "
                    f"{self.neurons} neurons"
                )
            if given.connections.injects:
                raise ValueError("injected input has to be its first input")
        own = [given for given in self.inputs if given.source == self.name]
        if len(own) > 1:
            raise ValueError(f"{len(own)} of its inputs are recurrent, more than 1")
        for given in own:
            if given.connections.n_pre != self.neurons:
                raise ValueError(
                    f"recurrent has {given.connections.n_pre} inputs from {self.neurons} neurons"
                )
            if given.delays is not None:
                raise ValueError("recurrent connections have no delays")

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer."""
        return self.inputs[0].connections.n_post

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, rows, columns) of feature maps, else (neurons,)."""
        return self.inputs[0].connections.out_shape

    @property
    def wiring(self) -> tuple[Connections, ...]:
        """The connections of all inputs."""
        return tuple(given.connections for given in self.inputs)

    @property
    def recurrent(self) -> Input | None:
        """The input that is the layer itself, if any."""
        return next((given for given in self.inputs if given.source == self.name), None)

    @property
    def feeding(self) -> tuple[Input, ...]:
        """The inputs that are not the layer itself."""
        return tuple(given for given in self.inputs if given.source != self.name)

    def late(self, given: Input) -> int | Int32s:
        """Steps after a spike until it arrives; one for all neurons, or (neurons,) of them."""
        if given.source == self.name:
            return 1
        return 0 if given.delays is None else given.delays

    def named(self) -> Iterator[tuple[str, Input]]:
        """All inputs, and what a sentence calls a weight of theirs."""
        for number, given in enumerate(self.inputs):
            called = self._called(given)
            if number == 0:
                yield "weight", given
            elif given.source == self.name:
                yield f"{called} weight", given
            else:
                yield f"weight of the {called}", given

    def _called(self, given: Input) -> str:
        return "recurrent" if given.source == self.name else f"skip from {given.source}"

    def parameter(self, name: str) -> Ints:
        """(neurons,) values of a parameter of `neuron`, by name."""
        values = np.asarray(getattr(self.neuron, name), np.int64)
        if values.ndim and values.size != self.neurons:  # one for each channel
            values = np.repeat(values, self.neurons // values.size)
        return np.broadcast_to(values, (self.neurons,)).copy()


@dataclass(frozen=True, eq=False)
class Network:
    """An integer network, its presentation time and where it came from.

    Attributes:
        layers: at least one, each after those that feed it; only the last may be a
            non-firing readout.
        steps: T, the number of steps a sample is presented, or None where the
            network's file does not say.
        provenance: text facts stored with the network (format and package version,
            digest of the source checkpoint, configuration as TOML).
        input_range: the least and the largest value of an input at one step, at most and at
            least 0: (0, 1) of binary spikes; of others (graded spikes) whatever 24 bits and a
            sign hold.

    Raises:
        ValueError, TypeError: when layers do not fit together, or `steps` is no integer.
    """

    layers: tuple[Layer, ...]
    steps: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    input_range: tuple[int, int] = SPIKE_RANGE

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
        low, high = (operator.index(end) for end in self.input_range)
        object.__setattr__(self, "input_range", (low, high))
        largest = (1 << MESSAGE_BITS) - 1
        if not -largest <= low <= 0 <= high <= largest or low == high:
            raise ValueError(
                f"inputs in {low}..{high}: a range has 0 in it and another number, and lies within "
                f"{-largest}..{largest}"
            )
        self._check_sources()

    def _check_sources(self) -> None:
        known = {INPUT: self.inputs}
        silent: set[str] = set()
        for layer in self.layers:
            for given in layer.feeding:
                source, n_pre = given.source, given.connections.n_pre
                if source not in known:
                    raise ValueError(
                        f"layer {layer.name}: {source!r} feeds it, but is not before it"
                    )
                if n_pre != known[source]:
                    raise ValueError(
                        f"layer {layer.name} expects {n_pre} inputs from {source}, which has "
                        f"{known[source]} neurons"
                    )
                if source in silent:
                    raise ValueError(f"layer {source} never fires but feeds layer {layer.name}")
            if layer.inputs[0].connections.injects and layer is not self.layers[0]:
                raise ValueError(f"layer {layer.name} takes injected input, but is not the first")
            known[layer.name] = layer.neurons
            if not layer.neuron.fires:
                silent.add(layer.name)
        if early := silent - {self.layers[-1].name}:
            raise ValueError(f"layer {min(early)} never fires, but is not the last")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # A read-only view of a dictionary cannot be pickled.
        return Network, (self.layers, self.steps, dict(self.provenance), self.input_range)

    @property
    def first(self) -> Connections:
        """The connections of the first layer's first input, which is the network's."""
        return self.layers[0].inputs[0].connections

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.first.n_pre

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, rows, columns) of the input; (inputs,) where the first layer says no more."""
        return self.first.in_shape

    @property
    def message_bits(self) -> int:
        """Bits of an input's size, its sign apart; 0 where inputs are spikes, as Lava has it."""
        low, high = self.input_range
        return 0 if self.input_range == SPIKE_RANGE else max(-low, high).bit_length()

    @property
    def readout(self) -> Layer | None:
        """The last layer where it never fires (an integrator to be read), else None."""
        last = self.layers[-1]
        return None if last.neuron.fires else last

    @property
    def wiring(self) -> tuple[Connections, ...]:
        """The connections of all inputs of all layers."""
        return tuple(kind for layer in self.layers for kind in layer.wiring)

    @property
    def weights(self) -> int:
        """Weights of all layers together, each once (see `connections`, `Origin`)."""
        return sum(given.weights for layer in self.layers for given in layer.inputs)

    @property
    def connections(self) -> int:
        """Connections between two neurons, of all layers together."""
        return sum(kind.count for kind in self.wiring)

    @property
    def synapses(self) -> int:
        """Connections whose integer weight is not 0, of all layers together."""
        return sum(kind.synapses for kind in self.wiring)

    @property
    def density(self) -> float:
        """Weights over positions of all layers together, 0..1."""
        positions = sum(given.positions for layer in self.layers for given in layer.inputs)
        return self.weights / positions if positions else 0.0
