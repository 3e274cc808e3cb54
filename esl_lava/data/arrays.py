"""Arrays of a user's own, from .npy files."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from esl_lava.arrays import Array, Ints
from esl_lava.data.config import Encoding
from esl_lava.data.samples import Chosen, digest
from esl_lava.errors import ConfigError, DataError, FileError

_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_AXES = (set("NTC"), set("NTHW"), set("NTCHW"))
_NONE = "not a .npy file of plain numbers"


@dataclass(frozen=True, eq=False)
class SpikesFile:
    """Spikes of a file, mapped into memory.

    Attributes:
        path: the file.
        array: (samples, T, ...) integers as the file and the user have them; the flattening of
            what is behind T are the inputs.
        shape: (channels, rows, columns) of them.
        classes: number of classes of the network that takes them.
        labels: (samples,) int64, 0..classes-1, where they are known.
    """

    path: Path
    array: Array
    shape: tuple[int, int, int]
    classes: int
    labels: Ints | None = None

    def __len__(self) -> int:
        return len(self.array)

    @property
    def name(self) -> str:
        """The file's, without its folder."""
        return self.path.name

    @property
    def split(self) -> None:
        """A file is no part of a data set."""

    @property
    def steps(self) -> int:
        """T."""
        return int(self.array.shape[1])

    @property
    def digest(self) -> str:
        """SHA-256 of spikes, labels and their shapes, hexadecimal; reads all of the file."""
        labels = () if self.labels is None else (self.labels,)
        return digest(self.shape, self.array, *labels)

    def take(self, n: int) -> SpikesFile:
        """The first `n`; see `Samples`."""
        if not 1 <= n <= len(self):
            raise DataError(f"cannot take {n} samples of {self.path}, which has {len(self)}")
        return self.choose(slice(n))

    def choose(self, chosen: Chosen) -> SpikesFile:
        """Some of them; of a slice nothing is read."""
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, array=self.array[chosen], labels=labels)

    def spikes(self, encoding: Encoding | None = None) -> Array:
        """(samples, T, inputs) as they are in the file, whatever the encoding."""
        samples, steps, *axes = self.array.shape
        return self.array.reshape(samples, steps, math.prod(axes))

    def picture(self, index: int) -> None:
        """Spikes are no picture."""


def read_array(path: Path, what: str) -> Array:
    """An array of integers, mapped into memory: only what is used of it is read.

    Args:
        path: a .npy file (numpy's format, `numpy.lib.format`).
        what: it holds, for errors.

    Raises:
        FileError: when the file cannot be read, or is no .npy file of integers.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_MAGIC))
        if beginning.startswith(_ZIP_MAGIC):
            raise FileError(f"{path}: an archive of arrays (.npz); {what} need a .npy file of one")
        # Nothing but its own format reaches numpy: `np.load` would try archives and pickles.
        if beginning != _MAGIC:
            raise FileError(f"{path}: {_NONE}")
        # What is odd about a header is an error or does not matter.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            array: Array = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    # numpy evaluates the header as Python and makes a type and a shape of it: the tokenizer,
    # the parser, numpy.dtype and mmap each have errors of their own.
    except Exception:
        raise FileError(f"{path}: {_NONE}") from None
    if array.dtype.kind not in "iub":
        raise FileError(f"{path}: {what} have to be integers, not {array.dtype}")
    return array


def arranged(array: Array, axes: str) -> Array:
    """A view of spikes with their axes in the order that networks take.

    Args:
        array: of spikes.
        axes: a letter for each of its axes: N samples, T steps, C channels, H rows, W columns;
            such as NTHWC, or NCHWT as SLAYER has them. Without rows and columns C are the
            inputs, without C there is one channel.

    Returns:
        (N, T, C) or (N, T, C, H, W).

    Raises:
        ConfigError: when the letters are not of that kind, or not one for each axis.
    """
    letters = axes.upper()
    if set(letters) not in _AXES or len(set(letters)) != len(letters):
        raise ConfigError(
            f"--axes {axes}: needs N (samples) and T (steps), and C (channels), H and W (rows and "
            "columns) or all three, each once"
        )
    if len(letters) != array.ndim:
        raise ConfigError(f"--axes {axes}: names {len(letters)} axes of an array of {array.shape}")
    order = [letters.index(letter) for letter in "NTCHW" if letter in letters]
    turned = array.transpose(order)
    return turned if "C" in letters else turned[:, :, None]
