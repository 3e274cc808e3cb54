"""The process in which Lava runs: `python -m esl_lava.simulate.lava_worker FOLDER`.

FOLDER holds `job.json` and `inputs.npz`; `outputs.npz` appears in it whole at the end.
The worker leads a process group of its own and ends that group when its parent dies.
Facts about lava-nc 0.10.0 and lava-dl 0.6.0 that it relies on: each layer adds one step
of latency; with `reset_interval=T, reset_offset=1` layer i is reset just as a sample's
first step reaches it, so samples follow each other without a gap; the default
configuration would run float neurons, hence `select_tag`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np


def main(job: Path) -> None:
    """Run the job in `job`; raises whatever Lava raises."""
    task = json.loads((job / "job.json").read_text())
    threading.Thread(target=_end_with, args=(task["parent"],), daemon=True).start()

    # lava-dl's remarks about absent devices would pass for the cause of a failure.
    remarks = io.StringIO()
    with contextlib.redirect_stdout(remarks), contextlib.redirect_stderr(remarks):
        from lava.lib.dl import netx
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg
        from lava.proc.io import sink as lava_sink
        from lava.proc.io import source as lava_source

    with np.load(job / "inputs.npz", allow_pickle=False) as stored:
        inputs = stored["spikes"]
    firing = task["firing"]
    samples, steps, channels = inputs.shape
    layers = len(firing)
    total = samples * steps + layers
    data = np.zeros((channels, total), np.int32)
    data[:, : samples * steps] = inputs.reshape(samples * steps, channels).T

    net = netx.hdf5.Network(net_config=task["path"], reset_interval=steps, reset_offset=1)
    if len(net.layers) != layers:
        raise RuntimeError(f"netx built {len(net.layers)} layers of {layers}")
    source = lava_source.RingBuffer(data=data)
    source.s_out.connect(net.inp)
    sinks = {}
    for index, layer in enumerate(net.layers):
        if firing[index]:
            sinks[index] = lava_sink.RingBuffer(shape=layer.out.shape, buffer=total)
            layer.out.connect(sinks[index].a_in)

    config = Loihi2SimCfg(select_tag="fixed_pt")
    outputs = {}
    if firing[-1]:
        net.run(condition=RunSteps(num_steps=total), run_cfg=config)
    else:
        # Only between runs can a membrane be read: the readout goes step by step.
        net.run(condition=RunSteps(num_steps=layers), run_cfg=config)
        voltage = net.layers[-1].neuron.v
        readout = np.empty((samples * steps, *net.layers[-1].out.shape), np.int32)
        for t in range(samples * steps):
            net.run(condition=RunSteps(num_steps=1), run_cfg=config)
            readout[t] = voltage.get()
        outputs["readout"] = readout.reshape(samples, steps, -1)
    for slot, (index, sink) in enumerate(sinks.items()):
        # Layer i sees the sample's step t at step t + i + 1.
        seen = sink.data.get()[..., index + 1 : index + 1 + samples * steps]
        flat = seen.reshape(-1, samples * steps).T
        outputs[f"spikes{slot}"] = flat.astype(np.uint8).reshape(samples, steps, -1)
    net.stop()
    unfinished = job / "unfinished.npz"
    np.savez(unfinished, **outputs)
    unfinished.rename(job / "outputs.npz")


def _end_with(parent: int) -> None:
    """End this process group once its parent is gone, however that died."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpid(), signal.SIGTERM)  # not SIGKILL: see `lava_cpu._end`


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except BaseException:
        # Leaving orderly would wait for Lava's processes, for ever once one has failed.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
