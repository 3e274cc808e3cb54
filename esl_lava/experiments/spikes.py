"""Spikes of a user's own, from a file, and what they have to be and to drive in a network."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from esl_lava import netfile
from esl_lava.arrays import Array, Ints
from esl_lava.data.arrays import SpikesFile, arranged, read_array
from esl_lava.data.datasets import LOADERS
from esl_lava.errors import ConfigError, DataError
from esl_lava.network import Network
from esl_lava.simulate.result import misplaced

SLAYER_VALUES = (-4, 3)
"""SLAYER keeps a value in 8 bits of steps of 1/32: of whole numbers, these stay what they are."""


@dataclass(frozen=True)
class Layout:
    """What a user says of a file of spikes.

    Attributes:
        axes: which axis is which, where they are not the network's (`data.arrays.arranged`).
        input_shape: (channels, rows, columns) that the network takes, where its file does not
            say it.
        drive: whether the values are what drives the neurons of an input block, its weight and
            bias already applied.
    """

    axes: str | None = None
    input_shape: tuple[int, int, int] | None = None
    drive: bool = False


PLAIN = Layout()
"""Axes as the network's, values as its input block takes them."""


def parse_shape(words: str) -> tuple[int, int, int]:
    """(channels, rows, columns) from a text such as "2,34,34".

    Raises:
        ConfigError: when it is not three numbers of at least 1.
    """
    parts = words.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(
            f"--input-shape {words}: needs channels, rows and columns, such as 2,34,34"
        )
    channels, rows, columns = map(int, parts)
    return channels, rows, columns


def read_network(net: Path, file: Path | None, layout: Layout = PLAIN) -> Network:
    """The network of a file, and where that does not say the input's shape, of the data's.

    Args:
        net: netx HDF5.
        file: of spikes, if they come from one.
        layout: of that file. With `drive` the network is one that takes its values as they are.

    Raises:
        ConfigError: when the network does not have what the layout says.
        FileError: when a file cannot be read.
    """
    shape = layout.input_shape
    if shape is None and file is not None:
        array = _arranged(file, layout)
        if array.ndim == 5:
            shape = array.shape[2], array.shape[3], array.shape[4]
    network = netfile.read(net, input_shape=shape)
    if layout.input_shape is not None and network.input_shape != layout.input_shape:
        given = ",".join(map(str, layout.input_shape))
        raise ConfigError(f"--input-shape {given}: {net} takes input of {network.input_shape}")
    if not layout.drive:
        return network
    if not has_transform(network):
        raise ConfigError(f"--drive: {net} does not begin with an input block")
    return without_transform(network)


def _arranged(file: Path, layout: Layout) -> Array:
    array = read_array(file, "spikes")
    return array if layout.axes is None else arranged(array, layout.axes)


def spikes_file(data: str | None) -> Path | None:
    """The file of spikes that `data` names; None where it names a data set, or nothing.

    Raises:
        DataError: where it names a file of another kind.
    """
    if data is None or data in LOADERS:
        return None
    path = Path(data)
    if path.suffix == ".npy":
        return path
    if path.suffix.lower() == ".npy":
        raise DataError(f"{data}: a file of spikes is known by its ending: .npy, in small letters")
    if path.suffix == ".npz":
        raise DataError(f"{data}: an archive of arrays; spikes need a .npy file of one")
    if path.suffix or len(path.parts) > 1:
        raise DataError(
            f"{data}: neither a .npy file of spikes nor a data set ({', '.join(LOADERS)})"
        )
    return None


