"""Files out of a .tar.gz of a stranger: by name, in memory, nothing written to the disk."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from esl_lava.errors import FileError

MOST_MEMBERS = 100_000
"""More members an archive may not have; CIFAR-10 in JPEG files has 60,023."""

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_REMARKS = (tarfile.XHDTYPE, tarfile.XGLTYPE)  # of POSIX tars, about what follows
_REMARK_LIMIT = 64 << 10
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_TAIL = 1 << 20  # bytes of zeros behind the last member; tar writes up to 10,240


class _RefusedError(Exception):
    """Why an archive is refused, without its name."""


def read_members(
    path: Path, limit_of: Callable[[str], int | None], total: int
) -> Iterator[tuple[str, bytes]]:
    """The files in a .tar.gz, one after another, in their order there.

    Of an archive that grows without end no more than the limits is ever held or unpacked. What
    POSIX tars remark about a member (a longer name among it) is passed over.

    Args:
        path: the archive.
        limit_of: name of a file in it -> the most bytes it may have, or 0 to leave it out,
            whatever it holds; None refuses a name.
        total: most bytes of all files together.

    Yields:
        Name and content of each file that is not left out.

    Raises:
        FileError: when the archive cannot be read, is damaged, holds a name that is refused or
            what is neither file nor folder, or is larger than the limits.
    """
    try:
        with gzip.open(path, "rb") as stream:
            yield from _members(cast(BinaryIO, stream), limit_of, total)
    except _RefusedError as error:
        raise FileError(f"{path}: {error}") from None
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileError(f"{path} is a damaged .tar.gz: {error}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None


def _members(
    stream: BinaryIO, limit_of: Callable[[str], int | None], total: int
) -> Iterator[tuple[str, bytes]]:
    # `tarfile.TarFile` would believe what headers say about sizes, and take a damaged header
    # for the end.
    left = total
    for _ in range(MOST_MEMBERS + 1):
        header = stream.read(_BLOCK)
        if header == bytes(_BLOCK):
            # Only zeros follow, and behind them gzip's checksum.
            if stream.read(_TAIL).strip(b"\0") or stream.read(1):
                raise _RefusedError("more follows behind its end")
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        name = repr(member.name[:80])
        if member.type in _REMARKS:
            _read(stream, name, member.size, _REMARK_LIMIT)
        elif member.type in _FILES:
            limit = limit_of(member.name)
            if limit is None:
                raise _RefusedError(f"its member {name} is not of this data set")
            if not 0 <= member.size <= left:
                raise _RefusedError(f"its files have more than {total} bytes together")
            left -= member.size
            if limit:
                yield member.name, _read(stream, name, member.size, limit)
            else:
                _pass(stream, name, member.size + -member.size % _BLOCK)
        elif not member.isdir():
            raise _RefusedError(f"its member {name} is neither a file nor a folder")
    raise _RefusedError(f"it has more than {MOST_MEMBERS} members")


def _read(stream: BinaryIO, name: str, size: int, limit: int) -> bytes:
    """The content of a member."""
    if not 0 <= size <= limit:
        raise _RefusedError(f"its member {name} has {size} bytes, the limit is {limit}")
    content = stream.read(size)
    _pass(stream, name, size - len(content) + -size % _BLOCK)
    return content


def _pass(stream: BinaryIO, name: str, size: int) -> None:
    """Go on behind so many bytes of a member."""
    while size > 0:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise EOFError(f"it ends inside {name}")
        size -= len(chunk)
