"""The runner tells what became of each mutant, whatever the reader does."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from esl_lava.errors import FileError
from tests.fuzz.__main__ import table
from tests.fuzz.format import Format, Mutant
from tests.fuzz.runner import GOOD, Tally, Trial

MIB = 1 << 20


def _refuse(path: Path) -> str:
    raise FileError(f"{path}: refused", "damaged", file=path)


def _crash(path: Path) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return ""


def _leave(path: Path) -> str:
    os._exit(0)


def _spin(path: Path) -> str:
    end = time.process_time() + 1.5
    while time.process_time() < end:
        pass
    return "sound"


def _spin_for_ever(path: Path) -> str:
    while True:
        pass


def _fill(path: Path) -> str:
    assert len(bytes(100 * MIB).replace(b"\0", b"x"))
    return "sound"


def _run_out(path: Path) -> str:
    return str(len(bytes(1 << 42)))


def _hide_that_memory_ran_out(path: Path) -> str:
    try:
        return _run_out(path)
    except MemoryError:
        raise FileError(f"{path}: damaged", "damaged", file=path) from None


def _fail(path: Path) -> str:
    raise LookupError("a bug")


def _panic(path: Path) -> str:
    raise BaseException("a panic")


def _invent(path: Path) -> str:
    raise FileError("x", "no such code")  # type: ignore[arg-type]


READERS: dict[str, tuple[Callable[[Path], str], str]] = {
    "refuse": (_refuse, "refused"),
    "same": (lambda path: "sound", "same"),
    "changed": (lambda path: path.read_text(), "changed"),
    "sealed": (lambda path: path.read_text(), "other meaning"),
    "wrong": (lambda path: "what is not there", "other meaning"),
    "crash": (_crash, "crash"),
    "leave": (_leave, "crash"),
    "spin": (_spin, "hang"),
    "spin for ever": (_spin_for_ever, "hang"),
    "fill": (_fill, "memory"),
    "run out": (_run_out, "memory"),
    "hide": (_hide_that_memory_ran_out, "memory"),
    "fail": (_fail, "traceback"),
    "panic": (_panic, "traceback"),
    "invent": (_invent, "traceback"),
}
"""Content of a file -> what a reader does with it, and its outcome."""


def _read(path: Path) -> str:
    content = path.read_text()
    return content if content == "sound" else READERS[content][0](path)


def _mutate(rng: random.Random, content: bytes) -> Mutant:
    name = rng.choice(list(READERS))
    return Mutant(name.encode(), name, name in ("same", "sealed"))


def _agrees(path: Path, sound: bytes, meaning: str) -> bool:
    return meaning in ("sound", path.read_text())


FORMAT = Format("a.txt", lambda: [b"sound"], _mutate, _read, _agrees)


@pytest.mark.slow
def test_every_outcome_is_told_and_the_next_mutants_are_tried(tmp_path: Path) -> None:
    trial = Trial("some", FORMAT, 1, seconds=1, memory=50 * MIB, folder=tmp_path)
    first: dict[str, int] = {}
    for number in range(500):
        first.setdefault(trial.mutant(number)[1].change, number)
    outcomes = list(trial.run(range(8)))
    assert [outcome.number for outcome in outcomes] == list(range(8))
    for number in first.values():
        outcomes += trial.run(range(number, number + 1)) if number >= 8 else []
    tried = set()
    for outcome in outcomes:
        name = trial.mutant(outcome.number)[1].change
        assert outcome.outcome == READERS[name][1], (name, outcome)
        tried.add(name)
        kept = tmp_path / f"some-1-{outcome.number}"
        assert kept.exists() == (outcome.outcome not in GOOD)
        if kept.exists():
            assert (kept / "a.txt").read_text() == name
            again = f"python -m tests.fuzz some --seed 1 --only {outcome.number}\n"
            assert (kept / "how.txt").read_text().startswith(again)
    assert tried == set(READERS)


def _sleep(path: Path) -> str:
    if path.read_bytes() != b"sound":
        time.sleep(60)
    return "sound"


@pytest.mark.slow
def test_what_says_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.runner._WAIT", 1)
    sleeps = Format(
        "a.txt",
        lambda: [b"sound"],
        lambda rng, _: Mutant(b"sleep", ""),
        _sleep,
        _agrees,
    )
    (outcome,) = Trial("some", sleeps, 1).run(range(1))
    assert outcome.outcome == "hang"


def test_a_sound_file_that_plain_code_reads_otherwise_is_a_fault() -> None:
    with pytest.raises(AssertionError):
        Trial("some", Format("a.txt", lambda: [b"x"], _mutate, lambda path: "y", _agrees), 1)


def test_the_table_has_a_line_for_each_format() -> None:
    tried = Tally()
    for outcome in Trial("some", FORMAT, 1).run(range(0)):
        tried.add(outcome)
    head, line = table({"some": tried}).splitlines()
    assert head.split()[:3] == ["format", "mutants", "refused"]
    assert line.split()[:3] == ["some", "0", "0"]
