"""Checks of single entries of a checkpoint. Each names the entry that it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from esl_lava.arrays import Array
from esl_lava.errors import Code, DataError, shorten


def refuse(
    key: str,
    clause: str,
    code: Code = "mismatch",
    *,
    value: object = None,
    limit: object = None,
    layer: str | None = None,
) -> NoReturn:
    """Raise the error for the entry `key` of a checkpoint; `clause` says what is wrong with it."""
    where = f"layer {layer}: " if layer else ""
    raise DataError(
        f"the checkpoint does not fit its experiment: {where}{key} {clause}",
        code,
        key=key,
        value=value,
        limit=limit,
        layer=layer,
    )


def check_table(
    value: object,
    key: str,
    required: Iterable[str],
    *,
    optional: Iterable[str] = (),
    layer: str | None = None,
) -> Mapping[str, Any]:
    """Check that a value is a table with all required keys and only known ones, and return it."""
    if not isinstance(value, Mapping):
        refuse(key, f"is a {type(value).__name__}, not a table", "type", layer=layer)
    required = list(required)
    for name in required:
        if name not in value:
            refuse(f"{key}.{name}", "is missing", layer=layer)
    for name in value:
        if name not in (*required, *optional):
            refuse(key, f"has the unknown key {shorten(name)}", value=shorten(name), layer=layer)
    return value


def check_names(table: Mapping[str, object], key: str, expected: list[str]) -> None:
    """Check that a table has these layers in this order."""
    if list(table) != expected:
        refuse(
            key,
            f"has the layers {shorten(list(table))}, not {shorten(expected)}",
            value=tuple(table),
            limit=tuple(expected),
        )


def check_list(value: object, key: str, length: int) -> Sequence[Any]:
    """Check that a value is a list or tuple of this length, and return it."""
    if not isinstance(value, list | tuple):
        refuse(key, f"is a {type(value).__name__}, not a list", "type")
    if len(value) != length:
        refuse(key, f"has {len(value)} entries, not {length}", value=len(value), limit=length)
    return value


def check_integer(value: object, key: str, low: int, high: int) -> int:
    """Check that a value is an integer within low..high, and return it."""
    if type(value) is not int:
        refuse(key, f"is a {type(value).__name__}, not an integer", "type")
    if not low <= value <= high:
        refuse(key, f"is {shorten(value)}, outside {low}..{high}", "range", value=value, limit=high)
    return value


def check_number(value: object, key: str, low: float, high: float) -> float:
    """Check that a value is a finite float within low..high, and return it."""
    if type(value) is not float:
        refuse(key, f"is a {type(value).__name__}, not a float", "type")
    if not math.isfinite(value):
        refuse(key, f"is {value}", "not-finite", value=value)
    if not low <= value <= high:
        refuse(key, f"is {value}, outside {low}..{high}", "range", value=value, limit=high)
    return value


def check_equal(value: float, expected: float, key: str) -> None:
    """Check that a value is a float and exactly the expected one, which follows from others."""
    if type(value) is not float or value != expected:
        refuse(key, f"is {shorten(value)}, not {expected}", value=value, limit=expected)


def check_array(
    value: object, key: str, dtype: type, shape: tuple[int, ...], layer: str | None
) -> Array:
    """Check that a value is an array of this type and shape, and return it."""
    if not isinstance(value, np.ndarray):
        refuse(key, f"is a {type(value).__name__}, not a tensor", "type", layer=layer)
    if value.dtype != dtype or value.shape != shape:
        refuse(
            key,
            f"is {value.dtype} of shape {value.shape}, but {np.dtype(dtype)} of shape {shape} is "
            "needed",
            value=f"{value.dtype} of shape {value.shape}",
            limit=f"{np.dtype(dtype)} of shape {shape}",
            layer=layer,
        )
    return value


def check_finite(values: Array, noun: str, layer: str | None) -> None:
    """Refuse NaN and infinity."""
    broken = values.size - int(np.count_nonzero(np.isfinite(values)))
    if broken:
        raise DataError(
            f"the checkpoint is spoilt: layer {layer}: {broken} of {values.size} {noun} are NaN or "
            "infinite",
            "not-finite",
            value=broken,
            layer=layer,
        )


def check_squares(values: Array, key: str, layer: str | None) -> None:
    """Refuse negative means of squares or variances, because square roots are taken of them."""
    negative = int(np.count_nonzero(values < 0))
    if negative:
        refuse(
            key, f"has {negative} negative numbers", "range", value=negative, limit=0, layer=layer
        )
