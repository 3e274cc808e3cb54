"""Read the user's own spikes from a file and check that a network can take them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from esl_lava import netfile
from esl_lava.arrays import Array, Ints
from esl_lava.data.arrays import SpikesFile, read_array, reorder_axes
from esl_lava.data.catalogue import NAMES
from esl_lava.errors import ConfigError, DataError
from esl_lava.network import Network
from esl_lava.simulate.result import shape_fault

SLAYER_VALUES = (-4, 3)
"""Smallest and largest whole number that SLAYER stores exactly, in 8 bits with steps of 1/32."""


@dataclass(frozen=True)
class Layout:
    """The layout of a file of spikes, as given by the user.

    Attributes:
        axes: a letter for each axis of the array (`data.arrays.reorder_axes`); None if the axes are
            those of the network.
        input_shape: input shape of the network (channels, rows, columns), if its file has none.
        drive: whether the values drive the neurons of an input block directly, with weight and
            bias already applied.
    """

    axes: str | None = None
    input_shape: tuple[int, int, int] | None = None
    drive: bool = False


PLAIN = Layout()
"""The default layout: the axes of the network, and values for its input block."""


def parse_shape(text: str) -> tuple[int, int, int]:
    """Parse (channels, rows, columns) from a text, for example "2,34,34".

    Raises:
        ConfigError: if the text is not three numbers of at least 1.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(
            f"--input-shape {text}: must be channels, rows and columns, each at least 1, for "
            "example 2,34,34",
            "type",
            key="--input-shape",
            value=text,
        )
    channels, rows, columns = map(int, parts)
    return channels, rows, columns


def read_network(net: Path, file: Path | None, layout: Layout = PLAIN) -> Network:
    """Read a network. If its file has no input shape, use that of the layout or the spikes.

    Args:
        net: file of the network, netx HDF5.
        file: file of spikes, if there is one.
        layout: layout of the spikes. With `drive`, the network takes the values unchanged.

    Raises:
        ConfigError: if the layout does not fit the network.
        FileError: if a file cannot be read.
    """
    shape = layout.input_shape
    if shape is None and file is not None:
        array = _arranged(file, layout)
        if array.ndim == 5:
            shape = array.shape[2], array.shape[3], array.shape[4]
    network = netfile.read(net, input_shape=shape)
    if layout.input_shape is not None and network.input_shape != layout.input_shape:
        text = ",".join(map(str, layout.input_shape))
        raise ConfigError(
            f"--input-shape {text}: the input of {net} has shape {network.input_shape}",
            "mismatch",
            key="--input-shape",
            value=layout.input_shape,
            limit=network.input_shape,
            file=net,
        )
    if not layout.drive:
        return network
    if not has_transform(network):
        raise ConfigError(
            f"--drive: {net} does not begin with an input block",
            "conflict",
            key="--drive",
            file=net,
        )
    return without_transform(network)


def _arranged(file: Path, layout: Layout) -> Array:
    """Read the array of spikes with its axes in the order of the network."""
    array = read_array(file, "spikes")
    return array if layout.axes is None else reorder_axes(array, layout.axes)


def spikes_file(data: str | None) -> Path | None:
    """Return the path if `data` names a file of spikes; None if it is a data set or None.

    Raises:
        DataError: if `data` names a file of another kind.
    """
    if data is None or data in NAMES:
        return None
    path = Path(data)
    if path.suffix == ".npy":
        return path
    if path.suffix.lower() == ".npy":
        raise DataError(
            f"--data {data}: the name of a file of spikes must end in .npy, in lower case",
            "type",
            key="--data",
            value=data,
            limit=".npy",
        )
    if path.suffix == ".npz":
        raise DataError(
            f"--data {data}: this is an archive of arrays; spikes need a .npy file with one array",
            "type",
            key="--data",
            value=data,
            limit=".npy",
        )
    if path.suffix or len(path.parts) > 1:
        raise DataError(
            f"--data {data}: neither a .npy file of spikes nor a data set ({', '.join(NAMES)})",
            "unknown",
            key="--data",
            value=data,
            limit=", ".join(NAMES),
        )
    return None


def refuse_unrelated_options(
    data: str | None,
    file: Path | None,
    *,
    encoder: str | None,
    steps: int | None,
    layout: Layout,
    labels: Path | None = None,
) -> None:
    """Refuse options that do not apply to this kind of data.

    An encoder and steps apply to data sets; a layout and labels apply to a file of spikes.

    Args:
        data: the option `--data`.
        file: `spikes_file` of `data`.
        encoder, steps, layout, labels: the options.

    Raises:
        ConfigError: if an option does not apply.
    """
    for option, value in (("--encoder", encoder), ("--steps", steps)):
        if file is not None and value is not None:
            raise ConfigError(
                f"{option} {value} applies only to data sets, but {data} holds spikes",
                "conflict",
                key=option,
                value=value,
            )
    if file is None and layout.drive:
        raise ConfigError(
            "--drive applies only to a file of spikes, --data FILE.npy", "conflict", key="--drive"
        )
    for name, setting in (("--labels", labels), ("--axes", layout.axes)):
        if file is None and setting is not None:
            raise ConfigError(
                f"{name} {setting} applies only to a file of spikes, --data FILE.npy",
                "conflict",
                key=name,
                value=setting,
            )


