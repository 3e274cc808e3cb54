"""Read the values of an HDF5 dataset without HDF5's filters.

HDF5 trusts the sizes that a file claims. If a chunk inflates to fewer bytes than it needs, HDF5
hands out bytes that it never wrote, or crashes; if it inflates to more, HDF5 allocates them all. It
never returns from a dataset whose chunks have more axes than its values. This module therefore
takes from HDF5 only where the bytes lie. It reads the bytes itself, inflates them under a limit,
and refuses a chunk that does not hold exactly the bytes that it needs.

The values that are read from a file have together at most as many stored bytes as the file. As
deflate expands a byte at most `MAX_RATIO` times, this bounds the bytes of all arrays.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from esl_lava.arrays import Array
from esl_lava.errors import UserError

MAX_CHUNKS = 1 << 16
MAX_RATIO = 1032
"""Deflate cannot compress data by a larger factor."""

_DEFLATE, _SHUFFLE, _FLETCHER32 = (
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
)
_FILTERS = frozenset((_DEFLATE, _SHUFFLE, _FLETCHER32))
_CHECKSUM = 4
"""Bytes that the filter fletcher32 appends."""
_LEVEL = 9
"""Highest level of deflate."""
_PIECE = 1 << 20


class RefusedError(UserError):
    """The content of a file is refused. The reader adds the layer and the file to the sentence."""


@dataclass
class FileBytes:
    """The bytes of an open file. No more bytes are read than the file has.

    Attributes:
        descriptor: the descriptor of the open file.
        size: number of bytes of the file.
        left: number of bytes that were not yet read.
    """

    descriptor: int
    size: int = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.left = os.fstat(self.descriptor).st_size

    def spend(self, count: int, key: str) -> None:
        """Count bytes as read.

        Raises:
            RefusedError: if more bytes were read than the file has: some were read twice.
        """
        self.left -= count
        if self.left < 0:
            raise RefusedError(
                f"{key} shares its stored bytes with other values", "damaged", key=key
            )

    def read(self, place: int | None, count: int, key: str) -> bytes:
        """Return `count` bytes from offset `place` of the file, and count them as read.

        Raises:
            RefusedError: if not all of these bytes lie in the file, or some were read twice.
        """
        if place is None or place < 0 or count < 0 or place + count > self.size:
            raise RefusedError(f"{key} lies beyond the end of the file", "damaged", key=key)
        self.spend(count, key)
        content = self.look(place, count)
        if len(content) < count:
            raise RefusedError(f"{key} lies beyond the end of the file", "damaged", key=key)
        return content

    def look(self, place: int, count: int) -> bytes:
        """Return at most `count` bytes from offset `place`, and do not count them as read."""
        pieces = []
        while count and (piece := os.pread(self.descriptor, count, place)):
            pieces.append(piece)
            place, count = place + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_values(dataset: Any, dtype: np.dtype[Any], key: str, content: FileBytes) -> Array:
    """Return the values of a dataset.

    Args:
        dataset: the `h5py.h5d.DatasetID`.
        dtype: the type in which the values are stored.
        key: name of the dataset, for errors.
        content: bytes of the dataset's file.

    Raises:
        RefusedError: if the file does not hold exactly the bytes of these values, or holds them
            in a way that is not supported.
    """
    creation = dataset.get_create_plist()
    layout = creation.get_layout()
    filters = [creation.get_filter(place)[0] for place in range(creation.get_nfilters())]
    shape = dataset.shape
    if layout == h5py.h5d.CHUNKED:
        return _read_chunks(_Chunks(dataset, creation, filters, dtype, key), content)
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or creation.get_external_count():
        raise RefusedError(
            f"{key} is a virtual dataset, or its values lie in another file", "type", key=key
        )
    if filters:
        raise _unsupported_filters(key, filters)
    needed = math.prod(shape) * dtype.itemsize
    if dataset.get_storage_size() != needed:
        raise _wrong_size(key, dataset.get_storage_size(), needed, shape)
    if not needed:
        return np.empty(shape, dtype)
    if layout == h5py.h5d.CONTIGUOUS:
        raw = content.read(dataset.get_offset(), needed, key)
        return np.frombuffer(raw, dtype).reshape(shape)
    # The values lie in the dataset's header, which HDF5 has read and checked.
    content.spend(needed, key)
    values = np.empty(shape, dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values, dataset.get_type())
    return values


def _unsupported_filters(key: str, filters: Sequence[int], chunks: int = 1) -> RefusedError:
    return RefusedError(
        f"{key} is stored with HDF5's filters {list(filters)} in {chunks} chunks; only the filters "
        f"{sorted(_FILTERS)} are supported, each once and in chunks, and at most {MAX_CHUNKS} "
        "chunks",
        "unsupported",
        key=key,
    )


def _wrong_size(key: str, stored: int, needed: int, shape: tuple[int, ...]) -> RefusedError:
    large = needed > MAX_RATIO * stored
    return RefusedError(
        f"{key} of shape {shape} needs {needed} bytes, "
        + ("more than its stored bytes can hold" if large else f"but {stored} are stored"),
        "too-large" if large else "damaged",
        key=key,
        value=shape if large else stored,
        limit=None if large else needed,
    )


class _Chunks:
    """The chunks of a dataset.

    Attributes:
        dtype: type of the values.
        key: name of the dataset, for errors.
        filters: numbers of HDF5's filters, in the order in which they were applied.
        shape: shape of the dataset.
        lengths: shape of a chunk. Chunks at the edge are stored in full.
        needed: bytes of a chunk without filters.
        stored: the chunks as (offset on each axis, filter mask, place in the file, bytes).

    Raises:
        RefusedError: if chunks of this kind are not supported, or the dataset's stored bytes
            could not hold them.
    """

    def __init__(
        self, dataset: Any, creation: Any, filters: list[int], dtype: np.dtype[Any], key: str
    ) -> None:
        self.dtype, self.key, self.filters = dtype, key, filters
        self.shape, self.lengths = dataset.shape, creation.get_chunk()
        if len(self.lengths) != len(self.shape) or min(self.lengths, default=0) < 1:
            raise RefusedError(
                f"{key} of shape {self.shape} cannot be stored in chunks of shape {self.lengths}",
                "damaged",
                key=key,
                value=self.lengths,
            )
        self.needed = math.prod(self.lengths) * dtype.itemsize
        count = math.prod(-(-n // length) for n, length in zip(self.shape, self.lengths))
        repeated = len(set(filters)) < len(filters)
        if repeated or not _FILTERS.issuperset(filters) or count > MAX_CHUNKS:
            raise _unsupported_filters(key, filters, count)
        if _SHUFFLE in filters:
            width = tuple(creation.get_filter(filters.index(_SHUFFLE))[2])
            if width != (dtype.itemsize,):
                raise RefusedError(
                    f"{key} has values of {dtype.itemsize} bytes, but its shuffle filter states "
                    f"{width}",
                    "damaged",
                    key=key,
                    value=width,
                    limit=dtype.itemsize,
                )
        if _DEFLATE in filters:
            levels = tuple(creation.get_filter(filters.index(_DEFLATE))[2])
            if len(levels) != 1 or levels[0] > _LEVEL:  # HDF5 would not inflate it
                raise RefusedError(
                    f"{key} is deflated with the level {levels}",
                    "damaged",
                    key=key,
                    value=levels,
                    limit=_LEVEL,
                )
        unlimited = [
            n == h5py.h5s.UNLIMITED for n in dataset.get_space().get_simple_extent_dims(True)
        ]
        if any(unlimited) and not unlimited[0]:
            # HDF5 2.0 lists the chunks of some of these arrays at wrong places.
            raise RefusedError(
                f"{key} can grow along another axis but not along its first one, which is not "
                "supported",
                "unsupported",
                key=key,
            )
        self.stored = self._list(dataset, count)

    def _list(self, dataset: Any, count: int) -> list[tuple[tuple[int, ...], int, int | None, int]]:
        """Return the chunks, each of which must be stored once.

        An absent chunk is refused, because HDF5 would return its fill value, which no program wrote
        there. A chunk is usually absent because the writing program was interrupted. This does not
        ask HDF5 to read a chunk: its `H5Dread_chunk` trusts the size that the file claims.
        """
        stored: list[tuple[tuple[int, ...], int, int | None, int]] = []

        def add(chunk: Any) -> bool | None:
            stored.append((chunk.chunk_offset, chunk.filter_mask, chunk.byte_offset, chunk.size))
            return True if len(stored) > count else None  # True ends the list

        if count:
            dataset.chunk_iter(add)
        size = sum(chunk[3] for chunk in stored)
        if count * self.needed > MAX_RATIO * size:
            raise _wrong_size(self.key, size, count * self.needed, self.shape)
        places = {
            offset
            for offset, *_ in stored
            if all(o % c == 0 and o < n for o, c, n in zip(offset, self.lengths, self.shape))
        }
        if not len(stored) == len(places) == count:
            raise RefusedError(
                f"{self.key} of shape {self.shape} consists of {count} chunks, but {len(places)} "
                "are stored",
                "damaged",
                key=self.key,
                value=len(places),
                limit=count,
            )
        return stored


def _read_chunks(chunks: _Chunks, content: FileBytes) -> Array:
    """Return the values of all chunks."""
    values = np.empty(chunks.shape, chunks.dtype)
    for offset, mask, place, size in chunks.stored:
        applied = [number for bit, number in enumerate(chunks.filters) if not mask >> bit & 1]
        if _DEFLATE not in applied:
            plain = chunks.needed + _CHECKSUM * (_FLETCHER32 in applied)
            if size != plain:
                raise _wrong_chunk(chunks.key, offset, f"{size}", plain)
        elif chunks.needed > MAX_RATIO * size:
            most = f"at most {MAX_RATIO * size}"
            raise _wrong_chunk(chunks.key, offset, most, chunks.needed)
        stored = content.read(place, size, chunks.key)
        if chunks.lengths == chunks.shape and applied == [_DEFLATE]:
            _inflate(stored, values.reshape(-1).view(np.uint8), chunks.key, offset)
            continue
        raw: bytes | Array = stored
        for index in reversed(range(len(applied))):
            if applied[index] == _FLETCHER32:
                raw = _checked(raw, chunks.key, offset)
            elif applied[index] == _SHUFFLE:
                raw = _unshuffled(raw, chunks.dtype.itemsize)
            else:
                extra = _CHECKSUM * (_FLETCHER32 in applied[:index])
                inflated = np.empty(chunks.needed + extra, np.uint8)
                _inflate(raw, inflated, chunks.key, offset)
                raw = inflated
        if len(raw) != chunks.needed:
            raise _wrong_chunk(chunks.key, offset, f"{len(raw)}", chunks.needed)
        chunk = np.frombuffer(raw, chunks.dtype).reshape(chunks.lengths)
        inside = [min(c, n - o) for o, c, n in zip(offset, chunks.lengths, chunks.shape)]
        values[tuple(slice(o, o + n) for o, n in zip(offset, inside))] = chunk[
            tuple(slice(n) for n in inside)
        ]
    return values


def _wrong_chunk(key: str, offset: tuple[int, ...], size: str, needed: int) -> RefusedError:
    return RefusedError(
        f"{key}: the chunk at {offset} holds {size} bytes but needs {needed}",
        "damaged",
        key=key,
        value=size,
        limit=needed,
    )


def _inflate(
    raw: bytes | Array, out: npt.NDArray[np.uint8], key: str, offset: tuple[int, ...]
) -> None:
    """Inflate a deflated chunk into bytes that it must fill exactly."""
    stream, filled = zlib.decompressobj(), 0
    source = memoryview(raw)  # type: ignore[arg-type]  # arrays are buffers too
    for start in range(0, len(source), _PIECE):
        part: Any = source[start : start + _PIECE]
        while True:
            # At the end, one byte more is asked for: a stream that is too long shows itself.
            most = min(_PIECE, out.size - filled + 1)
            try:
                piece = stream.decompress(part, most)
            except zlib.error as error:
                raise RefusedError(
                    f"{key}: the chunk at {offset} cannot be inflated: {error}", "damaged", key=key
                ) from None
            if filled + len(piece) > out.size:
                raise _wrong_chunk(key, offset, f"more than {out.size}", out.size)
            out[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
            part = stream.unconsumed_tail
            if stream.eof or (not part and len(piece) < most):
                break
        if stream.eof:
            unused = len(stream.unused_data) + max(0, len(source) - start - _PIECE)
            if unused:
                raise RefusedError(
                    f"{key}: {unused} bytes follow the deflated chunk at {offset}",
                    "damaged",
                    key=key,
                    value=unused,
                )
            break
    if filled != out.size or not stream.eof:
        raise _wrong_chunk(key, offset, f"{filled}", out.size)


def _unshuffled(raw: bytes | Array, width: int) -> Array:
    """Undo the filter shuffle, which stores the first bytes of all values, then all second ones."""
    planes = np.frombuffer(raw, np.uint8)
    if planes.size % width:
        return planes  # refused by its size
    return np.ascontiguousarray(planes.reshape(width, -1).T).reshape(-1)


def _checked(raw: bytes | Array, key: str, offset: tuple[int, ...]) -> bytes | Array:
    """Check the Fletcher checksum at the end of a chunk, and return the bytes before it.

    Raises:
        RefusedError: if the checksum does not match.
    """
    stored = bytes(raw[-_CHECKSUM:])
    content = raw[:-_CHECKSUM]
    first, second = _fletcher32(np.frombuffer(content, np.uint8))
    found = int.from_bytes(stored, "little")
    # A sum of 0 may be stored as 65535.
    if (found & 0xFFFF) % 65535 != first or (found >> 16) % 65535 != second:
        raise RefusedError(
            f"{key}: the checksum of the chunk at {offset} does not match", "damaged", key=key
        )
    return content


def _fletcher32(content: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Return both sums of Fletcher's checksum as HDF5 takes them, modulo 65535."""
    first = second = 0
    for start in range(0, content.size, _PIECE):
        piece = content[start : start + _PIECE]
        if piece.size % 2:
            piece = np.append(piece, np.uint8(0))
        words = piece.view(">u2").astype(np.int64)
        weighted = int((words * np.arange(words.size, 0, -1)).sum())
        second = (second + first * words.size + weighted) % 65535
        first = (first + int(words.sum())) % 65535
    return first, second
