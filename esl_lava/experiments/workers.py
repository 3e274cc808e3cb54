"""Worker processes that do runs one after the other and share GPUs. Killed ones are replaced."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

from esl_lava.interrupts import describe_exit
from esl_lava.printable import make_printable

T = TypeVar("T")

IDLE_SECONDS = 60.0
"""A process without work is kept for this time."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that lists the GPUs which a process sees."""

THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
"""Environment variables for the threads of libraries. A worker sets each to 1 if it is not set."""

FORWARD_SECONDS = 1.0
"""Seconds to wait for the last output of an ended process, whose children may keep the pipe."""

_SIZE = struct.Struct("<Q")
_PROGRAM = "from esl_lava.experiments.workers import serve; serve()"


class EndedError(Exception):
    """A process ended before it answered. The text continues "the process ..."."""


def gpus(visible: str | None, count: int) -> tuple[str, ...]:
    """Return the GPUs of this process, each as a value for `VISIBLE`.

    Args:
        visible: value of `VISIBLE` in this process; None if it is not set.
        count: number of usable GPUs.
    """
    if visible is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in visible.split(","))[:count]


def parallel_runs(jobs: int, runs: int, devices: Sequence[str]) -> int:
    """Return the number of runs that are done at the same time.

    Args:
        jobs: requested number of processes, at least 1.
        runs: number of runs to do.
        devices: the GPUs, each for one run at a time; empty if the runs need none.
    """
    return max(1, min(jobs, runs, len(devices) or runs))


class Worker:
    """A process that calls functions, one after the other.

    It ends when this process ends, however this process ends. A Ctrl-C in the terminal does not
    reach it. Its standard output and error appear on the standard error of this process.

    Args:
        device: the only GPU that the process sees, a value for `VISIBLE`; None keeps the variable.
    """

    def __init__(self, device: str | None = None) -> None:
        environment = {**dict.fromkeys(THREADS, "1"), **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        if device is not None:
            environment[VISIBLE] = device
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._forwarding = threading.Thread(target=self._forward, daemon=True)
        self._forwarding.start()

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the process and return its result.

        Args:
            function: a function that the process can import by its name.
            arguments: its arguments. They and the result must be picklable.

        Raises:
            EndedError: if the process ends before it answers.
            RuntimeError: if the function raises; the text is the traceback.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            task = pickle.dumps((function, arguments))
            self._process.stdin.write(_SIZE.pack(len(task)) + task)
            self._process.stdin.flush()
            succeeded, answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # cut answer or closed pipe
            code = self._process.wait()
            self._forwarding.join()
            raise EndedError(describe_exit(code)) from None
        if not succeeded:
            raise RuntimeError(f"the function failed in the worker process:\n{answer}")
        return answer

    def close(self) -> None:
        """End the process immediately. What it printed before still appears."""
        self._process.kill()
        self._process.wait()
        self._forwarding.join(FORWARD_SECONDS)

    def _forward(self) -> None:
        """Copy the output of the process to standard error."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = make_printable(line.decode(errors="replace"), keep="\n\t")
            print(text, end="", file=sys.stderr, flush=True)


class Crew:
    """A pool of workers. Each thread that asks gets its own worker, which is reused later.

    Args:
        devices: the GPUs, each as a value for `VISIBLE`.
    """

    def __init__(self, devices: Sequence[str] = ()) -> None:
        self._shared = bool(devices)
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for device in devices:
            self._free.put(device)
        self._lock = threading.Lock()
        self._idle: list[tuple[str | None, Worker, threading.Timer]] = []
        self._busy: set[Worker] = set()
        self.closed = False

    @contextlib.contextmanager
    def worker(self, on_gpu: bool = False) -> Iterator[Worker]:
        """Yield a worker that no other thread uses. After an error in the context it is ended.

        Args:
            on_gpu: whether to wait for a free GPU, if there are any, and give it to the worker.

        Raises:
            EndedError: if the crew is closed.
        """
        device = self._free.get() if on_gpu and self._shared else None
        try:
            worker = self._take(device)
            try:
                yield worker
            except BaseException:
                with self._lock:
                    self._busy.discard(worker)
                worker.close()
                raise
            self._keep(device, worker)
        finally:
            if device is not None:
                self._free.put(device)

    def close(self) -> None:
        """End all workers immediately. Threads that wait for a result get an `EndedError`."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
            workers = [*self._busy, *(worker for _, worker, _ in idle)]
        for _, _, timer in idle:
            timer.cancel()
        for worker in workers:
            worker.close()

    def _take(self, device: str | None) -> Worker:
        """Return an idle worker of this GPU, or a new one."""
        with self._lock:
            if self.closed:
                raise EndedError("did not start, because its crew of workers is closed")
            entry = next((entry for entry in self._idle if entry[0] == device), None)
            if entry is None:
                worker = Worker(device)
            else:
                self._idle.remove(entry)
                _, worker, timer = entry
                timer.cancel()
            self._busy.add(worker)
            return worker

    def _keep(self, device: str | None, worker: Worker) -> None:
        """Keep a worker for the next run, for `IDLE_SECONDS`."""
        timer = threading.Timer(IDLE_SECONDS, self._dismiss, [worker])
        timer.daemon = True
        with self._lock:
            self._busy.discard(worker)
            if not self.closed:
                self._idle.append((device, worker, timer))
                timer.start()
                return
        worker.close()

    def _dismiss(self, worker: Worker) -> None:
        """End a worker if it is still idle."""
        with self._lock:
            others = [entry for entry in self._idle if entry[1] is not worker]
            idle = len(others) < len(self._idle)
            self._idle = others
        if idle:
            worker.close()


def serve() -> None:
    """Do the tasks from standard input until it ends. This is the main program of a worker."""
    # Libraries must not read the tasks, and their output must not be among the answers.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, tasks), daemon=True).start()
    while True:
        task = tasks.get()
        try:
            function, arguments = pickle.loads(task)
            answer = pickle.dumps((True, function(*arguments)))
        except Exception:
            answer = pickle.dumps((False, traceback.format_exc()))
        answers.write(answer)
        answers.flush()


def _listen(requests: BinaryIO, tasks: queue.SimpleQueue[bytes]) -> None:
    """Queue the tasks that arrive. End this process when the sending process has ended."""
    while size := requests.read(_SIZE.size):
        tasks.put(requests.read(*_SIZE.unpack(size)))
    os._exit(0)
