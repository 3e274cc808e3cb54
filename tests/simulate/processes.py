"""The processes and the shared memory of Lava's workers, and the smallest network for them."""

import contextlib
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

from esl_lava.network import Cuba, Matrix
from tests.graphs import a_layer, a_network

TINY = a_network((a_layer("only", Matrix.from_dense([[2, -2]]), Cuba(4096, 0, 1)),), 3)
TINY_INPUT = np.ones((1, 3, 2), np.uint8)


def processes(group: int) -> list[int]:
    """Return the living processes of a process group, without those that wait to be reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, owner = (entry / "stat").read_text().rpartition(") ")[2].split()[:3]
                if int(owner) == group and state not in "ZX":
                    found.append(int(entry.name))
    return found


def shared_memory(pid: int) -> set[str]:
    """Return the names under /dev/shm that a process has mapped."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        return {line.split("/dev/shm/")[1].split()[0] for line in lines if "/dev/shm/" in line}
    return set()


def gone(group: int, seconds: float = 300.0) -> bool:
    """Return whether all processes of a group end within some seconds."""
    end = time.monotonic() + seconds
    while processes(group):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Watch:
    """A context that records the workers started in it, and the processes that they leave."""

    def __init__(self, monkeypatch) -> None:
        self.groups: list[int] = []
        self.segments: set[str] = set()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._look, daemon=True)
        popen = subprocess.Popen

        def noting(*args, **kwargs):
            worker = popen(*args, **kwargs)
            if "esl_lava.simulate.lava_worker" in args[0]:  # numpy.testing starts programs too
                self.groups.append(worker.pid)
            return worker

        monkeypatch.setattr("subprocess.Popen", noting)

    def __enter__(self) -> "Watch":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()
        until = time.monotonic() + 300  # on a busy machine a killed process takes its time to go
        while (left := [p for group in self.groups for p in processes(group)]) and (
            time.monotonic() < until
        ):
            time.sleep(0.1)
        self.left = left
        self.segments_left = {name for name in self.segments if Path("/dev/shm", name).exists()}

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            for group in self.groups:
                for pid in processes(group):
                    self.segments |= shared_memory(pid)
