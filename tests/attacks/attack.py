"""An attack, and the process of its own in which the file is read."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esl_lava.errors import Code, UserError

Make = Callable[[Path], object]
"""Writes a file of an attack."""

SECONDS = 1
"""CPU time (s) within which every file is refused."""
MIB = 1 << 20

WAITING_SECONDS = 300
"""A reader that has not ended after these seconds waits for ever."""


@dataclass(frozen=True)
class Attack:
    """A file that must be refused.

    Attributes:
        make: writes the file. Its docstring says what the attack is.
        file: name of the file, by which its reader is chosen.
        codes: codes of which the error has one.
        fields: fields of the error.
        memory: bytes that reading may take.
    """

    make: Make
    file: str
    codes: tuple[Code, ...]
    fields: dict[str, Any]
    memory: int

    @property
    def name(self) -> str:
        """Name of the function."""
        return f"{self.file}: {self.make.__name__}"


ATTACKS: list[Attack] = []
"""All attacks."""


def attack(
    file: str, *codes: Code, memory: int = 100 * MIB, **fields: Any
) -> Callable[[Make], Make]:
    """Return a decorator that adds a function to `ATTACKS`."""

    def add(make: Make) -> Make:
        ATTACKS.append(Attack(make, file, codes, fields, memory))
        return make

    return add


def deflated_zeros(pieces: int) -> bytes:
    """Return a raw deflate stream of so many times 16 MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * pieces + packer.flush()


@dataclass(frozen=True)
class Reading:
    """What became of a file in a process of its own.

    Attributes:
        fault: the fields of the error, or the traceback of an exception that is no UserError;
            empty if the file was read.
        seconds: CPU time of the reader.
        memory: bytes by which the process grew.
        status: of the process: 0, an exit code or a negative signal.
    """

    fault: dict[str, Any]
    seconds: float
    memory: int
    status: int


def read_apart(read: Callable[[Path], object], path: Path, limit: int = 3 << 30) -> Reading:
    """Read a file in a process that may die, with limits of memory and CPU time."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(WAITING_SECONDS)  # a reader that waits for a pipe uses no CPU time
            os.write(writing, json.dumps(_read(read, path, limit)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        raw = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    fault, seconds, memory = json.loads(raw) if raw else ({}, 0.0, 0)
    return Reading(fault, seconds, memory, status)


def _read(read: Callable[[Path], object], path: Path, limit: int) -> tuple[Any, float, int]:
    """Read a file in this process."""
    faulthandler.disable()
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(before.ru_utime + before.ru_stime) + 20
    for name, value in {
        resource.RLIMIT_AS: space + limit,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
    }.items():
        resource.setrlimit(name, (value, value))
    fault: dict[str, Any] = {}
    try:
        read(path)
    except UserError as error:
        fault = {**error.faults[0].as_json(), "sentence": str(error)}
    except BaseException:
        fault = {"traceback": traceback.format_exc()[-4000:]}
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return fault, used, (after.ru_maxrss - before.ru_maxrss) << 10
