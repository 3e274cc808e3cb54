"""Reading netx HDF5 files: ours completely, others' as far as the network can say them.

A file means what lava-dl 0.6.0's netx makes of it. What netx cannot load, what it passes
over in silence though the author meant something by it, and what makes Lava hang is
refused, naming the layer. Files may come from strangers: see `safe`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

from esl_lava.arrays import Array, Bools
from esl_lava.chip import LAVA_BIAS_RANGE, MESSAGE_BITS, SPIKE_RANGE
from esl_lava.connections import frozen
from esl_lava.errors import FileError
from esl_lava.netfile.limits import violations
from esl_lava.netfile.neurons import check_meaning, for_each_neuron, read_neuron
from esl_lava.netfile.safe import (
    MAX_TEXT,
    RefusedError,
    attribute,
    has,
    integers,
    is_group,
    subgroup,
    text,
)
from esl_lava.netfile.writer import (
    FORMAT_VERSION,
    GROUP,
    MAX_LAYERS,
    MAX_NEURONS,
    MAX_POSITIONS,
    MAX_TEXTS,
    digest,
    netx_type,
    range_of_bits,
    source_in_netx,
)
from esl_lava.network import (
    Connections,
    Convolution,
    Injection,
    Input,
    Layer,
    Matrix,
    Network,
    Origin,
)

MAX_AXES = 8

KINDS = ("dense", "dense_rec", "conv", "input")
"""Types that become layers of the network; 'flatten' groups stand between them."""


def read(
    path: Path, layers: int | None = None, input_shape: tuple[int, int, int] | None = None
) -> Network:
    """Read a netx file written by us, or by lava-dl as far as the network can express it.

    Layers of others' files are called `layer0`, `layer1`, ... by their group; what scales
    the input of their input block is in the provenance (`input_weight`, `input_bias`).
    Such a file must also respect the limits that ours do (`limits`): where netx would run other
    numbers than it holds, it means two things.

    Args:
        layers: read only the first so many groups of `/layer`, as netx's `num_layers`
            does: for files that end with a block netx does not know either.
        input_shape: (channels, rows, columns) of the input, where a file that begins with a
            convolution does not say it; netx takes it too, as (columns, rows, channels).

    Raises:
        FileError: naming file, layer and reason.
    """
    try:
        with path.open("rb") as file:
            if file.read(8) != b"\x89HDF\r\n\x1a\n":
                raise FileError(f"{path}: not an HDF5 file")
        with h5py.File(path, "r") as file:
            return _network(file, layers, input_shape)
    except (RefusedError, ValueError, TypeError) as error:
        raise FileError(f"{path}: {error}") from None
    except (
        OSError,
        RuntimeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        MemoryError,
    ) as error:  # what a damaged file makes h5py raise
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path}: cannot be read as HDF5: {reason}") from None


def _network(
    file: h5py.File, wanted: int | None, input_shape: tuple[int, int, int] | None
) -> Network:
    blocks = subgroup(file, "layer")
    if not 1 <= len(blocks) <= MAX_LAYERS:
        raise RefusedError(f"{len(blocks)} layers, a network has 1 to {MAX_LAYERS}")
    groups = len(blocks) if wanted is None else wanted
    if not 1 <= groups <= len(blocks):
        raise RefusedError(f"there are {len(blocks)} layers, not {groups}")
    if not has(file, GROUP):
        return _of_others(blocks, groups, input_shape)
    ours = subgroup(file, GROUP)
    version = attribute(ours, "format_version", int)
    if version != FORMAT_VERSION:
        raise RefusedError(
            f"format version {version}, this esl-lava reads version {FORMAT_VERSION}"
        )
    walk = _Walk(blocks, subgroup(ours, "layer"))
    layers = walk.layers(len(blocks))
    steps = attribute(ours, "steps", int) if "steps" in ours.attrs else None
    network = Network(tuple(layers), steps, _provenance(ours), _input_range(ours))
    if digest(network) != attribute(ours, "digest", str):
        raise RefusedError("its digest does not match its data: the file was changed or damaged")
    kept = [layer for layer, place in zip(layers, walk.places) if place < groups]
    return replace(network, layers=tuple(kept))


def _input_range(ours: h5py.Group) -> tuple[int, int]:
    if "input_low" in ours.attrs:
        return attribute(ours, "input_low", int), attribute(ours, "input_high", int)
    bits = attribute(ours, "input_bits", int)
    if not 0 <= bits <= MESSAGE_BITS:
        raise RefusedError(f"inputs of {bits} bits are outside 0..{MESSAGE_BITS}")
    return range_of_bits(bits)


def _of_others(
    blocks: h5py.Group, groups: int, input_shape: tuple[int, int, int] | None
) -> Network:
    """The network of a file that lava-dl or a hand wrote."""
    walk = _Walk(blocks, given=input_shape)
    layers = walk.layers(groups)
    injects = layers[0].inputs[0].connections.injects
    network = Network(tuple(layers), None, walk.facts, LAVA_BIAS_RANGE if injects else SPIKE_RANGE)
    if broken := violations(network):
        raise RefusedError("; ".join(broken))
    return network


def _provenance(ours: h5py.Group) -> dict[str, str]:
    texts: dict[str, str] = {}
    if has(ours, "provenance"):
        stored = subgroup(ours, "provenance")
        if len(stored) > MAX_TEXTS:
            raise RefusedError(f"its provenance has {len(stored)} texts, more than {MAX_TEXTS}")
        for key in stored:
            texts[key] = text(stored, key)
            # Many links may lead to one text.
            if sum(map(len, texts.values())) > MAX_TEXT:
                raise RefusedError(f"its provenance is longer than {MAX_TEXT} characters")
    return texts


@dataclass
class _Walk:
    """The way through the groups of `/layer`, in netx's order.

    Attributes:
        blocks: `/layer`.
        besides: our own group of what netx ignores, where the file is ours.
        given: shape of the input as the caller knows it, where the file does not tell.
        facts: what an input block of others says besides its layer.
        places: index of each layer's group.
        before: shape of what feeds the next layer; None where the file does not tell.
        last: the layer before, None where the network's input comes next.
        flat: whether a 'flatten' group has just passed.
        positions, neurons: how many more the file may claim.
    """

    blocks: h5py.Group
    besides: h5py.Group | None = None
    given: tuple[int, int, int] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    before: tuple[int, ...] | None = None
    last: Layer | None = None
    flat: bool = False
    positions: int = field(default_factory=lambda: MAX_POSITIONS)
    neurons: int = field(default_factory=lambda: MAX_NEURONS)

    def layers(self, groups: int) -> list[Layer]:
        """The layers of the first so many groups."""
        layers: list[Layer] = []
        for index in range(groups):
            name = f"layer{index}"
            try:
                group = subgroup(self.blocks, str(index))
                kind = stored = _kind(group)
                if self._only_shapes(group, kind):
                    continue
                beside = None
                if self.besides is not None:
                    beside = subgroup(self.besides, str(index))
                    name = attribute(beside, "name", str)
                    kind = attribute(beside, "type", str)
                layer = self._layer(group, name, kind, beside)
                if beside is not None and stored != netx_type(layer, self.last):
                    raise RefusedError(f"type {stored!r} is not what netx must find there")
            except (RefusedError, ValueError) as error:
                raise RefusedError(f"layer {index} ({name}): {error}") from None
            layers.append(layer)
            self.places.append(index)
            self.last = layer
        if not layers:
            raise RefusedError("it has no layer with neurons")
        return layers

    def _only_shapes(self, group: h5py.Group, kind: str) -> bool:
        """Take note of a group that makes no layer; False where it does."""
        if kind == "flatten":
            self.flat = True
            return True
        if kind != "input":
            return False
        if self.last is not None:
            raise RefusedError("an input that is not the first layer is not supported")
        if has(group, "neuron"):
            return False
        self._take(self._shape(group))
        return True

    def _layer(self, group: h5py.Group, name: str, kind: str, beside: h5py.Group | None) -> Layer:
        if kind not in KINDS:
            raise RefusedError(f"type {kind!r} is not supported, only {', '.join(KINDS)}, flatten")
        shape = self._shape(group)
        connections: Connections
        if kind == "input":
            connections = Injection(shape)
        elif kind == "conv":
            connections = self._convolution(group, beside, self._in_shape(beside))
            if connections.out_shape != shape:
                raise RefusedError(f"shape {shape}, but its kernel makes {connections.out_shape}")
        else:
            shape = (math.prod(shape),)
            self._check_flattened()
            connections = self._matrix(group, "weight", *shape, None, beside)
        recurrent: tuple[Input, ...] = ()
        if has(group, "weight_rec"):
            if beside is None and kind != "dense_rec":
                raise RefusedError(f"weight_rec in a layer of type {kind!r} is ignored by netx")
            n = connections.n_post
            matrix = self._matrix(group, "weight_rec", n, n, beside, "zero_recurrent")
            recurrent = (Input(name, matrix),)
        elif kind == "dense_rec":
            raise RefusedError("weight_rec is missing")
        if self.before is None:
            self._take((connections.n_pre,))
        self._take(shape)
        source = source_in_netx(self.last)
        if beside is not None and "source" in beside.attrs:
            source = attribute(beside, "source", str)
        delays = self._delays(group, kind, shape, beside)
        first = Input(source, connections, delays, _origin(beside))
        bias = None
        if kind == "input" and beside is None:
            self._note_transform(group)
        elif has(group, "bias"):
            bias = for_each_neuron(integers(group, "bias", math.prod(shape)), shape, "bias")
        neuron = read_neuron(group, shape, kind)
        if beside is not None and "refractory" in beside.attrs:
            neuron = replace(neuron, refractory=attribute(beside, "refractory", int))
        layer = Layer(name, (first, *self._skips(beside), *recurrent), neuron, bias)
        if beside is None:
            check_meaning(layer)
        return layer

    def _check_flattened(self) -> None:
        """Feature maps reach a fully connected layer through a 'flatten', nothing else does."""
        maps = self.before is not None and len(self.before) == 3
        if self.last is not None and self.flat != maps:
            raise RefusedError(
                f"neurons of shape {self.before} feed it {'through' if self.flat else 'without'} "
                "a 'flatten' layer, which netx cannot connect"
            )
        self.flat = False

    # --- Connections. ---

    def _matrix(
        self,
        group: h5py.Group,
        key: str,
        n_post: int,
        n_pre: int | None,
        beside: h5py.Group | None,
        zeros: str = "zero_connections",
    ) -> Matrix:
        """A weight matrix; older files have it in one dimension."""
        weight = self._weight(group, key)
        fits = weight.size and (
            weight.shape[0] == n_post
            if weight.ndim == 2
            else weight.ndim == 1 and n_post > 0 and weight.size % n_post == 0
        )
        if not fits or (n_pre is not None and weight.size != n_post * n_pre):
            raise RefusedError(f"{key} of shape {weight.shape} does not feed {n_post} neurons")
        weight = weight.reshape(n_post, -1)
        self.positions -= weight.size
        return Matrix.from_dense(weight, _mask(weight, beside, zeros))

    def _convolution(
        self, group: h5py.Group, beside: h5py.Group | None, in_shape: tuple[int, ...]
    ) -> Convolution:
        kernel = self._weight(group, "weight")
        if kernel.ndim == 5 and kernel.shape[4] == 1:  # with time, as older files have it
            kernel = kernel[..., 0]
        groups = integers(group, "groups", 1, floats=False)
        if groups.shape != ():
            raise RefusedError(f"groups of shape {groups.shape} is not one number")
        convolution = Convolution(
            kernel,
            in_shape,  # type: ignore[arg-type]  # its length is checked there
            stride=_pair(group, "stride"),
            padding=_pair(group, "padding"),
            dilation=_pair(group, "dilation"),
            groups=int(groups),
            allowed=_mask(kernel, beside, "zero_connections"),
        )
        self.positions -= kernel.size
        return convolution

    def _weight(self, group: h5py.Group, key: str) -> Array:
        if is_group(group, key):
            raise RefusedError(f"{key} is a group: complex weights are not supported")
        return integers(group, key, self.positions)

    def _in_shape(self, beside: h5py.Group | None) -> tuple[int, ...]:
        """The shape a convolution takes its input in."""
        if beside is not None and has(beside, "in_shape"):
            return tuple(integers(beside, "in_shape", 3, floats=False).ravel().tolist())
        if self.before is not None:
            return self.before
        if self.given is None:
            raise RefusedError(
                "the file does not say what shape its input has; give --input-shape, or data "
                "with axes for channels, rows and columns"
            )
        return self.given

    def _skips(self, beside: h5py.Group | None) -> tuple[Input, ...]:
        if beside is None or not has(beside, "skip"):
            return ()
        stored = subgroup(beside, "skip")
        if len(stored) > MAX_LAYERS:
            raise RefusedError(f"{len(stored)} skips, more than {MAX_LAYERS}")
        skips = []
        for index in range(len(stored)):
            group = subgroup(stored, str(index))
            connections: Connections
            if has(group, "in_shape"):
                connections = self._convolution(group, group, self._in_shape(group))
            else:
                n_post = integers(group, "outFeatures", 1, floats=False)
                connections = self._matrix(group, "weight", int(n_post), None, group)
            delays = None
            if has(group, "delay"):
                delays = frozen(integers(group, "delay", connections.n_post), np.int32)
            source = attribute(group, "source", str)
            skips.append(Input(source, connections, delays, _origin(group)))
        return tuple(skips)

    # --- What belongs to neurons. ---

    def _shape(self, group: h5py.Group) -> tuple[int, ...]:
        stored = integers(group, "shape", MAX_AXES, floats=False)
        if self.besides is None and stored.dtype.kind == "u":
            raise RefusedError(
                f"shape is of type {stored.dtype}, with which Lava fails; it takes signed integers"
            )
        shape = tuple(stored.ravel().tolist())
        if not shape or min(shape) < 1:
            raise RefusedError(f"shape {shape} has no neurons")
        return shape

    def _take(self, shape: tuple[int, ...]) -> None:
        """What feeds the next layer has this shape; refuse more neurons than any network has."""
        self.neurons -= math.prod(shape)
        if self.neurons < 0:
            raise RefusedError(f"with shape {shape} there are more than {MAX_NEURONS} neurons")
        self.before = shape

    def _delays(
        self, group: h5py.Group, kind: str, shape: tuple[int, ...], beside: h5py.Group | None
    ) -> Array | None:
        if not has(group, "delay"):
            return None
        stored = integers(group, "delay", math.prod(shape))
        if beside is None and kind == "conv" and not stored.any():
            return None
        if beside is None and kind != "dense":
            raise RefusedError(f"delay in a layer of type {kind!r} is not what netx makes of it")
        if stored.ndim == 0:
            stored = np.full(shape, stored)
        return for_each_neuron(stored, shape, "delay")

    def _note_transform(self, group: h5py.Group) -> None:
        """Scale and offset of the input, as netx's `Input.transform` has them."""
        for key, value in (("weight", 64), ("bias", 0)):  # where the file does not say
            if has(group, key):
                stored = integers(group, key, 1)
                if stored.size != 1:
                    raise RefusedError(f"{key} of shape {stored.shape} is not one number")
                value = int(stored.ravel()[0])
            self.facts[f"input_{key}"] = str(value)


