"""Try mutants in processes whose memory and time are limited, and say what became of each.

A process tries many mutants, one after the other, and reports each before and after. If it dies,
the mutant that it had begun is the culprit, and a new process goes on with the next one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from esl_lava.errors import CODES, UserError
from tests.fuzz.format import Format

MEMORY = 1 << 30
"""Bytes by which a process may grow."""
SECONDS = 5
"""CPU time that a mutant may take to be read."""
_SPACE = 3 * MEMORY
_WAIT = 120
"""Seconds after which a process that says nothing hangs, even if it takes no CPU time."""
BATCH = 200
"""Mutants of a process."""

OUTCOMES = (
    "refused",
    "same",
    "changed",
    "crash",
    "hang",
    "memory",
    "traceback",
    "other meaning",
)
GOOD = OUTCOMES[:3]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        number: of the mutant.
        outcome: one of `OUTCOMES`.
        change: what the mutant changed.
        note: the code of the error, or what went wrong.
        seconds: CPU time of the reader.
    """

    number: int
    outcome: str
    change: str = ""
    note: str = ""
    seconds: float = 0


@dataclass
class Tally:
    """The outcomes of a format's mutants."""

    counts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)
    slowest: float = 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.counts[outcome.outcome] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        if outcome.outcome == "refused":
            self.codes[outcome.note] += 1
        if outcome.outcome not in GOOD:
            self.failures.append(outcome)


@dataclass
class Trial:
    """The mutants of one format and one seed.

    Attributes:
        name: of the format.
        format: the format.
        seed: of the random numbers. Mutant i depends on the name, the seed and i alone.
        seconds: CPU time that a mutant may take.
        memory: bytes by which a process may grow.
        folder: where the files of failures are kept; None: nowhere.
    """

    name: str
    format: Format
    seed: int
    seconds: int = SECONDS
    memory: int = MEMORY
    folder: Path | None = None

    def __post_init__(self) -> None:
        self.sound = list(self.format.seeds())
        self.meanings = []
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, self.format.file)
            for content in self.sound:
                path.write_bytes(content)
                meaning = self.format.read(path)
                assert self.format.agrees(path, content, meaning), f"{self.name}: a sound file"
                self.meanings.append(meaning)

    def mutant(self, number: int) -> tuple[int, Any]:
        """Return the index of the sound file of a mutant, and the mutant."""
        rng = random.Random(f"{self.name} {self.seed} {number}")
        index = rng.randrange(len(self.sound))
        return index, self.format.mutate(rng, self.sound[index])

    def run(self, numbers: range, until: float = float("inf")) -> Iterator[Outcome]:
        """Yield the outcome of each mutant, until a time of the monotonic clock."""
        left = numbers
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, self.format.file)
            while left and time.monotonic() < until:
                done = 0
                for outcome in self._run_batch(left[:BATCH], path):
                    done += 1
                    if outcome.outcome not in GOOD:
                        self._keep(outcome, path)
                    yield outcome
                left = left[done:]

    def _run_batch(self, numbers: range, path: Path) -> Iterator[Outcome]:
        """Yield the outcomes of mutants of one process, up to the first that is not good."""
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if not child:
            status = 1  # whatever happens, nothing of the parent is cleared up
            try:
                os.close(reading)
                self._be_child(numbers, path, writing)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        begun, ended, waited = -1, -1, False
        with os.fdopen(reading, "rb", buffering=0) as stream:
            for line in _lines(stream):
                if line is None:
                    waited = True
                    os.kill(child, signal.SIGKILL)
                    break
                if isinstance(line, int):
                    begun = line
                else:
                    ended = line["number"]
                    yield Outcome(**line)
        _, status = os.waitpid(child, 0)
        if begun != ended:
            number = os.waitstatus_to_exitcode(status)
            outcome = "hang" if waited or number == -signal.SIGXCPU else "crash"
            yield Outcome(begun, outcome, "", f"exit status {number}")
        else:
            assert status == 0, "a process died between two mutants"

    def _be_child(self, numbers: range, path: Path, writing: int) -> None:
        """Try mutants in this process."""
        faulthandler.disable()
        with os.fdopen(writing, "wb", buffering=0) as stream:
            space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            for limit, value in {
                resource.RLIMIT_AS: space + max(_SPACE, 3 * self.memory),
                resource.RLIMIT_CORE: 0,
            }.items():
                resource.setrlimit(limit, (value, value))
            base = _peak()
            for number in numbers:
                used = int(_cpu())
                resource.setrlimit(
                    resource.RLIMIT_CPU, (used + 2 * self.seconds + 2, resource.RLIM_INFINITY)
                )
                stream.write(b"%d\n" % number)
                outcome = self._try(number, path, base)
                stream.write(json.dumps(outcome.__dict__).encode() + b"\n")
                if outcome.outcome not in GOOD:
                    break  # its file stays where it is

    def _try(self, number: int, path: Path, base: int) -> Outcome:
        """Return what becomes of a mutant in this process."""
        index, mutant = self.mutant(number)
        path.write_bytes(mutant.content)
        before = _cpu()
        try:
            outcome, note = self._read(path, index, mutant.sealed)
        except BaseException:
            outcome, note = "traceback", traceback.format_exc()
        seconds = _cpu() - before
        grown = _peak() - base
        if grown > self.memory:
            outcome, note = "memory", f"{grown >> 20} MiB; {outcome}: {note}"
        elif seconds > self.seconds:
            outcome, note = "hang", f"{seconds:.1f} s; {outcome}: {note}"
        return Outcome(number, outcome, mutant.change, note[-3000:], round(seconds, 3))

    def _read(self, path: Path, index: int, sealed: bool) -> tuple[str, str]:
        try:
            meaning = self.format.read(path)
        except MemoryError:
            return "memory", traceback.format_exc()
        except UserError as error:
            if _ran_out_of_memory(error):
                return "memory", "".join(traceback.format_exception(error))
            for fault in error.faults:
                assert fault.code in CODES, fault
                assert fault.sentence, fault
                json.dumps(fault.as_json())
            return "refused", error.code
        same = meaning == self.meanings[index]
        if sealed and not same:
            return "other meaning", "its checksum was not repaired"
        try:
            if not self.format.agrees(path, self.sound[index], meaning):
                return "other meaning", "plain code reads something else"
        except Exception:
            # Plain code cannot read it, but what was read is what the sound file says.
            if not same:
                return "other meaning", traceback.format_exc()
        return ("same" if same else "changed"), ""

    def _keep(self, outcome: Outcome, path: Path) -> None:
        """Keep the file of a failure, with how to repeat it."""
        if self.folder is None:
            return
        place = self.folder / f"{self.name}-{self.seed}-{outcome.number}"
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            shutil.copy(path, place)
        (place / "how.txt").write_text(
            f"python -m tests.fuzz {self.name} --seed {self.seed} --only {outcome.number}\n"
            f"{outcome.outcome}: {outcome.change}\n{outcome.note}\n"
        )


def _lines(stream: BinaryIO) -> Iterator[Any]:
    """Yield the JSON of each line; None if none comes for a long time."""
    rest = b""
    while True:
        if not select.select([stream], [], [], _WAIT)[0]:
            yield None
            return
        piece = os.read(stream.fileno(), 1 << 16)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, lines)


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error was made of a MemoryError: the limit was reached."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__context__
    return False


def _peak() -> int:
    """Return the most memory (bytes) that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _cpu() -> float:
    """Return the CPU time (s) of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
