"""Arrays of a user's own, from .npy files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.errors import FileError

_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
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