def read_spikes(
    network: Network,
    path: Path,
    samples: int | None = None,
    *,
    labels: Path | None = None,
    layout: Layout = PLAIN,
    most: int | None = None,
) -> SpikesFile:
    """Read the spikes of a file for a network.

    Args:
        network: the network that takes the spikes.
        path: a .npy file of (samples, T, inputs) integers: 0 or 1, or graded spikes if the network
            takes them. `simulate.result.shape_fault` describes arrays with further axes.
        samples, most: number of samples, as in `sample_count`.
        labels: a .npy file with the class of each sample, if known.
        layout: layout of the file.

    Raises:
        ConfigError: if the letters of `layout.axes` do not fit the array.
        FileError, DataError: if a file holds no such array, or too few samples.
    """
    axes = layout.axes
    array = _arranged(path, layout)
    if array.ndim < 3:
        raise DataError(
            f"{path}: spikes must have the shape (samples, T, inputs), not {array.shape}",
            "shape",
            value=array.shape,
            file=path,
        )
    if array.shape[1] < 1:
        raise DataError(
            f"{path}: spikes of shape {array.shape} have no step",
            "shape",
            value=array.shape,
            file=path,
        )
    # A fully connected layer takes any shape, if the user names the axes.
    named = axes is not None and len(network.input_shape) == 1
    sentence = None if named else shape_fault(network, array.shape)
    if sentence is not None and math.prod(array.shape[2:]) == network.inputs:
        hint = "" if axes else "; name the axes with --axes, for example --axes NTHWC"
        raise DataError(
            f"{path}: {sentence}{hint}",
            "shape",
            value=array.shape,
            limit=network.input_shape,
            file=path,
        )
    shape = array.shape[2:] if array.ndim == 5 else network.input_shape
    channels, rows, columns = (1, 1, *shape)[-3:]
    classes = network.layers[-1].neurons
    spikes = SpikesFile(
        path,
        array,
        (channels, rows, columns),
        classes,
        None if labels is None else _read_labels(labels, len(array), classes),
    )
    return spikes.take(sample_count(samples, most, len(array)))


def _read_labels(path: Path, samples: int, classes: int) -> Ints:
    """Read (samples,) int64 labels from a .npy file of integers in 0..classes-1."""
    labels = read_array(path, "labels")
    if labels.shape != (samples,):
        raise DataError(
            f"{path}: labels must have the shape ({samples},), one for each sample, not "
            f"{labels.shape}",
            "shape",
            key="labels",
            value=labels.shape,
            limit=(samples,),
            file=path,
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"{path}: labels: the label {labels[outside[0]]} of sample {outside[0]} is not a class "
            f"of the network, which has the classes 0..{classes - 1}",
            "range",
            key="labels",
            value=int(labels[outside[0]]),
            limit=classes - 1,
            file=path,
        )
    return labels.astype(np.int64)


def sample_count(samples: int | None, most: int | None, available: int) -> int:
    """Return the number of samples to use.

    Args:
        samples: the requested number; it may exceed the available one, which is refused later.
        most: the largest number if none is requested; None uses all samples.
        available: the number of samples of the data.
    """
    if samples is not None:
        return samples
    return available if most is None else min(most, available)


def apply_input_block(network: Network, values: Array) -> Array:
    """Scale and shift the values of samples as the input block of the network does.

    SLAYER's block (lava-dl 0.6.0, `slayer/block/base.py`, AbstractInput) computes weight * x + bias
    of the values x of a sample. netx only stores weight and bias (`netx/blocks/process.py`,
    Input.transform); the host has to set the bias of the neurons to the result.

    Args:
        network: the network as read from a file.
        values: (samples, T, ...) integers.

    Returns:
        The int32 values that `simulate` injects; `values` itself if there is no input block.

    Raises:
        DataError: if SLAYER's block would round a value, or weight or bias of the file is not an
            integer of at most 5 digits.
    """
    if not has_transform(network):
        return values
    low, high = SLAYER_VALUES
    least, most = int(values.min()), int(values.max())
    if least < low or most > high:
        value = least if least < low else most
        raise DataError(
            f"the spikes hold the value {value}, but an input block takes whole numbers in "
            f"{low}..{high}, which SLAYER keeps exactly; use --drive if weight and bias are "
            "already applied to the values",
            "range",
            value=value,
            limit=low if value < low else high,
        )
    weight, bias = (_whole(network, f"input_{key}") for key in ("weight", "bias"))
    return (weight * values.astype(np.int32) + bias).astype(np.int32)


def has_transform(network: Network) -> bool:
    """Return whether the network begins with an input block that scales and shifts its input."""
    return network.first.injects and "input_weight" in network.provenance


def without_transform(network: Network) -> Network:
    """Return the network for values to which weight and bias have already been applied."""
    applied = ("input_weight", "input_bias")
    kept = {key: text for key, text in network.provenance.items() if key not in applied}
    return replace(network, provenance=kept)


def _whole(network: Network, key: str) -> int:
    """Return a number that a file holds as text. The file may come from another program.

    Raises:
        DataError: if the text is not a number of at most 5 digits.
    """
    text = network.provenance.get(key, "")
    if not re.fullmatch(r"-?[0-9]{1,5}", text):
        raise DataError(
            f"{key} = {text[:20]!r} in the network file is not an integer of at most 5 digits",
            "type",
            key=key,
            value=text,
        )
    return int(text)
