"""`model.pt`: a zip-format torch file of tensors and plain containers, nothing else.

Reading never runs code and never unpickles: an interpreter of the few opcodes torch
writes for such data rebuilds it. torch's own `weights_only` loader (2.3) would let a
small file claim tensors of any size, and Python's unpickler would hash what it is told
to, however deep, as a dictionary's key.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickletools
import re
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esl_lava.config import Experiment, from_toml, to_toml
from esl_lava.errors import ConfigError, FileError
from esl_lava.files import replace_file
from esl_lava.sparsity import sets
from esl_lava.tomlfile import MAX_BYTES

FORMAT = "esl-lava model"
FORMAT_VERSION = 1
MAX_PICKLE_BYTES = 16 << 20
MAX_ENTRIES = 100_000
MAX_DIMENSIONS = 32
MAX_DEPTH = 32

_STORAGES = {
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
"""torch's classes of storages, as a pickle names them, and what they hold."""

_DTYPES = frozenset(torch.from_numpy(np.empty(0, dtype)).dtype for dtype in _STORAGES.values())
_TENSOR = "torch._utils _rebuild_tensor_v2"
_DICTIONARY = "collections OrderedDict"  # torch's empty table of hooks
_SHA256 = re.compile("[0-9a-f]{64}")
_SCALARS = (str, int, float, type(None))


@dataclass(frozen=True, eq=False)
class SavedModel:
    """What a `model.pt` holds.

    Attributes:
        config: the experiment that made it.
        weights: the network's state dict.
        masks: layer name -> bool tensor of the weight's shape, of layers made sparse whose
            weight is stored densely; what is stored sparsely says itself what exists.
        ever: of all layers made sparse: as masks, true where a connection was ever active; of
            sparse storage the tensor of a `sparsity.sets` record.
        history: one plain dictionary per epoch, in order.
        state: what only a training checkpoint holds (optimiser, scheduler, generators).
        package: version of esl-lava that wrote it.
        data: split -> SHA-256 of the data it was trained and tested on; none where nobody
            recorded them.
    """

    config: Experiment
    weights: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    ever: dict[str, torch.Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    package: str = field(default_factory=lambda: version("esl-lava"))
    data: dict[str, str] = field(default_factory=dict)


def write(saved: SavedModel, path: Path) -> None:
    """Write `saved` whole or not at all; the same content gives the same bytes.

    Raises:
        FileError: when the file cannot be written.
        TypeError: naming the place of anything but tensors and plain containers.
    """
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "package": saved.package,
        "config": to_toml(saved.config),
        "weights": saved.weights,
        "masks": saved.masks,
        "ever": saved.ever,
        "history": saved.history,
        "state": saved.state,
    }
    if saved.data:
        content["data"] = saved.data
    buffer = io.BytesIO()  # torch writes a file's name into the zip; a buffer has none
    torch.save(_plain(content, "the model"), buffer)
    replace_file(path, buffer.getvalue())


