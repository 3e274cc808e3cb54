"""Reading of untrusted .tar.gz archives in memory: nothing is written to the disk."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from esl_lava.data.folders import read_error
from esl_lava.errors import FileError
from esl_lava.files import open_regular

MOST_MEMBERS = 100_000
"""An archive may have at most this many members; CIFAR-10 in JPEG files has 60,023."""

_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX_HEADER_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE)
_PAX_HEADER_LIMIT = 64 << 10
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_TAIL = 1 << 20  # bytes of zeros behind the last member; tar writes up to 10,240


def read_members(
    path: Path, limit_of: Callable[[str], int | None], total: int
) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a .tar.gz one after another, in the order of the archive.

    At most as many bytes as the limits allow are kept or unpacked, even if the archive expands
    without end. Extended headers of POSIX tars, for example with longer names, are skipped.

    Args:
        path: the archive.
        limit_of: returns the largest allowed number of bytes for the name of a file; 0 skips the
            file; None refuses the name.
        total: largest allowed number of bytes of all files together, with those that are skipped.

    Yields:
        Name and content of each file that is not skipped.

    Raises:
        FileError: the archive cannot be read, is damaged, is larger than the limits, or has a
            member with a refused name or a member that is neither a file nor a folder.
    """
    try:
        with open_regular(path) as file, gzip.GzipFile(fileobj=file) as stream:
            yield from _members(path, cast(BinaryIO, stream), limit_of, total)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        sentence = f"{path} is a damaged .tar.gz: {error}"
        raise FileError(sentence, "damaged", file=path) from None
    except OSError as error:
        raise read_error(path, error) from None


def _members(
    path: Path, stream: BinaryIO, limit_of: Callable[[str], int | None], total: int
) -> Iterator[tuple[str, bytes]]:
    # `tarfile.TarFile` trusts the sizes in headers, and mistakes a damaged header for the end.
    bytes_left = total
    for _ in range(MOST_MEMBERS + 1):
        header = stream.read(_BLOCK)
        if header == bytes(_BLOCK):
            # Only zeros follow, and then the checksum of gzip.
            if stream.read(_TAIL).strip(b"\0") or stream.read(1):
                sentence = f"{path}: more data follow behind the end of the archive"
                raise FileError(sentence, "damaged", file=path)
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        name = repr(member.name[:80])
        if member.type in _PAX_HEADER_TYPES:
            _read(path, stream, name, member.size, _PAX_HEADER_LIMIT)
        elif member.type in _FILE_TYPES:
            limit = limit_of(member.name)
            if limit is None:
                raise FileError(
                    f"{path}: its member {name} is not of this data set",
                    "unknown",
                    value=member.name,
                    file=path,
                )
            if not 0 <= member.size <= bytes_left:
                raise FileError(
                    f"{path}: its files have more than {total} bytes together",
                    "too-large",
                    limit=total,
                    file=path,
                )
            bytes_left -= member.size
            if limit:
                yield member.name, _read(path, stream, name, member.size, limit)
            else:
                _skip(stream, name, member.size + -member.size % _BLOCK)
        elif not member.isdir():
            raise FileError(
                f"{path}: its member {name} is neither a file nor a folder",
                "unsupported",
                value=member.name,
                file=path,
            )
    raise FileError(
        f"{path}: it has more than {MOST_MEMBERS} members",
        "too-large",
        limit=MOST_MEMBERS,
        file=path,
    )


def _read(path: Path, stream: BinaryIO, name: str, size: int, limit: int) -> bytes:
    """Return the content of a member."""
    if not 0 <= size <= limit:
        raise FileError(
            f"{path}: its member {name} has {size} bytes, the limit is {limit}",
            "too-large",
            value=size,
            limit=limit,
            file=path,
        )
    content = stream.read(size)
    _skip(stream, name, size - len(content) + -size % _BLOCK)
    return content


def _skip(stream: BinaryIO, name: str, size: int) -> None:
    """Skip `size` bytes of the member `name`; raise EOFError if the archive ends before."""
    while size > 0:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise EOFError(f"it ends inside {name}")
        size -= len(chunk)
