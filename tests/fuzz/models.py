"""Mutants of `model.pt`: the zip, its members, the opcodes of its index, and its content."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esl_lava import modelfile
from esl_lava.modelfile import archive
from esl_lava.modelfile.packing import pack
from esl_lava.models.restore import as_tensors
from esl_lava.models.stored import load_model, trained_layers
from esl_lava.training.trainer import Trainer
from tests.fuzz import content, trainings
from tests.fuzz.damage import EDGES, any_number, damaged
from tests.fuzz.format import Chooser, Format, Mutant

INDEX = "archive/data.pkl"
FIXED = ("format", "version", "digest")


def seeds() -> list[bytes]:
    """Return trained models of several kinds."""
    kinds = ("fused", "sparse", "single", "maps", "stored maps")
    return [_bytes(Trainer(trainings.settings(k), trainings.samples()).run()) for k in kinds]


def _bytes(saved: modelfile.SavedModel) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        modelfile.write(saved, Path(folder, "model.pt"))
        return Path(folder, "model.pt").read_bytes()


def read(path: Path) -> str:
    """Read a model and its layers, and return a digest of all that was read."""
    saved, _ = load_model(path)
    trained_layers(saved)
    return content.fingerprint({part: getattr(saved, part) for part in (*modelfile.PARTS, "data")})


# --- Plain code that reads the content. ------------------------------------------------------


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's own unpickler, which knows only the names that plain tensors need.

    This is the one in Python: the one in C allocates as many places as the largest number of a
    memo.
    """

    def __init__(self, file: zipfile.ZipFile) -> None:
        (index,) = (name for name in file.namelist() if name.endswith("/data.pkl"))
        self.file, self.root = file, index.removesuffix("/data.pkl")
        super().__init__(io.BytesIO(file.read(index)))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        return archive.STORAGES[f"{module} {name}"]

    def persistent_load(self, pid: Any) -> Any:
        _, dtype, key, _, _ = pid
        return np.frombuffer(self.file.read(f"{self.root}/data/{key}"), dtype)


def _tensor(flat: Any, offset: int, size: tuple[int, ...], *_: object) -> Any:
    return flat[offset : offset + int(np.prod(size))].reshape(size).copy()


def plain(raw: bytes) -> dict[str, Any]:
    """Return the content of a model by `zipfile` and `pickle`."""
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        loaded: dict[str, Any] = _Unpickler(file).load()
    return loaded


def agrees(path: Path, _: bytes, meaning: str) -> bool:
    """Return whether the content is what was read."""
    found = plain(path.read_bytes())
    expected = {part: found[part] for part in modelfile.PARTS} | {"data": found.get("data", {})}
    return content.fingerprint(expected) == meaning


# --- Mutants. --------------------------------------------------------------------------------

Members = list[tuple[str, bytes]]


def unzip(raw: bytes) -> Members:
    """Return the members of a zip."""
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        return [(entry.filename, file.read(entry)) for entry in file.infolist()]


def rezip(members: Members, deflated: frozenset[int] = frozenset()) -> bytes:
    """Return a zip with right checksums."""
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w") as file:
        warnings.simplefilter("ignore")  # of names that occur twice
        for index, (name, raw) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED if index in deflated else zipfile.ZIP_STORED
            file.writestr(info, raw)
    return made.getvalue()


def _any_bytes(rng: random.Random, raw: bytes) -> Mutant:
    changed, names = damaged(rng, raw)
    return Mutant(changed, f"bytes: {names}", sealed=True)


def _headers(rng: random.Random, raw: bytes) -> Mutant:
    """Change a number of a header of the zip."""
    signature, fields = rng.choice(
        [
            (b"PK\3\4", [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)]),
            (
                b"PK\1\2",
                [
                    *((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2)),
                    *((32, 2), (34, 2), (42, 4)),
                ],
            ),
            (b"PK\5\6", [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)]),
            (b"PK\6\6", [(4, 8), (24, 8), (32, 8), (40, 8), (48, 8)]),
        ]
    )
    found = [place for place in range(len(raw)) if raw.startswith(signature, place)]
    if not found:
        return _any_bytes(rng, raw)
    place = rng.choice(found)
    offset, width = rng.choice(fields)
    changed = bytearray(raw)
    old = int.from_bytes(raw[place + offset : place + offset + width], "little")
    new = any_number(rng, old, width)
    changed[place + offset : place + offset + width] = new.to_bytes(width, "little")
    return Mutant(bytes(changed), f"zip {signature[2:].hex()}+{offset}: {new}", sealed=True)


def _members(rng: random.Random, raw: bytes) -> Mutant:
    """Drop, add, rename, exchange, lengthen or deflate members."""
    members = unzip(raw)
    index, other = rng.randrange(len(members)), rng.randrange(len(members))
    (name, inside), (other_name, other_inside) = members[index], members[other]
    kind = rng.choice(["drop", "add", "rename", "exchange", "length", "deflate", "twice", "order"])
    deflated: frozenset[int] = frozenset()
    if kind == "drop":
        del members[index]
    elif kind == "add":
        names = ["archive/data/999", "archive/../../evil", "/etc/x", "archive/code.py", "x", ""]
        members.insert(index, (rng.choice(names), rng.randbytes(rng.choice([0, 1, 64]))))
    elif kind == "rename":
        names = [other_name, name + "0", name[:-1], "other/" + name, name.upper()]
        members[index] = (rng.choice(names), inside)
    elif kind == "exchange":
        members[index], members[other] = (name, other_inside), (other_name, inside)
    elif kind == "length":
        members[index] = (name, rng.choice([inside[:-1], inside + b"\0", inside * 2, b""]))
    elif kind == "deflate":
        deflated = frozenset([index])
    elif kind == "twice":
        members.append((name, rng.choice([inside, other_inside])))
    else:
        rng.shuffle(members)
    return Mutant(rezip(members, deflated), f"{kind} {name}", sealed=True)


