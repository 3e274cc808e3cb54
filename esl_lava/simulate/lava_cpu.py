"""Lava's CPU simulator behind a deadline, in fresh, killable interpreters.

Plain netx builds the network from its file. What netx cannot express and so refuses
(`netfile.beyond_netx`), we build of the same processes (`lava_builder`).

Lava must not share our process: importing it sets the multiprocessing start method, a
fault inside a process model hangs `run()` for ever, and its forks must not follow
numba's or torch's threads. So workers run there, each with a share of the samples, and
whatever happens to them becomes a result or one `BackendError`.
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
from esl_lava.simulate.lava_models import refused, too_wide
from esl_lava.simulate.lava_worker import LayerTask, Task
from esl_lava.simulate.result import Progress, Result, by_neuron, count, decide, decisive

STARTUP_SECONDS = 300.0
"""Importing Lava, and torch with it, and compiling; seconds unless a machine is crowded."""
SECONDS_PER_LAYER_STEP = 0.02
"""Allowance per step and input of a layer: ten times what a slow, shared core was seen to need."""
SECONDS_PER_CONVOLVED_VALUE = 2e-7
"""Lava convolves every pair of maps by itself and before striding; ten times what was seen."""
_logger = logging.getLogger(__name__)

GRACE_SECONDS = 3.0
"""From asking a failed worker's processes to end until they are killed."""


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
    """Run plain `lava.lib.dl.netx.hdf5.Network`, or what netx refuses; samples back to back.

    Args:
        network, inputs, record, states: as every backend's `run` (`simulate`).
        path: the netx file that the network was read from, which netx reads itself; by default
            one is written.
        sparse: use Lava's sparse synapses in fully connected layers.
        workers: interpreters among which the samples are divided; Lava starts about two
            processes for each layer, and up to two for each skip, in each of them.
        deadline: seconds until the workers are killed; by default generous for the size.
        progress: told how far the run is, a few times a second.

    Raises:
        BackendError: when Lava cannot hold the network, or fails, dies, would run other
            weights or runs past the deadline.
    """
    beyond = netfile.beyond_netx(network)
    if reasons := (*too_wide(network, inputs), *(refused(network) if beyond else ())):
        raise BackendError("; ".join(reasons))
    samples = len(inputs)
    if workers < 1:
        raise BackendError(f"{workers} workers cannot run Lava; at least 1 is needed")
    if deadline is not None and not 0 < deadline < math.inf:
        raise BackendError(
            f"a deadline of {deadline} s is not one; it has to be above 0, and finite"
        )
    ends = np.linspace(0, samples, min(workers, samples) + 1).astype(int).tolist()
    if deadline is None:
        deadline = _allowance(network, int(inputs.shape[1]), max(np.diff(ends)), len(ends) - 1)
    with tempfile.TemporaryDirectory(prefix="esl-lava-") as folder:
        if beyond:
            _logger.warning(
                "lava: netx refuses this network, so we build it of Lava's processes: %s",
                "; ".join(beyond),
            )
            path = Path(folder) / "network.pickle"
            path.write_bytes(pickle.dumps(network))
        elif path is None:
            path = Path(folder) / "net.h5"
            netfile.write(network, path)
        jobs = _jobs(Path(folder), path, network, inputs, states, sparse, ends)
        _work(jobs, deadline, progress)
        return _collected(jobs, network, inputs, record, states)


