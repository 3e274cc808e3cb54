"""Read netx HDF5 files: ours completely, others as far as the integer network can express them.

A file means the network that netx of lava-dl 0.6.0 makes of it. A file is refused, with its layer
named, if netx cannot load it, if netx silently ignores something that its author meant, or if it
makes Lava hang. Files may come from strangers: see `safe`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from esl_lava.arrays import Array, Bools
from esl_lava.chip import LAVA_BIAS_RANGE, MESSAGE_BITS, SPIKE_RANGE
from esl_lava.connections import frozen
from esl_lava.errors import Code, Fault, FileError
from esl_lava.files import open_regular
from esl_lava.netfile.chunks import RefusedError
from esl_lava.netfile.limits import find_faults
from esl_lava.netfile.neurons import check_same_meaning, read_neuron, values_per_neuron
from esl_lava.netfile.safe import (
    MAX_TEXT,
    Group,
    get_group,
    has_attribute,
    has_group,
    has_link,
    open_root,
    read_attribute,
    read_integers,
    read_text,
)
from esl_lava.netfile.writer import (
    FORMAT_VERSION,
    GROUP,
    MAX_LAYERS,
    MAX_NEURONS,
    MAX_POSITIONS,
    MAX_TEXTS,
    NEURON_MEMORY,
    digest,
    memory_limit,
    memory_to_read,
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
"""Types that become layers of the network. 'flatten' groups stand between them."""

_PART = 1 << 20
"""Positions of which the connections are sought together."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read(
    path: Path, layers: int | None = None, input_shape: tuple[int, int, int] | None = None
) -> Network:
    """Read a netx file from esl-lava, or from lava-dl as far as the network can express it.

    Layers of others' files are called `layer0`, `layer1`, ... by their group. The scale and offset
    of the values of their input block are in the provenance (`input_weight`, `input_bias`).
    Such a file must also respect the limits of our files (`limits`): if netx would run other
    numbers than the file holds, the file has two meanings.

    Args:
        layers: read only this many groups of `/layer`, from the first, as netx's `num_layers`
            does: for files that end with a block that netx does not know either.
        input_shape: (channels, rows, columns) of the input, for a file that begins with a
            convolution and does not hold the shape. netx takes it too, as (columns, rows,
            channels).

    Raises:
        FileError: naming file, layer and reason.
    """
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:
        code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FileError(f"{path}: cannot be read: {_reason(error)}", code, file=path) from None
    with file:
        return _read(path, file, layers, input_shape)


def _read(
    path: Path, file: BinaryIO, layers: int | None, input_shape: tuple[int, int, int] | None
) -> Network:
    """Read an open file. `path` names it in errors."""
    # HDF5 opens the very file that is open, or fails if another one has its name by now.
    name = f"/proc/self/fd/{file.fileno()}"
    if not os.path.exists(name):  # a machine without /proc
        name = str(path)
    try:
        signature = file.read(len(SIGNATURE))
        if signature != SIGNATURE:
            hint = "; esl export writes one from a model.pt" if path.suffix == ".pt" else ""
            raise FileError(f"{path}: not an HDF5 file{hint}", "damaged", file=path)
        with h5py.File(name, "r", driver="sec2") as opened:
            return _network(open_root(opened), layers, input_shape)
    except RefusedError as error:
        raise FileError.of(
            [
                replace(fault, sentence=f"{path}: {fault.sentence}", file=path)
                for fault in error.faults
            ]
        ) from None
    except (ValueError, TypeError) as error:  # from the checks of the network's dataclasses
        raise FileError(f"{path}: {_reason(error)}", "damaged", file=path) from None
    except (
        OSError,
        RuntimeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        MemoryError,
    ) as error:  # h5py raises these for a damaged file
        reason = _reason(error).replace(name, str(path))
        raise FileError(f"{path}: cannot be read as HDF5: {reason}", "damaged", file=path) from None


