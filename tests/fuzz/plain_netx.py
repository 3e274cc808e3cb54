"""The network in a netx file, read by h5py alone and without any check.

It shares no code with `esl_lava.netfile.reader`, whose results it judges.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

INPUT = "input"
NEVER = 131072
"""A threshold that v never reaches; larger ones mean the same."""


def read(path: Path) -> dict[str, Any]:
    """Return all that the file means, as `networks.meaning` describes it."""
    with h5py.File(path, "r") as file:
        own = file.get("esl_lava")
        blocks = file["layer"]
        layers: list[dict[str, Any]] = []
        facts: dict[str, Any] = {"steps": None, "range": (0, 1), "provenance": {}}
        before: tuple[int, ...] = ()
        for index in range(len(blocks)):
            block = blocks[str(index)]
            kind = _text(block["type"])
            if kind == "flatten":
                continue
            if kind == "input" and "neuron" not in block:
                before = _numbers(block["shape"])
                continue
            ours = None if own is None else own[f"layer/{index}"]
            source = layers[-1]["name"] if layers else INPUT
            layer = _layer(block, kind, ours, f"layer{index}", source, before)
            layers.append(layer)
            before = layer["shape"]
            if kind == "input" and own is None:
                texts = {
                    key: _number(block, key, value) for key, value in (("weight", 64), ("bias", 0))
                }
                facts["provenance"] = {f"input_{key}": str(value) for key, value in texts.items()}
                facts["range"] = (-4096, 4095)
        if own is not None:
            facts = _facts(own)
        return {**facts, "layers": layers}


def _facts(own: h5py.Group) -> dict[str, Any]:
    attributes = own.attrs
    if "input_low" in attributes:
        ends = (int(attributes["input_low"]), int(attributes["input_high"]))
    else:
        bits = int(attributes["input_bits"])
        ends = (1 - (1 << bits), (1 << bits) - 1) if bits else (0, 1)
    texts = own.get("provenance", {})
    return {
        "steps": int(attributes["steps"]) if "steps" in attributes else None,
        "range": ends,
        "provenance": {key: _text(texts[key]) for key in texts},
    }


def _layer(
    block: h5py.Group,
    kind: str,
    ours: h5py.Group | None,
    name: str,
    source: str,
    before: tuple[int, ...],
) -> dict[str, Any]:
    shape = _numbers(block["shape"])
    if ours is not None:
        name, kind = _word(ours.attrs["name"]), _word(ours.attrs["type"])
        source = _word(ours.attrs["source"]) if "source" in ours.attrs else source
    if kind == "input":
        connections: Any = ("injection", shape)
    elif kind == "conv":
        connections = _kernel(block, ours, before)
    else:
        shape = (math.prod(shape),)
        connections = _matrix(block["weight"], shape[0], ours, "zero_connections")
    delays = None
    if "delay" in block:
        stored = np.array(block["delay"][()])
        if ours is not None or kind == "dense" or stored.any():
            delays = _each(np.full(shape, stored) if stored.ndim == 0 else stored, shape)
    origin = None if ours is None else _origin(ours)
    inputs = [{"source": source, "connections": connections, "delays": delays, "origin": origin}]
    skips = {} if ours is None or "skip" not in ours else ours["skip"]
    for index in range(len(skips)):
        inputs.append(_skip(skips[str(index)], before))
    if "weight_rec" in block:
        own_matrix = _matrix(block["weight_rec"], math.prod(shape), ours, "zero_recurrent")
        inputs.append({"source": name, "connections": own_matrix, "delays": None, "origin": None})
    bias = None
    if "bias" in block and not (kind == "input" and ours is None):
        bias = _each(np.array(block["bias"][()]), shape)
    refractory = (
        int(ours.attrs["refractory"]) if ours is not None and "refractory" in ours.attrs else 0
    )
    return {
        "name": name,
        "shape": shape,
        "inputs": inputs,
        "neuron": _neuron(block, shape),
        "refractory": refractory,
        "bias": bias,
    }


def _skip(group: h5py.Group, before: tuple[int, ...]) -> dict[str, Any]:
    if "in_shape" in group:
        connections = _kernel(group, group, before)
        neurons = 0
    else:
        neurons = int(group["outFeatures"][()])
        connections = _matrix(group["weight"], neurons, group, "zero_connections")
    delays = None if "delay" not in group else np.array(group["delay"][()]).astype(np.int64)
    return {
        "source": _word(group.attrs["source"]),
        "connections": connections,
        "delays": delays,
        "origin": _origin(group),
    }


def _neuron(block: h5py.Group, shape: tuple[int, ...]) -> list[Any]:
    if "neuron" not in block:
        return [np.full(math.prod(shape), value) for value in (0, 4096, NEVER)]
    found = []
    for key in ("iDecay", "vDecay", "vThMant"):
        values = np.array(block[f"neuron/{key}"][()]).astype(np.int64)
        if key == "vThMant":
            values = np.minimum(values, NEVER)
        if values.size == 1:
            values = np.full(math.prod(shape), values.reshape(-1)[0])
        found.append(_each(values, shape))
    return found


def _matrix(stored: h5py.Dataset, n_post: int, ours: h5py.Group | None, zeros: str) -> Any:
    weights = np.array(stored[()]).astype(np.int64).reshape(n_post, -1)
    return ("matrix", weights, _mask(weights, ours, zeros))


def _kernel(group: h5py.Group, ours: h5py.Group | None, before: tuple[int, ...]) -> Any:
    weights = np.array(group["weight"][()]).astype(np.int64)
    if weights.ndim == 5:
        weights = weights[..., 0]
    in_shape = before if ours is None or "in_shape" not in ours else _numbers(ours["in_shape"])
    pairs = [
        (_numbers(group[key])[0], _numbers(group[key])[-1])
        for key in ("stride", "padding", "dilation")
    ]
    mask = _mask(weights, ours, "zero_connections")
    return ("kernel", weights, mask, in_shape, *pairs, int(group["groups"][()]))


def _mask(weights: Any, ours: h5py.Group | None, zeros: str) -> Any:
    mask = weights != 0
    if ours is not None:
        mask.reshape(-1)[np.cumsum(np.array(ours[zeros][()]).astype(np.int64))] = True
    return mask


def _each(values: Any, shape: tuple[int, ...]) -> Any:
    """Return a value for each neuron, from (neurons,), (channels,) or (columns, rows, channels)."""
    values = values.astype(np.int64)
    if len(shape) == 1 and values.size == 1:
        values = values.reshape(-1)
    if values.shape == (math.prod(shape),) and len(shape) == 1:
        return values
    if values.shape == shape[::-1]:
        return np.ascontiguousarray(values.transpose().reshape(-1))
    if values.shape == shape[:1]:
        return np.repeat(values, math.prod(shape[1:]))
    assert values.shape == (math.prod(shape),), values.shape
    return values


def _origin(group: h5py.Group) -> Any:
    if "trained_name" not in group.attrs:
        return None
    numbers = (int(group.attrs[f"trained_{key}"]) for key in ("weights", "positions"))
    return (_word(group.attrs["trained_name"]), *numbers)


def _number(block: h5py.Group, key: str, default: int) -> int:
    return int(np.array(block[key][()]).reshape(-1)[0]) if key in block else default


def _numbers(stored: h5py.Dataset) -> tuple[int, ...]:
    return tuple(int(number) for number in np.array(stored[()]).reshape(-1))


def _text(stored: h5py.Dataset) -> str:
    return _word(np.asarray(stored[()]).reshape(-1)[0])


def _word(value: Any) -> str:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text.partition("\0")[0]
