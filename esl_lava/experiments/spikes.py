"""Spikes of a user's own, from a file, and what they have to be for a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.data.arrays import arranged, read_array
from esl_lava.data.datasets import LOADERS
from esl_lava.errors import ConfigError, DataError
from esl_lava.network import Network
from esl_lava.simulate.result import misplaced


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
    axes: str | None,
    labels: Path | None = None,
) -> None:
    """Refuse options that say nothing about the kind of data there are.

    Args:
        data: as the user names them.
        file: of spikes, as `spikes_file` makes of it.
        encoder, steps: of data sets.
        axes, labels: of files.

    Raises:
        ConfigError: naming the option.
    """
    if file is not None and (encoder is not None or steps is not None):
        raise ConfigError(f"{data} holds spikes: --encoder and --steps are for data sets")
    for option, given in (("--labels", labels), ("--axes", axes)):
        if file is None and given is not None:
            raise ConfigError(
                f"{option} {given} belongs to --data FILE.npy; a data set has its own"
            )


@dataclass(frozen=True, eq=False)
class SpikesFile:
    """Spikes of a file, mapped into memory; called with a slice, those samples' spikes.

    Attributes:
        array: (samples, T, ...) as the file and the user have it.
    """

    array: npt.NDArray[Any]

    @property
    def samples(self) -> int:
        """How many samples."""
        return len(self.array)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.array.shape[1])

    def __call__(self, here: slice) -> npt.NDArray[Any]:
        """(samples, T, inputs) of the samples `here`, in C order of what is behind T."""
        some = self.array[here]
        return some.reshape(*some.shape[:2], math.prod(some.shape[2:]))


def read_spikes(
    network: Network,
    path: Path,
    samples: int | None = None,
    *,
    axes: str | None = None,
    most: int | None = None,
) -> SpikesFile:
    """The spikes of a file, which a network is to take.

    Args:
        network: that is to take them.
        path: a .npy file of (samples, T, inputs) integers, 0 or 1, or graded spikes where the
            network takes them; or with further axes, as `simulate.result.misplaced` has it.
        samples: how many of the first; by default `most`, or all where there are fewer or it
            is None.
        axes: which axis is which, where they are others (`data.arrays.arranged`).
        most: see `samples`.

    Raises:
        ConfigError: when the letters of `axes` are not those of the array's axes.
        FileError, DataError: when it holds no such array, or not so many samples.
    """
    array = read_array(path, "spikes")
    if axes is not None:
        array = arranged(array, axes)
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
    total = number_of(samples, most, len(array))
    if not 1 <= total <= len(array):
        raise DataError(f"cannot take {total} samples of {path}, which has {len(array)}")
    return SpikesFile(array[:total])


def read_labels(network: Network, path: Path, samples: int) -> npt.NDArray[Any]:
    """The labels of all samples of a file of spikes.

    Args:
        network: that is to decide for them.
        path: a .npy file of (samples,) integers, one of the network's classes each.
        samples: how many the file of spikes has.

    Raises:
        FileError, DataError: when it holds no such array.
    """
    labels = read_array(path, "labels")
    if labels.shape != (samples,):
        raise DataError(
            f"{path}: labels need shape ({samples},), one for each sample, not {labels.shape}"
        )
    classes = network.layers[-1].neurons
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"{path}: label {labels[outside[0]]} of sample {outside[0]} is no class of the "
            f"network, which has 0..{classes - 1}"
        )
    return labels


def number_of(samples: int | None, most: int | None, there: int) -> int:
    """How many samples to take: what was asked for, or the default, if there are so many."""
    if samples is not None:
        return samples
    return there if most is None else min(most, there)
