"""Changes of an HDF5 file by h5py: attributes, links, groups, datasets and their chunks."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.fuzz.damage import EDGES

Change = Callable[[random.Random, h5py.File], str]
"""Changes an open file and returns what it changed."""

DTYPES = ("i1", "u1", "<i2", ">i2", "<u2", "<i4", ">i4", "<i8", "<u8", "f2", "f4", "f8", "?", "S3")
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"compression": "gzip"},
    {"compression": "gzip", "compression_opts": 0},
    {"compression": "lzf"},
    {"shuffle": True},
    {"fletcher32": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"scaleoffset": 0},
)


def changed(rng: random.Random, raw: bytes, changes: tuple[Change, ...]) -> tuple[bytes, str]:
    """Return the bytes of a file after one of the changes, and its name."""
    content = io.BytesIO(raw)
    libver = rng.choice(["earliest", "v110", "latest"])
    with h5py.File(content, "r+", libver=libver) as file:
        change = rng.choice(changes)
        try:
            name = change(rng, file)
        except (
            ValueError,
            TypeError,
            OSError,
            RuntimeError,
            KeyError,
            OverflowError,
            zlib.error,
        ) as error:
            name = f"{change.__name__}: not possible: {error}"  # the file may be half changed
    return content.getvalue(), name


def _items(file: h5py.File, kind: type) -> list[Any]:
    found: list[Any] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, kind) else None)
    return found


def _any(rng: random.Random, file: h5py.File, kind: type) -> Any:
    """Return a group or dataset. Those of short paths are as likely as those of long ones."""
    found = _items(file, kind)
    depth = rng.choice(sorted({item.name.count("/") for item in found}))
    return rng.choice([item for item in found if item.name.count("/") == depth])


def _copies(item: Any) -> tuple[h5py.Group, str]:
    parent, _, name = item.name.rpartition("/")
    return item.file[parent or "/"], name


# --- Attributes. -----------------------------------------------------------------------------


def attribute(rng: random.Random, file: h5py.File) -> str:
    """Set, remove, rename or add an attribute."""
    groups = [group for group in _items(file, h5py.Group) if len(group.attrs)]
    group = rng.choice(groups) if groups and rng.random() < 0.9 else _any(rng, file, h5py.Group)
    keys = list(group.attrs)
    key = rng.choice(keys) if keys else "extra"
    old = group.attrs[key] if keys else 1
    kind = rng.choice(["set", "set", "set", "remove", "rename", "add"])
    where = f"{group.name}@{key}"
    if kind == "remove" and keys:
        del group.attrs[key]
        return f"{where}: remove"
    if kind == "rename" and keys:
        other = rng.choice([*keys, "extra", "source", "steps", "refractory", "input_low"])
        if other != key:
            group.attrs[other] = old
            del group.attrs[key]
        return f"{where}: rename {other}"
    value = _other_value(rng, old)
    if kind == "add":
        key = rng.choice(["source", "steps", "refractory", "input_low", "input_bits", "extra"])
    group.attrs[key] = value
    return f"{where}: set {str(value)[:40]!r}"


def _other_value(rng: random.Random, old: Any) -> Any:
    values: list[Any] = [
        *(
            0,
            -1,
            1,
            2,
            63,
            64,
            1.5,
            float("nan"),
            True,
            b"",
            "text",
            "x" * 60_000,
            [1, 2],
            b"input",
        ),
        *(
            h5py.Empty("i4"),
            np.uint64((1 << 64) - 1),
            np.int8(-1),
            np.array([b"dense"]),
            b"\xff\xfe",
        ),
        np.int64(rng.choice([n for n in EDGES if n < 1 << 63])),
    ]
    if isinstance(old, bytes | str | np.bytes_):
        text = old.decode(errors="replace") if isinstance(old, bytes) else old
        text = str(text)
        values += [np.bytes_(text.encode() + b"x"), np.bytes_(text[:-1].encode()), text] * 4
    elif np.ndim(old) == 0 and isinstance(old, np.integer):
        values += [old + 1, old - 1, -old, np.float32(old), np.array([old])] * 3
    return rng.choice(values)


# --- Datasets. -------------------------------------------------------------------------------


def value(rng: random.Random, file: h5py.File) -> str:
    """Change some values of a dataset, and nothing else."""
    dataset = _any(rng, file, h5py.Dataset)
    values = np.array(dataset[()])
    flat = values.reshape(-1)
    if not flat.size:
        return f"{dataset.name}: empty"
    for _ in range(rng.choice([1, 1, 3])):
        place = rng.randrange(flat.size)
        if values.dtype.kind in "iu":
            low, high = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
            near = [int(flat[place]) + step for step in (-2, -1, 1, 2)]
            new = rng.choice([*near, *near, 0, 1, 2, 64, int(low), int(high), -int(flat[place])])
            flat[place] = min(max(new, int(low)), int(high))
        elif values.dtype.kind == "b":
            flat[place] = not flat[place]
        elif values.dtype.kind == "f":
            flat[place] = rng.choice([0.5, float("nan"), float("inf"), 3.0, -1e30])
        else:
            texts = [b"dense", b"conv", b"input", b"flatten", b"dense_rec", b"CUBA", b"LOIHI", b"x"]
            flat[place] = rng.choice(texts)
    dataset[()] = values
    return f"{dataset.name}: value"


def form(rng: random.Random, file: h5py.File) -> str:
    """Store a dataset again: of another type or shape, or in another way."""
    dataset = _any(rng, file, h5py.Dataset)
    group, name = _copies(dataset)
    values = np.array(dataset[()])
    kind = rng.choice(["type", "type", "shape", "shape", "storage", "text", "special", "growth"])
    del group[name]
    options: dict[str, Any] = {}
    if kind == "type" and values.dtype.kind in "iufb":
        with np.errstate(all="ignore"):
            values = values.astype(rng.choice(DTYPES))
    elif kind == "shape":
        flat = values.reshape(-1)
        shapes = [flat, values.T, values[None], values[..., None], flat[:-1], flat[:0], flat[:1]]
        shapes += [
            np.append(flat, flat[:1]),
            np.atleast_1d(values)[:1],
            np.stack([values, values]),
        ] * bool(flat.size)
        values = rng.choice([*shapes, flat[0]] if flat.size else shapes)
    elif kind == "text":
        text = rng.choice(["dense", "x" * 70_000, "", "cuba\0x", "é", "CUBA", "conv"])
        raw = text.encode()
        forms: list[Any] = [text, np.array([raw]), np.bytes_(raw), [text, text]]
        values = rng.choice(forms)
    elif kind == "special":
        return f"{group.name}/{name}: {_special(rng, group, name, values)}"
    if kind in ("storage", "growth", "type", "shape") and np.ndim(values) and rng.random() < 0.7:
        options = dict(rng.choice(FILTERS))
        shape = np.shape(values)
        if np.asarray(values).size:
            options["chunks"] = tuple(rng.choice([n, n, 1, max(1, n // 2)]) for n in shape)
        if kind == "growth":
            options["maxshape"] = tuple(rng.choice([n, None]) for n in shape)
    group.create_dataset(name, data=values, **options)
    return f"{group.name}/{name}: {kind} {np.asarray(values).dtype} {np.shape(values)} {options}"


def _special(rng: random.Random, group: h5py.Group, name: str, values: Any) -> str:
    """Make a dataset of a kind that no writer of netx files makes."""
    kind = rng.choice(
        [
            *("null", "group", "reference", "compound", "external", "virtual", "named", "fill"),
            *("many", "compact", "early"),
        ]
    )
    shape = np.shape(values) or (1,)
    if kind == "null":
        group[name] = h5py.Empty("i4")
    elif kind == "group":
        group.create_group(name)
    elif kind == "reference":
        group.create_dataset(name, data=group.ref, dtype=h5py.ref_dtype)
    elif kind == "compound":
        group[name] = np.zeros(shape, [("real", "i4"), ("imag", "i4")])
    elif kind == "external":
        size = max(1, int(np.prod(shape)))
        group.create_dataset(name, shape, "i1", external=[("/etc/passwd", 0, size)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape, "i4")
        layout[...] = h5py.VirtualSource("/tmp/other.h5", "x", shape)
        group.create_virtual_dataset(name, layout)
    elif kind == "named":
        group[name] = np.dtype("i4")
    elif kind == "fill":
        group.create_dataset(
            name, shape, "i4", chunks=shape if 0 not in shape else None, fillvalue=2
        )
    elif kind == "many":
        group.create_dataset(name, (1 << 40,), "i1", chunks=(1 << 20,), compression="gzip")
    elif kind == "early":
        group.create_dataset(name, (*shape, 1 << 20), "i8", chunks=(*[1] * len(shape), 1024))
    else:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(shape)
        dtype = h5py.h5t.py_create(values.dtype, logical=True)
        made = h5py.h5d.create(group.id, name.encode(), dtype, space, dcpl=creation)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values.reshape(shape)))
    return kind


def chunk(rng: random.Random, file: h5py.File) -> str:
    """Write a chunk directly: too short, too long, of other bytes, or with another mask."""
    found = [d for d in _items(file, h5py.Dataset) if d.chunks is not None and d.size]
    dataset = rng.choice(found)
    first = (0,) * dataset.ndim
    mask, old = dataset.id.read_direct_chunk(first)
    plain = zlib.decompress(old) if dataset.compression == "gzip" and not mask & 1 else old
    kinds = ["cut", "more", "flip", "shorter", "longer", "mask", "plain", "random", "huge", "empty"]
    kind = rng.choice(kinds)
    count = rng.randrange(1, 1 + len(old))
    flipped = bytearray(old)
    flipped[count - 1] ^= rng.randrange(1, 256)
    new = {
        "cut": old[:-count],
        "more": old + rng.randbytes(count),
        "flip": bytes(flipped),
        "shorter": zlib.compress(plain[: max(0, len(plain) - count)]),
        "longer": zlib.compress(plain + bytes(count)),
        "mask": old,
        "plain": plain,
        "random": rng.randbytes(count),
        "huge": old if kind != "huge" else zlib.compress(bytes(rng.choice([1 << 16, 1 << 24]))),
        "empty": zlib.compress(b""),
    }[kind]
    if kind == "mask" or rng.random() < 0.2:
        mask = rng.choice([0, 1, 2, 3, 0xFFFFFFFF])
    dataset.id.write_direct_chunk(first, new or b"\0", mask)
    return f"{dataset.name}: chunk {kind} mask {mask}"


# --- Groups and links. -----------------------------------------------------------------------


def link(rng: random.Random, file: h5py.File) -> str:
    """Remove, rename, exchange or copy an object, or link to it."""
    item = _any(rng, file, rng.choice([h5py.Group, h5py.Dataset]))
    group, name = _copies(item)
    where = item.name
    other = _any(rng, file, rng.choice([h5py.Group, h5py.Dataset]))
    kind = rng.choice(
        [
            "remove",
            "rename",
            "exchange",
            "copy",
            "hard",
            "soft",
            "external",
            "loop",
            "extra",
            "many",
        ]
    )
    if kind == "remove":
        del group[name]
    elif kind == "rename":
        names = [
            f"{name}x",
            str(rng.randrange(12)),
            "bias",
            "delay",
            "weight",
            "weight_rec",
            "skip",
        ]
        group.move(name, rng.choice(names))
    elif kind == "exchange":
        other_group, other_name = _copies(other)
        group.move(name, "between")
        other_group.move(other_name, where)
        group.move("between", f"{other_group.name}/{other_name}")
    elif kind == "copy":
        group.copy(
            other, f"{name}copy" if rng.random() < 0.3 else rng.choice(["bias", "11", "delay"])
        )
    else:
        if kind != "extra" and rng.random() < 0.8:
            del group[name]
        else:
            name = rng.choice(["bias", "delay", "extra", str(rng.randrange(12)), "weight_rec"])
        if kind == "hard":
            group[name] = other
        elif kind == "soft":
            group[name] = h5py.SoftLink(other.name)
        elif kind == "external":
            group[name] = h5py.ExternalLink("/tmp/other.h5", "/")
        elif kind == "loop":
            group[name] = rng.choice([file["/"], group, h5py.SoftLink(f"{group.name}/{name}")])
        elif kind == "extra":
            group[name] = rng.choice([1, b"text", np.zeros(4, "i4"), np.zeros((2, 3, 4))])
        else:
            for index in range(rng.choice([20, 300])):
                group.create_group(f"{name}/{index}")
    return f"{where}: {kind} {other.name}"


ALL: tuple[Change, ...] = (attribute, value, value, form, form, chunk, chunk, link)
