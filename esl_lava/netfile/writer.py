"""Writing the integer network as netx HDF5.

`/layer/<i>` is what lava-dl 0.6.0's netx reads: a group for each layer, one of type
'input' before a convolution that comes first, and one of type 'flatten' between feature
maps and a fully connected layer. Convolutions are stored as SLAYER exports them, in
torch's order; what has a value for each neuron of feature maps is stored (columns, rows,
channels), as Lava counts them.

`/esl_lava` is what netx ignores: names, presentation time, provenance, a digest, and the
connections whose weight is 0 (all others are where the weight is not), so that masks come
back from the file. It also holds what netx has no place for. netx skips types it does not
know without a word, so a layer it cannot express is of type 'concat', which it knows and
refuses: plain netx fails instead of running something else.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from esl_lava.arrays import Array, Ints
from esl_lava.chip import SPIKE_RANGE
from esl_lava.errors import FileError, LimitError
from esl_lava.files import replace_file
from esl_lava.netfile.safe import MAX_TEXT
from esl_lava.network import INPUT, Connections, Convolution, Input, Layer, Matrix, Network

FORMAT_VERSION = 2
GROUP = "esl_lava"
REFUSED_BY_NETX = "concat"
PARAMETERS = {"current_decay": "iDecay", "voltage_decay": "vDecay", "threshold": "vThMant"}
"""A neuron's parameters and their names in netx."""

MAX_LAYERS = 10_000
MAX_POSITIONS = 1 << 28
"""Positions of all weight matrices that netx (8 bytes each, several copies) can still load."""
MAX_NEURONS = 1 << 24
"""Neurons of all layers and inputs together; a small kernel can claim any number."""
MAX_TEXTS = 1000
"""Texts of the provenance; all together they may have MAX_TEXT bytes."""


def write(network: Network, path: Path) -> None:
    """Write `network` whole or not at all; the same network gives the same bytes.

    Raises:
        LimitError: when the layers are too many, or too large for netx's dense matrices, or a
            layer is recurrent through a kernel.
        FileError: when the file cannot be written, or cannot hold a name or text.
    """
    if violations := [*_too_large(network), *_recurrent_kernels(network)]:
        raise LimitError(violations)
    content = io.BytesIO()
    try:
        _check_provenance(network.provenance)
        with h5py.File(content, "w", libver="v110") as file:
            _write(network, file)
    except ValueError as error:  # a text HDF5 cannot hold
        raise FileError(f"{path}: cannot be written: {error}") from None
    replace_file(path, content.getvalue())


def beyond_netx(network: Network) -> tuple[str, ...]:
    """Why plain netx refuses the network's file, one sentence a reason; none if it does not."""
    return tuple(
        f"layer {layer.name}: netx has no {what}"
        for before, layer in zip((None, *network.layers), network.layers)
        for what in _missing(layer, before)
    )


def netx_type(layer: Layer, before: Layer | None) -> str:
    """The type a layer's group carries; `before` is the layer of the group before, if any."""
    return REFUSED_BY_NETX if any(_missing(layer, before)) else _type(layer)


def source_in_netx(before: Layer | None) -> str:
    """What feeds a layer in netx, which knows no other source."""
    return INPUT if before is None else before.name


def taken_otherwise(layer: Layer, before: Layer | None) -> bool:
    """Whether a kernel takes neurons in another shape than the layer before has."""
    taken = layer.inputs[0].connections
    return taken.shares and before is not None and before.shape != taken.in_shape


def _missing(layer: Layer, before: Layer | None) -> Iterator[str]:
    """What the layer needs that netx does not have."""
    connections, delays = layer.inputs[0].connections, layer.inputs[0].delays
    if len(layer.feeding) > 1 or layer.inputs[0].source != source_in_netx(before):
        yield "connections from earlier layers"
    if layer.neuron.refractory:
        yield "refractory period"
    if layer.recurrent is not None and not isinstance(connections, Matrix):
        yield "recurrent connections in a layer of feature maps or injected input"
    if delays is not None and not isinstance(connections, Matrix):
        yield "delays in a layer of feature maps or injected input"
    if delays is not None and layer.recurrent is not None:
        yield "delays in a recurrent layer"
    if layer.bias is not None and connections.injects:
        yield "bias beside injected input"
    if before is not None and taken_otherwise(layer, before):
        yield f"convolution of {before.shape} neurons taken as {connections.in_shape}"


