"""Write the integer network as netx HDF5.

`/layer/<i>` is the part that netx of lava-dl 0.6.0 reads: a group for each layer, a group of type
'input' before a convolution that comes first, and a group of type 'flatten' between feature maps
and a fully connected layer. Convolutions are stored as SLAYER exports them, in torch's order.
Arrays with one value for each neuron of feature maps are stored as (columns, rows, channels), in
Lava's order.

`/esl_lava` is the part that netx ignores: names, presentation time, provenance, a digest, and the
connections whose weight is 0, so that the masks can be read from the file. (All other connections
are where the weight is not 0.) It also holds the parts of a layer that netx cannot express. netx
silently skips the types that it does not know. A layer that netx cannot express is therefore of
type 'concat', which netx knows and refuses: plain netx fails and does not run another network.
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
from esl_lava.errors import Fault, FileError, LimitError
from esl_lava.files import replace_file
from esl_lava.netfile.chunks import MAX_RATIO, RefusedError
from esl_lava.netfile.safe import MAX_TEXT
from esl_lava.network import INPUT, Connections, Convolution, Input, Layer, Matrix, Network

FORMAT_VERSION = 2
GROUP = "esl_lava"
REFUSED_BY_NETX = "concat"
PARAMETERS = {"current_decay": "iDecay", "voltage_decay": "vDecay", "threshold": "vThMant"}
"""A neuron's parameter -> its name in netx."""

MAX_LAYERS = 10_000
MAX_POSITIONS = 1 << 28
"""netx can still load this many positions of all weight matrices (8 bytes each, several copies)."""
MAX_NEURONS = 1 << 24
"""The most neurons and inputs of a network. A small kernel can claim any number of neurons."""
BASE_MEMORY = 1 << 29
"""Bytes of memory that a file of any size may take while it is read."""
NEURON_MEMORY = 32
"""Bytes of memory that a neuron takes at most: bias, delays, parameters and copies."""
MAX_NAME = 1 << 15
"""The most bytes of a name. HDF5 stores longer attributes in structures that the reader refuses."""
MAX_TEXTS = 1000
"""The most texts of the provenance. All texts together may have MAX_TEXT bytes."""


def write(network: Network, path: Path) -> None:
    """Write `network` completely or not at all. The same network gives the same bytes.

    Raises:
        LimitError: if the network has too many layers, neurons or positions of weights, if reading
            its file would take too much memory, or if a layer is recurrent through a kernel.
        FileError: if the file cannot be written, or cannot hold a name or text.
    """
    if faults := [*_too_large(network), *_recurrent_kernels(network)]:
        raise LimitError.of(faults)
    content = io.BytesIO()
    try:
        _check_provenance(network.provenance)
        _check_names(network)
        with h5py.File(content, "w", libver="v110") as file:
            _write(network, file)
    except RefusedError as error:
        (fault,) = error.faults
        raise FileError(
            f"{path}: cannot be written: {fault.sentence}",
            fault.code,
            key=fault.key,
            value=fault.value,
            limit=fault.limit,
            file=path,
        ) from None
    except ValueError as error:  # a text that HDF5 cannot hold
        reason = " ".join(str(error).split())
        raise FileError(f"{path}: cannot be written: {reason}", "type", file=path) from None
    if faults := list(_too_compressed(network, content.getbuffer().nbytes)):
        raise LimitError.of(faults)
    replace_file(path, content.getvalue())


def memory_to_read(positions: int, width: int, stored: int, *, shares: bool) -> int:
    """Return the bytes of memory that the reader needs for a weight matrix or a kernel.

    Args:
        positions: number of positions of the matrix or kernel.
        width: bytes of a weight in the file.
        stored: number of connections.
        shares: whether it is a kernel, which stays dense in memory.
    """
    # The values and their mask; then the arrays of `Matrix` or `Convolution` and a copy of them.
    return positions * (width + 1) + (11 * positions if shares else 18 * stored)


def memory_limit(size: int) -> int:
    """Return the bytes of memory that a file of `size` bytes may take while it is read.

    Deflate expands a byte to at most `MAX_RATIO` bytes. Connections then take about 20 times the
    bytes of their expanded weights, so without this limit a small file could take more memory than
    a computer has.
    """
    return BASE_MEMORY + MAX_RATIO * size


