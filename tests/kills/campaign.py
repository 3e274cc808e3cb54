"""Commands that are killed, the ways in which they die, and the checks afterwards.

A command is killed in a folder of its own, with a TMPDIR of its own. When all its processes have
ended, the commands that a user would type next run to their end. Then the files of the folder must
equal, byte for byte, those of a run that nobody killed, and no temporary file may be left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.folders import contents

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EXIT_CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
"""Exit code of a command that a signal ends."""

CONFIG = """
seed = 3
[data]
name = "digits"
[encoding]
kind = "rate"
steps = 8
[model]
layers = "30"
[sparsity]
density = 0.4
t_iter = 3
[training]
epochs = 6
batch_size = 100
learning_rate = 0.01
"""

DYING = """
import os, pathlib, signal, sys
_, name, number, when, *arguments = sys.argv
owner = os if name == "fsync" else pathlib.Path
call, calls = getattr(owner, name), []
def die(*args):
    calls.append(args)
    if len(calls) == int(number) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = call(*args)
    if len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, die)
sys.argv = ["esl", *arguments]
from esl_lava.cli.app import main
main()
"""
"""A program that runs `esl` and is killed before or after the n-th call of a function."""

QUIET_SECONDS = 30.0
"""A killed command's other processes, which are those of Lava, may live for so long."""


@dataclass(frozen=True)
class Command:
    """A command of `esl` to kill.

    Attributes:
        arguments: its arguments; the working folder is the folder of the case.
        given: files and folders that exist before.
        next: the commands that follow a kill, from the folder.
        compared: the files that must have the bytes of an undisturbed run.
    """

    arguments: str
    given: tuple[str, ...]
    next: Callable[[Path, Command], list[str]]
    compared: tuple[str, ...] = ()


def _again(folder: Path, command: Command) -> list[str]:
    return [command.arguments]


def _replacing(folder: Path, command: Command) -> list[str]:
    exists = any((folder / name).exists() for name in command.compared)
    return [command.arguments + " --overwrite" * exists]


def _resumed(folder: Path, command: Command) -> list[str]:
    if (folder / "run/model.pt").exists():
        return []
    if (folder / "run/checkpoint.pt").exists():
        return ["train --resume run"]
    return [command.arguments]


def _demonstrated(folder: Path, command: Command) -> list[str]:
    first = _resumed(folder, command)
    if first == [command.arguments]:
        return first
    return [*first, "export run/model.pt run/net.h5 --overwrite", "report run --overwrite"]


TRAINED = ("run/model.pt", "run/config.toml", "run/updates.json", "run/training.png")
TRAIN = "train --config tiny.toml -o run"
LAVA = "--samples 30 --workers 2"
COMMANDS: Mapping[str, Command] = {
    "train": Command(TRAIN, ("tiny.toml",), _resumed, TRAINED),
    "resume": Command("train --resume run", ("begun",), _resumed, TRAINED),
    "export": Command("export model.pt net.h5", ("model.pt",), _replacing, ("net.h5",)),
    "run": Command("run net.h5 --samples 300 --json", ("net.h5",), _again),
    "verify": Command(
        "verify model.pt net.h5 --backend exact --samples 50 --json",
        ("model.pt", "net.h5"),
        _again,
    ),
    "report": Command(
        "report run", ("run",), _replacing, (*TRAINED, "run/report.html", "run/report.json")
    ),
    "lava": Command(f"run net.h5 --backend lava {LAVA} --json", ("net.h5",), _again),
    "verify-lava": Command(f"verify model.pt net.h5 {LAVA} --json", ("model.pt", "net.h5"), _again),
    "demo": Command("demo --samples 10 -o run", (), _demonstrated, (*TRAINED, "run/net.h5")),
}
"""The commands to kill. `begun` is a run directory with a checkpoint; it is copied to `run`."""


@dataclass(frozen=True)
class Death:
    """How a command dies.

    Attributes:
        signum: the signal that a command gets.
        share: when it gets the signal, as a share of the seconds that it takes; or None.
        call: the function in which it is killed instead: `fsync` or `replace`.
        number: the number of that call.
        when: whether the command dies `before` or `after` the call.
    """

    signum: signal.Signals
    share: float | None = None
    call: str = ""
    number: int = 0
    when: str = ""

    def __str__(self) -> str:
        if self.share is not None:
            return f"{self.signum.name} at {self.share:.2f} of its time"
        return f"{self.signum.name} {self.when} {self.call} number {self.number}"


