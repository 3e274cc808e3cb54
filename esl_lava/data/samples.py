"""What a data set gives, whatever its samples are: pictures, recorded spikes, events.

Everything beyond this room asks for samples, never for what they are made of.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.config import Encoding

if TYPE_CHECKING:
    from typing_extensions import Self

Chosen = slice | Array
"""Which samples: a slice, (n,) places, or (samples,) bool."""


class Samples(Protocol):
    """Samples that a network can be presented.

    There is one order of axes: (samples, T, inputs), where inputs are counted by channel, row
    and column. An array of it may lie in memory in another order, as a trained batch is wanted;
    `simulate` takes any.
    """

    @property
    def name(self) -> str:
        """The data set's, or the file's."""

    @property
    def split(self) -> str | None:
        """Which part of the data set they are, "train" or "test"; None of a file."""

    @property
    def labels(self) -> Ints | None:
        """(samples,) classes, 0..classes-1; None where nobody knows them."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of a sample's inputs."""

    @property
    def steps(self) -> int | None:
        """T, where the samples have a length of their own; else an encoding says it."""

    @property
    def digest(self) -> str:
        """SHA-256 of samples, labels and shapes, hexadecimal: data of one name differ in it."""

    def __len__(self) -> int:
        """How many."""

    def take(self, n: int) -> Self:
        """The first `n`, sharing memory with these.

        Raises:
            DataError: `n` is below 1 or above the number of samples.
        """

    def choose(self, chosen: Chosen) -> Self:
        """Some of them; those of a slice share memory with these."""

    def spikes(self, encoding: Encoding | None) -> Array:
        """(samples, T, inputs) integers: 0 and 1, or graded as a file or direct coding has them.

        Args:
            encoding: how samples become spikes; None where they have `steps` of their own.

        Raises:
            DataError: where they need an encoding and none is given.
        """

    def picture(self, index: int) -> Bytes | None:
        """What a person sees of a sample; None where it is no picture.

        (rows, columns) uint8, 255 is the brightest; in colour (rows, columns, 3), red, green, blue.
        """


class TrainingSamples(Samples, Protocol):
    """Samples that a network can be trained on."""

    @property
    def labels(self) -> Ints:
        """(samples,) classes, 0..classes-1."""

    def first_steps(self, encoding: Encoding) -> Ints:
        """(samples, inputs) the step of each input's first spike; T where it has none.

        Raises:
            DataError: where the encoding makes no spikes.
        """

    def shifted(self, pixels: int, generator: np.random.Generator) -> Self:
        """Every sample moved by its own whole numbers of pixels, uniform in -pixels..pixels.

        Raises:
            DataError: where samples have no rows to be moved along.
        """

    def flipped(self, generator: np.random.Generator) -> Self:
        """Every sample as it is or, with a chance of one half, mirrored left to right.

        Raises:
            DataError: where samples have no rows.
        """


def digest(shape: tuple[int, ...], *arrays: Array) -> str:
    """SHA-256 of arrays and a shape, hexadecimal.

    Args:
        shape: of a sample.
        arrays: of one entry per sample; their types and shapes count too.
    """
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str} {array.shape} {shape}\n".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