def netx_refusals(network: Network) -> tuple[str, ...]:
    """Return why plain netx refuses the network's file, one sentence for each reason.

    The result is empty if netx can express the network.
    """
    return tuple(
        f"layer {layer.name}: netx has no {feature}"
        for previous, layer in zip((None, *network.layers), network.layers)
        for feature in _missing_in_netx(layer, previous)
    )


def netx_type(layer: Layer, previous: Layer | None) -> str:
    """Return the type of a layer's group. `previous` is the layer of the group before, if any."""
    return REFUSED_BY_NETX if any(_missing_in_netx(layer, previous)) else _type(layer)


def source_in_netx(previous: Layer | None) -> str:
    """Return the source that netx assumes for a layer: the layer before, or the input."""
    return INPUT if previous is None else previous.name


def is_reshaped(layer: Layer, previous: Layer | None) -> bool:
    """Return whether a kernel takes its input in another shape than the layer before has."""
    connections = layer.inputs[0].connections
    return connections.shares and previous is not None and previous.shape != connections.in_shape


def _missing_in_netx(layer: Layer, previous: Layer | None) -> Iterator[str]:
    """Yield the features of the layer that netx does not have."""
    connections, delays = layer.inputs[0].connections, layer.inputs[0].delays
    if len(layer.feedforward_inputs) > 1 or layer.inputs[0].source != source_in_netx(previous):
        yield "connections from layers other than the one before"
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
    if previous is not None and is_reshaped(layer, previous):
        yield f"convolution of {previous.shape} neurons in the shape {connections.in_shape}"


def _recurrent_kernels(network: Network) -> Iterator[Fault]:
    for layer in network.layers:
        if layer.recurrent is not None and not isinstance(layer.recurrent.connections, Matrix):
            yield Fault(
                f"layer {layer.name}: the recurrent connections are a kernel, but the file can "
                "hold them only as a matrix (`unrolled()` makes one)",
                "unsupported",
                layer=layer.name,
            )


def _too_large(network: Network) -> Iterator[Fault]:
    by_layer = {
        layer: sum(connections.possible for connections in layer.wiring) for layer in network.layers
    }
    largest = max(network.layers, key=lambda layer: by_layer[layer])
    positions = sum(by_layer.values())
    if positions > MAX_POSITIONS:
        yield Fault(
            f"layer {largest.name}: its weights have {by_layer[largest]} entries, and those of all "
            f"layers together have {positions}, more than {MAX_POSITIONS}, the limit of plain "
            "netx, which stores every entry of a matrix, zeros too",
            "limit",
            value=positions,
            limit=MAX_POSITIONS,
            layer=largest.name,
        )
    neurons = network.inputs + sum(layer.neurons for layer in network.layers)
    if neurons > MAX_NEURONS:
        yield Fault(
            f"the network has {neurons} inputs and neurons, more than {MAX_NEURONS}",
            "limit",
            value=neurons,
            limit=MAX_NEURONS,
        )
    groups = len(list(_groups(network)))
    if groups > MAX_LAYERS:
        yield Fault(
            f"the network's {len(network.layers)} layers need {groups} groups, more than "
            f"{MAX_LAYERS}",
            "limit",
            value=groups,
            limit=MAX_LAYERS,
        )


def _too_compressed(network: Network, size: int) -> Iterator[Fault]:
    """Yield a fault if `read` would refuse the memory that a file of this size needs."""
    neurons = network.inputs + sum(layer.neurons for layer in network.layers)
    needed = NEURON_MEMORY * neurons + sum(
        memory_to_read(
            c.possible, np.dtype(_smallest(c.weights)).itemsize, c.stored, shares=c.shares
        )
        for layer in network.layers
        for c in layer.wiring
        if not c.injects
    )
    if needed > memory_limit(size):
        yield Fault(
            f"the network compresses to {size} bytes, but reading it takes {needed} bytes of "
            f"memory, more than the {memory_limit(size)} that a file of this size may take",
            "limit",
            value=needed,
            limit=memory_limit(size),
        )


