"""Assertions on errors: their code and fields, so that the words may change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from esl_lava.errors import CODES, Fault, UserError


def check(fault: Fault, code: str, **expected: object) -> None:
    """Assert the code of a fault and those of its fields that are named.

    The sentence must be one line and show layer, key and file where the fault has them.
    """
    assert code in CODES
    assert fault.code == code, f"{fault.code} is not {code}: {fault.sentence}"
    for name, value in expected.items():
        assert getattr(fault, name) == value, f"{name}: {getattr(fault, name)!r} is not {value!r}"
    assert fault.sentence
    assert "\n" not in fault.sentence
    for shown in (fault.layer, fault.key, fault.file):
        assert shown is None or str(shown) in fault.sentence, f"{shown} is not said"


@contextlib.contextmanager
def refused(
    kind: type[UserError], code: str, **expected: object
) -> Iterator[pytest.ExceptionInfo[Any]]:
    """Assert that the block raises this kind of error, of exactly one fault with these fields."""
    with pytest.raises(kind) as caught:
        yield caught
    (fault,) = caught.value.faults
    check(fault, code, **expected)
