"""Remove what a run of Lava leaves: its processes, its shared memory and its folder.

`python -I lava_guard.py PARENT FOLDER LOCK` is the guard of a run. It waits until the process
PARENT writes a byte to it, or has ended, and then removes what is left. So nothing stays if PARENT
is killed, or is interrupted again while it removes. Until then it holds the descriptor LOCK, with
which the folder is locked. The guard runs in a session of its own, which no Ctrl-C reaches, and
imports only the standard library, so that it starts at once.

The worker of a run has its folder as an argument, and so have the processes that it forks. Lava's
shared memory and semaphores are files in `SHARED_MEMORY`, to which the worker gives names that
begin with the name of the folder.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PATIENCE_SECONDS = 10.0
"""Seconds to wait until killed processes are gone."""


def remove(folder: Path) -> None:
    """End the workers of a folder with their process groups, and remove their files."""
    end = time.monotonic() + PATIENCE_SECONDS
    while (groups := _groups(folder)) and time.monotonic() < end:
        for group in groups:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        time.sleep(0.05)
    for pattern in (f"{folder.name}-*", f"sem.{folder.name}-*"):
        for path in SHARED_MEMORY.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _groups(folder: Path) -> set[int]:
    """Return the process groups of all workers whose task is in a folder."""
    argument = b"\0" + os.fsencode(folder) + b"/"
    groups = set()
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            command = Path(entry.path, "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"lava_worker" in command and argument in command:
                groups.add(os.getpgid(int(entry.name)))
    return groups - {os.getpgrp()}


def main(parent: int, folder: Path, lock: int) -> None:
    """Wait until the parent writes or ends, and remove what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # clusters signal every process of a job
    while os.getppid() == parent and not select.select([0], [], [], 0.5)[0]:
        pass
    os.close(lock)  # some network file systems keep files that are open
    remove(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