def _recurrent_kernels(network: Network) -> Iterator[str]:
    for layer in network.layers:
        if layer.recurrent is not None and not isinstance(layer.recurrent.connections, Matrix):
            yield (
                f"layer {layer.name}: its recurrent connections are a kernel, and the file holds "
                "them as a matrix only (`unrolled()` makes one)"
            )


def _too_large(network: Network) -> Iterator[str]:
    by_layer = {layer: sum(kind.possible for kind in layer.wiring) for layer in network.layers}
    largest = max(network.layers, key=lambda layer: by_layer[layer])
    positions = sum(by_layer.values())
    if positions > MAX_POSITIONS:
        yield (
            f"layer {largest.name}: its {by_layer[largest]} positions "
            f"and those of the other layers, {positions} together, exceed {MAX_POSITIONS}, the "
            "most that plain netx, which stores matrices densely, can be given"
        )
    neurons = network.inputs + sum(layer.neurons for layer in network.layers)
    if neurons > MAX_NEURONS:
        yield f"the network has {neurons} inputs and neurons, more than {MAX_NEURONS}"
    if len(list(_groups(network))) > MAX_LAYERS:
        yield f"the network's {len(network.layers)} layers need more than {MAX_LAYERS} groups"


def _check_provenance(texts: Mapping[str, str]) -> None:
    """Refuse what `read` would refuse.

    Raises:
        ValueError: naming the text or the limit.
    """
    for key in texts:
        if not key or "/" in key or key == ".":
            raise ValueError(f"{key!r} in the provenance is no name of a dataset")
    if len(texts) > MAX_TEXTS or sum(len(text.encode()) for text in texts.values()) > MAX_TEXT:
        raise ValueError(f"the provenance exceeds {MAX_TEXTS} texts or {MAX_TEXT} bytes")


# --- The digest. ---------------------------------------------------------------------------


def digest(network: Network) -> str:
    """SHA-256 over everything in the network that has a meaning, hexadecimal."""
    sha = hashlib.sha256()
    _feed(sha, f"provenance={len(network.provenance)}")
    for key in sorted(network.provenance):
        _feed(sha, key)
        _feed(sha, network.provenance[key])
    inputs = " ".join(f"{key}={value}" for key, value in _input_as_stored(network).items())
    _feed(sha, f"steps={network.steps} {inputs}")
    for before, layer in zip((None, *network.layers), network.layers):
        first, skips, recurrent = layer.inputs[0], layer.feeding[1:], layer.recurrent
        _feed(sha, layer.name)
        if first.source != source_in_netx(before):
            _feed(sha, f"source={first.source}")
        _feed_connections(sha, first.connections)
        for value in (*(getattr(layer.neuron, name) for name in PARAMETERS), layer.bias):
            _feed_values(sha, value)
        if layer.neuron.refractory:  # not in the digests of files from before there was any
            _feed(sha, f"refractory={layer.neuron.refractory}")
        _feed_values(sha, first.delays)
        _feed_origin(sha, first)
        _feed(sha, f"recurrent={recurrent is not None} skips={len(skips)}")
        if recurrent is not None:
            _feed_connections(sha, recurrent.connections)
        for skip in skips:
            _feed(sha, skip.source)
            _feed_connections(sha, skip.connections)
            if skip.delays is not None:
                _feed_values(sha, skip.delays)
            _feed_origin(sha, skip)
    return sha.hexdigest()


def range_of_bits(bits: int) -> tuple[int, int]:
    """What `input_bits` of a file means: 0 spikes, else integers of so many bits and a sign."""
    return (1 - (1 << bits), (1 << bits) - 1) if bits else SPIKE_RANGE


def _input_as_stored(network: Network) -> dict[str, int]:
    """The attributes that say what inputs can be.

    A range that `input_bits` can say is said by it, as in files from before there were others,
    whose digests and bytes stay what they were.
    """
    if network.input_range == range_of_bits(network.message_bits):
        return {"input_bits": network.message_bits}
    low, high = network.input_range
    return {"input_low": low, "input_high": high}


