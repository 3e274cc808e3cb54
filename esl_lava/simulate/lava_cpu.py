"""Run Lava's CPU simulator with a deadline, in fresh interpreters that can be killed.

Plain netx builds the network from its file. If netx refuses the network (`netfile.netx_refusals`),
`lava_builder` builds it of the same processes.

Lava must not share this process: importing it sets the multiprocessing start method, an error
inside a process model makes `run()` hang for ever, and its forks must not follow threads of numba
or torch. Lava therefore runs in workers, each with a share of the samples. Every outcome becomes a
result or one `BackendError`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from esl_lava import netfile
from esl_lava.arrays import Array
from esl_lava.errors import BackendError
from esl_lava.network import Convolution, Layer, Network
from esl_lava.simulate.lava_models import model_faults, range_faults
from esl_lava.simulate.lava_worker import LayerTask, Task
from esl_lava.simulate.result import Progress, Result, by_neuron, count, decide, deciding_states

STARTUP_SECONDS = 300.0
"""Allowance to import Lava and torch, and to compile. It takes seconds on an idle machine."""
SECONDS_PER_LAYER_STEP = 0.02
"""Allowance per step and input of a layer: ten times the time measured on a slow, shared core."""
SECONDS_PER_CONVOLVED_VALUE = 2e-7
"""Lava convolves every pair of maps, and strides afterwards. Ten times the measured time."""
_logger = logging.getLogger(__name__)

GRACE_SECONDS = 3.0
"""Seconds from the request that a failed worker's processes end until they are killed."""


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
        BackendError: if Lava cannot express the network, fails, dies, would run other weights or
            exceeds the deadline.
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
    with tempfile.TemporaryDirectory(prefix="esl-lava-") as folder:
        if beyond:
            _logger.warning(
                "lava: netx refuses this network, so esl-lava builds it of Lava's processes: %s",
                "; ".join(beyond),
            )
            path = Path(folder) / "network.pickle"
            path.write_bytes(pickle.dumps(network))
        elif path is None:
            path = Path(folder) / "net.h5"
            netfile.write(network, path)
        jobs = _jobs(Path(folder), path, network, inputs, states, sparse, ends)
        _work(jobs, deadline, progress)
        return _collect(jobs, network, inputs, record, states)


@dataclass(frozen=True)
class Job:
    """The job of one worker.

    Attributes:
        folder: the folder of its task and its results.
        first, last: its samples are first:last of all samples.
        watched: name of a file that grows with every sample.
        bytes_per_sample: bytes by which this file grows.
    """

    folder: Path
    first: int
    last: int
    watched: str
    bytes_per_sample: int

    def finished(self) -> int:
        """Return the number of finished samples."""
        try:
            size = (self.folder / self.watched).stat().st_size
        except FileNotFoundError:
            return 0
        return size // self.bytes_per_sample


def _jobs(
    folder: Path,
    path: Path,
    network: Network,
    inputs: Array,
    states: tuple[str, ...],
    sparse: bool,
    ends: Sequence[int],
) -> list[Job]:
    """Write the inputs and a task for each worker."""
    steps = int(inputs.shape[1])
    np.save(folder / "inputs.npy", inputs)
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
    watched, size = (f"v{last}", 4) if network.readout is not None else (f"spikes{last}", 1)
    jobs = []
    for number, (first, end) in enumerate(pairwise(ends)):
        own = folder / f"worker{number}"
        own.mkdir()
        (own / "job.json").write_text(json.dumps({**shared, "first": first, "last": end}))
        jobs.append(Job(own, first, end, watched, size * steps * network.layers[-1].neurons))
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


def _allowance(network: Network, steps: int, samples: int, workers: int) -> float:
    """Compute the seconds until workers with `samples` samples each are considered stuck."""
    per_step = 0.0
    for incoming in (one for layer in network.layers for one in layer.inputs):
        kind = incoming.connections
        per_step += SECONDS_PER_LAYER_STEP
        if kind.shares:
            outputs, inputs = kind.out_shape[0], kind.in_shape[0]
            pixels = kind.n_pre // inputs
            per_step += SECONDS_PER_CONVOLVED_VALUE * kind.possible * pixels
            per_step += SECONDS_PER_LAYER_STEP * outputs * inputs / 20
        if incoming.delays is not None:  # Lava rebuilds a matrix for each of 63 delays
            per_step += SECONDS_PER_CONVOLVED_VALUE * 63 * kind.possible
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
        started.callback(_ask_to_end, running)
        while running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running[0].process.wait(min(0.1, max(0.0, end - time.monotonic())))
            for worker in running:
                worker.check_failure()
            for worker in [worker for worker in running if worker.process.poll() is not None]:
                worker.check()
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


def _ask_to_end(workers: Sequence[_Worker]) -> None:
    """Ask the processes of all workers to end at the same time."""
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGTERM)


class _Worker(contextlib.AbstractContextManager["_Worker"]):
    """A fresh interpreter in a process group of its own, which does not outlive the context."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._log = job.folder / "log.txt"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "esl_lava.simulate.lava_worker", str(job.folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=job.folder,  # `-m` puts the working folder first in the module path
            )

    def __exit__(self, *_: object) -> None:
        _end(self.process, grace=0.0 if self.process.poll() == 0 else GRACE_SECONDS)

    def check_failure(self) -> None:
        """Check whether the worker, or one of Lava's processes, has written a failure.

        Raises:
            BackendError: with the cause, if there is a failure.
        """
        with contextlib.suppress(FileNotFoundError):
            cause = (self._job.folder / "failure").read_text(errors="replace")
            raise BackendError(f"Lava failed: {cause}", "failed")

    def check(self) -> None:
        """Check a worker that has ended.

        Raises:
            BackendError: if it has failed.
        """
        self.check_failure()  # it may have failed between the last check and its end
        status = self.process.returncode
        if status != 0 or not (self._job.folder / "done").exists():
            raise BackendError(
                f"Lava failed with exit status {status}{self.last_lines()}", "failed", value=status
            )

    def last_lines(self) -> str:
        """Return the last lines of the worker's output, as a part of a sentence."""
        lines = self._log.read_text(errors="replace").splitlines()
        tail = [line for line in lines if line.strip()][-3:]
        return f"; its last output: {' | '.join(tail)}" if tail else ""


def _end(worker: subprocess.Popen[bytes], grace: float) -> None:
    """End all processes of the worker's group. Lava's children may outlive the worker.

    Python's resource tracker ignores SIGTERM. When the other processes have ended, it frees the
    shared memory that they leave in /dev/shm. It gets `grace` seconds for that.
    """
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGTERM)
            patience = time.monotonic() + grace
            while time.monotonic() < patience:
                worker.poll()
                os.killpg(worker.pid, 0)  # raises an error when the group has ended
                time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
