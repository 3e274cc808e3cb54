"""A network before it has weights: its layers, what feeds each, and their shapes.

The notation is the literature's: the layers between input and readout, separated by `-`.
`"800"` is 784-800-10 on data of 784 inputs and 10 classes, `"800-400"` has two hidden layers.
`"32C3-AP2-64C3S2"` are two convolutions, the first one's maps pooled, the second with stride 2.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
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

MAX_KERNEL = 31
"""The longest side of a kernel."""

MAX_POOL = 32
"""The longest side of a pool."""

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
        input_shape, output_shape: of one step of a sample, without the batch; the input's where
            it has been pooled.
        weight_shape: (outputs, inputs, *lengths of a kernel).
        stride, padding: of a kernel, along both axes.
        pool: side of the squares of its source's maps that are summed before the weights.
    """

    name: str
    kind: str
    source: str
    input_shape: Shape
    output_shape: Shape
    weight_shape: Shape
    stride: int = 1
    padding: int = 0
    pool: int = 1

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
class Step:
    """What a token of the notation makes of the maps or neurons before it.

    Attributes:
        output_shape: of one step of a sample.
        weight_shape: see `LayerSpec`; empty of what only pools.
        stride, padding: see `LayerSpec`.
        pool: side of the squares of inputs that are summed, 1 of what does not pool.
    """

    output_shape: Shape
    weight_shape: Shape = ()
    stride: int = 1
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True)
class LayerKind:
    """A kind of token of the notation.

    Attributes:
        pattern: of the whole token. A number that it begins with is that of its neurons or
            channels, 1 to `MAX_WIDTH`.
        meaning: an example and what it is, for errors.
        prefix: of the names of such layers; none of what only pools.
        step: (the token's match, shape of the input) -> what it makes of it.
    """

    pattern: re.Pattern[str]
    meaning: str
    prefix: str
    step: Callable[[re.Match[str], Shape], Step]


def _dense(token: re.Match[str], inputs: Shape) -> Step:
    neurons = int(token[0])
    return Step((neurons,), (neurons, math.prod(inputs)))


def _maps(token: re.Match[str], inputs: Shape) -> tuple[int, int, int]:
    if len(inputs) != 3:
        raise ConfigError(
            f"{token[0]} needs feature maps, and is fed by {math.prod(inputs)} neurons"
        )
    channels, rows, columns = inputs
    return channels, rows, columns


def _conv(token: re.Match[str], inputs: Shape) -> Step:
    channels, *sides = _maps(token, inputs)
    outputs, kernel = int(token[1]), int(token[2])
    stride = int(token[3] or 1)
    if not kernel % 2 or kernel > MAX_KERNEL:
        raise ConfigError(f"{token[0]}: a kernel has an odd side of 1 to {MAX_KERNEL}")
    if not 1 <= stride <= kernel:
        raise ConfigError(f"{token[0]}: a stride is within 1 and the kernel's side, {kernel}")
    padding = kernel // 2
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
    return Step((outputs, rows, columns), (outputs, channels, kernel, kernel), stride, padding)