@dataclass(frozen=True)
class Job:
    """What one worker is to do.

    Attributes:
        folder: where it finds its task and leaves what it has done.
        first, last: its samples, first:last of all.
        bytes_per_sample: by which `watched` grows.
        watched: a file that tells how far it is.
    """

    folder: Path
    first: int
    last: int
    watched: str
    bytes_per_sample: int

    def finished(self) -> int:
        """How many samples are done."""
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
    """Write what the workers share, and a task for each."""
    steps = int(inputs.shape[1])
    np.save(folder / "inputs.npy", inputs)
    netx = not netfile.beyond_netx(network)
    delayed = any(given.delays is not None for layer in network.layers for given in layer.inputs)
    last = len(network.layers) - 1
    deciding = list(decisive(network.layers[last], steps))
    shared: Task = {
        "parent": os.getpid(),
        "path": str(path.resolve()),
        "netx": netx,
        "inputs": str(folder / "inputs.npy"),
        "message_bits": network.message_bits,
        # (columns, rows, channels), which netx has to be told where the file does not say it.
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
    """What a worker must know of a layer, whose `states` are asked for or decide.

    Stores the weights that the worker is to find there, where netx builds the layer.
    """
    weights, kernel = {}, None
    for name, given in (("synapse", layer.inputs[0]), ("synapse_rec", layer.recurrent)):
        connections = None if given is None or not netx else given.connections
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
    """Seconds until workers with so many samples each are taken for stuck."""
    per_step = 0.0
    for given in (given for layer in network.layers for given in layer.inputs):
        kind = given.connections
        per_step += SECONDS_PER_LAYER_STEP
        if kind.shares:
            outputs, inputs = kind.out_shape[0], kind.in_shape[0]
            pixels = kind.n_pre // inputs
            per_step += SECONDS_PER_CONVOLVED_VALUE * kind.possible * pixels
            per_step += SECONDS_PER_LAYER_STEP * outputs * inputs / 20
        if given.delays is not None:  # Lava rebuilds a matrix for each of 63 delays
            per_step += SECONDS_PER_CONVOLVED_VALUE * 63 * kind.possible
    crowding = max(1.0, workers / (os.cpu_count() or 1))
    return STARTUP_SECONDS + crowding * per_step * samples * (steps + 1)


def _collected(
    jobs: Sequence[Job],
    network: Network,
    inputs: Array,
    record: tuple[str, ...],
    states: tuple[str, ...],
) -> Result:
    """Put together what the workers wrote."""
    index = {layer.name: number for number, layer in enumerate(network.layers)}

    def whole(what: str, layer: str) -> Array:
        neurons = network.layers[index[layer]].neurons
        dtype = np.uint8 if what == "spikes" else np.int32
        values: Array = np.empty((*inputs.shape[:2], neurons), dtype)
        for job in jobs:
            part: Array = np.fromfile(job.folder / f"{what}{index[layer]}", dtype)
            values[job.first : job.last] = part.reshape(-1, *values.shape[1:])
        return values

    spikes = {
        layer.name: whole("spikes", layer.name) for layer in network.layers if layer.neuron.fires
    }
    last = network.layers[-1]
    deciding = {what: whole(what, last.name) for what in decisive(last, inputs.shape[1])}
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
    """Run a worker on each job; end the process groups of all afterwards.

    Raises:
        BackendError: with the cause that the first worker to fail has told.
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
                said = running[0].last_lines()
                raise BackendError(
                    f"Lava did not finish within {deadline:.0f} s and was stopped{said}"
                )


def _ask_to_end(workers: Sequence[_Worker]) -> None:
    """Make the processes of all of them begin to end at the same time."""
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGTERM)


class _Worker(contextlib.AbstractContextManager["_Worker"]):
    """A fresh interpreter in a process group of its own, none of which outlives the context."""

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
        """Make sure that it has told of no failure; one of Lava's processes may have.

        Raises:
            BackendError: with the cause.
        """
        with contextlib.suppress(FileNotFoundError):
            cause = (self._job.folder / "failure").read_text(errors="replace")
            raise BackendError(f"Lava failed: {cause}")

    def check(self) -> None:
        """Make sure that it has ended well.

        Raises:
            BackendError: if not.
        """
        self.check_failure()  # told between the last look and its end
        status = self.process.returncode
        if status != 0 or not (self._job.folder / "done").exists():
            raise BackendError(f"Lava failed with exit status {status}{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of what it printed, as a part of a sentence."""
        lines = self._log.read_text(errors="replace").splitlines()
        tail = [line for line in lines if line.strip()][-3:]
        return f"; it last said: {' | '.join(tail)}" if tail else ""


def _end(worker: subprocess.Popen[bytes], grace: float) -> None:
    """Leave no process of the worker's group; Lava's own children may outlive it.

    Python's resource tracker ignores SIGTERM and, once the others are gone, frees the
    shared memory they leave in /dev/shm; it gets `grace` seconds for that.
    """
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGTERM)
            patience = time.monotonic() + grace
            while time.monotonic() < patience:
                worker.poll()
                os.killpg(worker.pid, 0)  # raises when the group is gone
                time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
