"""The user's own arrays of spikes, from .npy files."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from esl_lava.arrays import Array, Ints
from esl_lava.data.config import Encoding
from esl_lava.data.npz import HEADERS
from esl_lava.data.samples import Selection, digest
from esl_lava.errors import Code, ConfigError, DataError, FileError
from esl_lava.files import open_regular

_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_AXES = (set("NTC"), set("NTHW"), set("NTCHW"))
_NOT_NPY = "not a .npy file of plain numbers, or damaged"


@dataclass(frozen=True, eq=False)
class SpikesFile:
    """Spikes in a file, which is mapped into memory.

    Attributes:
        path: the file.
        array: (samples, T, ...) integers as they are in the file; the flattened axes behind T are
            the inputs.
        shape: (channels, rows, columns) of the inputs.
        classes: number of classes of the network that gets the spikes.
        labels: (samples,) int64, 0..classes-1, or None if they are not known.
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
        """The name of the file, without its folder."""
        return self.path.name

    @property
    def split(self) -> None:
        """None, because a file is not a split of a data set."""

    @property
    def steps(self) -> int:
        """The number of steps T of a sample."""
        return int(self.array.shape[1])

    @property
    def digest(self) -> str:
        """SHA-256 of spikes, labels and their shapes, hexadecimal. It reads the whole file."""
        labels = () if self.labels is None else (self.labels,)
        return digest(self.shape, self.array, *labels)

    def take(self, n: int) -> SpikesFile:
        """Return the first `n` samples; see `Samples`."""
        if not 1 <= n <= len(self):
            raise DataError(
                f"cannot take {n} samples of {self.path}, which has {len(self)}",
                "range",
                key="samples",
                value=n,
                limit=len(self),
                file=self.path,
            )
        return self.choose(slice(n))

    def choose(self, selection: Selection) -> SpikesFile:
        """Return the selected samples. A slice reads nothing from the file."""
        labels = None if self.labels is None else self.labels[selection]
        return replace(self, array=self.array[selection], labels=labels)

    def spikes(self, encoding: Encoding | None = None) -> Array:
        """Return the integers of the file as (samples, T, inputs). The encoding is ignored."""
        samples, steps, *axes = self.array.shape
        return self.array.reshape(samples, steps, math.prod(axes))

    def picture(self, index: int) -> None:
        """Return None: spikes have no picture."""


def read_array(path: Path, what: str) -> Array:
    """Return an array of integers, mapped into memory: only the parts that are used are read.

    Args:
        path: a .npy file (numpy's format, `numpy.lib.format`).
        what: the name of the contents in errors, for example "spikes".

    Raises:
        FileError: the file cannot be read, or is not a .npy file of integers.
    """
    try:
        with open_regular(path) as file:
            beginning = file.read(len(_MAGIC))
            if beginning.startswith(_ZIP_MAGIC):
                raise FileError(
                    f"{path}: this is an archive of arrays (.npz), but {what} need a .npy file "
                    "with one array",
                    "unsupported",
                    key=what,
                    file=path,
                )
            # Only files in the .npy format reach numpy, because `np.load` also reads pickles.
            if beginning != _MAGIC:
                raise FileError(f"{path}: {_NOT_NPY}", "damaged", file=path)
            file.seek(0)
            # An unusual header is an error or harmless; numpy's warnings about it help nobody.
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                array = _map(file)
    except FileError:
        raise
    except OSError as error:
        code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FileError(f"{path}: {error.strerror or error}", code, file=path) from None
    # numpy evaluates the header as Python and makes a type and a shape of it: the tokenizer, the
    # parser, numpy.dtype and mmap raise many types of exceptions.
    except Exception:
        raise FileError(f"{path}: {_NOT_NPY}", "damaged", file=path) from None
    if array.dtype.kind not in "iub":
        raise FileError(
            f"{path}: {what} have to be integers, not {array.dtype}",
            "type",
            key=what,
            value=str(array.dtype),
            file=path,
        )
    return array


def _map(file: BinaryIO) -> Array:
    """Return the array in an open .npy file, mapped into memory.

    Raises: ValueError and others, if the file is damaged or holds Python objects.
    """
    shape, by_columns, dtype = HEADERS[np.lib.format.read_magic(file)](file)
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError
    order: Literal["F", "C"] = "F" if by_columns else "C"
    return np.memmap(file, dtype, "r", file.tell(), shape, order)


def reorder_axes(array: Array, axes: str) -> Array:
    """Return a view of spikes with the axes in the order that networks take.

    Args:
        array: spikes.
        axes: one letter for each axis of the array: N samples, T steps, C channels, H rows,
            W columns; for example NTHWC, or NCHWT as in SLAYER. Without H and W, C is the axis of
            inputs. Without C there is one channel.

    Returns:
        (N, T, C) or (N, T, C, H, W).

    Raises:
        ConfigError: a letter is unknown, missing or repeated, or their number is not the number of
            axes.
    """
    letters = axes.upper()
    if set(letters) not in _AXES or len(set(letters)) != len(letters):
        raise ConfigError(
            f"--axes {axes}: the letters N (samples) and T (steps) are needed, with C (channels "
            "or inputs), with H and W (rows and columns), or with all three; each letter once",
            "type",
            key="--axes",
            value=axes,
        )
    if len(letters) != array.ndim:
        raise ConfigError(
            f"--axes {axes}: names {len(letters)} axes, but the array of shape {array.shape} has "
            f"{array.ndim}",
            "mismatch",
            key="--axes",
            value=axes,
            limit=array.ndim,
        )
    order = [letters.index(letter) for letter in "NTCHW" if letter in letters]
    ordered = array.transpose(order)
    return ordered if "C" in letters else ordered[:, :, None]