def _pool(token: re.Match[str], inputs: Shape) -> Step:
    channels, rows, columns = _maps(token, inputs)
    side = int(token[1])
    if not 2 <= side <= min(rows, columns, MAX_POOL):
        raise ConfigError(
            f"{token[0]} on maps of {rows} x {columns}: a pool has a side of 2 to "
            f"{min(rows, columns, MAX_POOL)}"
        )
    return Step((channels, rows // side, columns // side), pool=side)


def _global_pool(token: re.Match[str], inputs: Shape) -> Step:
    channels, rows, columns = _maps(token, inputs)
    if rows != columns:
        raise ConfigError(f"{token[0]} on maps of {rows} x {columns}: they are to be square")
    return Step((channels, 1, 1), pool=rows)


LAYER_KINDS: Mapping[str, LayerKind] = MappingProxyType(
    {
        "dense": LayerKind(
            re.compile("[0-9]+"), "800 (neurons of a fully connected layer)", "hidden", _dense
        ),
        "conv": LayerKind(
            re.compile("([0-9]+)C([0-9]{1,2})(?:S([0-9]))?"),
            "64C3 (feature maps of a convolution with kernels of 3 x 3; 64C3S2 with stride 2)",
            "conv",
            _conv,
        ),
        "pool": LayerKind(re.compile("AP([0-9]{1,2})"), "AP2 (average pooling)", "", _pool),
        "global_pool": LayerKind(
            re.compile("GAP"), "GAP (average pooling of whole maps)", "", _global_pool
        ),
    }
)
"""The kinds of tokens by name."""

FULLY_CONNECTED = ("dense",)
"""The kinds of networks of fully connected layers alone."""


def describe(
    notation: str,
    input_shape: Shape,
    classes: int,
    kinds: Collection[str] = FULLY_CONNECTED,
) -> Topology:
    """The network of a notation on data of that shape, each layer fed by the one before.

    Args:
        kinds: which of `LAYER_KINDS` there may be.

    Raises:
        ConfigError: for a token that is no such layer, more than `MAX_LAYERS`, maps that a layer
            does not fit, or a pool before a convolution that leaves out rows or columns.
    """
    layers: list[LayerSpec] = []
    source, shape, pooled, cut = INPUT, input_shape, 1, ""
    numbers: Counter[str] = Counter()
    for kind, token in _tokens(notation, kinds):
        found = LAYER_KINDS[kind].step(token, shape)
        if not found.weight_shape:
            if shape[1] % found.pool or shape[2] % found.pool:
                cut = f"{token[0]} on maps of {shape[1]} x {shape[2]} leaves out rows or columns"
            pooled *= found.pool
        else:
            if cut and kind != "dense":
                raise ConfigError(f"{cut}, which {token[0]} behind it cannot do without")
            numbers[kind] += 1
            name = f"{LAYER_KINDS[kind].prefix}{numbers[kind]}"
            layers.append(
                LayerSpec(
                    name,
                    kind,
                    source,
                    shape,
                    found.output_shape,
                    found.weight_shape,
                    found.stride,
                    found.padding,
                    pooled,
                )
            )
            source, pooled, cut = name, 1, ""
        shape = found.output_shape
    weight = (classes, math.prod(shape))
    layers.append(LayerSpec(READOUT, "dense", source, shape, (classes,), weight, pool=pooled))
    return Topology(input_shape, tuple(layers))


def check_notation(notation: str, kinds: Collection[str] = FULLY_CONNECTED) -> None:
    """Refuse a notation with tokens that are no layers, whatever the data.

    Raises:
        ConfigError: as `describe`, of the tokens alone.
    """
    if not any(LAYER_KINDS[kind].prefix for kind, _ in _tokens(notation, kinds)):
        raise ConfigError("there is no layer with weights")


def widest(notation: str) -> int:
    """The most neurons or channels of a hidden layer."""
    return max(map(int, _WIDTH.findall(notation)))


def narrow(notation: str, width: int) -> str:
    """The same layers, all narrower by the factor that makes the widest one `width`.

    Numbers of neurons are rounded, to 1 at least.
    """
    most = widest(notation)
    return _WIDTH.sub(lambda found: str(max(1, round(int(found[0]) * width / most))), notation)


def _tokens(notation: str, kinds: Collection[str]) -> list[tuple[str, re.Match[str]]]:
    texts = notation.split("-", MAX_LAYERS)
    if len(texts) > MAX_LAYERS:
        raise ConfigError(f"more than {MAX_LAYERS} layers")
    return [_match(text, kinds) for text in texts]


def _match(text: str, kinds: Collection[str]) -> tuple[str, re.Match[str]]:
    """The kind whose pattern a token follows."""
    shown = repr(text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}...")
    for name in kinds:
        kind = LAYER_KINDS[name]
        if token := kind.pattern.fullmatch(text):
            width = _WIDTH.match(text)
            if width and not 1 <= int(width[0].lstrip("0")[:8] or 0) <= MAX_WIDTH:
                raise ConfigError(f"{shown} is not within 1 to {MAX_WIDTH}")
            return name, token
    known = ", ".join(LAYER_KINDS[name].meaning for name in kinds)
    raise ConfigError(f"{shown} is no layer; a layer is written {known}")
