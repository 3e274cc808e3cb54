"""Arrays of a user's own, from .npy files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.errors import ConfigError, FileError

_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_AXES = (set("NTC"), set("NTHW"), set("NTCHW"))
_NONE = "not a .npy file of plain numbers"


def read_array(path: Path, what: str) -> npt.NDArray[Any]:
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
        array = _mapped(path)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    if array.dtype.kind not in "iub":
        raise FileError(f"{path}: {what} have to be integers, not {array.dtype}")
    return array


def arranged(array: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
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


def _mapped(path: Path) -> npt.NDArray[Any]:
    """The array of a file that begins as numpy's do.

    Raises:
        FileError: when the rest is not numpy's.
        OSError: when it cannot be read.
    """
    try:
        # What is odd about a header is an error or does not matter.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    # numpy evaluates the header as Python and makes a type and a shape of it: the tokenizer,
    # the parser, numpy.dtype and mmap each have errors of their own.
    except Exception:
        raise FileError(f"{path}: {_NONE}") from None
