"""The IDX file format of MNIST and similar data sets, plain or gzip-compressed.

A file has a header of two zero bytes, one type code, the number of dimensions and one unsigned
32-bit size per dimension. The data follow, last dimension fastest. Every number is big-endian
(Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", section "File
formats").
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from esl_lava.arrays import Array
from esl_lava.data.folders import read_error
from esl_lava.errors import FileError
from esl_lava.files import open_regular

SIZE_LIMIT = 2 << 30
"""Largest number of bytes of data that a header may promise: 2 GiB."""

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_DIMENSIONS = 32  # the limit of numpy 1
_CHUNK = 1 << 20


def read_idx(path: Path) -> tuple[Array, str]:
    """Return the array in an IDX file, and the SHA-256 (hexadecimal) of the uncompressed file.

    The function takes only as much memory as the file really holds, and never more than its header
    promises, however far a compressed file would expand.

    Args:
        path: a plain or gzip-compressed file; its first bytes tell which.

    Returns:
        A writable array with the shape of the file and in native byte order: uint8, int8, int16,
        int32, float32 or float64.

    Raises:
        FileError: the file cannot be read, is not an IDX file, promises more than `SIZE_LIMIT`
            bytes, holds fewer or more bytes than its header promises, or more than memory can.
    """
    try:
        with open_regular(path) as file:
            is_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_compressed else file
            return _read(path, stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        sentence = f"{path} is a damaged gzip file: {error}"
        raise FileError(sentence, "damaged", file=path) from error
    except OSError as error:
        raise read_error(path, error) from error
    except MemoryError:
        sentence = f"{path} holds more than there is memory for"
        raise FileError(sentence, "too-large", file=path) from None


def _read(path: Path, stream: BinaryIO) -> tuple[Array, str]:
    magic = _read_at_most(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise FileError(
            f"{path} is not an IDX file: it begins with the bytes '{magic.hex(' ')}'",
            "damaged",
            value=magic.hex(" "),
            file=path,
        )
    dtype, dimensions = _DTYPES[magic[2]], magic[3]
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise FileError(
            f"{path} has {dimensions} dimensions; 1 to {_MOST_DIMENSIONS} are allowed",
            "range",
            value=dimensions,
            limit=_MOST_DIMENSIONS,
            file=path,
        )
    sizes = _read_at_most(stream, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise FileError(
            f"{path} ends inside its header, which promises {dimensions} dimensions",
            "damaged",
            value=dimensions,
            file=path,
        )
    shape = struct.unpack(f">{dimensions}I", sizes)

    # A size of 0 counts as 1 here: numpy also refuses a huge product of the other sizes.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > SIZE_LIMIT:
        raise FileError(
            f"{path} promises {' x '.join(map(str, shape))} values of {dtype.itemsize} bytes,"
            f" more than the limit of {SIZE_LIMIT} bytes",
            "too-large",
            value=shape,
            limit=SIZE_LIMIT,
            file=path,
        )
    promised = math.prod(shape) * dtype.itemsize
    # One byte more than promised: it reveals a longer file, and makes gzip check the checksum.
    data = _read_at_most(stream, promised + 1)
    if len(data) != promised:
        number = f"{len(data)}" if len(data) < promised else "more"
        raise FileError(
            f"{path} holds {number} bytes of data, but its header promises {promised}",
            "damaged",
            limit=promised,
            file=path,
        )

    digest = hashlib.sha256(magic + sizes)
    digest.update(data)
    array: Array = np.ndarray(shape, dtype, buffer=data)
    return array.astype(dtype.newbyteorder("="), copy=False), digest.hexdigest()


def _read_at_most(stream: BinaryIO, limit: int) -> bytearray:
    """Read up to `limit` bytes in chunks, so that memory is reserved only for bytes that exist."""
    data = bytearray()
    while chunk := stream.read(min(_CHUNK, limit - len(data))):
        data += chunk
    return data