def _plain(value: Any, place: str) -> Any:
    """A copy that depends on nothing but the content.

    Which objects are shared, how tensors are laid out and what they are views of would
    otherwise show in the bytes.

    Raises:
        TypeError: naming the place of what `read` would refuse.
    """
    if isinstance(value, torch.Tensor):
        if value.dtype not in _DTYPES or value.layout is not torch.strided:
            raise TypeError(f"{place} is a tensor of {value.dtype}, which has no place in a model")
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{place} has the key {key!r}, neither text nor an integer")
        return {
            sys.intern(key) if isinstance(key, str) else key: _plain(item, f"{place}[{key!r}]")
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return sys.intern(str(value))
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{place} is a {type(value).__name__}, neither a tensor nor plain data")


def read(path: Path) -> SavedModel:
    """Read a `model.pt`, from whomever it comes.

    Raises:
        FileError: when the file is missing, no zip-format torch file, holds anything but
            tensors and plain containers, lacks a part, or its parts contradict each other.
    """
    content = _load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileError(f"{path}: a torch file, but not a model saved by esl-lava")
    found = content.get("version")
    if type(found) is not int or found != FORMAT_VERSION:
        shown = found if type(found) is int else type(found).__name__
        raise FileError(
            f"{path}: format version {shown}, this esl-lava reads version {FORMAT_VERSION}"
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
    if not all(isinstance(record, dict) for record in content["history"]) or not _holds(
        content["history"], _SCALARS, MAX_DEPTH
    ):
        raise FileError(f"{path}: part 'history' is not a list of tables of plain values")
    if not _holds(content["state"], (*_SCALARS, torch.Tensor), MAX_DEPTH):
        raise FileError(f"{path}: part 'state' holds more than tensors and plain values")
    data = content.get("data", {})  # files from before there was any have none
    if not isinstance(data, dict) or not all(
        isinstance(split, str) and isinstance(digest, str) and _SHA256.fullmatch(digest)
        for split, digest in data.items()
    ):
        raise FileError(f"{path}: part 'data' is not a table of digests")
    if fault := _faulty_masks(content["weights"], content["masks"], content["ever"]):
        raise FileError(f"{path}: {fault}")
    if len(content["config"]) > MAX_BYTES:
        raise FileError(f"{path}: its configuration is longer than {MAX_BYTES} characters")
    try:
        config = from_toml(content["config"], str(path), recorded=True)
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
        data=data,
    )


def _faulty_masks(
    weights: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    ever: Mapping[str, torch.Tensor],
) -> str | None:
    """What is wrong with masks and ever-active sets, in a clause; None where nothing is.

    A layer of sparse weights has no mask: its weights say where connections are.
    """
    sparse = {
        key.removesuffix(".synapse.weight.sides"): tensor
        for key, tensor in weights.items()
        if key.endswith(".synapse.weight.sides")
    }
    if ever.keys() != masks.keys() | sparse.keys():
        return "parts 'masks' and 'ever' do not name the same layers"
    for key, table in (("masks", masks), ("ever", ever)):
        for name, mask in table.items():
            # A SLAYER block keeps its weight in a submodule, a layer of ours itself.
            keys = (f"{name}.synapse.weight", f"{name}.weight")
            weight = next((weights[k] for k in keys if k in weights), None)
            fits = weight is not None and weight.shape == mask.shape and mask.dtype == torch.bool
            if not fits and (key == "masks" or name not in sparse):
                return f"part {key!r} of layer {name} does not fit its weights"
            if name in sparse and (fault := _faulty_record(sparse[name], mask)):
                return f"part {key!r} of layer {name} {fault}"
    return None


def _faulty_record(sides: torch.Tensor, record: torch.Tensor) -> str | None:
    """What is wrong with the ever-active set of a sparse layer of (n_post, n_pre) `sides`."""
    if sides.dtype != torch.int64 or sides.shape != (2,) or int(sides.min()) < 1:
        return "belongs to a weight without sides"
    try:
        sets.read(record, math.prod(sides.tolist()))
    except ValueError as error:
        return str(error)
    return None


def _holds(value: Any, kinds: tuple[type, ...], depth: int) -> bool:
    """Whether `value` is of `kinds`, or at most `depth` levels of containers of such."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_holds(item, kinds, depth - 1) for item in value)
    return isinstance(value, kinds)


def digest(path: Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


class _RefusedError(Exception):
    """Why the content is refused, without the file's name."""


@dataclass(frozen=True)
class _Name:
    """What a pickle calls by its name; never looked up."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """A flat array of the zip, not read yet."""

    dtype: type
    entry: str
    numel: int


@dataclass
class _Archive:
    """The zip around a pickle.

    Attributes:
        budget: bytes its tensors may still fill, at first the size of the file: a storage
            named again and again, or entries over one another, soon use it up.
    """

    file: zipfile.ZipFile
    root: str
    budget: int

    def storage(self, pid: Any) -> _Storage:
        """The storage torch describes as (kind, class, key, device, elements)."""
        match pid:
            case ("storage", _Name(name), str(key), str(), int(numel)) if name in _STORAGES:
                return _Storage(_STORAGES[name], f"{self.root}/data/{key}", numel)
        raise _RefusedError("a storage is not described as torch does")

    def call(self, function: Any, arguments: Any) -> Any:
        """The two calls torch writes: a tensor, and an empty dictionary."""
        name = function.text if isinstance(function, _Name) else None
        match arguments:
            case tuple(()) if name == _DICTIONARY:
                return {}
            case (_Storage() as storage, int(offset), tuple(size), tuple(stride), *_) if (
                name == _TENSOR
            ):
                return self.tensor(storage, offset, size, stride)
        raise _RefusedError("it calls what torch does not call for plain tensors")

    def tensor(
        self, storage: _Storage, offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]
    ) -> torch.Tensor:
        """A contiguous tensor that lies within its storage."""
        numbers = [storage.numel, offset, *size, *stride]
        if (
            any(type(n) is not int or not 0 <= n <= sys.maxsize for n in numbers)
            or len(size) != len(stride)
            or len(size) > MAX_DIMENSIONS
        ):
            raise _RefusedError("a tensor is not described as torch does")
        numel = math.prod(size)
        contiguous = [math.prod(size[i + 1 :]) for i in range(len(size))]
        # Without elements every stride is right, along a length of 1 too.
        if numel and any(n > 1 and s != c for n, s, c in zip(size, stride, contiguous)):
            raise _RefusedError("a tensor is not contiguous")
        entry = self.file.getinfo(storage.entry)
        length = storage.numel * np.dtype(storage.dtype).itemsize
        if entry.file_size != length or offset + numel > storage.numel:
            raise _RefusedError("a tensor is larger than its data")
        self.budget -= length
        if self.budget < 0:
            raise _RefusedError("its tensors are larger than the file")
        raw = np.frombuffer(self.file.read(entry), np.uint8)
        if storage.dtype is np.bool_ and (raw > 1).any():
            raise _RefusedError("a truth value is neither 0 nor 1")
        flat: np.ndarray = raw.view(storage.dtype)[offset : offset + numel]
        return torch.from_numpy(flat.reshape(size).copy())


def _load(path: Path) -> Any:
    """The content of a zip-format torch file of tensors and plain containers."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise FileError(f"{path}: not a zip-format torch file")
            with zipfile.ZipFile(file) as archive:
                return _content(archive, path.stat().st_size)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except _RefusedError as error:
        raise FileError(f"{path}: {error}") from None
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
    ) as error:  # what a damaged pickle or zip can make the standard library raise
        raise FileError(f"{path}: not a file of plain tensors: {error}") from None


