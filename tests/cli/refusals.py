"""Assertions on commands that refuse their input: codes and values, not words."""

import json
import re

from esl_lava.errors import CODES
from tests.conftest import Outcome

LINE = re.compile(r"error: (?P<sentence>\S.*) \[(?P<code>[a-z-]+)\]")


def refusals(outcome: Outcome) -> list[tuple[str, str]]:
    """Return (code, sentence) of every fault that a failed command reports.

    The exit code must be 2. Standard output must hold the same faults as one JSON object, or
    nothing if the command line had no `--json`.
    """
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert lines, outcome
    found = []
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        assert match["code"] in CODES, line
        found.append((match["code"], match["sentence"]))
    if outcome.out:
        faults = outcome.json["error"]
        assert list(outcome.json) == ["error"]
        assert json.loads(json.dumps(faults)) == faults
        shown = [(fault["code"], " ".join(fault["sentence"].splitlines())) for fault in faults]
        assert shown == found
    return found


def refused(outcome: Outcome, code: str, *parts: object, alone: bool = True) -> str:
    """Assert that a command failed with exactly one fault, and return its sentence.

    Args:
        outcome: a finished command.
        code: code of the fault.
        parts: names, values, limits and files that the sentence must contain.
        alone: whether the fault is all that standard error holds.
    """
    ((shown, sentence),) = refusals(outcome)
    for part in parts:
        assert str(part) in sentence, f"{part} is not in: {sentence}"
    assert code in CODES
    assert shown == code, f"{shown} is not {code}: {sentence}"
    if alone:
        assert outcome.err.count("\n") == 1, outcome.err
    return sentence
