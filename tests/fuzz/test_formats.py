"""A few mutants of every format; `make fuzz` tries more. See `tests/fuzz/__init__.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from esl_lava import modelfile
from esl_lava.netfile import reader
from tests.fuzz.formats import FORMATS
from tests.fuzz.runner import OUTCOMES, Tally, Trial

MUTANTS = 150
LEAST_REFUSED = {"network": 0.5, "aedat": 0.4, "atis": 0.3}
"""Shares of the mutants that are refused at least, besides those of other formats."""


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, int]]:
    """Return format -> outcome -> number, of a program: it forks, and has no other threads."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--mutants", str(MUTANTS)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
        check=False,
    )
    rows = [line.split("  ") for line in process.stdout.splitlines()]
    cells = [[cell for cell in row if cell.strip()] for row in rows]
    found = {row[0].strip(): row[1:] for row in cells if row and row[0].strip() in FORMATS}
    assert found, process.stderr[-2000:]
    outcomes = ("mutants", *OUTCOMES)
    numbers = {name: dict(zip(outcomes, map(int, row[:-1]))) for name, row in found.items()}
    assert process.returncode == 0, process.stdout[-4000:]
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_every_mutant_is_refused_or_read_as_what_it_is(name: str, table: Any) -> None:
    numbers = table[name]
    assert numbers["mutants"] == MUTANTS
    assert numbers["refused"] + numbers["same"] + numbers["changed"] == MUTANTS
    assert numbers["refused"] > LEAST_REFUSED.get(name, 0.6) * MUTANTS
    assert numbers["changed"] > 0, "no mutant is a file with another meaning"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_same_seed_gives_the_same_mutants(name: str) -> None:
    first, second = (Trial(name, FORMATS[name], 7) for _ in range(2))
    for number in (5, 0, 17, 3):
        assert first.mutant(number) == second.mutant(number)
    contents = {first.mutant(number)[1].content for number in range(20)}
    assert len(contents) > 15


def tally(name: str, mutants: int, seed: int = 1) -> Tally:
    """Try mutants with the readers as they are in this process."""
    tried = Tally()
    for outcome in Trial(name, FORMATS[name], seed).run(range(mutants)):
        tried.add(outcome)
    return tried


def _ignore(*_: object) -> None:
    """Check nothing."""


BROKEN: dict[str, tuple[str, Callable[[], Any]]] = {
    "a digest of the model that is not compared": (
        "model",
        lambda: mock.patch.object(modelfile, "_check_digest", _ignore),
    ),
    "a digest of the network that is not compared": (
        "network",
        lambda: mock.patch.object(reader, "digest", return_value=_Equal()),
    ),
}
"""Fault -> format whose mutants show it, and a patch that makes it."""


class _Equal:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_reader_is_found(fault: str) -> None:
    name, patch = BROKEN[fault]
    with patch():
        tried = tally(name, 400)
    assert tried.counts["other meaning"] > 0
