"""The integer network that a chip executes, without torch, Lava or HDF5.

Export makes an integer network from a trained model, `netfile` stores it, and every simulator,
counter and report reads it. All quantities are integers as on Loihi. One step of a
layer (lava-nc 0.10.0, `lava/proc/lif/models.py`, PyLifModelBitAcc), with
`trunc(x) = sign(x) * (abs(x) >> 12)`:

    a = sum of weight * input over the synapses of all its inputs: spikes of the same step; of
        an earlier step if the input has delays; of the step before if the input is recurrent
    u = trunc(u * (4096 - current_decay)) + (a << 6)      wrapped to 24 bits
    v = trunc(v * (4096 - voltage_decay)) + u + ((bias + injected) << 6)
                                                          clipped to +-(2**23 - 1)
    s = v > (threshold << 6);   v = 0 where s, and in the `refractory` steps that follow

Sums have 32 bits and wrap; the sum of one convolution wraps to 24 bits first. A sample starts
from rest: u = v = 0, and no spike is on its way. Wherever a layer is flat, neurons of feature
maps are counted (channel, row, column) in C order.
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
from esl_lava.connections import (
    Connections,
    Convolution,
    Immutable,
    Injection,
    Matrix,
    frozen,
)
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
"""Parameter of `Cuba` that may differ between neurons -> its least and its largest value."""


@dataclass(frozen=True, eq=False)
class Cuba(Immutable):
    """Current-based leaky integrate-and-fire neurons.

    A parameter is one integer for the whole layer, or (n,) integers: one for each neuron or, if
    the layer has feature maps, one for each channel.

    Attributes:
        current_decay, voltage_decay: 0..4096, fraction lost per step times 4096.
        threshold: 1..NEVER; the neuron fires when v > threshold << 6.
        refractory: 0..MAX_REFRACTORY, steps after a spike in which v stays 0 while u goes
            on; the same for all neurons. (Loihi 1 counts to 63; Lava's fixed-point neuron
            has no refractory period.)

    Raises:
        ValueError, TypeError: when a parameter is out of range, or is not an integer.
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
                    raise ValueError(
                        f"{name} of shape {value.shape} is neither one integer nor a list of them"
                    )
            object.__setattr__(self, name, value)
            outside = np.ravel(value)[(np.ravel(value) < low) | (np.ravel(value) > high)]
            if outside.size:
                raise ValueError(f"{name} {outside[0]} is outside {low}..{high}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cuba) and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        )

    @property
    def fires(self) -> bool:
        """Whether any membrane potential can exceed its threshold."""
        return bool(np.min(self.threshold) < NEVER)


INTEGRATOR = Cuba(current_decay=DECAY_UNITY, voltage_decay=0, threshold=NEVER)
"""The neuron of a readout: v holds the running sum of its weighted input, and it never fires."""


@dataclass(frozen=True)
class Origin:
    """The trained weights from which connections were made, if their number or name differs.

    A pool that is folded into a kernel repeats each weight of the kernel. A residual block adds
    spikes through connections that were not trained. The weights of a shortcut have a name of their
    own.

    Attributes:
        name: name of the trained weights: that of the layer or of a shortcut; empty if no weights
            were trained.
        weights: number of trained weights that the mask allows.
        positions: number of positions of the trained weights.
    """

    name: str
    weights: int
    positions: int


@dataclass(frozen=True, eq=False)
class Input(Immutable):
    """The spikes of one source, and the connections through which they reach a layer.

    Attributes:
        source: an earlier layer's name, `INPUT`, or the layer's own name for recurrent
            connections, which bring the spikes of the step before.
        connections: connections from the neurons of the source to those of the layer.
        delays: (n_post,) int32, 0..62: steps by which the input of each neuron is delayed, or
            None. (SLAYER's axonal delay of a neuron's spikes is the same shift if the neuron has
            no bias.)
        origin: the trained weights of the connections; None if the connections hold these
            weights themselves.

    Raises:
        ValueError, TypeError: when the delays are not integers of 32 bits, or the connections
            cannot be made from the weights of the origin. The layer checks the shape and the
            range of the delays, because its errors name the layer.
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
            stored, possible = self.connections.stored, self.connections.possible
            if not (0 <= weights <= positions <= possible and weights <= stored):
                raise ValueError(
                    f"connections with {stored} weights at {possible} positions cannot be made "
                    f"from an origin with {weights} weights at {positions} positions"
                )

    @property
    def weights(self) -> int:
        """Number of trained weights, or of the weights of the connections if there is no origin."""
        return self.connections.stored if self.origin is None else self.origin.weights

    @property
    def positions(self) -> int:
        """Number of positions of these weights."""
        return self.connections.possible if self.origin is None else self.origin.positions


@dataclass(frozen=True, eq=False)
class Layer(Immutable):
    """A group of neurons and all its inputs.

    Attributes:
        name: unique within the network; reports and errors print it.
        inputs: at least one. The source of the first input is not the layer itself, and its
            connections determine the shape of the layer. At most one input is recurrent.
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
            raise ValueError(f"{INPUT!r} is the name of the network's input, not of a layer")
        if not self.inputs or self.inputs[0].source == self.name:
            raise ValueError(
                "its first input is missing, or has a source of the same name as the layer"
            )
        if self.bias is not None:
            object.__setattr__(self, "bias", frozen(self.bias, np.int32))
        delays = (("delays", part.delays) for part in self.inputs)
        for array, values in (("bias", self.bias), *delays):
            if values is not None and values.shape != (self.neurons,):
                raise ValueError(
                    f"{array} of shape {values.shape} is not one value for each of {self.neurons} "
                    "neurons"
                )
            if array == "delays" and values is not None:
                outside = values[(values < 0) | (values > MAX_DELAY)]
                if outside.size:
                    raise ValueError(f"delay {outside[0]} is outside 0..{MAX_DELAY}")
        for parameter in PARAMETERS:
            values = getattr(self.neuron, parameter)
            if np.ndim(values) and len(values) not in (self.neurons, self.shape[0]):
                channels = f" in {self.shape[0]} channels" if len(self.shape) == 3 else ""
                raise ValueError(
                    f"{parameter} has {len(values)} values, but the layer has {self.neurons} "
                    f"neurons{channels}"
                )
        for part in self.inputs[1:]:
            if part.connections.n_post != self.neurons:
                kind = "recurrent connections"
                if part.source != self.name:
                    kind = f"skip connections from {part.source}"
                raise ValueError(
                    f"its {kind} have {part.connections.n_post} outputs, but the layer has "
                    f"{self.neurons} neurons"
                )
            if part.connections.injects:
                raise ValueError("injected input has to be its first input")
        recurrent = [part for part in self.inputs if part.source == self.name]
        if len(recurrent) > 1:
            raise ValueError(f"{len(recurrent)} of its inputs are recurrent: at most 1 is allowed")
        for part in recurrent:
            if part.connections.n_pre != self.neurons:
                raise ValueError(
                    f"its recurrent connections have {part.connections.n_pre} inputs, but the "
                    f"layer has {self.neurons} neurons"
                )
            if part.delays is not None:
                raise ValueError("recurrent connections must not have delays")

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer."""
        return self.inputs[0].connections.n_post

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, rows, columns) of feature maps, or (neurons,) without maps."""
        return self.inputs[0].connections.out_shape

    @property
    def wiring(self) -> tuple[Connections, ...]:
        """The connections of all inputs."""
        return tuple(part.connections for part in self.inputs)

    @property
    def recurrent(self) -> Input | None:
        """The input whose source is the layer itself, or None."""
        return next((part for part in self.inputs if part.source == self.name), None)

    @property
    def feedforward_inputs(self) -> tuple[Input, ...]:
        """The inputs whose source is not the layer itself."""
        return tuple(part for part in self.inputs if part.source != self.name)

    def late(self, part: Input) -> int | Int32s:
        """Return the steps from a spike to its arrival, one number or (neurons,)."""
        if part.source == self.name:
            return 1
        return 0 if part.delays is None else part.delays

    def named(self) -> Iterator[tuple[str, Input]]:
        """Yield (name, input) for all inputs. The name says in errors which weight is meant.

        It is "weight", "recurrent weight" or, for example, "weight of the skip from conv1".
        """
        for number, part in enumerate(self.inputs):
            label = self._label(part)
            if number == 0:
                yield "weight", part
            elif part.source == self.name:
                yield f"{label} weight", part
            else:
                yield f"weight of the {label}", part

    def _label(self, part: Input) -> str:
        return "recurrent" if part.source == self.name else f"skip from {part.source}"

    def parameter(self, name: str) -> Ints:
        """Return the values of a parameter of `neuron`, (neurons,)."""
        values = np.asarray(getattr(self.neuron, name), np.int64)
        if values.ndim and values.size != self.neurons:  # one for each channel
            values = np.repeat(values, self.neurons // values.size)
        return np.broadcast_to(values, (self.neurons,)).copy()


@dataclass(frozen=True, eq=False)
class Network:
    """An integer network with its presentation time and its provenance.

    Attributes:
        layers: at least one; each layer stands after the layers that feed it. Only the last
            layer may be a readout that never fires.
        steps: T, the number of steps for which a sample is presented, or None if the network's
            file does not state it.
        provenance: texts stored with the network (format and package version, digest of the
            source checkpoint, configuration as TOML).
        input_range: the least and the largest value of an input in one step: (0, 1) for binary
            spikes. Graded spikes may have any range that contains 0 and that fits 24 bits and a
            sign.

    Raises:
        ValueError, TypeError: when layers do not fit together, or `steps` is not an integer.
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
                raise ValueError(f"steps {self.steps}: a sample needs at least 1 step")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError(f"layer names are not unique: {', '.join(names)}")
        low, high = (operator.index(end) for end in self.input_range)
        object.__setattr__(self, "input_range", (low, high))
        largest = (1 << MESSAGE_BITS) - 1
        if not -largest <= low <= 0 <= high <= largest or low == high:
            raise ValueError(
                f"input_range {low}..{high}: it must contain 0 and another number, and lie within "
                f"{-largest}..{largest}"
            )
        self._check_sources()

    def _check_sources(self) -> None:
        known = {INPUT: self.inputs}
        silent: set[str] = set()
        for layer in self.layers:
            for part in layer.feedforward_inputs:
                source, n_pre = part.source, part.connections.n_pre
                if source not in known:
                    raise ValueError(
                        f"layer {layer.name}: its source {source!r} is not the network's input or "
                        "an earlier layer"
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
        """The connections of the first layer's first input, which takes the network's input."""
        return self.layers[0].inputs[0].connections

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.first.n_pre

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, rows, columns) of the input, or (inputs,) if the first layer has no maps."""
        return self.first.in_shape

    @property
    def message_bits(self) -> int:
        """Bits of the largest |input|; 0, as in Lava, if inputs are binary spikes."""
        low, high = self.input_range
        return 0 if self.input_range == SPIKE_RANGE else max(-low, high).bit_length()

    @property
    def readout(self) -> Layer | None:
        """The last layer if it never fires (an integrator that is read), or None."""
        last = self.layers[-1]
        return None if last.neuron.fires else last

    @property
    def wiring(self) -> tuple[Connections, ...]:
        """The connections of all inputs of all layers."""
        return tuple(part for layer in self.layers for part in layer.wiring)

    @property
    def weights(self) -> int:
        """Number of weights of all layers, each counted once (see `connections`, `Origin`)."""
        return sum(part.weights for layer in self.layers for part in layer.inputs)

    @property
    def connections(self) -> int:
        """Number of connections between two neurons, of all layers together."""
        return sum(part.count for part in self.wiring)

    @property
    def synapses(self) -> int:
        """Number of connections whose integer weight is not 0, of all layers together."""
        return sum(part.synapses for part in self.wiring)

    @property
    def density(self) -> float:
        """Number of weights divided by number of positions, of all layers together, 0..1."""
        positions = sum(part.positions for layer in self.layers for part in layer.inputs)
        return self.weights / positions if positions else 0.0
