"""The process in which Lava runs: `python -m esl_lava.simulate.lava_worker FOLDER`.

FOLDER holds `job.json`, which `lava_cpu` writes. The worker writes the spikes and states of layers
into files of FOLDER. At the end it writes `done`, or `failure` with the cause in one sentence. The
worker leads a process group of its own, and ends that group when its parent dies. It relies on
these facts about lava-nc 0.10.0 and lava-dl 0.6.0:

- Each layer adds one step of latency. An input block adds none, but an injected value acts one
  step later. With `reset_interval=T, reset_offset=1` layer i is reset exactly when a sample's first
  step reaches it, so samples follow each other without a gap.
- That reset does not clear the buffers of synapses. For recurrent synapses and synapses with
  delays, a Reset process clears them at the end of the step before. A layer with delays still
  needs its buffer in that step, so networks with delays get a blank step between samples.
- The default configuration would run float neurons, hence `select_tag`.
- Reading and writing variables is exact in the management phase at the end of a step, but not in
  the spiking phase.
- If a process model raises an error while it runs, Lava waits for ever and prints nothing. If it
  raises an error while it is built, Lava reports only "1 Exception(s) occurred".
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable
from functools import wraps
from operator import attrgetter
from pathlib import Path
from typing import Any, ParamSpec, TypedDict, TypeVar

from esl_lava.simulate import lava_builder
from esl_lava.simulate.lava_builder import Group, connect_reset

P = ParamSpec("P")
T = TypeVar("T")

PHASES = ("_spike", "_pre_mgmt", "_lrn", "_post_mgmt", "_host")
"""The phases of a process model that the runtime calls (lava-nc 0.10.0, PyLoihiProcessModel)."""


class LayerTask(TypedDict):
    """The task of a worker for one layer.

    `states` are the variables to record. `spikes` says whether to record the layer's spikes. The
    weights that netx built are compared with `weights` (name of the synapse -> file) and `kernel`
    (file).
    """

    name: str
    spikes: bool
    states: list[str]
    recurrent: bool
    delayed: bool
    weights: dict[str, str]
    kernel: str | None


class Task(TypedDict):
    """The contents of `job.json`.

    The worker runs the samples `first`:`last` of the file `inputs`. A sample has `steps` steps, and
    begins `interval` steps after the one before. `path` is the netx file that plain netx builds,
    or the pickled network that `lava_builder` builds.
    """

    parent: int
    path: str
    netx: bool
    inputs: str
    message_bits: int
    input_shape: list[int] | None
    injected: bool
    steps: int
    interval: int
    sparse: bool
    layers: list[LayerTask]
    first: int
    last: int


class NetworkMismatchError(Exception):
    """netx built another network than the file describes. The message is for the user."""


def main(job: Path) -> None:
    """Run the job in the folder `job`. All exceptions of Lava pass through."""
    task: Task = json.loads((job / "job.json").read_text())
    threading.Thread(target=_end_with, args=(task["parent"],), daemon=True).start()

    # Otherwise remarks of netx on weights, and of lava-dl on absent devices, would look like the
    # cause of a failure.
    remarks = io.StringIO()
    with contextlib.redirect_stdout(remarks), contextlib.redirect_stderr(remarks):
        network, groups = _build_by_netx(task, job) if task["netx"] else _build_by_us(task)
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg

    _report_failures(groups, task["layers"], job)
    _record(groups, task, job)
    steps = (task["last"] - task["first"]) * task["interval"] + len(groups)
    network.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    network.stop()
    (job / "done").touch()


def _build_by_netx(task: Task, job: Path) -> tuple[Any, list[Group]]:
    """Build the file with plain netx, and connect input and resets.

    Returns:
        The network's process, and the processes of each layer.

    Raises:
        NetworkMismatchError: if netx built another network than the file describes.
    """
    _skip_slayer()
    from lava.lib.dl import netx

    from esl_lava.simulate.lava_processes.streams import Injector, Player

    interval = task["interval"]
    net = netx.hdf5.Network(
        net_config=task["path"],
        input_message_bits=task["message_bits"],
        input_shape=task["input_shape"] and tuple(task["input_shape"]),
        reset_interval=interval,
        reset_offset=1,
        sparse_fc_layer=task["sparse"],
    )
    if len(net.layers) != len(task["layers"]):
        raise NetworkMismatchError(
            f"netx built {len(net.layers)} layers, but the file has {len(task['layers'])}"
        )
    if task["injected"]:
        Injector(variable=net.in_layer.neuron.bias_mant, **_player_parameters(task))
    else:
        Player(shape=net.inp.shape, **_player_parameters(task)).s_out.connect(net.inp)
    groups = []
    for index, (layer, layer_task) in enumerate(zip(net.layers, task["layers"])):
        _check_weights(layer, layer_task, job)
        if layer_task["recurrent"]:
            connect_reset(layer.synapse_rec, index, interval)
        if layer_task["delayed"]:
            connect_reset(layer.synapse, index - 1, interval)
        named = [name for name in ("synapse", "synapse_rec") if hasattr(layer, name)]
        synapses = tuple(getattr(layer, name) for name in named)
        groups.append(Group(layer.neuron, layer.out, synapses))
    return net, groups


def _build_by_us(task: Task) -> tuple[Any, list[Group]]:
    """Build a network that netx cannot build.

    Returns:
        One of the network's processes, through which Lava runs all of them, and the processes of
        each layer.
    """
    network = pickle.loads(Path(task["path"]).read_bytes())
    groups = lava_builder.build(network, _player_parameters(task), task["sparse"])
    return groups[0].neurons, groups


def _player_parameters(task: Task) -> dict[str, Any]:
    """Return the parameters of the process that sends the samples."""
    return {"path": task["inputs"], **{key: task[key] for key in ("first", "last", "interval")}}


def write_failure(job: Path, sentence: str) -> None:
    """Write the cause of a failure for `lava_cpu`. The first cause stays.

    A process may fail more than once. Each time it writes a new file, because writing to the first
    file again would empty it for a moment while `lava_cpu` may read it.
    """
    handle, written = tempfile.mkstemp(prefix="failure.", dir=job)
    with os.fdopen(handle, "w") as file:
        file.write(" ".join(sentence.split()))
    with contextlib.suppress(FileExistsError):
        os.link(written, job / "failure")  # the file appears with its whole text


def _describe(error: BaseException) -> str:
    """Return an error as text, with its type unless the message is for the user."""
    if isinstance(error, NetworkMismatchError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _report_failures(groups: list[Group], layers: list[LayerTask], job: Path) -> None:
    """Make every process model write the errors that it raises, with the name of its layer.

    Lava forks its processes, so they inherit the functions that are wrapped here.
    """
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.runtime import runtime

    owners = {}
    for group, task in zip(groups, layers):
        owners[group.neurons.id] = f"neurons of layer {task['name']}"
        for synapse in group.synapses:
            owners[synapse.id] = f"synapses of layer {task['name']}"

    def reporting(run: Callable[P, T], number: Callable[P, int | None]) -> Callable[P, T]:
        @wraps(run)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return run(*args, **kwargs)
            except Exception as error:
                owner = owners.get(number(*args, **kwargs), "a process of Lava")
                write_failure(job, f"{owner}: {_describe(error)}")
                raise

        return wrapper

    for phase in PHASES:
        run = getattr(PyLoihiProcessModel, phase)
        setattr(PyLoihiProcessModel, phase, reporting(run, attrgetter("model_id")))

    def number_of_builder(*_: object, **kwargs: object) -> int | None:
        return getattr(kwargs.get("builder"), "_model_id", None)

    # Lava forks with this function. The number of a model is that of its builder.
    runtime.target_fn = reporting(runtime.target_fn, number_of_builder)


def _skip_slayer() -> None:
    """Let netx import without SLAYER and its dependencies, which take half of a worker's start.

    netx uses only one function of SLAYER, for resonate-and-fire neurons, which no network of
    esl-lava has.
    """
    module = types.ModuleType("lava.lib.dl.slayer.neuron.rf")
    module.neuron_params = None  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def _record(groups: list[Group], task: Task, job: Path) -> None:
    """Connect the processes that write spikes and states to files."""
    from esl_lava.simulate.lava_processes.streams import Probe, Recorder

    for index, (group, layer_task) in enumerate(zip(groups, task["layers"])):
        parameters = {
            "layer": index,
            "samples": task["last"] - task["first"],
            "steps": task["steps"],
            "interval": task["interval"],
        }
        if layer_task["spikes"]:
            path = str(job / f"spikes{index}")
            recorder = Recorder(shape=group.spikes.shape, path=path, dtype="uint8", **parameters)
            group.spikes.connect(recorder.a_in)
        for name in layer_task["states"]:
            path = str(job / f"{name}{index}")
            Probe(variable=getattr(group.neurons, name), path=path, dtype="int32", **parameters)


def _check_weights(layer: Any, task: LayerTask, job: Path) -> None:
    """Compare the weights that Lava will use with the weights of the file.

    netx and Lava's models treat the sign of some matrices differently (all weights at most 0, the
    least a power of two), and silently clip weights outside -256..254.

    Raises:
        NetworkMismatchError: with the layer and the first weight that differs.
    """
    import numpy as np
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    for name in task["weights"]:
        synapse = getattr(layer, name)
        weights = synapse.weights.init
        weights = weights if isinstance(weights, np.ndarray) else weights.toarray()
        sign = determine_sign_mode(weights)
        bits, exponent = (synapse.proc_params[key] for key in ("num_weight_bits", "weight_exp"))
        weights = truncate_weights(clip_weights(weights, sign, num_bits=8), sign, bits)
        weights = weights << exponent if exponent > 0 else weights >> -exponent
        intended = np.load(job.parent / task["weights"][name], mmap_mode="r")
        wrong = np.argwhere(weights != intended)
        if wrong.size:
            post, pre = wrong[0]
            raise NetworkMismatchError(
                f"layer {task['name']}: Lava would run weight {weights[post, pre]} instead of "
                f"{intended[post, pre]} from input {pre} to neuron {post}"
            )
    if task["kernel"] is not None:
        # netx flips torch's kernels (lava/lib/dl/netx/hdf5.py, create_conv).
        kernel = layer.synapse.weight.init.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1]
        intended = np.load(job.parent / task["kernel"])
        if not np.array_equal(kernel, intended):
            raise NetworkMismatchError(
                f"layer {task['name']}: Lava would run another kernel than that of the file"
            )


def _end_with(parent: int) -> None:
    """End this process group when its parent has ended for whatever reason."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpid(), signal.SIGTERM)  # not SIGKILL: see `lava_cpu._end`


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except BaseException as error:
        # A normal exit would wait for Lava's processes, for ever if one of them has failed.
        write_failure(Path(sys.argv[1]), _describe(error))
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
