"""The process in which Lava runs: `python -m esl_lava.simulate.lava_worker FOLDER PIPE`.

FOLDER holds `job.json`, which `lava_cpu` writes. The worker writes the spikes and states of layers
into files of FOLDER, which is also its working folder and its TMPDIR. It reports to the descriptor
PIPE (`lava_watch`): its processes, a failure with the cause in one sentence, that all steps have
run, and that it is done. The worker leads a process group of its own, and ends that group when its
parent dies. It relies on these facts about lava-nc 0.10.0 and lava-dl 0.6.0:

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
- If one of its processes ends otherwise, is stopped or does not go on, Lava waits for ever too.
- A channel between processes is a file in /dev/shm. Python gives it its size but no memory: if
  there is none, the first process that writes there is killed (SIGBUS).
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import math
import os
import pickle
import secrets
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Mapping
from functools import wraps
from multiprocessing import process, resource_tracker, shared_memory
from pathlib import Path
from typing import Any, ParamSpec, TypedDict, TypeVar

from esl_lava.errors import BackendError
from esl_lava.simulate import lava_builder
from esl_lava.simulate.lava_builder import Group, connect_reset
from esl_lava.simulate.lava_guard import SHARED_MEMORY
from esl_lava.simulate.lava_watch import free_bytes, lacks_room, no_room, send

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


def main(job: Path, pipe: int) -> None:
    """Run the job in the folder `job`. All exceptions of Lava pass through."""
    task: Task = json.loads((job / "job.json").read_text())
    threading.Thread(target=_end_with, args=(task["parent"],), daemon=True).start()
    _name_shared_memory(job.parent.name)
    resource_tracker.ensure_running()
    tracker = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    send(pipe, {"pid": tracker, "name": "Python's resource tracker", "vital": False})

    # Otherwise remarks of netx on weights, and of lava-dl on absent devices, would look like the
    # cause of a failure.
    remarks = io.StringIO()
    with contextlib.redirect_stdout(remarks), contextlib.redirect_stderr(remarks):
        network, groups = _build_by_netx(task, job) if task["netx"] else _build_by_us(task)
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg

    owners = _record(groups, task, job)
    _report_processes(owners, job, pipe)
    steps = (task["last"] - task["first"]) * task["interval"] + len(groups)
    network.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    send(pipe, {"ran": True})
    network.stop()
    send(pipe, {"done": True})


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


def _name_shared_memory(run: str) -> None:
    """Let all names of this run in /dev/shm begin with the name of the run.

    `lava_guard` removes these files. Python's resource tracker removes them too, unless it is
    killed. Sockets lie in the working folder, because a path of a socket has at most 107 bytes.
    """
    settings = process.current_process()._config  # type: ignore[attr-defined]
    settings.update(tempdir=".", semprefix=f"/{run}")
    shared_memory._make_filename = (  # type: ignore[attr-defined]
        lambda: f"/{run}-{secrets.token_hex(6)}"
    )


def _reserve_shared_memory(runtime: Any) -> None:
    """Refuse a run that lacks room in /dev/shm, and take the memory of each channel at its start.

    Raises (the functions that are wrapped):
        BackendError: if there is no room.
    """
    import numpy as np

    what = "Lava's channels"
    page = os.sysconf("SC_PAGE_SIZE")
    build, create = runtime.Runtime._build_channels, shared_memory.SharedMemory.__init__

    def checking(self: Any) -> None:
        ports = [
            getattr(builder, "src_port_initializer", None) or builder.port_initializer
            for builder in (
                *(self._executable.channel_builders or ()),
                *(self._executable.sync_channel_builders or ()),
            )
        ]
        sizes = [math.prod(p.shape) * np.dtype(p.d_type).itemsize * p.size for p in ports]
        needed = sum(-(-size // page) * page for size in sizes)
        if needed > free_bytes(SHARED_MEMORY):
            raise no_room(SHARED_MEMORY, what, needed)
        build(self)

    def reserving(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        try:
            os.posix_fallocate(self._fd, 0, self.size)
        except OSError as error:
            if not lacks_room(error):
                raise
            raise no_room(SHARED_MEMORY, what, self.size) from None

    runtime.Runtime._build_channels = checking
    shared_memory.SharedMemory.__init__ = reserving  # type: ignore[method-assign]


def _describe(error: BaseException, owner: str = "", layer: str | None = None) -> dict[str, Any]:
    """Return the report of an error, with its type unless the message is for the user."""
    if isinstance(error, BackendError):
        return error.faults[0].as_json()
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, NetworkMismatchError):
        text = str(error)
    sentence = " ".join(f"Lava failed: {owner}{text}".split())
    return {"sentence": sentence, "code": "failed", "layer": layer}


def _report_processes(owners: Mapping[int | None, tuple[str, str]], job: Path, pipe: int) -> None:
    """Make every process of Lava report itself and the errors that it raises.

    Lava forks its processes, so they inherit the functions that are wrapped here.

    Args:
        owners: number of a process model -> what it is, and its layer.
        job: the folder in which processes write where they are when they get SIGUSR1.
        pipe: the pipe for the reports.
    """
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.runtime import runtime
    from lava.magma.runtime.message_infrastructure.shared_memory_manager import SharedMemoryManager

    _reserve_shared_memory(runtime)
    begin = SharedMemoryManager.start

    def owner_of(number: int | None, kind: type) -> tuple[str, str | None]:
        if number not in owners:
            return f"Lava's process {kind.__name__}", None
        what, layer = owners[number]
        return f"{what} of layer {layer}", layer

    def reporting(
        run: Callable[P, T], find: Callable[P, tuple[str, str | None]], start: bool = False
    ) -> Callable[P, T]:
        @wraps(run)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                if start:
                    name, layer = find(*args, **kwargs)
                    file = (job / f"stack{os.getpid()}").open("w")
                    faulthandler.register(signal.SIGUSR1, file, all_threads=False)
                    send(pipe, {"pid": os.getpid(), "name": name, "layer": layer, "model": True})
                return run(*args, **kwargs)
            except BaseException as error:
                name, layer = find(*args, **kwargs)
                send(pipe, _describe(error, f"{name}: ", layer))
                raise

        return wrapper

    def owner_of_model(model: Any) -> tuple[str, str | None]:
        return owner_of(model.model_id, type(model))

    def owner_of_builder(*_: object, builder: Any, **__: object) -> tuple[str, str | None]:
        kind = getattr(builder, "proc_model", None) or builder.rs_class
        return owner_of(getattr(builder, "_model_id", None), kind)

    def start_manager(self: Any) -> None:
        begin(self)
        name = "Lava's manager of shared memory"
        send(pipe, {"pid": self._manager._process.pid, "name": name, "vital": False})

    for phase in PHASES:
        run = getattr(PyLoihiProcessModel, phase)
        setattr(PyLoihiProcessModel, phase, reporting(run, owner_of_model))
    # Lava forks with this function. The number of a model is that of its builder.
    runtime.target_fn = reporting(runtime.target_fn, owner_of_builder, start=True)
    SharedMemoryManager.start = start_manager
    # It would take the exit codes of ended processes before `lava_watch` has seen them.
    process._cleanup = lambda: None  # type: ignore[attr-defined]


def _skip_slayer() -> None:
    """Let netx import without SLAYER and its dependencies, which take half of a worker's start.

    netx uses only one function of SLAYER, for resonate-and-fire neurons, which no network of
    esl-lava has.
    """
    module = types.ModuleType("lava.lib.dl.slayer.neuron.rf")
    module.neuron_params = None  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def _record(groups: list[Group], task: Task, job: Path) -> dict[int | None, tuple[str, str]]:
    """Connect the processes that write spikes and states to files.

    Returns:
        Number of each process that belongs to a layer -> what it is, and the name of the layer.
    """
    from esl_lava.simulate.lava_processes.streams import Probe, Recorder

    owners: dict[int | None, tuple[str, str]] = {}
    for index, (group, layer_task) in enumerate(zip(groups, task["layers"])):
        parameters = {
            "layer": index,
            "samples": task["last"] - task["first"],
            "steps": task["steps"],
            "interval": task["interval"],
        }
        processes = {"neurons": [group.neurons], "synapses": [*group.synapses], "recorder": []}
        if layer_task["spikes"]:
            path = str(job / f"spikes{index}")
            recorder = Recorder(shape=group.spikes.shape, path=path, dtype="uint8", **parameters)
            group.spikes.connect(recorder.a_in)
            processes["recorder"].append(recorder)
        for name in layer_task["states"]:
            path = str(job / f"{name}{index}")
            variable = getattr(group.neurons, name)
            probe = Probe(variable=variable, path=path, dtype="int32", **parameters)
            processes["recorder"].append(probe)
        for what, members in processes.items():
            owners.update({member.id: (what, layer_task["name"]) for member in members})
    return owners


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
                f"layer {task['name']}: Lava would run a convolution with other weights than those "
                "of the file"
            )


def _end_with(parent: int) -> None:
    """End this process group when its parent has ended for whatever reason."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except BaseException as error:
        # A normal exit would wait for Lava's processes, for ever if one of them has failed.
        send(int(sys.argv[2]), _describe(error))
        with contextlib.suppress(OSError):  # the disk may be full
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)
    os._exit(0)