def _feed_connections(sha: hashlib._Hash, c: Connections) -> None:
    if isinstance(c, Matrix):
        _feed(sha, f"connections {c.n_post} {c.n_pre}")
        for array in (c.indptr, c.indices, c.weights):
            _feed_values(sha, array)
    elif isinstance(c, Convolution):
        _feed(sha, f"convolution {c.in_shape} {c.stride} {c.padding} {c.dilation} {c.groups}")
        _feed_values(sha, c.kernel)
        _feed_values(sha, c.mask())
    else:
        _feed(sha, f"injection {c.out_shape}")


def _feed_origin(sha: hashlib._Hash, given: Input) -> None:
    if given.origin is not None:  # not in the digests of files from before there was any
        origin = given.origin
        _feed(sha, f"origin={origin.weights} of {origin.positions} {origin.name}")


def _feed_values(sha: hashlib._Hash, values: Array | int | None) -> None:
    if isinstance(values, np.ndarray):
        _feed(sha, f"array {values.shape}")
        _feed(sha, values.astype(values.dtype.newbyteorder("<")).tobytes())
    else:
        _feed(sha, f"{values}")


def _feed(sha: hashlib._Hash, part: str | bytes) -> None:
    """Add a part with its length, so that no two sequences of parts read alike."""
    raw = part.encode() if isinstance(part, str) else part
    sha.update(len(raw).to_bytes(8, "little"))
    sha.update(raw)


# --- The file. -----------------------------------------------------------------------------


def _write(network: Network, file: h5py.File) -> None:
    ours = file.create_group(GROUP)
    ours.attrs["format_version"] = FORMAT_VERSION
    ours.attrs["digest"] = _text(digest(network))
    ours.attrs.update(_input_as_stored(network))
    if network.steps is not None:
        ours.attrs["steps"] = network.steps
    for key, value in sorted(network.provenance.items()):
        ours.create_dataset(f"provenance/{key}", data=_text(value))
    before: Layer | None = None
    for index, (kind, shape, layer) in enumerate(_groups(network)):
        group = file.create_group(f"layer/{index}")
        stored = kind if layer is None else netx_type(layer, before)
        group.create_dataset("type", (1,), "S10", [stored.encode()])
        group.create_dataset("shape", data=np.array(shape))
        if layer is not None:
            _write_netx(layer, group)
            beside = ours.create_group(f"layer/{index}")
            beside.attrs["name"] = _text(layer.name)
            beside.attrs["type"] = _text(kind)
            if layer.neuron.refractory:
                beside.attrs["refractory"] = layer.neuron.refractory
            _write_beside(layer, before, beside)
            before = layer


def _groups(network: Network) -> Iterator[tuple[str, tuple[int, ...], Layer | None]]:
    """Type and shape of every group netx walks, and the layer where it is one."""
    if network.first.shares:
        yield "input", network.input_shape, None
    before: tuple[int, ...] = ()
    for layer in network.layers:
        if _type(layer).startswith("dense") and len(before) == 3:
            yield "flatten", (math.prod(before),), None
        yield _type(layer), layer.shape, layer
        before = layer.shape


def _type(layer: Layer) -> str:
    """The type of a layer's group where netx knows the layer."""
    first = layer.inputs[0].connections
    if first.injects:
        return "input"
    if first.shares:
        return "conv"
    return "dense" if layer.recurrent is None else "dense_rec"


def _write_netx(layer: Layer, group: h5py.Group) -> None:
    """The datasets `lava/lib/dl/netx/hdf5.py` reads for a layer."""
    first = layer.inputs[0]
    _write_weights(first.connections, group)
    if layer.recurrent is not None:
        _write_matrix(layer.recurrent.connections, group, "weight_rec")
    if layer.bias is not None:
        _compressed(group, "bias", _shared(_in_lavas_order(layer.bias, layer.shape)))
    if first.delays is not None:
        _compressed(group, "delay", _in_lavas_order(first.delays, layer.shape))
    group.create_dataset("neuron/type", data=_text("CUBA"))
    for name, key in PARAMETERS.items():
        values = getattr(layer.neuron, name)
        if np.ndim(values) == 0:
            group.create_dataset(f"neuron/{key}", data=values)
        else:
            # 32 bits: netx subtracts 1 and Lava shifts by 6 in the type found here.
            if len(values) == layer.neurons:
                values = _in_lavas_order(values, layer.shape)
            _deflated(group, f"neuron/{key}", values.astype(np.int32))
    group.create_dataset("neuron/refDelay", data=1)
    group.create_dataset("neuron/gradedSpike", data=False)


