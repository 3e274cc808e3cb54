"""One array out of numpy's archive (.npz), of a stranger: no more is read than a limit allows."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from esl_lava.arrays import Array
from esl_lava.errors import FileError

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_CHUNK = 1 << 20


class _RefusedError(Exception):
    """Why an array is refused, without its name."""


def read_member(path: Path, name: str, limit: int) -> Array:
    """The array `name` of an archive.

    Nothing is unpickled, and nothing is reserved that a header promises and the file does not hold.

    Args:
        path: a .npz file (numpy's format, `numpy.lib.format`).
        name: of the array, without `.npy`.
        limit: most bytes that it may take, its header among them.

    Raises:
        FileError: when the file cannot be read, holds no such array or one of Python objects, or
            the array is damaged or larger than the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.file_size > limit:
                raise _RefusedError(f"has {member.file_size} bytes, the limit is {limit}")
            with archive.open(member) as stream:
                return _read(stream, member.file_size)
    except _RefusedError as error:
        raise FileError(f"{path}: {name} {error}") from None
    except KeyError:
        raise FileError(f"{path}: holds no array {name}") from None
    # A zip file, what packs it and numpy's headers each have errors of their own.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{path}: {name} cannot be read: {reason}") from None


def _read(stream: IO[bytes], most: int) -> Array:
    """The array in a member of `most` bytes."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise _RefusedError(f"is of version {version} of numpy's format, which numbers do not need")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about a header is an error or does not matter
        shape, by_columns, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise _RefusedError("holds Python objects, which are never read")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > most:
        raise _RefusedError(f"holds at most {most} bytes, its header promises {size}")
    data = bytearray()
    # The byte too many tells a longer file, and makes zip compare its checksum at the end.
    while chunk := stream.read(min(_CHUNK, size + 1 - len(data))):
        data += chunk
    if len(data) != size:
        held = f"{len(data)}" if len(data) < size else "more"
        raise _RefusedError(f"holds {held} bytes, its header promises {size}")
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if by_columns else "C")