class Campaign:
    """Kills commands in folders below `root`.

    Args:
        root: a folder for all cases.
        shared_memory: the folder of shared memory, in which nothing may be left; None if other
            programs use it at the same time.

    Attributes:
        results: the output of each command that nobody killed, without its times.
        seconds: how long it took.
        files: command -> file -> bytes, of the files that are equal in two undisturbed runs.
        temporary: command -> the files that an undisturbed run leaves in TMPDIR: caches of torch.
    """

    def __init__(self, root: Path, shared_memory: Path | None = Path("/dev/shm")) -> None:
        self.root = root
        self.shared_memory = shared_memory
        self.given = root / "given"
        self.results: dict[str, object] = {}
        self.seconds: dict[str, float] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.temporary: dict[str, set[str]] = {}
        self.given.mkdir(parents=True)

    def _make(self, name: str) -> None:
        """Make a file or folder that commands start from, with those that are made with it."""
        if name == "tiny.toml":
            (self.given / name).write_text(CONFIG)
            return
        folder = self._folder(f"made-{name}", ("tiny.toml",))
        if name == "begun":
            process = _start(folder, [sys.executable, "-c", DYING, "fsync", "3", "after"], TRAIN)
            _, err = process.communicate()
            if process.returncode != -signal.SIGKILL:
                raise RuntimeError(f"the training to resume was not killed: {err}")
            shutil.move(folder / "run", self.given / "begun")
            return
        for line in (TRAIN, "export run/model.pt net.h5"):
            _finish(folder, line)
        shutil.copy(folder / "run/model.pt", self.given)
        shutil.move(folder / "net.h5", self.given)
        shutil.move(folder / "run", self.given)

    def _folder(self, name: str, given: tuple[str, ...]) -> Path:
        """Return a new working folder with copies of the given files."""
        folder = self.root / name
        (folder / "tmp").mkdir(parents=True)
        for one in given:
            source = self.given / one
            if not source.exists():
                self._make(one)
            if source.is_dir():
                shutil.copytree(source, folder / "run")
            else:
                shutil.copy(source, folder)
        return folder

    def prepare(self, name: str) -> None:
        """Run a command undisturbed, twice, and keep its result, its seconds and its files."""
        command = COMMANDS[name]
        files = []
        for number in range(2):
            folder = self._folder(f"{name}-undisturbed{number}", command.given)
            start = time.monotonic()
            self.results[name] = _result(_finish(folder, command.arguments))
            self.seconds[name] = time.monotonic() - start
            files.append({path: (folder / path).read_bytes() for path in command.compared})
            self.temporary[name] = set(contents(folder / "tmp"))
        self.files[name] = {
            path: content for path, content in files[0].items() if files[1][path] == content
        }

    def draw(self, name: str, random: np.random.Generator) -> Death:
        """Draw how a command dies: by a signal at any time, or within a call if it writes."""
        signum = SIGNALS[random.integers(len(SIGNALS))]
        if COMMANDS[name].compared and random.random() < 0.5:
            call = ("fsync", "replace")[random.integers(2)]
            when = ("before", "after")[random.integers(2)]
            return Death(signal.SIGKILL, None, call, int(random.integers(1, 5)), when)
        return Death(signum, float(random.random()))

    def _segments(self) -> set[str]:
        """Return the names in the folder of shared memory."""
        return set() if self.shared_memory is None else set(os.listdir(self.shared_memory))

    def kill(self, name: str, death: Death, case: str) -> tuple[bool, list[str]]:
        """Kill a command, and run the commands that follow.

        Returns:
            Whether the command died before its end, and what is wrong afterwards.
        """
        command = COMMANDS[name]
        folder = self._folder(case, command.given)
        segments = self._segments()
        faults = []
        if death.share is None:
            program = [sys.executable, "-c", DYING, death.call, str(death.number), death.when]
            process = _start(folder, program, command.arguments)
        else:
            process = _start(folder, [sys.executable, "-m", "esl_lava"], command.arguments)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(death.share * self.seconds[name])
            process.send_signal(death.signum)
        _, err = process.communicate()
        has_died = process.returncode in (EXIT_CODES[death.signum], -death.signum)
        if not has_died and process.returncode:
            faults.append(f"exit code {process.returncode}: {err[-300:]}")
        if "Traceback" in err and process.returncode not in (-signal.SIGTERM, -signal.SIGINT):
            faults.append(f"a traceback: {err[-600:]}")
        if not _wait(folder):
            faults.append("a process lives on")
        for line in command.next(folder, command):
            done = _finish(folder, line, check=False)
            if done.returncode:
                faults.append(f"esl {line}: exit code {done.returncode}: {done.stderr[-300:]}")
            elif line == command.arguments and _result(done) != self.results[name]:
                faults.append(f"esl {line}: another result")
        for path, content in self.files[name].items():
            if not (folder / path).exists() or (folder / path).read_bytes() != content:
                faults.append(f"{path} differs from that of an undisturbed run")
        left = set(contents(folder / "tmp")) - self.temporary[name]
        left |= {path for path in contents(folder) if path.endswith((".unfinished", ".lock"))}
        faults += [f"{path} is left" for path in sorted(left)]
        if segments := self._segments() - segments:
            faults.append(f"{self.shared_memory}: {len(segments)} segments are left")
        shutil.rmtree(folder)
        return has_died, faults


def _start(folder: Path, program: list[str], arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(
        [*program, *arguments.split()],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_ctrl_c,
    )


def _heed_ctrl_c() -> None:
    """Let a child process react to Ctrl-C, which background processes of a shell ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _finish(folder: Path, line: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of `esl` to its end."""
    process = _start(folder, [sys.executable, "-m", "esl_lava"], line)
    out, err = process.communicate()
    if check and process.returncode:
        raise RuntimeError(f"esl {line}: exit code {process.returncode}\n{err}")
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def _result(done: subprocess.CompletedProcess[str]) -> object:
    """Return the result that a command printed as JSON, without its times; or None."""
    if not done.stdout.startswith("{"):
        return None
    values = json.loads(done.stdout)
    return {key: value for key, value in values.items() if "second" not in key}


def _wait(folder: Path) -> bool:
    """Wait until no process has this folder's TMPDIR, and return whether that happened."""
    end = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < end:
        if not _processes(folder):
            return True
        time.sleep(0.1)
    return False


def _processes(folder: Path) -> list[int]:
    """Return the numbers of the processes that have this folder's TMPDIR."""
    mark = f"TMPDIR={folder / 'tmp'}".encode()
    numbers = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                numbers.append(int(path.parent.name))
    return numbers
