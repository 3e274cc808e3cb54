"""The IDX file format of MNIST and its relatives, plain or gzip-compressed.

A header of two zero bytes, one type code, the number of dimensions and one unsigned
32-bit size per dimension, then the data, last dimension fastest; every number is
big-endian (Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten
digits", section "File formats").
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
from esl_lava.errors import FileError

SIZE_LIMIT = 2 << 30
"""Most bytes of data a file may promise: 2 GiB."""

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_DIMENSIONS = 32  # numpy 1 has no more
_CHUNK = 1 << 20


def read_idx(path: Path) -> tuple[Array, str]:
    """The array in an IDX file, and the SHA-256 (hexadecimal) of the uncompressed file.

    Memory follows what the file really holds, and never exceeds what its header promises,
    however far a compressed file would expand.

    Args:
        path: a plain or gzip-compressed file, told apart by its first bytes.

    Returns:
        The array is writable, of the file's shape and in native byte order: uint8, int8,
        int16, int32, float32 or float64.

    Raises:
        FileError: the file cannot be read, is no IDX file, promises more than `SIZE_LIMIT`
            bytes, holds fewer or more bytes than its header promises, or more than memory can.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
            return _read(path, stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise FileError(f"{path} holds more than there is memory for") from None


def _read(path: Path, stream: BinaryIO) -> tuple[Array, str]:
    magic = _read_at_most(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise FileError(f"{path} is no IDX file: it begins with the bytes '{magic.hex(' ')}'")
    dtype, dimensions = _DTYPES[magic[2]], magic[3]
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise FileError(f"{path} has {dimensions} dimensions; 1 to {_MOST_DIMENSIONS} can be read")
    sizes = _read_at_most(stream, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise FileError(f"{path} ends inside its header, which promises {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", sizes)

    # A size of 0 counts as 1 here: numpy refuses the other sizes' product too if it is huge.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > SIZE_LIMIT:
        raise FileError(
            f"{path} promises {' x '.join(map(str, shape))} values of {dtype.itemsize} bytes,"
            f" more than the limit of {SIZE_LIMIT} bytes"
        )
    promised = math.prod(shape) * dtype.itemsize
    # The byte too many tells a longer file, and makes gzip compare its checksum at the end.
    data = _read_at_most(stream, promised + 1)
    if len(data) != promised:
        held = f"{len(data)}" if len(data) < promised else "more"
        raise FileError(f"{path} holds {held} bytes of data; its header promises {promised}")

    digest = hashlib.sha256(magic + sizes)
    digest.update(data)
    array: Array = np.ndarray(shape, dtype, buffer=data)
    return array.astype(dtype.newbyteorder("="), copy=False), digest.hexdigest()


def _read_at_most(stream: BinaryIO, limit: int) -> bytearray:
    """Up to `limit` bytes, fewer only at the end; chunks, so that nothing is reserved unread."""
    data = bytearray()
    while chunk := stream.read(min(_CHUNK, limit - len(data))):
        data += chunk
    return data