def _write_weights(c: Connections, group: h5py.Group) -> None:
    if isinstance(c, Convolution):
        group.create_dataset("inChannels", data=c.in_shape[0])
        group.create_dataset("outChannels", data=c.out_shape[0])
        group.create_dataset("kernelSize", data=np.array(c.kernel.shape[2:]))
        for key in ("stride", "padding", "dilation"):
            group.create_dataset(key, data=np.array(getattr(c, key)))
        group.create_dataset("groups", data=c.groups)
        _compressed(group, "weight", c.kernel)
    elif not c.injects:
        group.create_dataset("inFeatures", data=c.n_pre)
        group.create_dataset("outFeatures", data=c.n_post)
        _write_matrix(c, group, "weight")


def _write_matrix(c: Connections, group: h5py.Group, name: str) -> None:
    matrix = c.unrolled()
    _deflated(group, name, matrix.dense(_smallest(np.append(matrix.weights, 0))))


def _write_beside(layer: Layer, before: Layer | None, beside: h5py.Group) -> None:
    """What netx has no place for in a layer: masks, a reshaped input, other sources."""
    first = layer.inputs[0]
    if not first.connections.injects:
        _compressed(beside, "zero_connections", _zero_connections(first))
    if first.source != source_in_netx(before):
        beside.attrs["source"] = _text(first.source)
    _write_origin(first, beside)
    if taken_otherwise(layer, before):
        beside.create_dataset("in_shape", data=np.array(first.connections.in_shape))
    if layer.recurrent is not None:
        _compressed(beside, "zero_recurrent", _zero_connections(layer.recurrent))
    for index, skip in enumerate(layer.feeding[1:]):
        group = beside.create_group(f"skip/{index}")
        group.attrs["source"] = _text(skip.source)
        if skip.connections.shares:
            group.create_dataset("in_shape", data=np.array(skip.connections.in_shape))
        if skip.delays is not None:
            _compressed(group, "delay", skip.delays)
        _write_origin(skip, group)
        _write_weights(skip.connections, group)
        _compressed(group, "zero_connections", _zero_connections(skip))


def _write_origin(given: Input, group: h5py.Group) -> None:
    if given.origin is not None:
        group.attrs["trained_name"] = _text(given.origin.name)
        group.attrs["trained_weights"] = given.origin.weights
        group.attrs["trained_positions"] = given.origin.positions


def _in_lavas_order(values: Array, shape: tuple[int, ...]) -> Array:
    """A value for each neuron, of feature maps as (columns, rows, channels)."""
    return values.reshape(shape).transpose()


def _shared(values: Array) -> Array:
    """(channels,) where all neurons of a channel have the same value, as SLAYER stores it."""
    if values.ndim == 3 and (values == values[0, 0]).all():
        return values[0, 0]
    return values


def _text(value: str) -> Array:
    """Text of fixed length: HDF5 reads what says its length elsewhere at its own risk."""
    raw = value.encode()
    if b"\0" in raw:
        raise ValueError(f"a text holds a NUL character: {value[:80]!r}")
    return np.array(raw, h5py.string_dtype("utf-8", max(1, len(raw))))


def _compressed(group: h5py.Group, name: str, values: Array) -> None:
    """Store integers in the smallest dtype that holds them, one deflated chunk."""
    _deflated(group, name, values.astype(_smallest(values)))


def _smallest(values: Array) -> npt.DTypeLike:
    """The smallest dtype that holds integers."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    return next(
        dtype
        for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max
    )


def _deflated(group: h5py.Group, name: str, values: Array) -> None:
    options = {"chunks": values.shape, "compression": "gzip", "compression_opts": 9}
    group.create_dataset(name, data=values, **(options if values.size else {}))


def _zero_connections(given: Input) -> Ints:
    """Flat positions of connections with weight 0: the first, then the gaps between."""
    c = given.connections
    return np.diff(c.positions()[c.weights == 0], prepend=0)
