"""The format of `model.pt`: a zip-format torch file of only arrays and plain containers.

The reader needs no torch, never runs code and never unpickles (`archive`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava.arrays import Array
from esl_lava.errors import FileError, shorten
from esl_lava.files import open_regular, replace_file
from esl_lava.modelfile import archive, contents
from esl_lava.modelfile.contents import MAX_DEPTH

FORMAT = "esl-lava model"
FORMAT_VERSION = 1

PARTS = {
    "package": str,
    "config": str,
    "weights": dict,
    "masks": dict,
    "ever": dict,
    "history": list,
    "state": dict,
}
"""The parts of every file, in order: field of `SavedModel` -> its type in the file."""

_SHA256 = re.compile("[0-9a-f]{64}")
_SCALARS = (str, int, float, type(None))


@dataclass(frozen=True, eq=False)
class SavedModel:
    """The content of a `model.pt`.

    Attributes:
        config: the experiment that made the model, as TOML.
        weights: the network's state dict, as arrays.
        masks: layer name -> bool array of the weight's shape, for each sparse layer whose
            weight is dense. A sparse weight has no mask, because it holds only its connections.
        ever: name of a sparse layer -> positions that were ever a connection: an array like the
            mask, or for a sparse weight the array of a `sparsity.sets` record.
        history: one plain dictionary per epoch, in order.
        state: what only a training checkpoint has (numbers of steps, losses, optimiser, random
            generators, best network so far); empty in a finished model.
        package: version of esl-lava that wrote the file.
        data: split -> SHA-256 of the data that the model was trained and tested on; empty if
            nobody recorded it.
    """

    config: str
    weights: Mapping[str, Array]
    masks: Mapping[str, Array]
    ever: Mapping[str, Array]
    history: list[dict[str, Any]] = field(default_factory=list)
    state: Mapping[str, Any] = field(default_factory=dict)
    package: str = field(default_factory=lambda: version("esl-lava"))
    data: Mapping[str, str] = field(default_factory=dict)


def write(saved: SavedModel, path: Path) -> None:
    """Write `saved` completely or not at all. The same content gives the same bytes.

    Tensors of torch give the same bytes as equal arrays.

    Raises:
        FileError: if the file cannot be written.
        TypeError: naming the place of a value that the format cannot hold.
    """
    from esl_lava.modelfile.packing import pack  # needs torch

    content = {"format": FORMAT, "version": FORMAT_VERSION}
    content |= {part: getattr(saved, part) for part in PARTS}
    if saved.data:
        content["data"] = saved.data
    replace_file(path, pack(content))


def read(path: Path) -> SavedModel:
    """Read a `model.pt`, which may come from a stranger.

    `models.stored` checks the configuration, and that the weights fit its network.

    Raises:
        FileError: if the file is missing, is not a zip-format torch file, holds anything but
            tensors and plain containers, or lacks a part, or if its parts contradict each other.
    """
    content = archive.load(path)
    format_name = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(format_name, str) or format_name != FORMAT:
        raise FileError(
            f"{path}: a torch file whose format is not {FORMAT!r}: esl-lava did not save it",
            "type",
            key="format",
            limit=FORMAT,
            file=path,
        )
    found_version = content.get("version")
    if type(found_version) is not int or found_version != FORMAT_VERSION:
        shown = (
            shorten(found_version) if type(found_version) is int else type(found_version).__name__
        )
        raise FileError(
            f"{path}: version {shown} of the format is not supported; this esl-lava reads version "
            f"{FORMAT_VERSION}",
            "unsupported",
            key="version",
            value=found_version if type(found_version) is int else shown,
            limit=FORMAT_VERSION,
            file=path,
        )
    _check_digest(path, content)
    for key, kind in PARTS.items():
        if key not in content:
            raise FileError(f"{path}: part {key!r} is missing", "missing", key=key, file=path)
        if key in ("weights", "masks", "ever"):
            if not _is_table(content[key], np.ndarray):
                raise _wrong_part(path, key, "a table of tensors")
        elif not isinstance(content[key], kind):
            raise _wrong_part(path, key, f"a {kind.__name__}")
    for key in content:
        if key not in (*PARTS, "format", "version", "data", contents.DIGEST):
            raise FileError(
                f"{path}: part {shorten(key)} is not known to this esl-lava",
                "unknown",
                value=key,
                file=path,
            )
    if not all(isinstance(record, dict) for record in content["history"]) or not _holds(
        content["history"], _SCALARS, MAX_DEPTH
    ):
        raise _wrong_part(path, "history", "a list of tables of plain values")
    if not _holds(content["state"], (*_SCALARS, np.ndarray), MAX_DEPTH):
        raise _wrong_part(path, "state", "a table of tensors and plain values")
    data = content.get("data", {})  # older files have no digests
    if not _is_table(data, str) or not all(map(_SHA256.fullmatch, data.values())):
        raise _wrong_part(path, "data", "a table of SHA-256 digests")
    _check_masks(path, content["weights"], content["masks"], content["ever"])
    return SavedModel(**{part: content[part] for part in PARTS}, data=data)


def _check_digest(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a content that is not the one that was written. Older files have no digest."""
    if contents.DIGEST not in content:
        return
    stored = content[contents.DIGEST]
    try:
        matches = isinstance(stored, str) and stored == contents.digest(content)
    except ValueError as error:
        raise FileError(f"{path}: {error}", "type", file=path) from None
    if not matches:
        raise FileError(
            f"{path}: the digest does not match the content: the file was changed or damaged",
            "damaged",
            key=contents.DIGEST,
            file=path,
        )


def _wrong_part(path: Path, key: str, noun: str) -> FileError:
    """Return the error of a part that has another type."""
    return FileError(f"{path}: part {key!r} is not {noun}", "type", key=key, file=path)


def _is_table(value: object, kind: type) -> bool:
    """Return whether a value is a dictionary with texts as keys and values of a kind."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, kind) for key, item in value.items()
    )


def _check_masks(
    path: Path, weights: Mapping[str, Array], masks: Mapping[str, Array], ever: Mapping[str, Array]
) -> None:
    """Check that the parts `masks` and `ever` fit the weights.

    A layer with a sparse weight has no mask, because its weight holds only its connections.
    """
    sparse = {
        key.removesuffix(".synapse.weight.sides")
        for key in weights
        if key.endswith(".synapse.weight.sides")
    }
    if ever.keys() != masks.keys() | sparse:
        raise FileError(
            f"{path}: part 'ever' must have the layers of part 'masks' and those with a sparse "
            "weight, and no others",
            "mismatch",
            key="ever",
            file=path,
        )
    for key, table in (("masks", masks), ("ever", ever)):
        for name, mask in table.items():
            if key == "ever" and name in sparse:
                continue
            # A SLAYER block keeps its weight in a submodule, our own layer keeps it itself.
            keys = (f"{name}.synapse.weight", f"{name}.weight")
            weight = next((weights[k] for k in keys if k in weights), None)
            if weight is None or weight.shape != mask.shape or mask.dtype != np.bool_:
                raise FileError(
                    f"{path}: layer {name}: its array in part {key!r} must be of bool and have the "
                    "shape of the layer's weight",
                    "mismatch",
                    key=key,
                    file=path,
                    layer=name,
                )


def _holds(value: object, kinds: tuple[type, ...], depth: int) -> bool:
    """Return whether `value` is of `kinds`, or a container of them with at most `depth` levels."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_holds(item, kinds, depth - 1) for item in value)
    return isinstance(value, kinds)


def digest(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file's bytes."""
    sha = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()
