"""A network before it has weights: its layers, what feeds each, and their shapes.

The notation is the literature's: the layers between input and readout, separated by `-`.
`"800"` is 784-800-10 on data of 784 inputs and 10 classes, `"800-400"` has two hidden layers.
`"32C3-AP2-64C3S2"` are two convolutions, the first one's maps pooled, the second with stride 2.
`"32C3-R32-R64S2"` adds two residual blocks.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
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

_WIDTH = re.compile("^(R?)([0-9]+)")
"""What comes before a token's number of neurons or channels, and it."""


@dataclass(frozen=True)
class LayerSpec:
    """A layer without its weights, or the weights that bring a layer a second input.

    Attributes:
        name: `hidden1`, `hidden2`, ... in order, `conv1`, ..., `shortcut1`, ..., or `readout`.
        kind: a key of `LAYER_KINDS`.
        source: what feeds it, an earlier layer's name or `INPUT`.
        input_shape, output_shape: of one step of a sample, without the batch; the input's where
            it has been pooled.
        weight_shape: (outputs, inputs, *lengths of a kernel).
        stride, padding: of a kernel, along both axes.
        pool: side of the squares of its source's maps that are summed before the weights.
        shortcut: what a residual block adds to the layer's input, by weights of its own.
        identity: the layer whose spikes it adds as they are; none where there is no such input.
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
    shortcut: LayerSpec | None = None
    identity: str = ""

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
        """The layers that have weights, each followed by its shortcut's."""
        both = (part for layer in self.layers for part in (layer, layer.shortcut))
        return tuple(part for part in both if part and part.weight_shape)

    @property
    def positions(self) -> int:
        """Number of weights of the dense network."""
        return sum(layer.positions for layer in self.weighted)


@dataclass(frozen=True)
class Step:
    """What a token of the notation, or a part of it, makes of the maps or neurons before it.

    Attributes:
        kind: of the layer (`LayerSpec.kind`); empty of what only pools.
        output_shape: of one step of a sample.
        weight_shape: see `LayerSpec`; empty of what only pools.
        stride, padding: see `LayerSpec`.
        pool: side of the squares of inputs that are summed, 1 of what does not pool.
        adds: stride with which what came before the token is added to the layer's input; 0 where
            it is not.
    """

    kind: str
    output_shape: Shape
    weight_shape: Shape = ()
    stride: int = 1
    padding: int = 0
    pool: int = 1
    adds: int = 0


@dataclass(frozen=True)
class LayerKind:
    """A kind of token of the notation.

    Attributes:
        pattern: of the whole token. A number that it begins with, or that follows an R there, is
            that of its neurons or channels, 1 to `MAX_WIDTH`.
        meaning: an example and what it is, for errors.
        steps: (the token's match, shape of the input) -> what it makes of it, step after step.
    """

    pattern: re.Pattern[str]
    meaning: str
    steps: Callable[[re.Match[str], Shape], tuple[Step, ...]]


PREFIXES: Mapping[str, str] = MappingProxyType({"dense": "hidden", "conv": "conv"})
"""Kind of layer -> what the names of such layers begin with, before their number."""


