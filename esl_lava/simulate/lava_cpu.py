"""Run Lava's CPU simulator with a deadline, in fresh interpreters that can be killed.

Plain netx builds the network from its file. If netx refuses the network (`netfile.netx_refusals`),
`lava_builder` builds it of the same processes.

Lava must not share this process: importing it sets the multiprocessing start method, an error
inside a process model makes `run()` hang for ever, and its forks must not follow threads of numba
or torch. Lava therefore runs in workers, each with a share of the samples. Every outcome becomes a
result or one `BackendError` (`lava_watch`), and nothing is left of a run, however it ends
(`lava_guard`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from esl_lava import netfile
from esl_lava.arrays import Array
from esl_lava.errors import BackendError
from esl_lava.files import is_process
from esl_lava.interrupts import describe_exit
from esl_lava.network import Convolution, Input, Layer, Network
from esl_lava.simulate import lava_guard, lava_watch
from esl_lava.simulate.lava_models import model_faults, range_faults
from esl_lava.simulate.lava_worker import LayerTask, Task
from esl_lava.simulate.result import Progress, Result, by_neuron, count, decide, deciding_states

STARTUP_SECONDS = 300.0
"""Allowance to import Lava and torch, and to compile. It takes seconds on an idle machine."""
SECONDS_PER_LAYER_STEP = 0.02
"""Allowance per step and input of a layer: ten times the time measured on a slow, shared core."""
SECONDS_PER_CONVOLVED_VALUE = 2e-7
"""Lava convolves every pair of maps, and strides afterwards. Ten times the measured time."""
SECONDS_PER_WEIGHT = 5e-7
"""Allowance to build the model of a matrix of weights. Ten times the measured time."""
GUARD_SECONDS = 20.0
"""Seconds to wait until the guard of a run has removed what is left."""

_FOLDER = re.compile("esl-lava-([0-9]+)-.+")
"""Name of the folder of a run, with the number of the process that made it."""
_logger = logging.getLogger(__name__)


def run(
    network: Network,
    inputs: Array,
    record: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    *,
    path: Path | None = None,
    sparse: bool = False,
    workers: int = 1,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run plain `lava.lib.dl.netx.hdf5.Network`, or a network that netx refuses.

    Samples follow each other without a gap.

    Args:
        network, inputs, record, states: as in every backend's `run` (`simulate`).
        path: the netx file that the network was read from. netx reads it itself. By default a
            file is written.
        sparse: whether to use Lava's sparse synapses in fully connected layers.
        workers: number of interpreters that share the samples. In each of them Lava starts about
            two processes for each layer, and up to two for each skip.
        deadline: seconds until the workers are killed. The default is generous for the size.
        progress: a function that is called a few times a second.

    Raises:
        BackendError: if Lava cannot express the network, fails, dies, is stuck, would run other
            weights, exceeds the deadline, or if a disk or the shared memory is full.
    """
    beyond = netfile.netx_refusals(network)
    if faults := [*range_faults(network, inputs), *(model_faults(network) if beyond else ())]:
        raise BackendError.of(faults)
    samples = len(inputs)
    if workers < 1:
        raise BackendError(
            f"workers {workers}: at least 1 is needed",
            "range",
            key="workers",
            value=workers,
            limit=1,
        )
    if deadline is not None and not 0 < deadline < math.inf:
        raise BackendError(
            f"deadline {deadline}: it must be a finite number of seconds above 0",
            "range" if math.isfinite(deadline) else "not-finite",
            key="deadline",
            value=deadline,
            limit=0,
        )
    ends = np.linspace(0, samples, min(workers, samples) + 1).astype(int).tolist()
    if deadline is None:
        deadline = _allowance(network, int(inputs.shape[1]), max(np.diff(ends)), len(ends) - 1)
    with _folder() as folder:
        if beyond:
            _logger.warning(
                "lava: netx refuses this network, so esl-lava builds it of Lava's processes: %s",
                "; ".join(beyond),
            )
            path = folder / "network.pickle"
            path.write_bytes(pickle.dumps(network))
        elif path is None:
            path = folder / "net.h5"
            netfile.write(network, path)
        jobs = _jobs(folder, path, network, inputs, states, sparse, ends)
        _work(jobs, deadline, progress)
        return _collect(jobs, network, inputs, record, states)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Create the folder of a run. Afterwards no process and no file of the run is left.

    Raises:
        BackendError: if the disk is full, or no folder for temporary files can be written.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise BackendError(
            "TMPDIR: no folder for temporary files can be written, or their disks are full",
            "unwritable",
            key="TMPDIR",
            value=os.environ.get("TMPDIR"),
        ) from None
    _remove_abandoned(parent)
    folder, guard = None, None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"esl-lava-{os.getpid()}-", dir=parent)).resolve()
        with (folder / "lock").open("wb") as lock:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            guard = subprocess.Popen(
                [
                    *(sys.executable, "-I", lava_guard.__file__),
                    *(str(os.getpid()), str(folder), str(lock.fileno())),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock.fileno()],
                cwd="/",
            )
            yield folder
    except OSError as error:
        if not lava_watch.lacks_room(error):
            raise
        raise lava_watch.no_room(parent, "the files of a run of Lava") from None
    finally:
        if guard is not None:
            try:
                guard.communicate(b"\n", GUARD_SECONDS)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()
        if folder is not None and folder.exists():  # somebody killed the guard
            lava_guard.remove(folder)