def _check_provenance(texts: Mapping[str, str]) -> None:
    """Refuse the texts that `read` would refuse.

    Raises:
        RefusedError: naming the text or the limit.
    """
    for key in texts:
        if not key or "/" in key or key == ".":
            raise RefusedError(
                f"the key {key!r} of the provenance cannot name a dataset: it must not be empty or "
                "'.', and must not contain '/'",
                "type",
                key="provenance",
                value=key,
            )
    if len(texts) > MAX_TEXTS:
        raise RefusedError(
            f"the provenance has {len(texts)} texts, more than {MAX_TEXTS}",
            "too-large",
            key="provenance",
            value=len(texts),
            limit=MAX_TEXTS,
        )
    size = sum(len(text.encode()) for text in texts.values())
    if size > MAX_TEXT:
        raise RefusedError(
            f"the provenance has {size} bytes, more than {MAX_TEXT}",
            "too-large",
            key="provenance",
            value=size,
            limit=MAX_TEXT,
        )


def _check_names(network: Network) -> None:
    """Refuse the names of layers and of trained weights that `read` would refuse.

    Raises:
        RefusedError: with the length of the longest name.
    """
    for layer in network.layers:
        origins = [layer_input.origin for layer_input in layer.inputs]
        names = [layer.name, *(origin.name for origin in origins if origin is not None)]
        longest = max(len(name.encode()) for name in names)
        if longest > MAX_NAME:
            raise RefusedError(
                f"a name of a layer or of its trained weights has {longest} bytes, more than "
                f"{MAX_NAME}",
                "too-large",
                value=longest,
                limit=MAX_NAME,
            )


# --- The digest. ---------------------------------------------------------------------------


def digest(network: Network) -> str:
    """Return the hexadecimal SHA-256 of everything in the network that has a meaning."""
    sha = hashlib.sha256()
    _feed(sha, f"provenance={len(network.provenance)}")
    for key in sorted(network.provenance):
        _feed(sha, key)
        _feed(sha, network.provenance[key])
    inputs = " ".join(f"{key}={value}" for key, value in _input_as_stored(network).items())
    _feed(sha, f"steps={network.steps} {inputs}")
    for previous, layer in zip((None, *network.layers), network.layers):
        first, skips, recurrent = layer.inputs[0], layer.feedforward_inputs[1:], layer.recurrent
        _feed(sha, layer.name)
        if first.source != source_in_netx(previous):
            _feed(sha, f"source={first.source}")
        _feed_connections(sha, first.connections)
        for value in (*(getattr(layer.neuron, name) for name in PARAMETERS), layer.bias):
            _feed_values(sha, value)
        if layer.neuron.refractory:  # older files have none, and their digests must not change
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
    """Return the range of `input_bits`: 0 means spikes, n means integers of n bits and a sign."""
    return (1 - (1 << bits), (1 << bits) - 1) if bits else SPIKE_RANGE


def _input_as_stored(network: Network) -> dict[str, int]:
    """Return the attributes of the input range.

    If `input_bits` can express the range, it does, as in older files, which knew no other
    ranges: their digests and bytes do not change.
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


def _feed_origin(sha: hashlib._Hash, layer_input: Input) -> None:
    origin = layer_input.origin
    if origin is not None:  # older files have none, and their digests must not change
        _feed(sha, f"origin={origin.weights} of {origin.positions} {origin.name}")


def _feed_values(sha: hashlib._Hash, values: Array | int | None) -> None:
    if isinstance(values, np.ndarray):
        _feed(sha, f"array {values.shape}")
        _feed(sha, values.astype(values.dtype.newbyteorder("<")).tobytes())
    else:
        _feed(sha, f"{values}")


def _feed(sha: hashlib._Hash, part: str | bytes) -> None:
    """Add a part with its length, so that no two sequences of parts give the same bytes."""
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
    previous: Layer | None = None
    for index, (kind, shape, layer) in enumerate(_groups(network)):
        group = file.create_group(f"layer/{index}")
        stored = kind if layer is None else netx_type(layer, previous)
        group.create_dataset("type", (1,), "S10", [stored.encode()])
        group.create_dataset("shape", data=np.array(shape))
        if layer is not None:
            _write_netx(layer, group)
            own_group = ours.create_group(f"layer/{index}")
            own_group.attrs["name"] = _text(layer.name)
            own_group.attrs["type"] = _text(kind)
            if layer.neuron.refractory:
                own_group.attrs["refractory"] = layer.neuron.refractory
            _write_own(layer, previous, own_group)
            previous = layer
    _say_that_our_group_exists(file)


def _say_that_our_group_exists(file: h5py.File) -> None:
    file["layer"].attrs[GROUP] = FORMAT_VERSION


def _groups(network: Network) -> Iterator[tuple[str, tuple[int, ...], Layer | None]]:
    """Yield the type, the shape and the layer, if any, of every group that netx reads."""
    if network.first.shares:
        yield "input", network.input_shape, None
    previous_shape: tuple[int, ...] = ()
    for layer in network.layers:
        if _type(layer).startswith("dense") and len(previous_shape) == 3:
            yield "flatten", (math.prod(previous_shape),), None
        yield _type(layer), layer.shape, layer
        previous_shape = layer.shape


def _type(layer: Layer) -> str:
    """Return the type of a layer's group if netx knows the layer."""
    first = layer.inputs[0].connections
    if first.injects:
        return "input"
    if first.shares:
        return "conv"
    return "dense" if layer.recurrent is None else "dense_rec"