def _reason(error: Exception) -> str:
    """Return the text of an exception in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _network(root: Group, layers: int | None, input_shape: tuple[int, int, int] | None) -> Network:
    blocks = get_group(root, "layer")
    if not 1 <= len(blocks) <= MAX_LAYERS:
        raise RefusedError(
            f"the file has {len(blocks)} groups in /layer; 1 to {MAX_LAYERS} are allowed",
            "range",
            value=len(blocks),
            limit=MAX_LAYERS,
        )
    groups = len(blocks) if layers is None else layers
    if not 1 <= groups <= len(blocks):
        raise RefusedError(
            f"argument layers: {groups} layers cannot be read; 1 to {len(blocks)} can, because the "
            f"file has {len(blocks)} groups in /layer",
            "range",
            key="layers",
            value=groups,
            limit=len(blocks),
        )
    if not has_link(root, GROUP):
        if has_attribute(blocks, GROUP):
            raise RefusedError(
                f"esl-lava wrote the file, but its group {GROUP} is missing", "damaged", key=GROUP
            )
        return _foreign_network(blocks, groups, input_shape)
    own_group = get_group(root, GROUP)
    version = read_attribute(own_group, "format_version", int)
    if version != FORMAT_VERSION:
        raise RefusedError(
            f"format_version {version} is not supported; this esl-lava reads version "
            f"{FORMAT_VERSION}",
            "unsupported",
            key="format_version",
            value=version,
            limit=FORMAT_VERSION,
        )
    reader = _LayerReader(blocks, get_group(own_group, "layer"))
    every = reader.read_layers(len(blocks))
    steps = read_attribute(own_group, "steps", int) if has_attribute(own_group, "steps") else None
    network = Network(tuple(every), steps, _provenance(own_group), _input_range(own_group))
    if digest(network) != read_attribute(own_group, "digest", str):
        raise RefusedError(
            "the digest does not match the data: the file was changed or damaged",
            "damaged",
            key="digest",
        )
    selected = [layer for layer, index in zip(every, reader.group_indices) if index < groups]
    return replace(network, layers=tuple(selected))


def _input_range(own_group: Group) -> tuple[int, int]:
    if has_attribute(own_group, "input_low"):
        return (
            read_attribute(own_group, "input_low", int),
            read_attribute(own_group, "input_high", int),
        )
    bits = read_attribute(own_group, "input_bits", int)
    if not 0 <= bits <= MESSAGE_BITS:
        raise RefusedError(
            f"input_bits {bits} is outside 0..{MESSAGE_BITS}",
            "range",
            key="input_bits",
            value=bits,
            limit=MESSAGE_BITS,
        )
    return range_of_bits(bits)


def _foreign_network(
    blocks: Group, groups: int, input_shape: tuple[int, int, int] | None
) -> Network:
    """Read the network of a file that lava-dl or a person wrote."""
    reader = _LayerReader(blocks, input_shape=input_shape)
    layers = reader.read_layers(groups)
    injects = layers[0].inputs[0].connections.injects
    input_range = LAVA_BIAS_RANGE if injects else SPIKE_RANGE
    network = Network(tuple(layers), None, reader.input_transform, input_range)
    if faults := find_faults(network):
        raise RefusedError.of(faults)
    return network


def _provenance(own_group: Group) -> dict[str, str]:
    texts: dict[str, str] = {}
    if has_link(own_group, "provenance"):
        stored = get_group(own_group, "provenance")
        if len(stored) > MAX_TEXTS:
            raise RefusedError(
                f"the provenance has {len(stored)} texts, more than {MAX_TEXTS}",
                "too-large",
                key="provenance",
                value=len(stored),
                limit=MAX_TEXTS,
            )
        for key in sorted(stored.names(MAX_TEXTS)):
            texts[key] = read_text(stored, key)
            if sum(map(len, texts.values())) > MAX_TEXT:
                raise RefusedError(
                    f"the provenance is longer than {MAX_TEXT} characters",
                    "too-large",
                    key="provenance",
                    limit=MAX_TEXT,
                )
    return texts


@dataclass
class _LayerReader:
    """Reads the groups of `/layer` one after the other, in netx's order.

    Attributes:
        blocks: the group `/layer`.
        own_blocks: the group `/esl_lava/layer`; None if esl-lava did not write the file.
        input_shape: shape of the input, from the caller, if the file does not hold it.
        input_transform: scale and offset of the values that an input block of others takes.
        group_indices: index of each layer's group.
        previous_shape: shape of the neurons or inputs that feed the next layer; None if the file
            does not hold it.
        previous: the layer before; None before the first layer.
        flattened: whether the group before was a 'flatten' group.
        memory_left: bytes of memory that further arrays may take while they are read.
        positions_left, neurons_left: how many more positions and neurons the file may claim.
    """

    blocks: Group
    own_blocks: Group | None = None
    input_shape: tuple[int, int, int] | None = None
    input_transform: dict[str, str] = field(default_factory=dict)
    group_indices: list[int] = field(default_factory=list)
    previous_shape: tuple[int, ...] | None = None
    previous: Layer | None = None
    flattened: bool = False
    memory_left: int = field(init=False)
    positions_left: int = field(default_factory=lambda: MAX_POSITIONS)
    neurons_left: int = field(default_factory=lambda: MAX_NEURONS)

    def __post_init__(self) -> None:
        self.memory_left = memory_limit(self.blocks.contents.stored.size)

    def read_layers(self, groups: int) -> list[Layer]:
        """Return the layers of this many groups, from the first."""
        layers: list[Layer] = []
        for index in range(groups):
            name = f"layer{index}"
            try:
                group = get_group(self.blocks, str(index))
                kind = stored = _kind(group)
                if self._holds_only_a_shape(group, kind):
                    continue
                own_group = None
                if self.own_blocks is not None:
                    own_group = get_group(self.own_blocks, str(index))
                    name = read_attribute(own_group, "name", str)
                    kind = read_attribute(own_group, "type", str)
                layer = self._layer(group, name, kind, own_group)
                expected = netx_type(layer, self.previous)
                if own_group is not None and stored != expected:
                    raise RefusedError(
                        f"type {stored!r} must be {expected!r} for netx",
                        "mismatch",
                        key="type",
                        value=stored,
                        limit=expected,
                    )
            except RefusedError as error:
                raise RefusedError.of(_in_layer(name, error.faults)) from None
            except ValueError as error:  # from the checks of the network's dataclasses
                fault = Fault(_reason(error), "damaged")
                raise RefusedError.of(_in_layer(name, [fault])) from None
            layers.append(layer)
            self.group_indices.append(index)
            self.previous = layer
        if not layers:
            raise RefusedError(
                f"no layer with neurons is in the first {groups} groups of /layer", "missing"
            )
        return layers

    def _holds_only_a_shape(self, group: Group, kind: str) -> bool:
        """Return whether a group only states a shape and makes no layer; note what it states."""
        if kind == "flatten":
            self.flattened = True
            return True
        if kind != "input":
            return False
        if self.previous is not None:
            raise RefusedError(
                "type 'input' is supported only in the first layer",
                "unsupported",
                key="type",
                value=kind,
            )
        if has_link(group, "neuron"):
            return False
        self._set_previous_shape(self._shape(group))
        return True

    def _layer(self, group: Group, name: str, kind: str, own_group: Group | None) -> Layer:
        if kind not in KINDS:
            raise RefusedError(
                f"type {kind!r} is not supported; the types are {', '.join(KINDS)}, flatten",
                "unsupported",
                key="type",
                value=kind,
                limit=(*KINDS, "flatten"),
            )
        shape = self._shape(group)
        connections: Connections
        if kind == "input":
            connections = Injection(shape)
        elif kind == "conv":
            connections = self._convolution(group, own_group, self._in_shape(own_group))
            if connections.out_shape != shape:
                raise RefusedError(
                    f"shape {shape} differs from the output shape {connections.out_shape} of the "
                    "kernel",
                    "mismatch",
                    key="shape",
                    value=shape,
                    limit=connections.out_shape,
                )
        else:
            shape = (math.prod(shape),)
            self._check_flattened()
            connections = self._matrix(group, "weight", *shape, None, own_group)
        recurrent: tuple[Input, ...] = ()
        if has_link(group, "weight_rec"):
            if own_group is None and kind != "dense_rec":
                raise RefusedError(
                    f"netx ignores weight_rec in a layer of type {kind!r}",
                    "conflict",
                    key="weight_rec",
                )
            n = connections.n_post
            matrix = self._matrix(group, "weight_rec", n, n, own_group, "zero_recurrent")
            recurrent = (Input(name, matrix),)
        elif kind == "dense_rec":
            raise RefusedError("weight_rec is missing", "missing", key="weight_rec")
        if self.previous_shape is None:
            self._set_previous_shape((connections.n_pre,))
        self._set_previous_shape(shape)
        source = source_in_netx(self.previous)
        if own_group is not None and has_attribute(own_group, "source"):
            source = read_attribute(own_group, "source", str)
        delays = self._delays(group, kind, shape, own_group)
        first = Input(source, connections, delays, _origin(own_group))
        bias = None
        if kind == "input" and own_group is None:
            self._read_input_transform(group)
        elif has_link(group, "bias"):
            bias = values_per_neuron(read_integers(group, "bias", math.prod(shape)), shape, "bias")
        neuron = read_neuron(group, shape, kind)
        if own_group is not None and has_attribute(own_group, "refractory"):
            neuron = replace(neuron, refractory=read_attribute(own_group, "refractory", int))
        layer = Layer(name, (first, *self._skips(own_group), *recurrent), neuron, bias)
        if own_group is None:
            check_same_meaning(layer)
        return layer

    def _check_flattened(self) -> None:
        """Check that a 'flatten' group stands between feature maps and a fully connected layer."""
        feature_maps = self.previous_shape is not None and len(self.previous_shape) == 3
        if self.previous is not None and self.flattened != feature_maps:
            raise RefusedError(
                f"neurons of shape {self.previous_shape} feed the layer "
                f"{'through' if self.flattened else 'without'} a 'flatten' layer, which netx "
                "cannot connect",
                "unsupported",
            )
        self.flattened = False

    # --- Connections. ---

    def _matrix(
        self,
        group: Group,
        key: str,
        n_post: int,
        n_pre: int | None,
        own_group: Group | None,
        zeros: str = "zero_connections",
    ) -> Matrix:
        """Read a weight matrix (n_post, n_pre).

        Older files store it flat, one row of n_pre weights after the other.
        """
        weight = self._weight(group, key)
        fits = weight.size and (
            weight.shape[0] == n_post
            if weight.ndim == 2
            else weight.ndim == 1 and n_post > 0 and weight.size % n_post == 0
        )
        if not fits or (n_pre is not None and weight.size != n_post * n_pre):
            raise RefusedError(
                f"{key} of shape {weight.shape} is no weight matrix onto {n_post} neurons"
                + ("" if n_pre is None else f" from {n_pre} inputs"),
                "shape",
                key=key,
                value=weight.shape,
                limit=n_post,
            )
        weight = weight.reshape(n_post, -1)
        self.positions_left -= weight.size
        return _to_matrix(weight, self._mask(weight, key, own_group, zeros))

    def _convolution(
        self, group: Group, own_group: Group | None, in_shape: tuple[int, ...]
    ) -> Convolution:
        kernel = self._weight(group, "weight")
        if kernel.ndim == 5 and kernel.shape[4] == 1:  # older files have an axis for time
            kernel = kernel[..., 0]
        groups = read_integers(group, "groups", 1, floats=False)
        if groups.shape != ():
            raise RefusedError(
                f"groups of shape {groups.shape} is not one number",
                "shape",
                key="groups",
                value=groups.shape,
            )
        convolution = Convolution(
            kernel,
            in_shape,  # type: ignore[arg-type]  # its length is checked there
            stride=_pair(group, "stride"),
            padding=_pair(group, "padding"),
            dilation=_pair(group, "dilation"),
            groups=int(groups),
            allowed=self._mask(kernel, "weight", own_group, "zero_connections", shares=True),
        )
        self.positions_left -= kernel.size
        return convolution

    def _mask(
        self,
        weight: Array,
        key: str,
        own_group: Group | None,
        zeros: str,
        *,
        shares: bool = False,
    ) -> Bools:
        """Return where connections are: at weights other than 0, and where our group says so.

        The network would take more memory than the file could honestly ask for if a small file
        held very many connections. This refuses such a file before it takes the memory.
        """
        stored = int(np.count_nonzero(weight))
        width = weight.itemsize
        self._take_memory(key, memory_to_read(weight.size, width, stored, shares=shares))
        if own_group is None:
            return weight != 0
        gaps = read_integers(own_group, zeros, weight.size)
        self._take_memory(zeros, memory_to_read(0, width, gaps.size, shares=shares))
        # Ascending gaps below the size: no sum below can overflow.
        if (
            gaps.ndim != 1
            or (gaps < 0).any()
            or (gaps[1:] < 1).any()
            or (gaps >= weight.size).any()
        ):
            raise RefusedError(
                f"{zeros} does not hold ascending positions below {weight.size}",
                "damaged",
                key=zeros,
            )
        flat = np.cumsum(gaps, dtype=np.int64)
        mask: Bools = weight != 0
        if flat.size and (flat[-1] >= mask.size or mask.ravel()[flat].any()):
            raise RefusedError(
                f"{zeros} names a position beyond the weights, or one whose weight is not 0",
                "damaged",
                key=zeros,
            )
        mask.ravel()[flat] = True
        return mask

    def _take_memory(self, key: str, needed: int) -> None:
        """Count the memory that an array needs; refuse more than the file may take."""
        self.memory_left -= needed
        if self.memory_left < 0:
            size = self.blocks.contents.stored.size
            raise RefusedError(
                f"with {key} the network takes more than {memory_limit(size)} bytes of memory, "
                f"the limit for a file of {size} bytes",
                "too-large",
                key=key,
                value=needed,
                limit=memory_limit(size),
            )

    def _weight(self, group: Group, key: str) -> Array:
        if has_group(group, key):
            raise RefusedError(
                f"{key} is a group: complex weights are not supported", "unsupported", key=key
            )
        return read_integers(group, key, self.positions_left)

    def _in_shape(self, own_group: Group | None) -> tuple[int, ...]:
        """Return the shape in which a convolution takes its input."""
        if own_group is not None and has_link(own_group, "in_shape"):
            return tuple(read_integers(own_group, "in_shape", 3, floats=False).ravel().tolist())
        if self.previous_shape is not None:
            return self.previous_shape
        if self.input_shape is None:
            raise RefusedError(
                "the file does not hold the shape of its input; give --input-shape, or data "
                "with axes for channels, rows and columns",
                "missing",
                key="--input-shape",
            )
        return self.input_shape

    def _skips(self, own_group: Group | None) -> tuple[Input, ...]:
        if own_group is None or not has_link(own_group, "skip"):
            return ()
        stored = get_group(own_group, "skip")
        if len(stored) > MAX_LAYERS:
            raise RefusedError(
                f"the layer has {len(stored)} skip connections, more than {MAX_LAYERS}",
                "too-large",
                key="skip",
                value=len(stored),
                limit=MAX_LAYERS,
            )
        skips = []
        for index in range(len(stored)):
            group = get_group(stored, str(index))
            connections: Connections
            if has_link(group, "in_shape"):
                connections = self._convolution(group, group, self._in_shape(group))
            else:
                n_post = read_integers(group, "outFeatures", 1, floats=False)
                connections = self._matrix(group, "weight", int(n_post), None, group)
            delays = None
            if has_link(group, "delay"):
                delays = frozen(read_integers(group, "delay", connections.n_post), np.int32)
            source = read_attribute(group, "source", str)
            skips.append(Input(source, connections, delays, _origin(group)))
        return tuple(skips)

    # --- Neurons. ---

    def _shape(self, group: Group) -> tuple[int, ...]:
        stored = read_integers(group, "shape", MAX_AXES, floats=False)
        if self.own_blocks is None and stored.dtype.kind == "u":
            raise RefusedError(
                f"shape is of type {stored.dtype}, with which Lava fails; it must be a signed "
                "integer",
                "type",
                key="shape",
            )
        shape = tuple(stored.ravel().tolist())
        if not shape or min(shape) < 1:
            raise RefusedError(
                f"shape {shape} has no neurons", "range", key="shape", value=shape, limit=1
            )
        return shape

    def _set_previous_shape(self, shape: tuple[int, ...]) -> None:
        """Set the shape that feeds the next layer; refuse more neurons than a network can have."""
        self.neurons_left -= math.prod(shape)
        if self.neurons_left < 0:
            raise RefusedError(
                f"with shape {shape} the network has more than {MAX_NEURONS} inputs and neurons",
                "too-large",
                key="shape",
                value=shape,
                limit=MAX_NEURONS,
            )
        self._take_memory("shape", NEURON_MEMORY * math.prod(shape))
        self.previous_shape = shape

    def _delays(
        self, group: Group, kind: str, shape: tuple[int, ...], own_group: Group | None
    ) -> Array | None:
        if not has_link(group, "delay"):
            return None
        stored = read_integers(group, "delay", math.prod(shape))
        if own_group is None and kind == "conv" and not stored.any():
            return None
        if own_group is None and kind != "dense":
            raise RefusedError(
                f"delay in a layer of type {kind!r}: netx does not run it as SLAYER does",
                "unsupported",
                key="delay",
            )
        if stored.ndim == 0:
            stored = np.full(shape[::-1], stored)
        return values_per_neuron(stored, shape, "delay")

    def _read_input_transform(self, group: Group) -> None:
        """Read scale and offset of the input, as in netx's `Input.transform`."""
        for key, value in (("weight", 64), ("bias", 0)):  # netx's defaults
            if has_link(group, key):
                stored = read_integers(group, key, 1)
                if stored.size != 1:
                    raise RefusedError(
                        f"{key} of shape {stored.shape} is not one number",
                        "shape",
                        key=key,
                        value=stored.shape,
                    )
                value = int(stored.ravel()[0])
            self.input_transform[f"input_{key}"] = str(value)