def _with_index(raw: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return rezip([(n, change(inside) if n == INDEX else inside) for n, inside in unzip(raw)])


def _index_bytes(rng: random.Random, raw: bytes) -> Mutant:
    names = ""

    def change(index: bytes) -> bytes:
        nonlocal names
        changed, names = damaged(rng, index)
        return changed

    return Mutant(_with_index(raw, change), f"index bytes: {names}", sealed=True)


HOSTILE = [
    *(
        b"cposix\nsystem\n",
        b"X\x02\x00\x00\x00id\x85R",
        b"cbuiltins\neval\n",
        b"(",
        b"0",
        b"1",
        b"2",
    ),
    *(b"}", b"]", b")", b"N", b"\x88", b"K\x01", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"Q", b"R"),
    *(b"b", b"\x81", b"\x93", b"\x8f", b"a", b"e", b"s", b"u", b"t", b"\x85", b"\x86", b"\x87"),
    *(
        b"\x8a\x08" + b"\xff" * 8,
        b"\x8b\xff\xff\xff\x7f",
        b"X\xff\xff\xff\xff",
        b"h\x00",
        b"j\0\0\0\1",
    ),
    *(b"r\xff\xff\xff\x7f", b"q\x00", b"G" + b"\x7f\xf0" + bytes(6), b"P0\n", b"\x82\x01", b"."),
    *(b"ctorch\nload\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"\x94"),
]
"""Opcodes, some of which run code in Python's own unpickler."""


def _opcodes(rng: random.Random, raw: bytes) -> Mutant:
    """Remove, repeat, exchange or insert opcodes of the index, or change their arguments."""
    kind = rng.choice(["remove", "repeat", "exchange", "insert", "argument", "argument", "text"])

    def change(index: bytes) -> bytes:
        starts = [place for _, _, place in pickletools.genops(index)]
        ends = [*starts[1:], len(index)]
        pieces = [index[start:end] for start, end in zip(starts, ends)]
        at = rng.randrange(len(pieces))
        length = rng.choice([1, 1, 2, 5])
        if kind == "remove":
            del pieces[at : at + length]
        elif kind == "repeat":
            pieces[at:at] = pieces[at : at + length] * rng.choice([1, 1, 2, 200])
        elif kind == "exchange":
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == "insert":
            pieces[at:at] = rng.choices(HOSTILE, k=length)
        else:
            wanted = b"X" if kind == "text" else b"KMJG\x8aqhX"
            chosen = [i for i, piece in enumerate(pieces) if piece[:1] in wanted]
            at = rng.choice(chosen)
            pieces[at] = _argument(rng, pieces[at])
        return b"".join(pieces)

    return Mutant(_with_index(raw, change), f"opcodes: {kind}", sealed=True)


def _argument(rng: random.Random, piece: bytes) -> bytes:
    """Return an opcode with another argument."""
    code, argument = piece[:1], piece[1:]
    if code == b"X":
        text = argument[4:]
        new, _ = damaged(rng, text) if text else (b"x", "")
        if rng.random() < 0.5:
            new = rng.choice([b"9" * 10, b"0", b"1", b"storage", b"cpu", b"", text + b"x", new])
        return b"X" + struct.pack("<I", len(new)) + new
    if code in b"KMJ":
        new_number = rng.choice([rng.choice(EDGES), int.from_bytes(argument, "little") + 1])
        return pickle.dumps(new_number, 2)[2:-1]
    changed = bytearray(argument)
    if changed:
        changed[rng.randrange(len(changed))] = rng.choice([0, 1, 127, 128, 255])
    return code + bytes(changed)


def _tensors(rng: random.Random, raw: bytes) -> Mutant:
    """Change the bytes of a tensor."""
    members = unzip(raw)
    index = rng.choice(
        [i for i, (name, inside) in enumerate(members) if "/data/" in name and inside]
    )
    name, inside = members[index]
    changed = bytearray(inside)
    for _ in range(rng.choice([1, 1, 4])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    members[index] = (name, bytes(changed))
    return Mutant(rezip(members), f"tensor {name}", sealed=True)


def repacked(found: dict[str, Any]) -> bytes:
    """Return a sound zip, with a right digest if the content has one and could be written."""
    found = {key: value for key, value in found.items() if key != "digest"}
    try:
        return pack(found)
    except TypeError:  # what is never written has no digest
        made = io.BytesIO()
        torch.save(as_tensors(found), made)
        return made.getvalue()


def _content(rng: random.Random, raw: bytes) -> Mutant:
    """Change the content, and repair all checksums."""
    changed, change = content.mutate(plain(raw), rng, FIXED)
    return Mutant(repacked(changed), f"content: {change}")


def _without_digest(rng: random.Random, raw: bytes) -> Mutant:
    """Change a file of an older release, which has no digest."""
    found = plain(raw)
    del found["digest"]
    made = io.BytesIO()
    torch.save(as_tensors(found), made)
    inner = rng.choice([_members, _index_bytes, _opcodes, _tensors])(rng, made.getvalue())
    return Mutant(inner.content, f"older: {inner.change}")


mutate = Chooser(
    (10, _any_bytes),
    (6, _headers),
    (8, _members),
    (12, _index_bytes),
    (20, _opcodes),
    (6, _tensors),
    (20, _content),
    (18, _without_digest),
)

FORMAT = Format("model.pt", seeds, mutate, read, agrees)