def _write_netx(layer: Layer, group: h5py.Group) -> None:
    """Write the datasets that `lava/lib/dl/netx/hdf5.py` reads for a layer."""
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
            # netx subtracts 1 and Lava shifts by 6 in the stored type, so it must have 32 bits.
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


def _write_own(layer: Layer, previous: Layer | None, own_group: h5py.Group) -> None:
    """Write the parts of a layer that netx has no place for.

    They are masks, sources, origins, reshaped input and skip connections.
    """
    first = layer.inputs[0]
    if not first.connections.injects:
        _compressed(own_group, "zero_connections", _zero_connections(first))
    if first.source != source_in_netx(previous):
        own_group.attrs["source"] = _text(first.source)
    _write_origin(first, own_group)
    if is_reshaped(layer, previous):
        own_group.create_dataset("in_shape", data=np.array(first.connections.in_shape))
    if layer.recurrent is not None:
        _compressed(own_group, "zero_recurrent", _zero_connections(layer.recurrent))
    for index, skip in enumerate(layer.feedforward_inputs[1:]):
        group = own_group.create_group(f"skip/{index}")
        group.attrs["source"] = _text(skip.source)
        if skip.connections.shares:
            group.create_dataset("in_shape", data=np.array(skip.connections.in_shape))
        if skip.delays is not None:
            _compressed(group, "delay", skip.delays)
        _write_origin(skip, group)
        _write_weights(skip.connections, group)
        _compressed(group, "zero_connections", _zero_connections(skip))


def _write_origin(layer_input: Input, group: h5py.Group) -> None:
    if layer_input.origin is not None:
        group.attrs["trained_name"] = _text(layer_input.origin.name)
        group.attrs["trained_weights"] = layer_input.origin.weights
        group.attrs["trained_positions"] = layer_input.origin.positions


def _in_lavas_order(values: Array, shape: tuple[int, ...]) -> Array:
    """Return a value for each neuron, of feature maps as (columns, rows, channels)."""
    return values.reshape(shape).transpose()


def _shared(values: Array) -> Array:
    """Return (channels,) values if each channel has one value, as SLAYER stores them."""
    if values.ndim == 3 and (values == values[0, 0]).all():
        return values[0, 0]
    return values


def _text(value: str) -> Array:
    """Return a text of fixed length. Texts of variable length claim a length that may be wrong."""
    raw = value.encode()
    if b"\0" in raw:
        raise RefusedError(f"a text holds a NUL character: {value[:80]!r}", "type", value=value)
    return np.array(raw, h5py.string_dtype("utf-8", max(1, len(raw))))


def _compressed(group: h5py.Group, name: str, values: Array) -> None:
    """Store integers in the smallest dtype that holds them, in one deflated chunk."""
    _deflated(group, name, values.astype(_smallest(values)))


def _smallest(values: Array) -> npt.DTypeLike:
    """Return the smallest signed or, up to 16 bits, unsigned dtype that holds the integers."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    return next(
        dtype
        for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max
    )


def _deflated(group: h5py.Group, name: str, values: Array) -> None:
    options = {"chunks": values.shape, "compression": "gzip", "compression_opts": 9}
    group.create_dataset(name, data=values, **(options if values.size else {}))


def _zero_connections(layer_input: Input) -> Ints:
    """Return the flat positions of connections of weight 0: the first, then the differences."""
    connections = layer_input.connections
    return np.diff(connections.positions()[connections.weights == 0], prepend=0)
