"""Conversion of records to JSON. All records use this module.

A record is a dataclass. Its fields become keys of JSON under their own names, unless the class
has a table `KEYS` that `keys` made. The key `MERGED` is not a key of JSON: the keys of the record
at its path are inserted in its place, and none are inserted if that record is None. A field with
the metadata `OPTIONAL` has no key if its value is None.
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
"""Key in JSON -> path of the value in a record: attributes joined by dots."""

MERGED = "*"

OPTIONAL = {"has no key where it is None": True}
"""Metadata of a field: `field(default=None, metadata=OPTIONAL)`."""


def keys(words: str) -> Keys:
    """Make a table of keys from words separated by blanks, in the order of JSON.

    A word is the path of a value: an attribute, or attributes joined by dots. If a part of the
    path is None, the value in JSON is null. The key is the last attribute; "key=path" sets
    another key.
    """
    pairs = (word.rpartition("=") for word in words.split())
    return {key or path.rpartition(".")[2]: path for key, _, path in pairs}


def as_values(record: DataclassInstance) -> Values:
    """Return a record as an object of JSON.

    Raises:
        TypeError: for an argument that is not a record, or for a value that JSON cannot hold.
    """
    values: Values = {}
    for key, path in paths(type(record)).items():
        value: Any = record
        for name in path.split("."):
            value = None if value is None else getattr(value, name)
        if key != MERGED:
            values[key] = _plain(value)
        elif value is not None:
            values |= as_values(value)
    optional = {field.name for field in fields(record) if field.metadata == OPTIONAL}
    return {k: v for k, v in values.items() if v is not None or k not in optional}


def paths(kind: type[DataclassInstance]) -> Keys:
    """Return the table of keys of a class of records: key in JSON -> path of the value."""
    table: Keys | None = getattr(kind, "KEYS", None)
    return {field.name: field.name for field in fields(kind)} if table is None else table


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
