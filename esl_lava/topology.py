"""Description of a network without weights: its layers, their sources and their shapes.

The notation is that of the literature: the layers between input and readout, separated by `-`.
`"800"` is 784-800-10 on data of 784 inputs and 10 classes. `"800-400"` has two hidden layers.
`"32C3-AP2-64C3S2"` has two convolutions; the maps of the first are pooled, and the second has
stride 2. `"32C3-R32-R64S2"` has a convolution and two residual blocks.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType

from esl_lava.errors import ConfigError, shorten

INPUT = "input"
"""Name of the input as the source of the first layers."""

READOUT = "readout"
"""Name of the layer whose neurons are the classes."""

MAX_LAYERS = 64
MAX_WIDTH = 1 << 20
MAX_DENSE = 1 << 28
"""The most positions of a layer whose weights are held dense: 1 GiB in float32."""

MAX_KERNEL = 31
"""The longest side of a kernel."""

MAX_POOL = 32
"""The longest side of a pool."""

Shape = tuple[int, ...]

_WIDTH = re.compile("^(R?)([0-9]+)")
"""The letter before a token's number of neurons or channels, and the number."""


@dataclass(frozen=True)
class LayerSpec:
    """A layer without its weights, or a shortcut, which brings a layer a second input.

    Attributes:
        name: `hidden1`, `hidden2`, ... in order, `conv1`, `conv2`, ... in order, or `readout`. A
            shortcut has the number of its layer: `shortcut3` belongs to `conv3`.
        kind: "dense" or "conv".
        source: name of the layer that feeds it, or `INPUT`.
        input_shape, output_shape: shapes in one step of a sample, without the batch; that of the
            input is the shape after pooling.
        weight_shape: (outputs, inputs, *lengths of a kernel).
        stride, padding: stride and padding of a kernel, along both axes.
        pool: side of the squares of the source's maps that are summed before the weights.
        shortcut: the weights through which a residual block adds a second input to the layer;
            None without them.
        identity: name of the layer whose spikes a residual block adds unchanged; empty without
            such an input.
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
        """Whether the layer's neurons are the classes."""
        return self.name == READOUT

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return math.prod(self.output_shape)

    @property
    def positions(self) -> int:
        """Number of weights that the layer could have; 0 for a layer without weights."""
        return math.prod(self.weight_shape) if self.weight_shape else 0


