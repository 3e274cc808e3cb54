"""A hypothesis strategy: random networks of every kind of `Network`, with inputs.

Hypothesis draws the structure and a seed. The seed draws the numbers, so that examples shrink by
structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from esl_lava.chip import DECAY_UNITY, MAX_DELAY, NEVER, SPIKE_RANGE
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Layer,
    Matrix,
    Network,
)

Shape = tuple[int, ...]

RARELY = st.integers(0, 24).map(lambda n: n == 24)
"""Features that Lava refuses are drawn rarely."""


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """A network and its (samples, T, inputs) input."""

    network: Network
    inputs: npt.NDArray[Any]

    def __repr__(self) -> str:
        layers = "; ".join(describe(layer) for layer in self.network.layers)
        return f"Case({layers}; input {self.inputs.shape} in {self.network.input_range})"


def describe(layer: Layer) -> str:
    """Describe a layer in a few words, for the message of a failing example."""
    kind = type(layer.inputs[0].connections).__name__
    has = _further(layer)
    has += [f"skip from {skip.source}" for skip in layer.feedforward_inputs[1:]]
    has += ["refractory"] if layer.neuron.refractory else []
    return " ".join([layer.name, kind, str(layer.shape), *has])


def _further(layer: Layer) -> list[str]:
    """Return the names of a layer's optional parts."""
    optional = {"bias": layer.bias, "delays": layer.inputs[0].delays, "recurrent": layer.recurrent}
    return [name for name, value in optional.items() if value is not None]


def features(network: Network) -> set[str]:
    """Return the names of the features of a network, to show the coverage of examples."""
    found = {"graded input"} if network.message_bits else set()
    if network.readout is not None:
        found.add("readout")
    for before, layer in zip((INPUT, *(one.name for one in network.layers)), network.layers):
        if layer.inputs[0].source != before:
            found.add("branch")
        main = layer.inputs[0].connections
        found.add(type(main).__name__)
        found |= set(_further(layer))
        if layer.neuron.refractory:
            found.add("refractory")
        if layer.recurrent is not None and len(layer.shape) == 3:
            found.add(f"recurrent {type(main).__name__} of maps")
        if layer.inputs[0].delays is not None and isinstance(main, Injection):
            found.add("delayed injection")
        if not layer.neuron.fires and layer.neuron != INTEGRATOR:
            found.add("readout that is no plain integrator")
        if isinstance(main, Convolution):
            found |= {
                name
                for name, plain in (("stride", 1), ("padding", 0), ("dilation", 1))
                if getattr(main, name) != (plain, plain)
            }
            if main.groups > 1:
                found.add("groups")
            if layer.inputs[0].delays is not None:
                found.add("delayed convolution")
        found |= {
            "delayed skip" for skip in layer.feedforward_inputs[1:] if skip.delays is not None
        }
        found |= {
            f"skip by {type(skip.connections).__name__}" for skip in layer.feedforward_inputs[1:]
        }
        found |= {
            "skip from input" for skip in layer.feedforward_inputs[1:] if skip.source == INPUT
        }
        if len(layer.feedforward_inputs[1:]) > 1:
            found.add("two skips into a layer")
        for name in ("current_decay", "voltage_decay", "threshold"):
            size = (
                np.size(getattr(layer.neuron, name)) if np.ndim(getattr(layer.neuron, name)) else 0
            )
            if size:
                found.add("per neuron" if size == layer.neurons else "per channel")
    return found


def _weights(rng: np.random.Generator, shape: Shape, kind: str, netx: bool) -> Any:
    """Draw integer weights of a kind. With `netx` they are weights that netx keeps exactly."""
    low, high, step = {
        "even": (-128, 128, 2),
        "odd": (-127, 128, 1),
        "positive": (0, 256, 1),
        "negative": (-128, 1, 2),
        "tiny": (-2, 3, 1),
        "huge": (-(1 << 20), 1 << 20, 1),
    }[kind]
    weights = step * rng.integers(low, high, shape)
    if netx:  # it changes matrices of one sign, fails for zeros, and clips 255
        weights = weights.clip(max=254)
        weights.reshape(-1)[:2] = 2, -2
    return weights


KINDS = ("even", "odd", "positive", "negative", "tiny")
"""Kinds of weights that Lava's fully connected synapses keep. They do not keep "huge" ones."""


def _connections(
    rng: np.random.Generator, n_post: int, n_pre: int, kind: str, density: float, netx: bool
) -> Matrix:
    mask = rng.random((n_post, n_pre)) < density
    weights = _weights(rng, mask.shape, kind, netx)
    if netx:
        mask.reshape(-1)[:2] = True
    return Matrix.from_dense(np.where(mask, weights, 0), mask)