def _kind(group: h5py.Group) -> str:
    if len(group) == 0:
        raise RefusedError("the group is empty, as lava-dl leaves it for what it cannot export")
    return text(group, "type")


def _origin(beside: h5py.Group | None) -> Origin | None:
    """What connections were made of, where that is said."""
    if beside is None or "trained_name" not in beside.attrs:
        return None
    numbers = (attribute(beside, f"trained_{key}", int) for key in ("weights", "positions"))
    return Origin(attribute(beside, "trained_name", str), *numbers)


def _mask(weight: Array, beside: h5py.Group | None, key: str) -> Bools:
    """Where connections are: at weights, and where our own group says so."""
    mask = weight != 0
    if beside is None:
        return mask
    gaps = integers(beside, key, weight.size)
    # Ascending, and no sum below can overflow.
    if gaps.ndim != 1 or (gaps < 0).any() or (gaps[1:] < 1).any() or (gaps >= mask.size).any():
        raise RefusedError(f"{key} is not ascending")
    flat = np.cumsum(gaps, dtype=np.int64)
    if flat.size and (flat[-1] >= mask.size or mask.ravel()[flat].any()):
        raise RefusedError(f"{key} does not fit the weights")
    mask.ravel()[flat] = True
    return mask


def _pair(group: h5py.Group, key: str) -> tuple[int, int]:
    """(rows, columns) of a stride, padding or dilation; one number counts for both."""
    values = integers(group, key, 2, floats=False).ravel().tolist()
    if not values:
        raise RefusedError(f"{key} holds no number")
    return values[0], values[-1]
