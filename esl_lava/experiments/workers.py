"""Processes that do one run after the other, are replaced when they are killed, and share GPUs."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")

IDLE_SECONDS = 60.0
"""How long a process without work is kept."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable that says which GPUs a process sees."""

THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
"""Variables that say how many threads libraries use: one in a worker, where nobody set them."""

_SIZE = struct.Struct("<Q")
_PROGRAM = "from esl_lava.experiments.workers import serve; serve()"


class EndedError(Exception):
    """A process ended before it answered; the text says by what."""


def gpus(visible: str | None, count: int) -> tuple[str, ...]:
    """The GPUs of this process, each as `VISIBLE` names it alone.

    Args:
        visible: what `VISIBLE` holds here; None where it is not set.
        count: how many of them can be used.
    """
    if visible is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in visible.split(","))[:count]


def side_by_side(wanted: int, runs: int, devices: Sequence[str]) -> int:
    """How many runs go on at the same time.

    Args:
        wanted: processes, at least 1.
        runs: that are to be done.
        devices: the GPUs, of which each serves one run at a time; none where none is needed.
    """
    return max(1, min(wanted, runs, len(devices) or runs))


def ending(code: int) -> str:
    """What ended a process, by its exit code as `subprocess` has it."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


class Worker:
    """A process that does what it is given, one thing after the other.

    It ends when this process does, whatever ends that. A Ctrl-C in the terminal does not reach
    it. What it writes to its standard output and error appears on standard error here.

    Args:
        device: the GPU that it sees, as `VISIBLE` names it; None leaves that as it is.
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
        self._said = threading.Thread(target=self._forward, daemon=True)
        self._said.start()

    def do(self, function: Callable[..., T], *given: Any) -> T:
        """What a function gives in that process.

        Args:
            function: that can be imported there under its name.
            given: its arguments, which can be pickled, as can the result.

        Raises:
            EndedError: when the process ends before.
            RuntimeError: when the function raises; its traceback is the text.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            task = pickle.dumps((function, given))
            self._process.stdin.write(_SIZE.pack(len(task)) + task)
            self._process.stdin.flush()
            good, answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # in an answer, or closed
            code = self._process.wait()
            self._said.join()
            raise EndedError(ending(code)) from None
        if not good:
            raise RuntimeError(f"in a worker:\n{answer}")
        return answer

    def close(self) -> None:
        """End the process, at once."""
        self._process.kill()
        self._process.wait()

    def _forward(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            print(line.decode(errors="replace"), end="", file=sys.stderr, flush=True)


class Crew:
    """Workers, of which each thread that asks has one to itself; they are kept for the next.

    Args:
        devices: the GPUs, as `VISIBLE` names them.
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
        """A worker that nobody else has; one that raised `EndedError` is not kept.

        Args:
            on_gpu: give it one of the GPUs, if any, as soon as there is one that nobody else has.

        Raises:
            EndedError: when the crew has been closed.
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
        """End all workers, at once; whoever waits for one is told `EndedError`."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
            workers = [*self._busy, *(worker for _, worker, _ in idle)]
        for _, _, timer in idle:
            timer.cancel()
        for worker in workers:
            worker.close()

    def _take(self, device: str | None) -> Worker:
        with self._lock:
            if self.closed:
                raise EndedError("was not begun")
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
        """End a worker that is still idle."""
        with self._lock:
            left = [entry for entry in self._idle if entry[1] is not worker]
            idle = len(left) < len(self._idle)
            self._idle = left
        if idle:
            worker.close()


def serve() -> None:
    """Do what arrives on standard input, until it ends; the whole life of a worker."""
    # What libraries print to standard output is no answer, and what arrives is not for them.
    arriving, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(arriving, tasks), daemon=True).start()
    while True:
        task = tasks.get()
        try:
            function, given = pickle.loads(task)
            answer = pickle.dumps((True, function(*given)))
        except Exception:
            answer = pickle.dumps((False, traceback.format_exc()))
        answers.write(answer)
        answers.flush()


def _listen(arriving: BinaryIO, tasks: queue.SimpleQueue[bytes]) -> None:
    """Hand on what arrives; end this process when the one that sends has ended."""
    while size := arriving.read(_SIZE.size):
        tasks.put(arriving.read(*_SIZE.unpack(size)))
    os._exit(0)
