"""A network before it has weights: its layers, what feeds each, and their shapes.

The notation is the literature's: the layers between input and readout, separated by `-`.
`"800"` is 784-800-10 on data of 784 inputs and 10 classes, `"800-400"` has two hidden layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from esl_lava.errors import ConfigError

INPUT = "input"
"""What feeds the first layers."""

READOUT = "readout"
"""Name of the layer whose neurons are the classes."""

MAX_LAYERS = 64
MAX_WIDTH = 1 << 20
MAX_DENSE = 1 << 28
"""Positions of a layer's weights that are held dense: 1 GiB."""

MAX_SHOWN = 40
"""Characters of a token that an error shows."""

Shape = tuple[int, ...]

_WIDTH = re.compile("(?<![^-])[0-9]+")
"""The number that a token begins with."""


@dataclass(frozen=True)
class LayerSpec:
    """A layer without its weights.

    Attributes:
        name: `hidden1`, `hidden2`, ... in order, or `readout`.
        kind: a key of `LAYER_KINDS`.
        source: what feeds it, an earlier layer's name or `INPUT`.
        input_shape, output_shape: of one step of a sample, without the batch.
        weight_shape: (outputs, inputs, *lengths of a kernel); none of a layer without weights.
    """

    name: str
    kind: str
    source: str
    input_shape: Shape
    output_shape: Shape
    weight_shape: Shape

    @property
    def readout(self) -> bool:
        """Whether its neurons are the classes."""
        return self.name == READOUT

    @property
    def neurons(self) -> int:
        """How many it has."""
        return math.prod(self.output_shape)

    @property
    def positions(self) -> int:
        """Number of weights that it could have, 0 of a layer without any."""
        return math.prod(self.weight_shape) if self.weight_shape else 0


@dataclass(frozen=True)
class Topology:
    """The layers of a network in order, the readout last.

    Attributes:
        input_shape: of one step of a sample.
        layers: of distinct names, each fed by what stands before it.
    """

    input_shape: Shape
    layers: tuple[LayerSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all layers."""
        return tuple(layer.name for layer in self.layers)

    @property
    def hidden_names(self) -> tuple[str, ...]:
        """Of all layers but the readout."""
        return tuple(layer.name for layer in self.layers if not layer.readout)

    @property
    def weighted(self) -> tuple[LayerSpec, ...]:
        """The layers that have weights."""
        return tuple(layer for layer in self.layers if layer.weight_shape)

    @property
    def positions(self) -> int:
        """Number of weights of the dense network."""
        return sum(layer.positions for layer in self.layers)


@dataclass(frozen=True)
class LayerKind:
    """A kind of layer of the notation.

    Attributes:
        pattern: of the whole token. A number that it begins with is that of its neurons or
            channels, 1 to `MAX_WIDTH`.
        meaning: an example and what it is, for errors.
        shapes: (the token's match, shape of the input) -> shapes of output and weight.
    """

    pattern: re.Pattern[str]
    meaning: str
    shapes: Callable[[re.Match[str], Shape], tuple[Shape, Shape]]


def _dense(token: re.Match[str], inputs: Shape) -> tuple[Shape, Shape]:
    neurons = int(token[0])
    return (neurons,), (neurons, math.prod(inputs))


LAYER_KINDS: Mapping[str, LayerKind] = MappingProxyType(
    {"dense": LayerKind(re.compile("[0-9]+"), "800 (neurons of a fully connected layer)", _dense)}
)
"""The kinds of layers by name."""


def describe(notation: str, input_shape: Shape, classes: int) -> Topology:
    """The network of a notation on data of that shape, each layer fed by the one before.

    Raises:
        ConfigError: for a token that is no layer, or more than `MAX_LAYERS`.
    """
    layers: list[LayerSpec] = []
    source, shape = INPUT, input_shape
    for number, (kind, token) in enumerate(_tokens(notation), 1):
        name = f"hidden{number}"
        output, weight = LAYER_KINDS[kind].shapes(token, shape)
        layers.append(LayerSpec(name, kind, source, shape, output, weight))
        source, shape = name, output
    weight = (classes, math.prod(shape))
    layers.append(LayerSpec(READOUT, "dense", source, shape, (classes,), weight))
    return Topology(input_shape, tuple(layers))


def widest(notation: str) -> int:
    """The most neurons or channels of a hidden layer."""
    return max(map(int, _WIDTH.findall(notation)))


def narrow(notation: str, width: int) -> str:
    """The same layers, all narrower by the factor that makes the widest one `width`.

    Numbers of neurons are rounded, to 1 at least.
    """
    most = widest(notation)
    return _WIDTH.sub(lambda found: str(max(1, round(int(found[0]) * width / most))), notation)


def _tokens(notation: str) -> list[tuple[str, re.Match[str]]]:
    texts = notation.split("-", MAX_LAYERS)
    if len(texts) > MAX_LAYERS:
        raise ConfigError(f"more than {MAX_LAYERS} layers")
    return [_match(text) for text in texts]


def _match(text: str) -> tuple[str, re.Match[str]]:
    """The kind whose pattern a token follows."""
    shown = repr(text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}...")
    for name, kind in LAYER_KINDS.items():
        if token := kind.pattern.fullmatch(text):
            width = _WIDTH.match(text)
            if width and not 1 <= int(width[0].lstrip("0")[:8] or 0) <= MAX_WIDTH:
                raise ConfigError(f"{shown} is not within 1 to {MAX_WIDTH}")
            return name, token
    known = ", ".join(kind.meaning for kind in LAYER_KINDS.values())
    raise ConfigError(f"{shown} is no layer; a layer is written {known}")
