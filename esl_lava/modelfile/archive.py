"""Read a zip-format torch file of tensors and plain containers without torch.

Nothing is unpickled and no code runs (`pickles.py`). torch's own `weights_only` loader (2.3) would
let a small file claim tensors of any size.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from esl_lava.arrays import Array
from esl_lava.errors import Code, FileError, shorten
from esl_lava.files import open_descriptor
from esl_lava.pickles import Dialect, Name, RefusedError, rebuild

MAX_PICKLE_BYTES = 8 << 20
MAX_OPCODES = 2_000_000
"""Largest index. An epoch of the history takes 100 to 300 opcodes, and an update of the masks takes
20 and 7 for each layer: 300 epochs of ResNet-19 are 150,000 opcodes in 400 kB. Reading the largest
index takes about three seconds and 200 MB."""
MAX_ENTRIES = 30_000
MAX_DIRECTORY_BYTES = 4 << 20
"""Largest directory of the zip. torch takes about 100 bytes for an entry, and writes an entry for
each tensor: a checkpoint of ResNet-19 has about 500."""
MAX_DIMENSIONS = 32

STORAGES = {
    "torch FloatStorage": np.float32,
    "torch DoubleStorage": np.float64,
    "torch HalfStorage": np.float16,
    "torch LongStorage": np.int64,
    "torch IntStorage": np.int32,
    "torch ShortStorage": np.int16,
    "torch CharStorage": np.int8,
    "torch ByteStorage": np.uint8,
    "torch BoolStorage": np.bool_,
}
"""Class of a torch storage, as a pickle names it -> dtype of its elements."""

_TENSOR = "torch._utils _rebuild_tensor_v2"
_DICTIONARY = "collections OrderedDict"  # torch's empty table of hooks
_LITERALS = ("LONG1", "BINFLOAT", "BINUNICODE")

_INDEX = "data.pkl"
_MEMBERS = frozenset(
    {
        _INDEX,
        "version",
        "byteorder",
        ".data/serialization_id",
        ".format_version",
        ".storage_alignment",
    }
)
"""Entries that torch writes besides the storages; older versions of torch write fewer."""

# torch numbers the storages. A longer text, once for each of many storages, would fill the memory.
_KEY = re.compile("[0-9]{1,6}")
_ROOT = re.compile(r"[^/\\\x00-\x1f]{1,255}")


class _TooLargeError(RefusedError):
    """The content exceeds a limit that protects memory."""


class _DirectoryReader(io.FileIO):
    """A file whose zip directory is refused if it is too large.

    `zipfile` reads the directory at once, and makes an object of each entry before anyone can
    count them.
    """

    opened = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes as `FileIO.read` does; refuse to read too large a directory."""
        if not self.opened and size is not None and size > MAX_DIRECTORY_BYTES:
            raise _TooLargeError(f"the zip's directory is larger than {MAX_DIRECTORY_BYTES} bytes")
        return super().read(size)


@dataclass(frozen=True)
class _Storage:
    """A flat array of the zip, which is not read yet."""

    dtype: type
    entry: str
    numel: int


@dataclass
class _Archive:
    """The zip that contains a pickle.

    Attributes:
        file: the zip.
        root: the folder of all entries.
        budget: bytes that the tensors may still fill, at first the size of the file. A storage
            that is named many times, or entries that overlap, soon use it up.
        used: names of the entries that tensors were read from.
    """

    file: zipfile.ZipFile
    root: str
    budget: int
    used: set[str] = field(default_factory=set)

    def find_storage(self, pid: object) -> _Storage:
        """Return the storage that torch describes as (kind, class, key, device, elements)."""
        match pid:
            case ("storage", Name(name), str(key), str(), int(numel)) if (
                name in STORAGES and _KEY.fullmatch(key)
            ):
                return _Storage(STORAGES[name], f"{self.root}/data/{key}", numel)
        raise RefusedError("a storage is not described as torch describes it")

    def call(self, function: object, arguments: object) -> object:
        """Return the result of one of torch's two calls: a tensor or an empty dictionary."""
        name = function.text if isinstance(function, Name) else None
        match arguments:
            case tuple(()) if name == _DICTIONARY:
                return {}
            case (_Storage() as storage, int(offset), tuple(size), tuple(stride), *_) if (
                name == _TENSOR
            ):
                return self.read_tensor(storage, offset, size, stride)
        raise RefusedError("the pickle calls a function that torch does not call for plain tensors")

    def read_tensor(
        self, storage: _Storage, offset: int, size: tuple[object, ...], stride: tuple[object, ...]
    ) -> Array:
        """Return a copy of a contiguous tensor that lies within its storage."""
        if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
            raise RefusedError("a tensor is not described as torch describes it")
        lengths, strides = _sizes(size), _sizes(stride)
        _sizes((storage.numel, offset))
        numel = math.prod(lengths)
        contiguous = [math.prod(lengths[i + 1 :]) for i in range(len(lengths))]
        # Strides are arbitrary along a length of 1, and in a tensor without elements.
        if numel and any(n > 1 and s != c for n, s, c in zip(lengths, strides, contiguous)):
            raise RefusedError("a tensor is not contiguous")
        entry = self.file.getinfo(storage.entry)
        length = storage.numel * np.dtype(storage.dtype).itemsize
        if entry.file_size != length or offset + numel > storage.numel:
            raise RefusedError("a tensor does not fit the size of its data")
        self.budget -= length
        if self.budget < 0:
            raise _TooLargeError("the tensors together are larger than the file")
        self.used.add(storage.entry)
        raw = np.frombuffer(self.file.read(entry), np.uint8)
        if storage.dtype is np.bool_ and (raw > 1).any():
            raise RefusedError("a Boolean is neither 0 nor 1")
        flat: Array = raw.view(storage.dtype)[offset : offset + numel]
        return flat.reshape(lengths).copy()