def _remove_abandoned(parent: Path) -> None:
    """Remove what is left of runs of this user whose processes and guards were killed."""
    for folder in parent.glob("esl-lava-*"):
        match = _FOLDER.fullmatch(folder.name)
        if match is None or is_process(int(match[1])):
            continue
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            with (folder / "lock").open("ab") as lock:  # a process in another container may hold it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lava_guard.remove(folder.resolve())


@dataclass(frozen=True)
class Job:
    """The job of one worker.

    Attributes:
        folder: the folder of its task and its results.
        first, last: its samples are first:last of all samples.
        results: name of each file of results -> bytes by which it grows with every sample. The
            last one is complete last.
        patience: seconds that one of Lava's processes may compute until one of these files grows.
    """

    folder: Path
    first: int
    last: int
    results: Mapping[str, int]
    patience: float

    def finished(self) -> int:
        """Return the number of finished samples."""
        name, size = list(self.results.items())[-1]
        try:
            return (self.folder / name).stat().st_size // size
        except FileNotFoundError:
            return 0


def _jobs(
    folder: Path,
    path: Path,
    network: Network,
    inputs: Array,
    states: tuple[str, ...],
    sparse: bool,
    ends: Sequence[int],
) -> list[Job]:
    """Write the inputs and a task for each worker.

    Raises:
        BackendError: if the folder has no room for the inputs and the results.
    """
    steps = int(inputs.shape[1])
    netx = not netfile.netx_refusals(network)
    delayed = any(one.delays is not None for layer in network.layers for one in layer.inputs)
    last = len(network.layers) - 1
    deciding = list(deciding_states(network.layers[last], steps))
    shared: Task = {
        "parent": os.getpid(),
        "path": str(path.resolve()),
        "netx": netx,
        "inputs": str(folder / "inputs.npy"),
        "message_bits": network.message_bits,
        # (columns, rows, channels), which netx needs if the file does not contain it.
        "input_shape": list(network.input_shape[::-1]) if network.first.shares else None,
        "injected": network.first.injects,
        "steps": steps,
        "interval": steps + delayed,
        "sparse": sparse,
        "first": 0,
        "last": len(inputs),
        "layers": [
            _layer_task(
                *(folder, index, layer, netx),
                ["u", "v"] if layer.name in states else deciding if index == last else [],
            )
            for index, layer in enumerate(network.layers)
        ],
    }
    results = {}
    for index, layer in enumerate(network.layers):
        task = shared["layers"][index]
        for kind, size in (*((state, 4) for state in task["states"]), ("spikes", 1)):
            if kind != "spikes" or task["spikes"]:
                results[f"{kind}{index}"] = size * steps * layer.neurons
    needed = inputs.nbytes + sum(results.values()) * len(inputs)
    if needed > lava_watch.free_bytes(folder):
        raise lava_watch.no_room(folder.parent, "the inputs and results of a run of Lava", needed)
    np.save(folder / "inputs.npy", inputs)
    incomings = [incoming for layer in network.layers for incoming in layer.inputs]
    patience = lava_watch.COMPUTING_SECONDS + max(
        SECONDS_PER_WEIGHT * one.connections.possible + _latency(network) * _step_seconds(one)
        for one in incomings
    )
    jobs = []
    for number, (first, end) in enumerate(pairwise(ends)):
        own = folder / f"worker{number}"
        own.mkdir()
        (own / "job.json").write_text(json.dumps({**shared, "first": first, "last": end}))
        jobs.append(Job(own, first, end, results, patience))
    return jobs


