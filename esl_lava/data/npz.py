"""Reading of one array from an untrusted numpy archive (.npz), within a limit of bytes."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from esl_lava.arrays import Array
from esl_lava.errors import Code, FileError
from esl_lava.files import open_regular

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Version of numpy's format -> reader of its header. Later versions are for names of fields."""
_CHUNK = 1 << 20


def read_member(path: Path, name: str, limit: int) -> Array:
    """Return the array `name` of an archive.

    Nothing is unpickled. Memory is reserved only for bytes that the file really holds, not for
    bytes that a header promises.

    Args:
        path: a .npz file (numpy's format, `numpy.lib.format`).
        name: name of the array, without `.npy`.
        limit: largest allowed number of bytes of the array with its header.

    Raises:
        FileError: the file cannot be read, has no such array, or the array is damaged, larger than
            the limit or an array of Python objects.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.file_size > limit:
                raise FileError(
                    f"{path}: {name} has {member.file_size} bytes, the limit is {limit}",
                    "too-large",
                    key=name,
                    value=member.file_size,
                    limit=limit,
                    file=path,
                )
            with archive.open(member) as stream:
                return _read(path, name, stream, member.file_size)
    except FileError:
        raise
    except KeyError:
        sentence = f"{path}: the archive holds no array {name}"
        raise FileError(sentence, "missing", key=name, file=path) from None
    # zipfile, the decompressors and numpy's headers raise many types of exceptions.
    except Exception as error:
        code: Code = "damaged"
        if isinstance(error, OSError):
            code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        reason = " ".join(str(error).split())
        sentence = f"{path}: {name} cannot be read: {reason}"
        raise FileError(sentence, code, key=name, file=path) from None


def _read(path: Path, name: str, stream: IO[bytes], file_size: int) -> Array:
    """Return the array of a member with `file_size` bytes."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise FileError(
            f"{path}: {name} has the version {version} of numpy's format; only the versions "
            f"{' and '.join(map(str, HEADERS))} are read",
            "unsupported",
            key=name,
            value=version,
            limit=tuple(HEADERS),
            file=path,
        )
    with warnings.catch_warnings():
        # An unusual header is an error or harmless; numpy's warnings about it help nobody.
        warnings.simplefilter("ignore")
        shape, by_columns, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        sentence = f"{path}: {name} holds Python objects, which are never read"
        raise FileError(sentence, "type", key=name, value=str(dtype), file=path)
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > file_size:
        raise FileError(
            f"{path}: {name} holds at most {file_size} bytes, but its header promises {size}",
            "damaged",
            key=name,
            value=size,
            limit=file_size,
            file=path,
        )
    data = bytearray()
    # One byte more than promised: it reveals a longer file, and makes zipfile check the checksum.
    while chunk := stream.read(min(_CHUNK, size + 1 - len(data))):
        data += chunk
    if len(data) != size:
        number = f"{len(data)}" if len(data) < size else "more"
        raise FileError(
            f"{path}: {name} holds {number} bytes, but its header promises {size}",
            "damaged",
            key=name,
            limit=size,
            file=path,
        )
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if by_columns else "C")