def refuse_others_options(
    data: str | None,
    file: Path | None,
    *,
    encoder: str | None,
    steps: int | None,
    layout: Layout,
    labels: Path | None = None,
) -> None:
    """Refuse options that say nothing about the kind of data there are, with a ConfigError.

    An encoder and steps belong to data sets, a layout and labels to a file of spikes (`file`,
    which `spikes_file` makes of `data`).
    """
    if file is not None and (encoder is not None or steps is not None):
        raise ConfigError(f"{data} holds spikes: --encoder and --steps are for data sets")
    if file is None and layout.drive:
        raise ConfigError("--drive belongs to --data FILE.npy")
    for option, given in (("--labels", labels), ("--axes", layout.axes)):
        if file is None and given is not None:
            raise ConfigError(
                f"{option} {given} belongs to --data FILE.npy; a data set has its own"
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
    """The spikes of a file, which a network is to take.

    Args:
        network: that is to take them.
        path: a .npy file of (samples, T, inputs) integers, 0 or 1, or graded spikes where the
            network takes them; or with further axes, as `simulate.result.misplaced` has it.
        samples, most: how many of the first, as `number_of`.
        labels: a .npy file of the classes of all of them, if known.
        layout: of the file.

    Raises:
        ConfigError: when the letters of `axes` are not those of the array's axes.
        FileError, DataError: when a file holds no such array, or not so many samples.
    """
    axes = layout.axes
    array = _arranged(path, layout)
    if array.ndim < 3:
        raise DataError(f"{path}: spikes need shape (samples, T, inputs), not {array.shape}")
    if array.shape[1] < 1:
        raise DataError(f"{path}: spikes of shape {array.shape} hold no step")
    # A fully connected layer takes any shape, once it is said which axis is which.
    said = axes is not None and len(network.input_shape) == 1
    fault = None if said else misplaced(network, array.shape)
    if fault is not None and math.prod(array.shape[2:]) == network.inputs:
        other = "" if axes else "; --axes says which axis is which, such as NTHWC"
        raise DataError(f"{path}: {fault}{other}")
    shape = array.shape[2:] if array.ndim == 5 else network.input_shape
    channels, rows, columns = (1, 1, *shape)[-3:]
    classes = network.layers[-1].neurons
    file = SpikesFile(
        path,
        array,
        (channels, rows, columns),
        classes,
        None if labels is None else _read_labels(labels, len(array), classes),
    )
    return file.take(number_of(samples, most, len(array)))


def _read_labels(path: Path, samples: int, classes: int) -> Ints:
    """(samples,) int64 labels, of a .npy file of integers in 0..classes-1."""
    labels = read_array(path, "labels")
    if labels.shape != (samples,):
        raise DataError(
            f"{path}: labels need shape ({samples},), one for each sample, not {labels.shape}"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"{path}: label {labels[outside[0]]} of sample {outside[0]} is no class of the "
            f"network, which has 0..{classes - 1}"
        )
    return labels.astype(np.int64)


def number_of(samples: int | None, most: int | None, there: int) -> int:
    """How many samples to take: `samples`, else `most`; all if they are fewer, or it is None."""
    if samples is not None:
        return samples
    return there if most is None else min(most, there)


def driven(network: Network, values: Array) -> Array:
    """Scale and shift a sample's values as the network's input block does.

    SLAYER's block (lava-dl 0.6.0, `slayer/block/base.py`, AbstractInput) takes a sample's values
    x and makes weight * x + bias of them; netx only stores weight and bias
    (`netx/blocks/process.py`, Input.transform), and leaves it to the host to set the neurons'
    bias to that.

    Args:
        network: as read from a file.
        values: (samples, T, ...) integers.

    Returns:
        What `simulate` injects, int32; the values themselves where there is no input block.

    Raises:
        DataError: where a value is not one that SLAYER's block keeps as it is, or the file's
            weight or bias is no number of 16 bits.
    """
    if not has_transform(network):
        return values
    low, high = SLAYER_VALUES
    found = int(values.min()), int(values.max())
    if found[0] < low or found[1] > high:
        raise DataError(
            f"an input block's values are whole numbers in {low}..{high}, which SLAYER keeps as "
            f"they are, found {found[0] if found[0] < low else found[1]}; with --drive values are "
            "what drives its neurons, weight and bias already applied"
        )
    weight, bias = (_whole(network, f"input_{key}") for key in ("weight", "bias"))
    return (weight * values.astype(np.int32) + bias).astype(np.int32)


def has_transform(network: Network) -> bool:
    """Whether the network begins with an input block that scales and shifts its input."""
    return network.first.injects and "input_weight" in network.provenance


def without_transform(network: Network) -> Network:
    """The network as it takes values to which weight and bias have been applied already."""
    applied = ("input_weight", "input_bias")
    facts = {fact: said for fact, said in network.provenance.items() if fact not in applied}
    return replace(network, provenance=facts)


def _whole(network: Network, fact: str) -> int:
    """A number that the file tells as a text; a stranger may have written any other."""
    said = network.provenance.get(fact, "")
    if not re.fullmatch(r"-?[0-9]{1,5}", said):
        raise DataError(f"the network's file says {fact} {said[:20]!r}, not a number of 16 bits")
    return int(said)
