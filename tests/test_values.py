"""Conversion of records to JSON, and the tables of keys."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import esl_lava
from esl_lava.values import MERGED, OPTIONAL, Keys, as_values, keys, paths


@dataclass(frozen=True)
class Part:
    name: str
    counts: Any = ()


@dataclass(frozen=True)
class Whole:
    KEYS: ClassVar[Keys] = keys("first=part.name *=other twice")

    part: Part | None
    other: Part | None
    number: int = 2

    @property
    def twice(self) -> int:
        return 2 * self.number


@dataclass(frozen=True)
class WithOptional:
    always: int | None = None
    sometimes: int | None = field(default=None, metadata=OPTIONAL)


def test_fields_are_keys_unless_a_table_names_others() -> None:
    assert as_values(Part("a", (1, 2))) == {"name": "a", "counts": [1, 2]}
    assert as_values(Whole(Part("a"), None)) == {"first": "a", "twice": 4}
    assert as_values(Whole(None, None)) == {"first": None, "twice": 4}
    merged = as_values(Whole(Part("a"), Part("b", {"c": Part("d")})))
    assert merged == {
        "first": "a",
        "name": "b",
        "counts": {"c": {"name": "d", "counts": []}},
        "twice": 4,
    }


def test_a_table_of_keys() -> None:
    table = keys("a b.c long=d e=f.g *=h")
    assert list(table.items()) == [
        *(("a", "a"), ("c", "b.c"), ("long", "d"), ("e", "f.g"), (MERGED, "h")),
    ]


def test_an_optional_field_has_no_key_where_it_is_none() -> None:
    assert as_values(WithOptional()) == {"always": None}
    assert as_values(WithOptional(1, 0)) == {"always": 1, "sometimes": 0}


def test_arrays_become_lists() -> None:
    values = as_values(Part("a", [np.arange(3), np.float32(0.5), {"x": np.zeros((1, 2))}]))
    assert values["counts"] == [[0, 1, 2], 0.5, {"x": [[0.0, 0.0]]}]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@given(plain)
def test_plain_values_stay_as_they_are(value: Any) -> None:
    values = as_values(Part("a", value))
    assert values["counts"] == value
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize("value", [object(), {1, 2}, Path("a"), Part])
def test_values_without_a_form_in_json_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="JSON has no form for a"):
        as_values(Part("a", [value]))


# --- tables of all records: every path leads to an attribute, by the types of attributes -----


def records() -> Iterator[type]:
    """Find every class of the package that has a table of keys."""
    for info in pkgutil.walk_packages(esl_lava.__path__, "esl_lava."):
        if info.name.split(".")[1] not in (
            "results",
            "experiments",
            "energy",
            "mapping",
            "sparsity",
        ):
            continue
        module = importlib.import_module(info.name)
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == info.name and "KEYS" in vars(kind):
                yield kind


RECORDS = list(records())


def kinds_of(kind: type, name: str) -> list[type]:
    """Return the classes that an attribute may have, without None."""
    hints = get_type_hints(kind)
    if name in hints:
        hint = hints[name]
    else:
        attribute = inspect.getattr_static(kind, name)
        # A property or a cached_property.
        getter = attribute.fget if isinstance(attribute, property) else attribute.func
        hint = get_type_hints(getter)["return"]
    union = get_origin(hint) in (Union, types.UnionType)
    return [part for part in (get_args(hint) if union else (hint,)) if part is not type(None)]


def test_all_records_are_found() -> None:
    names = {kind.__name__ for kind in RECORDS}
    assert {
        "Account",
        "ExportResult",
        "TrainingResult",
        "TrainingCost",
        "Verification",
        "SweepRow",
    } <= names


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_path_leads_to_an_attribute(kind: type) -> None:
    table: Mapping[str, str] = paths(kind)
    assert table
    for key, path in table.items():
        kinds = [kind]
        for name in path.split("."):
            kinds = [inner for one in kinds for inner in kinds_of(one, name)]
        assert key != MERGED or all(dataclasses.is_dataclass(one) for one in kinds), path
