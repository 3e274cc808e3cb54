"""Files that are written atomically, and plain values as JSON."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from esl_lava.errors import DataError, FileError
from esl_lava.files import as_json, is_unfinished, replace_file, replace_json
from tests.faults import refused
from tests.folders import contents


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b"old")
    replace_json(path, {"a": [1, None]})
    assert list(contents(tmp_path)) == ["a.json"]
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert not is_unfinished(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "a.json"
    with refused(FileError, "unwritable", file=path):
        replace_file(path, b"")
    with refused(FileError, "type", file=Path()):
        replace_file(Path(), b"")


@pytest.mark.parametrize(
    ("values", "key", "number"),
    [
        ({"a": {"b": [0.5, math.inf]}}, "a.b.1", math.inf),
        ([1, (2, -math.inf)], "1.1", -math.inf),
        (math.inf, None, math.inf),
    ],
)
def test_json_has_only_finite_numbers(values: Any, key: str | None, number: float) -> None:
    with refused(DataError, "not-finite", key=key, value=number):
        as_json(values)