def _layer_task(folder: Path, index: int, layer: Layer, netx: bool, states: list[str]) -> LayerTask:
    """Return the task of a worker for a layer, whose `states` are recorded.

    If netx builds the layer, write the weights that the worker compares with those of netx.
    """
    weights, kernel = {}, None
    for name, incoming in (("synapse", layer.inputs[0]), ("synapse_rec", layer.recurrent)):
        connections = None if incoming is None or not netx else incoming.connections
        if isinstance(connections, Convolution):
            kernel = f"kernel{index}.npy"
            np.save(folder / kernel, connections.kernel)
        elif connections is not None and not connections.injects:
            weights[name] = f"{name}{index}.npy"
            np.save(folder / weights[name], connections.unrolled().dense())
    return {
        "name": layer.name,
        "spikes": layer.neuron.fires,
        "states": states,
        "recurrent": layer.recurrent is not None,
        "delayed": layer.inputs[0].delays is not None,
        "weights": weights,
        "kernel": kernel,
    }


def _step_seconds(incoming: Input) -> float:
    """Compute the allowance for a step of a synapse process and of the neurons behind it."""
    kind = incoming.connections
    seconds = SECONDS_PER_LAYER_STEP
    if kind.shares:
        outputs, inputs = kind.out_shape[0], kind.in_shape[0]
        pixels = kind.n_pre // inputs
        seconds += SECONDS_PER_CONVOLVED_VALUE * kind.possible * pixels
        seconds += SECONDS_PER_LAYER_STEP * outputs * inputs / 20
    if incoming.delays is not None:  # Lava rebuilds a matrix for each of 63 delays
        seconds += SECONDS_PER_CONVOLVED_VALUE * 63 * kind.possible
    return seconds


def _latency(network: Network) -> int:
    """Return the most steps that the first layer computes until the last one writes a result."""
    longest = 0
    for layer in network.layers:
        delays = [int(one.delays.max()) for one in layer.inputs if one.delays is not None]
        longest += 1 + max(delays, default=0)
    return longest + 1  # networks with delays have a blank step between samples


def _allowance(network: Network, steps: int, samples: int, workers: int) -> float:
    """Compute the seconds until workers with `samples` samples each exceed their deadline."""
    per_step = sum(_step_seconds(one) for layer in network.layers for one in layer.inputs)
    crowding = max(1.0, workers / (os.cpu_count() or 1))
    return STARTUP_SECONDS + crowding * per_step * samples * (steps + 1)


