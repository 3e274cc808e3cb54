"""`model.pt`: a zip-format torch file of arrays and plain containers, nothing else.

Reading needs no torch, never runs code and never unpickles (`archive`).
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
from esl_lava.errors import FileError
from esl_lava.files import replace_file
from esl_lava.modelfile import archive

FORMAT = "esl-lava model"
FORMAT_VERSION = 1
MAX_DEPTH = 32

PARTS = {
    "package": str,
    "config": str,
    "weights": dict,
    "masks": dict,
    "ever": dict,
    "history": list,
    "state": dict,
}
"""What a file always holds, in its order: fields of a `SavedModel`, and their types there."""

_SHA256 = re.compile("[0-9a-f]{64}")
_SCALARS = (str, int, float, type(None))


@dataclass(frozen=True, eq=False)
class SavedModel:
    """What a `model.pt` holds.

    Attributes:
        config: the experiment that made it, as TOML.
        weights: the network's state dict, as arrays.
        masks: layer name -> bool array of the weight's shape, of layers made sparse whose
            weight is stored densely; what is stored sparsely says itself what exists.
        ever: of all layers made sparse: as masks, true where a connection was ever active; of
            sparse storage the array of a `sparsity.sets` record.
        history: one plain dictionary per epoch, in order.
        state: what only a training checkpoint holds (optimiser, scheduler, generators).
        package: version of esl-lava that wrote it.
        data: split -> SHA-256 of the data it was trained and tested on; none where nobody
            recorded them.
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
    """Write `saved` whole or not at all; the same content gives the same bytes.

    Tensors of torch in place of arrays give the same bytes.

    Raises:
        FileError: when the file cannot be written.
        TypeError: naming the place of anything but arrays and plain containers.
    """
    from esl_lava.modelfile.packing import packed  # which needs torch

    content = {"format": FORMAT, "version": FORMAT_VERSION}
    content |= {part: getattr(saved, part) for part in PARTS}
    if saved.data:
        content["data"] = saved.data
    replace_file(path, packed(content))


def read(path: Path) -> SavedModel:
    """Read a `model.pt`, from whomever it comes.

    Whether its configuration is valid and its weights are of that configuration's network,
    `models.stored` says.

    Raises:
        FileError: when the file is missing, no zip-format torch file, holds anything but
            tensors and plain containers, lacks a part, or its parts contradict each other.
    """
    content = archive.load(path)
    named = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(named, str) or named != FORMAT:
        raise FileError(f"{path}: a torch file, but not a model saved by esl-lava")
    found = content.get("version")
    if type(found) is not int or found != FORMAT_VERSION:
        shown = found if type(found) is int else type(found).__name__
        raise FileError(
            f"{path}: format version {shown}, this esl-lava reads version {FORMAT_VERSION}"
        )
    for key, kind in PARTS.items():
        part = content.get(key)
        if key in ("weights", "masks", "ever"):
            if not _is_table(part, np.ndarray):
                raise FileError(f"{path}: part {key!r} is not a table of tensors")
        elif not isinstance(part, kind):
            raise FileError(f"{path}: part {key!r} is missing or of the wrong kind")
    if not all(isinstance(record, dict) for record in content["history"]) or not _holds(
        content["history"], _SCALARS, MAX_DEPTH
    ):
        raise FileError(f"{path}: part 'history' is not a list of tables of plain values")
    if not _holds(content["state"], (*_SCALARS, np.ndarray), MAX_DEPTH):
        raise FileError(f"{path}: part 'state' holds more than tensors and plain values")
    data = content.get("data", {})  # files from before there was any have none
    if not _is_table(data, str) or not all(map(_SHA256.fullmatch, data.values())):
        raise FileError(f"{path}: part 'data' is not a table of digests")
    if fault := _faulty_masks(content["weights"], content["masks"], content["ever"]):
        raise FileError(f"{path}: {fault}")
    return SavedModel(**{part: content[part] for part in PARTS}, data=data)


def _is_table(value: object, kind: type) -> bool:
    """Whether a value is a dictionary with keys of text and values of a kind."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, kind) for key, item in value.items()
    )


def _faulty_masks(
    weights: Mapping[str, Array], masks: Mapping[str, Array], ever: Mapping[str, Array]
) -> str | None:
    """What is wrong with masks and ever-active sets, in a clause; None where nothing is.

    A layer of sparse weights has no mask: its weights say where connections are.
    """
    sparse = {
        key.removesuffix(".synapse.weight.sides")
        for key in weights
        if key.endswith(".synapse.weight.sides")
    }
    if ever.keys() != masks.keys() | sparse:
        return "parts 'masks' and 'ever' do not name the same layers"
    for key, table in (("masks", masks), ("ever", ever)):
        for name, mask in table.items():
            if key == "ever" and name in sparse:
                continue
            # A SLAYER block keeps its weight in a submodule, a layer of ours itself.
            keys = (f"{name}.synapse.weight", f"{name}.weight")
            weight = next((weights[k] for k in keys if k in weights), None)
            if weight is None or weight.shape != mask.shape or mask.dtype != np.bool_:
                return f"part {key!r} of layer {name} does not fit its weights"
    return None


def _holds(value: object, kinds: tuple[type, ...], depth: int) -> bool:
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