def _content(archive: zipfile.ZipFile, size: int) -> Any:
    """What a zip of `size` bytes holds."""
    entries = archive.infolist()
    pickles = [
        e for e in entries if e.filename.count("/") == 1 and e.filename.endswith("/data.pkl")
    ]
    if len(entries) > MAX_ENTRIES or len(pickles) != 1:
        raise _RefusedError("a zip file, but not one torch wrote")
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise _RefusedError("compressed entries, which torch never writes")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise _RefusedError(f"its index is larger than {MAX_PICKLE_BYTES} bytes")
    root = pickles[0].filename.split("/")[0]
    return _rebuild(archive.read(pickles[0]), _Archive(archive, root, size))


def _rebuild(raw: bytes, archive: _Archive) -> Any:
    """Interpret the opcodes torch writes for tensors and plain containers.

    Only text and names may be referred to twice: what is built is a tree, no larger than
    its description.

    Raises:
        _RefusedError: naming another opcode, or what else is refused.
        LookupError, TypeError, ValueError: for a damaged pickle.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def cut(start: int) -> list[Any]:
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(raw):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                break
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(cut(-int(opcode.name[-1]))))
            case "TUPLE":
                stack.append(tuple(cut(marks.pop())))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS":
                items = cut(-1 if opcode.name == "APPEND" else marks.pop())
                _require(list, stack[-1])
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                items = cut(-2 if opcode.name == "SETITEM" else marks.pop())
                if any(type(key) not in (str, int) for key in items[::2]):
                    raise _RefusedError("a key is neither text nor an integer")
                _require(dict, stack[-1])
                stack[-1].update(zip(items[::2], items[1::2]))
            case "GLOBAL":
                if argument not in _STORAGES and argument not in (_TENSOR, _DICTIONARY):
                    raise _RefusedError(f"it needs {str(argument)[:80]!r}, which is refused")
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(archive.storage(stack.pop()))
            case "REDUCE":
                function, arguments = cut(-2)
                stack.append(archive.call(function, arguments))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if not isinstance(memo[argument], (str, _Name)):
                    raise _RefusedError("it refers twice to the same object")
                stack.append(memo[argument])
            case _:
                raise _RefusedError(f"it has opcode {opcode.name}, which is refused")
    return stack.pop()


def _require(kind: type, value: Any) -> None:
    if type(value) is not kind:
        raise _RefusedError(f"items are added to a {type(value).__name__}")