@st.composite
def _convolutions(draw: st.DrawFn, in_shape: tuple[int, int, int]) -> Convolution:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights: Any
    channels = in_shape[0]
    groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
    outputs = groups * draw(st.integers(1, 3 if groups == 1 else 2))
    kernel, stride, padding, dilation = [], [], [], []
    same = draw(st.integers(0, 2)) == 0  # keeps rows and columns, so that skips can follow
    for size in in_shape[1:]:
        if same:
            kernel.append(draw(st.sampled_from((1, 3))))
            padding.append(kernel[-1] // 2)
            stride.append(1)
            dilation.append(1)
            continue
        pad = draw(st.integers(0, 2))
        extent = draw(st.integers(1, min(4, size + 2 * pad)))
        fitting = [d for d in (1, 2, 3) if d * (extent - 1) < size + 2 * pad]
        kernel.append(extent)
        padding.append(pad)
        dilation.append(draw(st.sampled_from(fitting)))
        stride.append(draw(st.integers(1, 3)))
    shape = (outputs, channels // groups, *kernel)
    kind = draw(st.sampled_from((*KINDS, "wide")))
    kind = "huge" if draw(RARELY) else kind
    if kind == "wide":  # a convolution clips no weight
        weights = rng.integers(-3000, 3000, shape)
    else:
        weights = _weights(rng, shape, kind, netx=False)
    allowed = None
    if draw(st.booleans()):
        allowed = rng.random(shape) < 0.5
        weights = np.where(allowed, weights, 0)
    (down, right), (top, left), (apart, aside) = stride, padding, dilation
    return Convolution(
        weights, in_shape, (down, right), (top, left), (apart, aside), groups, allowed
    )


@st.composite
def _parts(draw: st.DrawFn, n_pre: int, n_post: int | None, netx: bool) -> Matrix:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return _connections(
        rng,
        n_post or draw(st.integers(2, 14)),
        n_pre,
        "huge" if not netx and draw(RARELY) else draw(st.sampled_from(KINDS)),
        draw(st.sampled_from((0.1, 0.5, 1.0))),
        netx,
    )


@st.composite
def _neurons(draw: st.DrawFn, layer: Layer, reach: int, netx: bool) -> Cuba:
    """Draw dynamics that fire neither never nor always for an input of about `reach`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    decays = (0, 1, 7, 400, 2000, 4095, DECAY_UNITY)
    values: list[Any] = [
        draw(st.sampled_from(decays)),
        draw(st.sampled_from(decays)),
        max(1, min(reach * draw(st.sampled_from((0, 1, 3))) // 8, NEVER - 1)),
    ]
    for index in range(3):
        lengths = (layer.neurons,) if len(layer.shape) == 1 else (layer.shape[0], layer.neurons)
        length = draw(st.sampled_from((None, None, *lengths)))
        if length is None:
            continue
        if index < 2:
            values[index] = rng.integers(0, DECAY_UNITY + 1, length)
        else:
            values[index] = rng.integers(1, 2 * values[index] + 1, length).clip(max=NEVER - 1)
    current_decay, voltage_decay, threshold = values
    refractory = 0 if netx else draw(st.sampled_from((0, 0, 0, 1, 3, 100)))
    return Cuba(current_decay, voltage_decay, threshold, refractory)


def _reach(layer: Layer, largest: int) -> int:
    """Estimate the input of a neuron if a third of its synapses are active."""
    weights = (
        layer.inputs[0].connections.kernel
        if isinstance(layer.inputs[0].connections, Convolution)
        else layer.inputs[0].connections.weights
        if isinstance(layer.inputs[0].connections, Matrix)
        else np.array([32])
    )
    return int(np.abs(weights).sum() / (3 * layer.shape[0])) << max(0, largest.bit_length() - 2)


def _delayable(draw: st.DrawFn, layer: Layer, netx: bool) -> bool:
    """Draw whether the layer may have delays. With `netx` it must be possible in a netx file."""
    main = layer.inputs[0].connections
    if netx:
        return isinstance(main, Matrix) and layer.recurrent is None
    # Lava cannot delay injected input. A convolution with delays takes fully connected synapses.
    beyond = isinstance(main, Injection) or (
        isinstance(main, Convolution) and int(np.abs(main.kernel).max()) > 255
    )
    return not beyond or draw(st.integers(0, 3)) == 0


def _neverfiring(draw: st.DrawFn, neuron: Cuba) -> Cuba:
    """Draw a readout: the plain integrator, or other dynamics that never reach the threshold."""
    if draw(st.booleans()):
        return INTEGRATOR
    return replace(neuron, threshold=NEVER)


def _maps(shape: Shape) -> bool:
    return len(shape) == 3


@st.composite
def cases(draw: st.DrawFn, netx: bool = False) -> Case:
    """Draw networks with inputs.

    Args:
        draw: hypothesis's function.
        netx: whether a netx file must be able to express the network, with weights that netx loads
            exactly. Then there are no skips, no refractory periods and no recurrence in feature
            maps, and only fully connected layers without recurrence have delays.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = (1 << (10 if netx or not draw(RARELY) else 24)) - 1
    ends = draw(st.sampled_from((*[SPIKE_RANGE] * 3, (-1, 1), (0, 15), (-64, 63), (-most, most))))
    maps = draw(st.sampled_from((True, True, False)))
    shape: Shape = (draw(st.integers(2, 20)),)
    if maps:
        shape = (draw(st.sampled_from((1, 2, 3, 4))), *(draw(st.integers(2, 7)) for _ in "yx"))
    shapes: dict[str, Shape] = {INPUT: shape}
    layers: list[Layer] = []
    depth = draw(st.integers(1, 4))
    for index in range(depth):
        name = f"layer{index}"
        source = INPUT if index == 0 else layers[-1].name
        if not netx and draw(RARELY):
            source = draw(st.sampled_from(sorted(shapes)))
        before = shapes[source]
        n_pre = int(np.prod(before))
        main: Matrix | Convolution | Injection
        kinds = ["Matrix"]
        kinds += ["Convolution"] * (3 if _maps(before) else 0)
        kinds += ["Injection"] if index == 0 else []
        kind = draw(st.sampled_from(kinds))
        if kind == "Injection":
            main = Injection(before)
        elif kind == "Convolution":
            main = draw(_convolutions(before))  # type: ignore[arg-type]
        else:
            main = draw(_parts(n_pre, None, netx))
        layer = Layer(name, (Input(source, main),), INTEGRATOR)
        reach = _reach(layer, max(-ends[0], ends[1]) if source == INPUT else 1)
        last = index == depth - 1
        layer = replace(layer, neuron=draw(_neurons(layer, reach, netx)))
        if last and draw(st.booleans()):
            layer = replace(layer, neuron=_neverfiring(draw, layer.neuron))
        if draw(st.booleans()) and not (netx and kind == "Injection"):
            per = layer.shape[0] if draw(st.booleans()) else layer.neurons  # by channel, by neuron
            largest = min(reach, 4096) // 2 + 1
            if not netx and draw(RARELY):
                largest = (1 << 31) - 1  # Lava keeps 16 bits
            bias = rng.integers(-largest, largest + 1, per)
            layer = replace(layer, bias=np.repeat(bias, layer.neurons // per))
        if (kind == "Matrix" or not netx) and draw(st.integers(0, 3)) == 0:
            own = Input(layer.name, draw(_parts(layer.neurons, layer.neurons, netx)))
            layer = replace(layer, inputs=(*layer.inputs, own))
        if _delayable(draw, layer, netx) and draw(st.integers(0, 3)) == 0:
            longest = draw(st.sampled_from((0, 1, 3, MAX_DELAY)))
            delays = rng.integers(0, longest + 1, layer.neurons, np.int32)
            first = replace(layer.inputs[0], delays=delays)
            layer = replace(layer, inputs=(first, *layer.inputs[1:]))
        if not netx:
            layer = replace(layer, inputs=(*layer.inputs, *draw(_skips(layer, shapes))))
        layers.append(layer)
        shapes[name] = layer.shape
    network = Network(tuple(layers), None, {}, ends)
    return Case(network, draw(_inputs(network)))


@st.composite
def _skips(draw: st.DrawFn, layer: Layer, shapes: dict[str, Shape]) -> tuple[Input, ...]:
    sources = sorted(shapes)
    skips = []
    for source in draw(st.lists(st.sampled_from(sources), max_size=2)):
        shape = shapes[source]
        if len(shape) == len(layer.shape) == 3 and shape[1:] == layer.shape[1:]:
            rng = np.random.default_rng(draw(st.integers(0, 2**32)))
            padding = draw(st.integers(0, 1))
            size = 1 + 2 * padding
            kernel = rng.integers(-60, 90, (layer.shape[0], shape[0], size, size), np.int32)
            skips.append(Input(source, Convolution(kernel, shape, padding=(padding, padding))))
        else:
            skips.append(Input(source, draw(_parts(int(np.prod(shape)), layer.neurons, False))))
    if skips and draw(st.integers(0, 4)) == 0:
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        skips[-1] = replace(skips[-1], delays=rng.integers(0, 4, layer.neurons, np.int32))
    return tuple(skips)


@st.composite
def _inputs(draw: st.DrawFn, network: Network) -> npt.NDArray[Any]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps = draw(st.integers(1, 9))
    if draw(st.integers(0, 9)) == 0:  # longer than the longest delay, so that delayed spikes arrive
        steps += MAX_DELAY
    shape = (draw(st.integers(1, 3)), steps, network.inputs)
    active = rng.random(shape) < draw(st.sampled_from((0.1, 0.4, 0.9)))
    if network.input_range == SPIKE_RANGE:
        return active.astype(np.uint8)
    low, high = network.input_range
    return np.where(active, rng.integers(low, high + 1, shape), 0).astype(np.int32)
