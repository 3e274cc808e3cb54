"""The one way from a record to JSON.

A record is a dataclass. JSON has its fields under their names, unless its class has a table
`KEYS`, made by `keys`. The key `MERGED` stands for no key: the record there gives its own keys,
and None gives none. A field with the metadata `OPTIONAL` has no key where it is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Values: TypeAlias = "dict[str, Json]"
"""An object of JSON."""
Keys: TypeAlias = Mapping[str, str]
"""Key in JSON -> where a record holds its value."""

MERGED = "*"

OPTIONAL = {"has no key where it is None": True}
"""Metadata of a field: `field(default=None, metadata=OPTIONAL)`."""


def keys(words: str) -> Keys:
    """A table of keys from words with blanks between them, in JSON's order.

    A word is an attribute, or attributes joined by dots where a part of the record holds the
    value, which is null where that part is None; its key is the last of them. "key=attribute"
    gives it another.
    """
    pairs = (word.rpartition("=") for word in words.split())
    return {key or path.rpartition(".")[2]: path for key, _, path in pairs}


def as_values(record: DataclassInstance) -> Values:
    """A record as JSON has it.

    Raises:
        TypeError: for what is no record, or holds what JSON has no form for.
    """
    values: Values = {}
    for key, path in paths(type(record)).items():
        found: Any = record
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        if key != MERGED:
            values[key] = _plain(found)
        elif found is not None:
            values |= as_values(found)
    left_out = {one.name for one in fields(record) if one.metadata == OPTIONAL}
    return {k: v for k, v in values.items() if v is not None or k not in left_out}


def paths(kind: type[DataclassInstance]) -> Keys:
    """Key in JSON -> where the records of a class hold its value."""
    named: Keys | None = getattr(kind, "KEYS", None)
    return {one.name: one.name for one in fields(kind)} if named is None else named


def _plain(value: object) -> Json:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return as_values(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, BaseModel):
        dumped: Values = value.model_dump(mode="json", exclude_none=True)
        return dumped
    if isinstance(value, (np.ndarray, np.generic)):
        listed: Json = value.tolist()
        return listed
    raise TypeError(f"JSON has no form for a {type(value).__name__}")