def _collect(
    jobs: Sequence[Job],
    network: Network,
    inputs: Array,
    record: tuple[str, ...],
    states: tuple[str, ...],
) -> Result:
    """Join the files that the workers wrote."""
    index = {layer.name: number for number, layer in enumerate(network.layers)}

    def whole(kind: str, layer: str) -> Array:
        neurons = network.layers[index[layer]].neurons
        dtype = np.uint8 if kind == "spikes" else np.int32
        values: Array = np.empty((*inputs.shape[:2], neurons), dtype)
        for job in jobs:
            part: Array = np.fromfile(job.folder / f"{kind}{index[layer]}", dtype)
            values[job.first : job.last] = part.reshape(-1, *values.shape[1:])
        return values

    spikes = {
        layer.name: whole("spikes", layer.name) for layer in network.layers if layer.neuron.fires
    }
    last = network.layers[-1]
    deciding = {kind: whole(kind, last.name) for kind in deciding_states(last, inputs.shape[1])}
    return Result(
        spikes={name: spikes[name] for name in record},
        readout=None if network.readout is None else deciding["v"],
        decisions=decide(last, spikes.get(last.name), **deciding),
        counts=count(network, inputs, spikes),
        fired=by_neuron(spikes),
        u={name: whole("u", name) for name in states},
        v={name: whole("v", name) for name in states},
    )


def _work(jobs: Sequence[Job], deadline: float, progress: Progress | None = None) -> None:
    """Run a worker for each job, and end the process groups of all workers afterwards.

    Raises:
        BackendError: with the cause of the first worker that fails.
    """
    total = jobs[-1].last
    end = time.monotonic() + deadline
    with contextlib.ExitStack() as started:
        running = [started.enter_context(_Worker(job)) for job in jobs]
        while running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running[0].process.wait(min(0.1, max(0.0, end - time.monotonic())))
            for worker in running:
                worker.watch.check()
            for worker in [worker for worker in running if worker.process.poll() is not None]:
                worker.check()
                worker.end()  # at once, because the system may give its number to another process
                running.remove(worker)
            if progress is not None:
                progress(sum(job.finished() for job in jobs), total)
            if running and time.monotonic() > end:
                output = running[0].last_lines()
                raise BackendError(
                    f"Lava exceeded the deadline of {deadline:.0f} s and was stopped{output}",
                    "timeout",
                    key="deadline",
                    limit=deadline,
                )


class _Worker(contextlib.AbstractContextManager["_Worker"]):
    """A fresh interpreter in a process group of its own, which does not outlive the context."""

    def __init__(self, job: Job) -> None:
        self._log = job.folder / "log.txt"
        self._has_ended = False
        self._reading, writing = os.pipe()
        try:
            with self._log.open("wb") as output:
                self.process = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "esl_lava.simulate.lava_worker"),
                        *(str(job.folder), str(writing)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=[writing],
                    env={**os.environ, "TMPDIR": str(job.folder)},
                    cwd=job.folder,  # `-m` puts the working folder first in the module path
                )
        except BaseException:
            os.close(self._reading)
            raise
        finally:
            os.close(writing)
        results = [job.folder / name for name in job.results]
        self.watch = lava_watch.Watch(
            self.process.pid, job.folder, self._reading, results, job.patience
        )

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            os.close(self._reading)

    def end(self) -> None:
        """End all processes of the group once. Lava's children may outlive the worker."""
        if self._has_ended:
            return
        self._has_ended = True
        try:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        finally:
            self.process.wait()

    def check(self) -> None:
        """Check a worker that has ended.

        Raises:
            BackendError: if it has failed.
        """
        self.watch.read()  # it may have failed between the last check and its end
        status = self.process.returncode
        if status != 0 or not self.watch.done:
            raise BackendError(
                f"Lava failed: its main process {describe_exit(status)}{self.last_lines()}",
                "failed",
                value=status,
            )

    def last_lines(self) -> str:
        """Return the last lines of the worker's output, as a part of a sentence."""
        lines = self._log.read_text(errors="replace").splitlines()
        tail = [line for line in lines if line.strip()][-3:]
        return f"; its last output: {' | '.join(tail)}" if tail else ""
