"""Arrays of a user's own, from .npy files."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.errors import FileError

_DAMAGED = (
    EOFError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What numpy raises over a header that is none."""


def read_array(path: Path, what: str) -> npt.NDArray[Any]:
    """An array of integers, mapped into memory: only what is used of it is read.

    Args:
        path: a .npy file (numpy's format, `numpy.lib.format`).
        what: it holds, for errors.

    Raises:
        FileError: when the file cannot be read, or is no .npy file of integers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except _DAMAGED:
        raise FileError(f"{path}: not a .npy file of plain numbers") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise FileError(f"{path}: an archive of arrays; {what} need a .npy file of one")
    if array.dtype.kind not in "iub":
        raise FileError(f"{path}: {what} have to be integers, not {array.dtype}")
    return array
