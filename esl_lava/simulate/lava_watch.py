"""Watch the processes of a Lava worker, and name the one that has failed.

Lava waits for ever if one of its processes ends or does not go on. A worker and the processes that
it forks therefore report to `lava_cpu` through a pipe, which a full disk does not disturb: who they
are, and the errors that they raise. `Watch` reads these reports. It also looks at the processes
twice a second through /proc and finds three more faults:

- A process has ended before the run has.
- A process is stopped (SIGSTOP).
- The run is stuck: no file of results grows although a process has computed for longer than a
  step can take, or although all processes sleep. Time that a process spends in a queue for a busy
  core or a slow disk does not count, so a run that is only slow is not stuck. Each process then
  writes where it is (`faulthandler`), which tells the cause from those that wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from esl_lava.errors import BackendError, Fault
from esl_lava.interrupts import describe_exit
from esl_lava.simulate.lava_guard import SHARED_MEMORY

LOOK_SECONDS = 0.5
"""Seconds between two looks at the processes."""
STOPPED_SECONDS = 3.0
"""Seconds until a stopped process counts as a fault."""
STUCK_SECONDS = 10.0
"""Seconds without progress, in which all processes sleep or one computes, until a run is stuck."""
COMPUTING_SECONDS = 3.0
"""Seconds that a process may compute in a step beside the allowance for its layer (`lava_cpu`)."""
STACK_SECONDS = 3.0
"""Seconds to wait until the processes of a stuck run have written where they are."""
MAX_NAMES = 3
"""A sentence names at most this many processes."""

_logger = logging.getLogger(__name__)
_TICKS = os.sysconf("SC_CLK_TCK")
_FRAME = re.compile(r'  File "(.+)", line ([0-9]+) in (.+)')


@dataclass
class _Member:
    """A process of the run.

    Attributes:
        pid, name, layer: its number, its name in sentences, and its layer, if any.
        model: whether it runs a process model or Lava's runtime service, and can write where it is.
        vital: whether the run fails if it ends. The guard frees the shared memory in any case.
        started: the time of its start as the system tells it; None before the first look.
        computed: its seconds of computing at the last look.
        before: the same at the last look at which the run had gone on.
        stopped: seconds for which it has been stopped.
    """

    pid: int
    name: str
    layer: str | None = None
    model: bool = False
    vital: bool = True
    started: int | None = None
    computed: float = 0.0
    before: float = 0.0
    stopped: float = 0.0


class _State(NamedTuple):
    """What the system tells of a process: see `man proc`, /proc/PID/stat."""

    state: str
    started: int
    computed: float
    status: int


def _state(pid: int) -> _State | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    computed = (int(fields[11]) + int(fields[12])) / _TICKS
    return _State(fields[0], int(fields[19]), computed, int(fields[49]))


def send(descriptor: int, report: dict[str, Any]) -> None:
    """Send a report as a line. A line in a pipe stays whole up to `select.PIPE_BUF` bytes."""
    while len(line := json.dumps(report).encode() + b"\n") > select.PIPE_BUF:
        key = max(report, key=lambda key: len(str(report[key])))
        report = {**report, key: str(report[key])[: len(str(report[key])) // 2] + "..."}
    with contextlib.suppress(OSError):  # nobody reads it if the parent has ended
        os.write(descriptor, line)


class Watch:
    """The processes of a worker.

    Args:
        worker: number of the worker's process.
        folder: its folder, in which its processes write where they are.
        descriptor: the reading end of the pipe.
        results: the files that grow while the run goes on.
        patience: seconds that a process may compute until one of these files grows.

    Attributes:
        done: whether the worker has finished its task.
    """

    def __init__(
        self, worker: int, folder: Path, descriptor: int, results: Sequence[Path], patience: float
    ) -> None:
        os.set_blocking(descriptor, False)
        self.done = False
        self._folder = folder
        self._descriptor = descriptor
        self._results = results
        self._patience = patience
        self._main = _Member(worker, "Lava's main process")
        self._members: dict[int, _Member] = {}
        self._unread = b""
        self._forked = self._ran = False
        self._progress: object = None
        self._stood = self._slept = 0.0
        self._looked = time.monotonic()

    def check(self) -> None:
        """Check whether the worker or one of Lava's processes has failed.

        Raises:
            BackendError: with the cause, if there is a failure.
        """
        self.read()
        seconds = time.monotonic() - self._looked
        if seconds >= LOOK_SECONDS and not self.done:
            self._looked += seconds
            # If this process could not run for a while, the others may not have run either.
            self._look(min(seconds, 2 * LOOK_SECONDS))

    def read(self) -> None:
        """Read the reports of the processes.

        Raises:
            BackendError: with the first failure that they report.
        """
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._descriptor, 65536):
                self._unread += more
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            report = json.loads(line)
            if "sentence" in report:
                raise BackendError.of([Fault(**report)])
            if "pid" in report:
                self._members[report["pid"]] = _Member(**report)
            self._ran |= "ran" in report
            self.done |= "done" in report

    def _look(self, seconds: float) -> None:
        """Look at the processes after some seconds."""
        progress = (self._ran, len(self._members), sum(_size(path) for path in self._results))
        goes_on, self._progress = progress != self._progress, progress
        computed, sleeping = 0.0, True
        for member in (self._main, *self._members.values()):
            state = _state(member.pid)
            if (
                state is None
                or state.state in "ZX"
                or state.started != (member.started or state.started)
            ):
                self._check_end(member, state if state and state.state in "ZX" else None)
                continue
            member.started = state.started
            member.stopped = member.stopped + seconds if state.state == "T" else 0.0
            if member.stopped > STOPPED_SECONDS:
                raise _failure([member], "the process is stopped, as by SIGSTOP")
            computed += state.computed - member.computed
            member.computed = state.computed
            if goes_on:
                member.before = member.computed
            sleeping &= state.state not in "RDT"
        models = [member for member in self._members.values() if member.model]
        self._forked |= bool(models)
        if goes_on or not self._forked:
            self._stood = self._slept = 0.0
            return
        self._stood += seconds
        if sleeping and computed < seconds / 10:
            self._slept += seconds
        causes = [one for one in models if one.computed - one.before > self._patience]
        if self._slept <= STUCK_SECONDS and not (causes and self._stood > STUCK_SECONDS):
            return
        places = self._places(models)
        if not causes:  # those that wait for a message wait for the cause
            causes = [one for one in models if not _waits(places.get(one.pid, []))]
        what = f"no step has ended in {self._stood:.0f} s"
        if self._ran:
            what = f"all steps have run, but Lava has not ended in {self._stood:.0f} s"
        raise _failure(causes or [self._main], what, places)

    def _check_end(self, member: _Member, state: _State | None) -> None:
        """Check whether a process that has ended was allowed to."""
        main = _state(self._main.pid)
        if main is None or main.state in "ZX":  # `lava_cpu` tells its exit code
            return
        self.read()  # what it said last, and whether all steps have run in the meantime
        self._members.pop(member.pid, None)
        how = describe_exit(os.waitstatus_to_exitcode(state.status)) if state else "has ended"
        if not member.vital:
            if not self._ran:
                _logger.warning("lava: %s %s. The run goes on without it.", member.name, how)
        elif not self._ran or (member.model and state is not None and state.status):
            full = state is not None and state.status & 127 == signal.SIGBUS and _is_full()
            cause = f": {SHARED_MEMORY} is full" if full else ""
            raise _failure([member], f"the process {how} before the run was finished{cause}")

    def _places(self, members: Sequence[_Member]) -> dict[int, list[tuple[str, str, str]]]:
        """Return process -> where it is: (file, line, function) from the inside out."""
        asked = []
        for member in members:
            with contextlib.suppress(OSError):
                os.kill(member.pid, signal.SIGUSR1)
                asked.append(member.pid)
        end = time.monotonic() + STACK_SECONDS
        files = {pid: self._folder / f"stack{pid}" for pid in asked}
        while not all(map(_size, files.values())) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.1)  # until what they began is whole
        return {
            pid: _FRAME.findall(path.read_text(errors="replace"))
            for pid, path in files.items()
            if _size(path)
        }


def _failure(
    members: Sequence[_Member],
    what: str,
    places: dict[int, list[tuple[str, str, str]]] | None = None,
) -> BackendError:
    """Make the error of processes at fault."""
    names = ", ".join(member.name for member in members[:MAX_NAMES])
    if len(members) > MAX_NAMES:
        names += f" and {len(members) - MAX_NAMES} more"
    inside = (places or {}).get(members[0].pid, [])[:1]
    where = "".join(f", at {file}, line {line}, in {name}" for file, line, name in inside)
    layers = {member.layer for member in members}
    layer = layers.pop() if len(layers) == 1 else None
    return BackendError(f"Lava failed: {names}: {what}{where}", "failed", layer=layer)


def _waits(frames: Iterable[tuple[str, str, str]]) -> bool:
    """Return whether a process waits for a message of another one."""
    for file, _, _ in frames:
        if not file.endswith("/threading.py"):
            return file.endswith("/pypychannel.py")
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_full() -> bool:
    return free_bytes(SHARED_MEMORY) < os.sysconf("SC_PAGE_SIZE")


def free_bytes(folder: Path) -> int:
    """Return the number of bytes that this user can still write into a folder.

    A file system without a size, such as a tmpfs of size 0, has no limit.
    """
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize if system.f_blocks else sys.maxsize


def lacks_room(error: OSError) -> bool:
    """Return whether an error says that a disk or the user's quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_room(folder: Path, what: str, needed: int | None = None) -> BackendError:
    """Make the error of a folder without room for something, of some bytes if these are known."""
    free = free_bytes(folder)
    why = f"{needed} bytes are needed, and {free} are free"
    if needed is None:
        why = "the disk or the user's quota is full"
    return BackendError(
        f"{folder}: no room for {what}: {why}",
        "unwritable",
        file=folder,
        value=needed,
        limit=free,
    )