def _in_layer(name: str, faults: Sequence[Fault]) -> list[Fault]:
    """Return the faults with the layer's name in field and sentence."""
    start = f"layer {name}: "
    return [
        replace(fault, sentence=start + fault.sentence.removeprefix(start), layer=name)
        for fault in faults
    ]


def _kind(group: Group) -> str:
    if len(group) == 0:
        raise RefusedError(
            "the group is empty; lava-dl leaves it empty for a block that it cannot export",
            "unsupported",
        )
    return read_text(group, "type")


def _origin(own_group: Group | None) -> Origin | None:
    """Return the origin of connections, if the file holds it."""
    if own_group is None or not has_attribute(own_group, "trained_name"):
        return None
    numbers = (read_attribute(own_group, f"trained_{key}", int) for key in ("weights", "positions"))
    return Origin(read_attribute(own_group, "trained_name", str), *numbers)


def _to_matrix(weight: Array, mask: Bools) -> Matrix:
    """Return the connections of a matrix, as `Matrix.from_dense` but with little memory."""
    indptr = np.zeros(len(weight) + 1, np.int64)
    np.cumsum(np.count_nonzero(mask, axis=1), out=indptr[1:])
    indices = np.empty(indptr[-1], np.int32)
    filled = 0
    for start in range(0, mask.size, _PART):
        places = np.flatnonzero(mask.ravel()[start : start + _PART])
        indices[filled : filled + places.size] = (places + start) % mask.shape[1]
        filled += places.size
    n_post, n_pre = weight.shape
    return Matrix(n_post, n_pre, indptr, indices, weight[mask])


def _pair(group: Group, key: str) -> tuple[int, int]:
    """Return (rows, columns) of a stride, padding or dilation; one number stands for both."""
    values = read_integers(group, key, 2, floats=False).ravel().tolist()
    if not values:
        raise RefusedError(f"{key} holds no number", "shape", key=key)
    return values[0], values[-1]