def _sizes(numbers: tuple[object, ...]) -> tuple[int, ...]:
    """Return the numbers after checking that they are integers that can be sizes."""
    sizes = tuple(n for n in numbers if type(n) is int and 0 <= n <= sys.maxsize)
    if len(sizes) != len(numbers):
        raise RefusedError("a tensor is not described as torch describes it")
    return sizes


def load(path: Path) -> object:
    """Return the content of a zip-format torch file: plain containers, and tensors as arrays.

    Raises:
        FileError: if the file is missing, is not such a file, or holds anything else.
    """
    try:
        with _DirectoryReader(path, opener=open_descriptor) as file:
            if file.read(4) != b"PK\x03\x04":
                hint = ", as model.pt is" if path.suffix == ".h5" else ""
                raise FileError(f"{path}: not a zip-format torch file{hint}", "damaged", file=path)
            with zipfile.ZipFile(file) as archive:
                file.opened = True
                return _content(archive, os.fstat(file.fileno()).st_size)
    except OSError as error:
        code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FileError(f"{path}: {error.strerror or error}", code, file=path) from None
    except RefusedError as error:
        code = "too-large" if isinstance(error, _TooLargeError) else "damaged"
        raise FileError(f"{path}: {error}", code, file=path) from None
    except (
        zipfile.BadZipFile,
        struct.error,
        ValueError,
        TypeError,
        LookupError,
        EOFError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
        MemoryError,
    ) as error:  # a damaged pickle or zip can make the standard library raise these
        reason = " ".join(str(error).split())
        raise FileError(
            f"{path}: not a file of plain tensors: {reason}", "damaged", file=path
        ) from None


def _content(archive: zipfile.ZipFile, size: int) -> object:
    """Return the content of a zip of `size` bytes."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _TooLargeError(
            f"the zip has {len(entries)} entries, but at most {MAX_ENTRIES} are read"
        )
    roots = [
        e.filename.removesuffix(f"/{_INDEX}")
        for e in entries
        if e.filename.count("/") == 1 and e.filename.endswith(f"/{_INDEX}")
    ]
    if len(roots) != 1 or roots[0] in (".", "..") or not _ROOT.fullmatch(roots[0]):
        raise RefusedError("a zip file, but not written by torch")
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise RefusedError("the zip has compressed entries, which torch.save never writes")
    (root,) = roots
    storages = _check_members([entry.filename for entry in entries], root)
    if f"{root}/byteorder" in archive.namelist():
        _check_byte_order(archive, f"{root}/byteorder")
    index = archive.getinfo(f"{root}/{_INDEX}")
    if index.file_size > MAX_PICKLE_BYTES:
        raise _TooLargeError(f"the index {_INDEX} is larger than {MAX_PICKLE_BYTES} bytes")
    contents = _Archive(archive, root, size)
    names = {*STORAGES, _TENSOR, _DICTIONARY}
    dialect = Dialect(_LITERALS, names, contents.call, refer=contents.find_storage)
    content = rebuild(archive.read(index), dialect, MAX_OPCODES)
    for name in storages:
        if name not in contents.used:
            raise RefusedError(f"entry {shorten(name)} belongs to no tensor")
    return content


def _check_members(names: list[str], root: str) -> list[str]:
    """Return the names of the storages after checking that torch writes all these entries."""
    storages = []
    known = set()
    for name in names:
        folder, _, member = name.partition("/")
        number = member.removeprefix("data/")
        is_storage = number != member and _KEY.fullmatch(number)
        if folder != root or not (is_storage or member in _MEMBERS):
            raise RefusedError(
                f"the zip has the unknown entry {shorten(name)}, which torch.save never writes"
            )
        if name in known:
            raise RefusedError(f"the zip has two entries of the name {shorten(name)}")
        known.add(name)
        if is_storage:
            storages.append(name)
    return storages


def _check_byte_order(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse a file whose numbers have their highest byte first."""
    entry = archive.getinfo(name)
    if entry.file_size > 16 or archive.read(entry) != b"little":
        raise RefusedError(
            f"entry {name} does not say 'little', the only order of bytes that is read"
        )