def _dense(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    neurons = int(token[0])
    return (Step("dense", (neurons,), (neurons, math.prod(inputs))),)


def _maps(token: re.Match[str], inputs: Shape) -> tuple[int, int, int]:
    if len(inputs) != 3:
        raise ConfigError(
            f"{token[0]} needs feature maps, and is fed by {math.prod(inputs)} neurons"
        )
    channels, rows, columns = inputs
    return channels, rows, columns


def _sliding(inputs: Shape, outputs: int, kernel: int, stride: int, adds: int = 0) -> Step:
    """A convolution whose kernel is padded so that a stride of 1 keeps the maps' size."""
    channels, *sides = inputs
    padding = kernel // 2
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
    weight_shape = (outputs, channels, kernel, kernel)
    return Step("conv", (outputs, rows, columns), weight_shape, stride, padding, adds=adds)


def _conv(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    maps = _maps(token, inputs)
    outputs, kernel = int(token[1]), int(token[2])
    stride = int(token[3] or 1)
    if not kernel % 2 or kernel > MAX_KERNEL:
        raise ConfigError(f"{token[0]}: a kernel has an odd side of 1 to {MAX_KERNEL}")
    if not 1 <= stride <= kernel:
        raise ConfigError(f"{token[0]}: a stride is within 1 and the kernel's side, {kernel}")
    return (_sliding(maps, outputs, kernel, stride),)


def _residual(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    maps = _maps(token, inputs)
    outputs, stride = int(token[1]), int(token[2] or 1)
    if not 1 <= stride <= 3:
        raise ConfigError(f"{token[0]}: a stride is within 1 and the kernel's side, 3")
    first = _sliding(maps, outputs, 3, stride)
    return first, _sliding(first.output_shape, outputs, 3, 1, adds=stride)


def _pool(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    channels, rows, columns = _maps(token, inputs)
    side = int(token[1])
    if not 2 <= side <= min(rows, columns, MAX_POOL):
        raise ConfigError(
            f"{token[0]} on maps of {rows} x {columns}: a pool has a side of 2 to "
            f"{min(rows, columns, MAX_POOL)}"
        )
    return (Step("", (channels, rows // side, columns // side), pool=side),)


def _global_pool(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    channels, rows, columns = _maps(token, inputs)
    if rows != columns:
        raise ConfigError(f"{token[0]} on maps of {rows} x {columns}: they are to be square")
    return (Step("", (channels, 1, 1), pool=rows),)


LAYER_KINDS: Mapping[str, LayerKind] = MappingProxyType(
    {
        "dense": LayerKind(
            re.compile("[0-9]+"), "800 (neurons of a fully connected layer)", _dense
        ),
        "conv": LayerKind(
            re.compile("([0-9]+)C([0-9]{1,2})(?:S([0-9]))?"),
            "64C3 (feature maps of a convolution with kernels of 3 x 3; 64C3S2 with stride 2)",
            _conv,
        ),
        "residual": LayerKind(
            re.compile("R([0-9]+)(?:S([0-9]))?"),
            "R64 (a residual block of two convolutions of 64 maps; R64S2 with stride 2)",
            _residual,
        ),
        "pool": LayerKind(re.compile("AP([0-9]{1,2})"), "AP2 (average pooling)", _pool),
        "global_pool": LayerKind(
            re.compile("GAP"), "GAP (average pooling of whole maps)", _global_pool
        ),
    }
)
"""The kinds of tokens by name."""

FULLY_CONNECTED = ("dense",)
"""The kinds of networks of fully connected layers alone."""

NAMED: Mapping[str, str] = MappingProxyType(
    {
        "vggsnn": "64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-AP2",
        "vggsnn_strided": "64C3-128C3S2-256C3-256C3S2-512C3-512C3S2-512C3-512C3S2",
        "resnet19": "64C3-R128-R128-R128-R256S2-R256-R256-R512S2-R512-GAP-256",
    }
)
"""Networks of the literature by name, as TET has them (Deng et al., ICLR 2022)."""


def describe(
    notation: str,
    input_shape: Shape,
    classes: int,
    kinds: Collection[str] = FULLY_CONNECTED,
) -> Topology:
    """The network of a notation on data of that shape, each layer fed by the one before.

    A residual block is two convolutions, and adds what came before it to the second one's input:
    the spikes as they are, where they come from a layer of the same shape, and else through a
    convolution of 1 x 1 (`LayerSpec.shortcut`).

    Args:
        kinds: which of `LAYER_KINDS` there may be.

    Raises:
        ConfigError: for a token that is no such layer, more than `MAX_LAYERS`, maps that a layer
            does not fit, or a pool before a convolution that leaves out rows or columns.
    """
    layers: list[LayerSpec] = []
    before, cut = _Place(INPUT, input_shape), ""
    numbers: Counter[str] = Counter()
    for kind, token in _tokens(notation, kinds):
        first = before
        for step in LAYER_KINDS[kind].steps(token, before.shape):
            if not step.kind:
                rows, columns = before.shape[1:]
                if rows % step.pool or columns % step.pool:
                    cut = f"{token[0]} on maps of {rows} x {columns} leaves out rows or columns"
                before = _Place(before.name, step.output_shape, before.pool * step.pool)
                continue
            if cut and step.kind != "dense":
                raise ConfigError(f"{cut}, which {token[0]} behind it cannot do without")
            numbers[step.kind] += 1
            name = f"{PREFIXES[step.kind]}{numbers[step.kind]}"
            layer = _layer(name, step, before)
            if step.adds:
                layer = _add(layer, first, step.adds, numbers[step.kind])
            layers.append(layer)
            before, cut = _Place(name, step.output_shape), ""
    readout = Step("dense", (classes,), (classes, math.prod(before.shape)))
    return Topology(input_shape, (*layers, _layer(READOUT, readout, before)))


@dataclass(frozen=True)
class _Place:
    """What feeds the next layer: a layer's maps, summed over squares of a side `pool`."""

    name: str
    shape: Shape
    pool: int = 1


def _layer(name: str, step: Step, source: _Place) -> LayerSpec:
    return LayerSpec(
        name,
        step.kind,
        source.name,
        source.shape,
        step.output_shape,
        step.weight_shape,
        step.stride,
        step.padding,
        source.pool,
    )


def _add(layer: LayerSpec, source: _Place, stride: int, number: int) -> LayerSpec:
    """A layer to whose input a residual block adds what came before it."""
    if source.shape == layer.output_shape and source.pool == 1 and source.name != INPUT:
        return replace(layer, identity=source.name)
    step = _sliding(source.shape, layer.output_shape[0], 1, stride)
    return replace(layer, shortcut=_layer(f"shortcut{number}", step, source))


def check_notation(notation: str, kinds: Collection[str] = FULLY_CONNECTED) -> None:
    """Refuse a notation with tokens that are no layers, whatever the data.

    Raises:
        ConfigError: as `describe`, of the tokens alone.
    """
    if not any(width_of(token[0]) for _, token in _tokens(notation, kinds)):
        raise ConfigError("there is no layer with weights")


def width_of(token: str) -> int | None:
    """A token's number of neurons or channels; None of one that only pools."""
    found = _WIDTH.match(token)
    return int(found[2]) if found else None


def widest(notation: str) -> int:
    """The most neurons or channels of a hidden layer."""
    return max(width_of(token) or 0 for token in notation.split("-"))


def narrow(notation: str, width: int) -> str:
    """The same layers, all narrower by the factor that makes the widest one `width`.

    Numbers of neurons are rounded, to 1 at least.
    """
    return scale_widths(notation, Fraction(width, widest(notation)))


def scale_widths(notation: str, factor: float | Fraction) -> str:
    """The same layers with `factor` times as many neurons or channels, rounded, at least 1."""
    return "-".join(
        _WIDTH.sub(lambda found: f"{found[1]}{max(1, round(int(found[2]) * factor))}", token)
        for token in notation.split("-")
    )


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
            if width and not 1 <= int(width[2].lstrip("0")[:8] or 0) <= MAX_WIDTH:
                raise ConfigError(f"{shown} is not within 1 to {MAX_WIDTH}")
            return name, token
    known = ", ".join(LAYER_KINDS[name].meaning for name in kinds)
    raise ConfigError(f"{shown} is no layer; a layer is written {known}")
