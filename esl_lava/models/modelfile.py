"""`model.pt`: a zip-format torch file of tensors and plain containers, nothing else.

Reading never runs code and never asks torch to unpickle: the pickle inside is first
scanned for the few opcodes torch writes for such data, then rebuilt by an unpickler
that knows tensors and dictionaries only. torch's own `weights_only` loader (2.3) would
let a small file claim tensors of any size.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import pickletools
import sys
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esl_lava.config import Experiment, from_toml, to_toml
from esl_lava.errors import ConfigError, FileError

FORMAT = "esl-lava model"
FORMAT_VERSION = 1
MAX_PICKLE_BYTES = 64 << 20
MAX_ENTRIES = 100_000

_OPCODES = frozenset(
    "PROTO EMPTY_DICT EMPTY_LIST EMPTY_TUPLE MARK TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS "
    "SETITEM SETITEMS BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT NONE NEWTRUE NEWFALSE "
    "GLOBAL REDUCE BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET STOP".split()
)
_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@dataclass(frozen=True, eq=False)
class SavedModel:
    """What a `model.pt` holds.

    Attributes:
        config: the experiment that made it.
        weights: the network's state dict, SLAYER's keys.
        masks: layer name -> bool tensor of the weight's shape, sparse layers only.
        ever: as masks, true where a connection was ever active.
        history: one plain dictionary per epoch, in order.
        state: what only a training checkpoint holds (optimiser, scheduler, generators).
        package: version of esl-lava that wrote it.
    """

    config: Experiment
    weights: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    ever: dict[str, torch.Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    package: str = field(default_factory=lambda: version("esl-lava"))


def write(saved: SavedModel, path: Path) -> None:
    """Write `saved` whole or not at all; the same content gives the same bytes.

    Raises:
        FileError: when the file cannot be written.
    """
    buffer = io.BytesIO()  # torch writes a file's name into the zip; a buffer has none
    torch.save(
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "package": saved.package,
            "config": to_toml(saved.config),
            "weights": {key: value.detach().cpu() for key, value in saved.weights.items()},
            "masks": dict(saved.masks),
            "ever": dict(saved.ever),
            "history": saved.history,
            "state": saved.state,
        },
        buffer,
    )
    replace_file(path, buffer.getvalue())


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` atomically: temporary name, fsync, rename.

    Raises:
        FileError: when the file cannot be written; the old one then stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None


def read(path: Path) -> SavedModel:
    """Read a `model.pt`, from whomever it comes.

    Raises:
        FileError: when the file is missing, no zip-format torch file, holds anything but
            tensors and plain containers, or lacks a part.
        ConfigError: when its configuration is not valid.
    """
    content = _load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileError(f"{path}: a torch file, but not a model saved by esl-lava")
    if content.get("version") != FORMAT_VERSION:
        raise FileError(
            f"{path}: format version {content.get('version')!r}, "
            f"this esl-lava reads version {FORMAT_VERSION}"
        )
    parts = {"package": str, "config": str, "history": list, "state": dict}
    for key, kind in parts.items():
        if not isinstance(content.get(key), kind):
            raise FileError(f"{path}: part {key!r} is missing or of the wrong kind")
    for key in ("weights", "masks", "ever"):
        table = content.get(key)
        if not isinstance(table, dict) or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor)
            for name, tensor in table.items()
        ):
            raise FileError(f"{path}: part {key!r} is not a table of tensors")
    try:
        config = from_toml(content["config"], str(path))
    except ConfigError as error:
        raise FileError(f"{path}: its configuration is not valid: {error}") from None
    return SavedModel(
        config=config,
        weights=content["weights"],
        masks=content["masks"],
        ever=content["ever"],
        history=content["history"],
        state=content["state"],
        package=content["package"],
    )


def digest(path: Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


@dataclass(frozen=True)
class _Storage:
    """A flat array of the zip, not read yet."""

    dtype: type
    entry: str
    numel: int


class _PlainUnpickler(pickle.Unpickler):
    """Rebuilds tensors and dictionaries; any other class is refused."""

    def __init__(self, stream: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        raise pickle.UnpicklingError(f"it needs {module}.{name}, which is refused")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", dtype, str(key), str(), int(numel)) if dtype in _STORAGES.values():
                return _Storage(dtype, f"{self._root}/data/{key}", numel)
        raise pickle.UnpicklingError("a storage is not described as torch does")

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *_hooks: Any
    ) -> torch.Tensor:
        numbers = [offset, *size, *stride]
        if not isinstance(storage, _Storage) or any(
            type(n) is not int or n < 0 or n > sys.maxsize for n in numbers
        ):
            raise pickle.UnpicklingError("a tensor is not described as torch does")
        numel = math.prod(size)
        contiguous = [math.prod(size[i + 1 :]) for i in range(len(size))]
        # A dimension of length 1 may have any stride.
        if len(size) != len(stride) or any(
            n > 1 and s != c for n, s, c in zip(size, stride, contiguous)
        ):
            raise pickle.UnpicklingError("a tensor is not contiguous")
        raw = self._archive.read(storage.entry)
        itemsize = np.dtype(storage.dtype).itemsize
        if len(raw) != storage.numel * itemsize or offset + numel > storage.numel:
            raise pickle.UnpicklingError("a tensor is larger than its data")
        flat: np.ndarray = np.frombuffer(raw, storage.dtype, numel, offset * itemsize)
        return torch.from_numpy(flat.reshape(tuple(size)).copy())


def _load(path: Path) -> Any:
    """The content of a zip-format torch file of tensors and plain containers."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise FileError(f"{path}: not a zip-format torch file")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            pickles = [
                e
                for e in entries
                if e.filename.count("/") == 1 and e.filename.endswith("/data.pkl")
            ]
            if len(entries) > MAX_ENTRIES or len(pickles) != 1:
                raise FileError(f"{path}: a zip file, but not one torch wrote")
            if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
                raise FileError(f"{path}: compressed entries, which torch never writes")
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise FileError(f"{path}: its index is larger than {MAX_PICKLE_BYTES} bytes")
            raw = archive.read(pickles[0])
            _scan(raw)
            root = pickles[0].filename.split("/")[0]
            return _PlainUnpickler(io.BytesIO(raw), archive, root).load()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        KeyError,
        ValueError,
        TypeError,
        EOFError,
        IndexError,
        AttributeError,
        RecursionError,
        RuntimeError,
        OverflowError,
    ) as error:  # what a damaged pickle or zip can make the standard library raise
        raise FileError(f"{path}: not a file of plain tensors: {error}") from None


def _scan(raw: bytes) -> None:
    """Refuse a pickle with other opcodes than torch needs, or a memo beyond its size.

    Raises:
        pickle.UnpicklingError: naming the opcode.
    """
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"it has opcode {opcode.name}, which is refused")
        if opcode.name == "LONG_BINPUT" and (argument or 0) > len(raw):
            raise pickle.UnpicklingError("its memo index is out of range")
