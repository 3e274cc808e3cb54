"""Lava's CPU simulator behind a deadline: plain netx in a fresh, killable interpreter.

Lava must not share our process: importing it sets the multiprocessing start method, a
fault inside a process model hangs `run()` for ever, and its forks must not follow
numba's or torch's threads. So a worker runs there, and whatever happens to it becomes a
result or one `BackendError`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from esl_lava import netfile
from esl_lava.errors import BackendError
from esl_lava.network import Network
from esl_lava.simulate.result import Result, Spikes, count, decide

STARTUP_SECONDS = 120.0
SECONDS_PER_LAYER_STEP = 0.02
"""Allowance per step and layer: ten times what a slow, shared core was seen to need."""
SECONDS_PER_RECORDED_VALUE = 2e-4
"""Reading a value out of Lava is one message, 12-20 us; again ten times that."""
GRACE_SECONDS = 3.0
"""From asking a failed worker's processes to end until they are killed."""


def run(network: Network, inputs: Spikes, record: tuple[str, ...]) -> Result:
    """Write the network as netx HDF5 and run that file; see `run_file`."""
    with tempfile.TemporaryDirectory(prefix="esl-lava-") as folder:
        path = Path(folder) / "net.h5"
        netfile.write(network, path)
        return run_file(path, network, inputs, record)


def run_file(
    path: Path,
    network: Network,
    inputs: Spikes,
    record: tuple[str, ...],
    deadline: float | None = None,
) -> Result:
    """Run `path` in plain `lava.lib.dl.netx.hdf5.Network`, samples back to back.

    Args:
        path: a netx file; Lava reads it itself.
        network: what `netfile.read(path)` returned: names, sizes and fan-outs.
        inputs: (samples, T, inputs) uint8 of 0 and 1.
        record: names of firing layers whose spikes to return.
        deadline: seconds until the worker is killed; by default generous for the size.

    Raises:
        BackendError: when Lava fails, dies or runs past the deadline.
    """
    samples, steps = inputs.shape[:2]
    firing = [layer.name for layer in network.layers if layer.neuron.fires]
    if deadline is None:
        values = samples * steps * sum(layer.neurons for layer in network.layers)
        deadline = (
            STARTUP_SECONDS
            + SECONDS_PER_LAYER_STEP * samples * steps * len(network.layers)
            + SECONDS_PER_RECORDED_VALUE * values
        )
    with tempfile.TemporaryDirectory(prefix="esl-lava-") as folder:
        job = Path(folder)
        np.savez(job / "inputs.npz", spikes=inputs)
        (job / "job.json").write_text(
            json.dumps(
                {
                    "parent": os.getpid(),
                    "path": str(path.resolve()),
                    "firing": [layer.neuron.fires for layer in network.layers],
                }
            )
        )
        _work(job, deadline)
        with np.load(job / "outputs.npz", allow_pickle=False) as outputs:
            spikes = {name: outputs[f"spikes{i}"] for i, name in enumerate(firing)}
            readout = outputs["readout"] if network.readout is not None else None
    last = spikes.get(network.layers[-1].name)
    return Result(
        spikes={name: spikes[name] for name in record},
        readout=readout,
        decisions=decide(readout, last),
        counts=count(network, inputs, spikes),
    )


def _work(job: Path, deadline: float) -> None:
    """Run the worker on the job's folder; end its whole process group afterwards.

    Raises:
        BackendError: with the last lines the worker printed.
    """
    log = job / "log.txt"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "esl_lava.simulate.lava_worker", str(job)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=job,  # `-m` puts the working folder first in the module path
        )
        status: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = worker.wait(deadline)
            said = _last_lines(log)
        finally:
            _end(worker, grace=0.0 if status == 0 else GRACE_SECONDS)
    if status == 0 and (job / "outputs.npz").exists():
        return
    if status is None:
        raise BackendError(f"Lava did not finish within {deadline:.0f} s and was stopped{said}")
    raise BackendError(f"Lava failed with exit status {status}{said}")


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


def _last_lines(log: Path) -> str:
    """The end of what the worker printed, as a part of a sentence."""
    tail = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-3:]
    return f"; it last said: {' | '.join(tail)}" if tail else ""