@dataclass(frozen=True)
class Topology:
    """The layers of a network in order. The readout is the last one.

    Attributes:
        input_shape: shape of one step of a sample.
        layers: layers with distinct names; the source of each stands before it.
    """

    input_shape: Shape
    layers: tuple[LayerSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all layers."""
        return tuple(layer.name for layer in self.layers)

    @property
    def hidden_names(self) -> tuple[str, ...]:
        """Names of all layers except the readout."""
        return tuple(layer.name for layer in self.layers if not layer.readout)

    @property
    def weighted(self) -> tuple[LayerSpec, ...]:
        """The layers that have weights; the shortcut of a layer stands behind the layer."""
        parts = (part for layer in self.layers for part in (layer, layer.shortcut))
        return tuple(part for part in parts if part and part.weight_shape)

    @property
    def positions(self) -> int:
        """Number of weights of the dense network."""
        return sum(layer.positions for layer in self.weighted)


@dataclass(frozen=True)
class Step:
    """One operation that a token of the notation applies to the maps or neurons before it.

    Attributes:
        kind: kind of the layer (`LayerSpec.kind`); empty for pooling alone.
        output_shape: shape in one step of a sample.
        weight_shape: see `LayerSpec`; empty for pooling alone.
        stride, padding: see `LayerSpec`.
        pool: side of the squares of inputs that are summed; 1 without pooling.
        adds: stride with which a residual block adds its input to the input of this layer; 0 if
            nothing is added.
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
        pattern: pattern of the whole token. A number at its beginning, or behind an R at its
            beginning, is the number of neurons or channels, 1 to `MAX_WIDTH`.
        meaning: an example with its meaning, for errors.
        steps: (match of the token, shape of the input) -> the operations of the token, in order.
    """

    pattern: re.Pattern[str]
    meaning: str
    steps: Callable[[re.Match[str], Shape], tuple[Step, ...]]


PREFIXES: Mapping[str, str] = MappingProxyType({"dense": "hidden", "conv": "conv"})
"""Kind of layer -> beginning of the names of such layers, before the number."""


def _dense(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    neurons = int(token[0])
    return (Step("dense", (neurons,), (neurons, math.prod(inputs))),)


def _maps(token: re.Match[str], inputs: Shape) -> tuple[int, int, int]:
    """Return (channels, rows, columns) of the token's input, which must be feature maps."""
    if len(inputs) != 3:
        raise ConfigError(
            f"{token[0]} needs feature maps, but its input is {math.prod(inputs)} single neurons",
            "conflict",
            value=token[0],
        )
    channels, rows, columns = inputs
    return channels, rows, columns


def _sliding(inputs: Shape, outputs: int, kernel: int, stride: int, adds: int = 0) -> Step:
    """Return a convolution with a padding that keeps the size of the maps at stride 1."""
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
        raise ConfigError(
            f"{token[0]}: the side {kernel} of a kernel must be odd, from 1 to {MAX_KERNEL}",
            "range",
            value=kernel,
            limit=MAX_KERNEL,
        )
    _check_stride(token, stride, kernel)
    return (_sliding(maps, outputs, kernel, stride),)


def _check_stride(token: re.Match[str], stride: int, kernel: int) -> None:
    if not 1 <= stride <= kernel:
        raise ConfigError(
            f"{token[0]}: the stride {stride} must be from 1 to the kernel's side, {kernel}",
            "range",
            value=stride,
            limit=kernel,
        )


def _residual(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    maps = _maps(token, inputs)
    outputs, stride = int(token[1]), int(token[2] or 1)
    _check_stride(token, stride, 3)
    first = _sliding(maps, outputs, 3, stride)
    return first, _sliding(first.output_shape, outputs, 3, 1, adds=stride)


def _pool(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    channels, rows, columns = _maps(token, inputs)
    side, limit = int(token[1]), min(rows, columns, MAX_POOL)
    if not 2 <= side <= limit:
        raise ConfigError(
            f"{token[0]} on maps of {rows} x {columns}: the side {side} of a pool must be from 2 "
            f"to {limit}",
            "range",
            value=side,
            limit=limit,
        )
    return (Step("", (channels, rows // side, columns // side), pool=side),)


def _global_pool(token: re.Match[str], inputs: Shape) -> tuple[Step, ...]:
    channels, rows, columns = _maps(token, inputs)
    if rows != columns:
        raise ConfigError(
            f"{token[0]} on maps of {rows} x {columns}: the maps must be square",
            "conflict",
            value=token[0],
        )
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
"""Name of a kind of token -> the kind."""

FULLY_CONNECTED = ("dense",)
"""The kinds of tokens in networks of fully connected layers only."""

NAMED: Mapping[str, str] = MappingProxyType(
    {
        "vggsnn": "64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-AP2",
        "vggsnn_strided": "64C3-128C3S2-256C3-256C3S2-512C3-512C3S2-512C3-512C3S2",
        "resnet19": "64C3-R128-R128-R128-R256S2-R256-R256-R512S2-R512-GAP-256",
    }
)
"""Name of a network of the literature -> its layers, as in TET (Deng et al., ICLR 2022)."""


def describe(
    notation: str,
    input_shape: Shape,
    classes: int,
    kinds: Collection[str] = FULLY_CONNECTED,
) -> Topology:
    """Describe the network of a notation. Each layer reads the layer before it.

    A residual block has two convolutions and adds its input to the input of the second one. It
    adds the spikes unchanged if they come from a layer of the same shape. Otherwise it adds them
    through a convolution of 1 x 1 (`LayerSpec.shortcut`).

    Args:
        notation: the layers between input and readout.
        input_shape: shape of one step of a sample.
        classes: neurons of the readout.
        kinds: keys of `LAYER_KINDS` that the notation may use.

    Raises:
        ConfigError: for a token that is of none of these kinds or has a number out of range, for
            more than `MAX_LAYERS` tokens, for maps that do not fit a layer, or for a pool that
            leaves out rows or columns before a convolution.
    """
    layers: list[LayerSpec] = []
    source = _Source(INPUT, input_shape)
    incomplete = ""  # a pool that leaves out rows or columns, with its maps
    numbers: Counter[str] = Counter()
    for kind, token in _tokens(notation, kinds):
        block_source = source
        for step in LAYER_KINDS[kind].steps(token, source.shape):
            if not step.kind:
                rows, columns = source.shape[1:]
                if rows % step.pool or columns % step.pool:
                    incomplete = f"{token[0]} on maps of {rows} x {columns}"
                source = _Source(source.name, step.output_shape, source.pool * step.pool)
                continue
            if incomplete and step.kind != "dense":
                raise ConfigError(
                    f"{incomplete} leaves out rows or columns, which {token[0]} behind it needs",
                    "conflict",
                    value=token[0],
                )
            numbers[step.kind] += 1
            name = f"{PREFIXES[step.kind]}{numbers[step.kind]}"
            layer = _layer(name, step, source)
            if step.adds:
                layer = _add(layer, block_source, step.adds, numbers[step.kind])
            layers.append(layer)
            source, incomplete = _Source(name, step.output_shape), ""
    readout = Step("dense", (classes,), (classes, math.prod(source.shape)))
    return Topology(input_shape, (*layers, _layer(READOUT, readout, source)))


@dataclass(frozen=True)
class _Source:
    """The layer that the next layer reads, and the pool between the two.

    The next layer reads sums over squares of side `pool` in the maps of the layer `name`. These
    sums have the shape `shape`.
    """

    name: str
    shape: Shape
    pool: int = 1


def _layer(name: str, step: Step, source: _Source) -> LayerSpec:
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


def _add(layer: LayerSpec, source: _Source, stride: int, number: int) -> LayerSpec:
    """Return the second layer of a residual block, to which the block adds its source."""
    if source.shape == layer.output_shape and source.pool == 1 and source.name != INPUT:
        return replace(layer, identity=source.name)
    step = _sliding(source.shape, layer.output_shape[0], 1, stride)
    return replace(layer, shortcut=_layer(f"shortcut{number}", step, source))


def check_notation(notation: str, kinds: Collection[str] = FULLY_CONNECTED) -> None:
    """Check the tokens of a notation without the shape of the data, which `describe` needs.

    Raises:
        ConfigError: for a token that is of none of these kinds, for a number of neurons or
            channels out of range, for more than `MAX_LAYERS` tokens, or for a notation without a
            layer that has weights. Only `describe` checks kernels, strides and pools.
    """
    if not any(width_of(token[0]) for _, token in _tokens(notation, kinds)):
        raise ConfigError(
            f"there is no layer with weights in {shorten(notation)}", "missing", value=notation
        )


def width_of(token: str) -> int | None:
    """Return the number of neurons or channels of a token, or None for a pool."""
    match = _WIDTH.match(token)
    return int(match[2]) if match else None


def widest(notation: str) -> int:
    """Return the largest number of neurons or channels of a hidden layer."""
    return max(width_of(token) or 0 for token in notation.split("-"))


def narrow(notation: str, width: int) -> str:
    """Scale all layers by the factor that gives the widest layer `width` neurons or channels.

    The numbers of neurons and channels are rounded; each is at least 1.
    """
    return scale_widths(notation, Fraction(width, widest(notation)))


def scale_widths(notation: str, factor: float | Fraction) -> str:
    """Multiply the neurons or channels of all layers by `factor`, rounded, at least 1."""
    return "-".join(
        _WIDTH.sub(lambda match: f"{match[1]}{max(1, round(int(match[2]) * factor))}", token)
        for token in notation.split("-")
    )


def _tokens(notation: str, kinds: Collection[str]) -> list[tuple[str, re.Match[str]]]:
    """Return the kind and the match of each token."""
    texts = notation.split("-", MAX_LAYERS)
    if len(texts) > MAX_LAYERS:
        raise ConfigError(
            f"{notation.count('-') + 1} layers are given, but at most {MAX_LAYERS} are allowed",
            "range",
            value=notation.count("-") + 1,
            limit=MAX_LAYERS,
        )
    return [_match(text, kinds) for text in texts]


def _match(text: str, kinds: Collection[str]) -> tuple[str, re.Match[str]]:
    """Return the kind whose pattern a token follows, and the match."""
    for name in kinds:
        kind = LAYER_KINDS[name]
        if token := kind.pattern.fullmatch(text):
            width = _WIDTH.match(text)
            if width and not 1 <= int(width[2].lstrip("0")[:8] or 0) <= MAX_WIDTH:
                raise ConfigError(
                    f"{shorten(text)} is not within 1 to {MAX_WIDTH} neurons or channels",
                    "range",
                    value=text,
                    limit=MAX_WIDTH,
                )
            return name, token
    known = ", ".join(LAYER_KINDS[name].meaning for name in kinds)
    is_layer = any(kind.pattern.fullmatch(text) for kind in LAYER_KINDS.values())
    what = "a layer that only another model.kind has" if is_layer else "no layer"
    raise ConfigError(
        f"{shorten(text)} is {what}; in this kind of network a layer is written as {known}",
        "unknown",
        value=text,
    )
