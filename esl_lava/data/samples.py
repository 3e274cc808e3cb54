"""Protocols of a data set: samples that a network can run on or be trained on.

Samples are pictures, recorded spikes or frames of events. Code outside `esl_lava.data` uses only
these protocols, so it does not depend on the kind of the samples.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.config import Encoding
from esl_lava.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Self

Selection = slice | Array
"""A selection of samples: a slice, (n,) sample numbers, or (samples,) bool."""


class Samples(Protocol):
    """Samples that can be presented to a network.

    Arrays of spikes have the axes (samples, T, inputs), with inputs in the order of channel, row
    and column. Their memory may be laid out in another order, for example the one that training
    needs; `simulate` accepts any layout.
    """

    @property
    def name(self) -> str:
        """The name of the data set or of the file."""

    @property
    def split(self) -> str | None:
        """The split of the data set, "train" or "test"; None for a file."""

    @property
    def labels(self) -> Ints | None:
        """(samples,) classes, 0..classes-1; None if they are not known."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of a sample's inputs."""

    @property
    def steps(self) -> int | None:
        """T, if the samples have a fixed number of steps; None if the encoding sets T."""

    @property
    def digest(self) -> str:
        """SHA-256 of samples, labels and shapes, hexadecimal.

        The digest tells apart different data of the same name.
        """

    def __len__(self) -> int:
        """Return the number of samples."""

    def take(self, n: int) -> Self:
        """Return the first `n` samples, which share memory with these.

        Raises:
            DataError: `n` is below 1 or above the number of samples.
        """

    def choose(self, selection: Selection) -> Self:
        """Return the selected samples. Samples of a slice share memory with these."""

    def spikes(self, encoding: Encoding | None) -> Array:
        """Return (samples, T, inputs) integers: spikes of 0 and 1, or graded input.

        Graded input comes from a file, from direct coding or from frames with several bits.

        Args:
            encoding: how samples become spikes; None if the samples have their own `steps`.

        Raises:
            DataError: the samples need an encoding, but `encoding` is None or does not fit them.
        """

    def picture(self, index: int) -> Bytes | None:
        """Return a picture of a sample for a person, or None if the sample has no picture.

        (rows, columns) uint8, where 255 is the brightest; in colour (rows, columns, 3) for red,
        green and blue.
        """


class TrainingSamples(Samples, Protocol):
    """Samples that a network can be trained on."""

    @property
    def labels(self) -> Ints:
        """(samples,) classes, 0..classes-1."""

    def first_steps(self, encoding: Encoding) -> Ints:
        """Return (samples, inputs) the step of each input's first spike; T if it has no spike.

        Raises:
            DataError: the encoding makes no spikes.
        """

    def shifted(self, pixels: int, generator: np.random.Generator) -> Self:
        """Return the samples, each shifted by a random whole number of pixels in each direction.

        The numbers are uniform in -pixels..pixels.

        Raises:
            DataError: the samples have no rows and columns.
        """

    def flipped(self, generator: np.random.Generator) -> Self:
        """Return the samples, each mirrored left to right with a probability of one half.

        Raises:
            DataError: the samples have no rows and columns.
        """


def digest(shape: tuple[int, ...], *arrays: Array) -> str:
    """Return the SHA-256 of arrays and a shape, hexadecimal.

    Args:
        shape: shape of a sample.
        arrays: arrays with one entry for each sample; their types and shapes count too.
    """
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str} {array.shape} {shape}\n".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def check_labels(name: str, labels: Ints, samples: int, classes: int) -> None:
    """Check that there is a label in 0..classes-1 for each sample of a data set.

    Raises:
        DataError: if the number of labels differs, or a label is out of range.
    """
    if labels.shape != (samples,):
        raise DataError(
            f"{name} has {samples} samples but labels of shape {labels.shape}",
            "shape",
            key="labels",
            value=labels.shape,
            limit=samples,
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise DataError(
            f"label {outside[0]} in the labels of {name} is not in 0..{classes - 1}",
            "range",
            key="labels",
            value=int(outside[0]),
            limit=classes - 1,
        )


def check_number(name: str, n: int, samples: int) -> None:
    """Check that `n` of the samples of a data set can be taken.

    Raises:
        DataError: if `n` is not in 1..samples.
    """
    if not 1 <= n <= samples:
        raise DataError(
            f"cannot take {n} samples of {name}: 1 to {samples} can be taken",
            "range",
            key="samples",
            value=n,
            limit=samples,
        )
