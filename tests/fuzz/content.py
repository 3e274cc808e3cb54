"""Changes of nested containers, such as the content of a checkpoint, and their comparison."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from esl_lava.modelfile.archive import STORAGES

Place = tuple[Any, ...]
"""The keys that lead to a value."""


def fingerprint(value: object) -> str:
    """Return a digest of all types, keys and bits of nested containers, but not of their order."""
    sha = hashlib.sha256()
    _feed(sha.update, value)
    return sha.hexdigest()


def _feed(add: Callable[[bytes], object], value: object) -> None:
    add(type(value).__name__.encode())
    if isinstance(value, np.ndarray):
        add(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            add(repr(key).encode() + b":")
            _feed(add, value[key])
    elif isinstance(value, list | tuple):
        add(b"%d" % len(value))
        for item in value:
            _feed(add, item)
    else:
        add(repr(value).encode() + b";")


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all values in nested containers."""
    if place:
        yield place
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        yield from places(item, (*place, key))


def differences(one: object, other: object, place: Place = ()) -> Iterator[Place]:
    """Yield the places at which two containers differ; of arrays, that of the array."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from differences(one[key], other[key], (*place, key))
    elif isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):  # type: ignore[arg-type]
        for index, pair in enumerate(zip(one, other)):  # type: ignore[arg-type]
            yield from differences(*pair, (*place, index))
    elif fingerprint(one) != fingerprint(other):
        yield place


def look(content: Any, place: Place) -> Any:
    """Return the value at a place."""
    for key in place:
        content = content[key]
    return content


def put(content: Any, place: Place, change: Callable[[Any, Any], Any]) -> Any:
    """Return a container in which `change` (container, key) has changed the one of the place."""
    parent = list(content) if isinstance(content, tuple) else content
    if len(place) == 1:
        parent = change(parent, place[0])
    else:
        parent[place[0]] = put(parent[place[0]], place[1:], change)
    return tuple(parent) if isinstance(content, tuple) else parent


def mutate_array(array: Any, rng: random.Random) -> tuple[Any, str]:
    """Return an array with another number, shape or type."""
    kind = rng.choice(["number", "number", "shape", "dtype", "special", "shorter", "longer"])
    array = array.copy()
    if kind == "number" and array.size:
        index = rng.randrange(array.size)
        flat = array.reshape(-1)
        if array.dtype == np.bool_:
            flat[index] = not flat[index]
        elif array.dtype.kind == "f":
            flat[index] = rng.choice([0.0, 1.0, -1.0, 1e30, -1e-30, float(flat[index]) * 2 + 1])
        else:
            low, high = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
            flat[index] = rng.choice([0, 1, low, high, rng.randint(int(low), int(high))])
        return array, kind
    if kind == "special" and array.dtype.kind == "f" and array.size:
        array.reshape(-1)[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
        return array, kind
    if kind == "dtype":
        others = [dtype for dtype in STORAGES.values() if dtype != array.dtype]
        with np.errstate(all="ignore"):
            return array.astype(rng.choice(others)), kind
    if kind == "shorter" and array.size:
        return array.reshape(-1)[: rng.randrange(array.size)].copy(), kind
    if kind == "longer":
        return np.concatenate([array.reshape(-1), array.reshape(-1)[:1]]), kind
    shapes = [(1, *array.shape), array.shape[1:], (array.size,), (0,), (), (1,)]
    return np.zeros(rng.choice(shapes), array.dtype), "shape"


def mutate(content: Any, rng: random.Random, fixed: tuple[str, ...] = ()) -> tuple[Any, str]:
    """Return a copy of a table with one change, and the place and the kind of the change.

    Args:
        content: nested containers; the table's keys are texts.
        rng: random numbers.
        fixed: keys of the table that stay.
    """
    content = copy.deepcopy(content)
    everywhere = [place for place in places(content) if place[0] not in fixed]
    # Choose the depth first, or most changes would be in the longest lists.
    tops = [key for key in content if key not in fixed and content[key] != {}]
    top = rng.choice([*tops, *["state"] * 6 * ("state" in tops)])
    below = [place for place in everywhere if place[0] == top]
    second = rng.choice(sorted({str(place[1]) for place in below if len(place) > 1}) or [""])
    place = rng.choice([p for p in below if len(p) == 1 or str(p[1]) == second])
    value = look(content, place)
    action = rng.choice(["change", "change", "change", "change", "drop", "add", "replace", "swap"])
    where = "/".join(map(str, place))
    if action == "drop":

        def drop(parent: Any, key: Any) -> Any:
            del parent[key]
            return parent

        return put(content, place, drop), f"{where}: drop"
    if action == "add" and isinstance(value, dict | list):
        extra = rng.choice([0, 1.5, "x", None, np.zeros(3, np.float32), [], {}])
        if isinstance(value, dict):
            value[rng.choice(["extra", 0, 99, "hidden1"])] = extra
        else:
            value.insert(rng.randrange(len(value) + 1), extra)
        return content, f"{where}: add"
    if action == "swap":
        replacement = copy.deepcopy(look(content, rng.choice(everywhere)))
    elif action == "replace":
        replacement = rng.choice(
            [None, True, -1, 0, 1 << 40, 10**30, 0.5, "", "x", [], {}, (), np.zeros(2, np.int64)]
        )
    else:
        replacement, action = _changed(value, rng)

    def assign(parent: Any, key: Any) -> Any:
        parent[key] = replacement
        return parent

    return put(content, place, assign), f"{where}: {action}"


def _changed(value: Any, rng: random.Random) -> tuple[Any, str]:
    """Return another value of much the same kind, and the kind of the change."""
    if isinstance(value, np.ndarray):
        return mutate_array(value, rng)
    if isinstance(value, bool) or value is None:
        return rng.choice([True, False, None, 0]), "flag"
    if isinstance(value, int):
        others = [value + 1, value - 1, -value, float(value), 1 << 31, 1 << 70]
        return rng.choice(others), "number"
    if isinstance(value, float):
        others = [value * 1.5 + 1e-3, -value, 0.0, 1.0, float("nan"), float("inf"), 1e300]
        whole = int(value) if abs(value) < 1e300 else 0
        return rng.choice([*others, whole]), "number"
    if isinstance(value, dict) and value:
        keys = list(value)
        old = rng.choice(keys)
        if rng.random() < 0.5:
            return {("renamed" if k == old else k): value[k] for k in keys}, "rename"
        rng.shuffle(keys)
        return {key: value[key] for key in keys}, "order"
    if isinstance(value, list | tuple) and value:
        return type(value)([*value, value[-1]]), "repeat"
    if isinstance(value, str) and len(value) > 1:
        place = rng.randrange(len(value))
        return value[:place] + rng.choice(["", "0", "9", "-", "x", "é"]) + value[
            place + 1 :
        ], "text"
    return "changed", "text"
