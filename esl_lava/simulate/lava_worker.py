"""The process in which Lava runs: `python -m esl_lava.simulate.lava_worker FOLDER`.

FOLDER holds `job.json`, written by `lava_cpu`; what layers do appears in files of it, and
at the end `done`, or `failure` with the cause in one sentence. The worker leads a process
group of its own and ends that group when its parent dies. It relies on these facts about
lava-nc 0.10.0 and lava-dl 0.6.0:

- Each layer adds one step of latency, an input block none, but what drives it acts one
  step later. With `reset_interval=T, reset_offset=1` layer i is reset just as a sample's
  first step reaches it, so samples follow each other without a gap.
- That reset leaves alone what is under way in synapses. For recurrent ones and those with
  delays, a Reset process clears it at the end of the step before; a layer with delays
  still needs it in that step, so networks with delays get a blank step between samples.
- The default configuration would run float neurons, hence `select_tag`.
- Writing and reading in the management phase at the end of a step is exact, in the phase
  of spikes it is not.
- What a process model raises while it runs makes Lava wait for ever, and prints nothing;
  what it raises while it is built becomes "1 Exception(s) occurred".
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
from esl_lava.simulate.lava_builder import Group, forget

P = ParamSpec("P")
T = TypeVar("T")

PHASES = ("_spike", "_pre_mgmt", "_lrn", "_post_mgmt", "_host")
"""What the runtime has a process model do (lava-nc 0.10.0, PyLoihiProcessModel)."""


class LayerTask(TypedDict):
    """What a worker must know of a layer.

    `states` are the variables to record, `spikes` says whether the layer's spikes are. What
    netx built is compared with `weights` (name of its synapse -> file) and `kernel` (file).
    """

    name: str
    spikes: bool
    states: list[str]
    recurrent: bool
    delayed: bool
    weights: dict[str, str]
    kernel: str | None


class Task(TypedDict):
    """`job.json`: samples `first`:`last` of `inputs`, each of `steps`, `interval` apart.

    `path` is of the netx file that plain netx builds, or of the pickled network that we do.
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


class UnlikeFileError(Exception):
    """What netx made of the file is not what we read; the message is for the user."""


def main(job: Path) -> None:
    """Run the job in `job`; raises whatever Lava raises."""
    task: Task = json.loads((job / "job.json").read_text())
    threading.Thread(target=_end_with, args=(task["parent"],), daemon=True).start()

    # What netx says of weights, and lava-dl of absent devices, would pass for the cause of a
    # failure.
    remarks = io.StringIO()
    with contextlib.redirect_stdout(remarks), contextlib.redirect_stderr(remarks):
        network, groups = _by_netx(task, job) if task["netx"] else _by_us(task)
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg

    _tell_of_failures(groups, task["layers"], job)
    _record(groups, task, job)
    steps = (task["last"] - task["first"]) * task["interval"] + len(groups)
    network.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    network.stop()
    (job / "done").touch()


def _by_netx(task: Task, job: Path) -> tuple[Any, list[Group]]:
    """What plain netx makes of the file, input and resets connected: its process, the layers.

    Raises:
        UnlikeFileError: where that is not what we read.
    """
    _spare_slayer()
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
        raise UnlikeFileError(f"netx built {len(net.layers)} layers of {len(task['layers'])}")
    if task["injected"]:
        Injector(variable=net.in_layer.neuron.bias_mant, **_played(task))
    else:
        Player(shape=net.inp.shape, **_played(task)).s_out.connect(net.inp)
    groups = []
    for index, (layer, wanted) in enumerate(zip(net.layers, task["layers"])):
        _check_weights(layer, wanted, job)
        if wanted["recurrent"]:
            forget(layer.synapse_rec, index, interval)
        if wanted["delayed"]:
            forget(layer.synapse, index - 1, interval)
        named = [name for name in ("synapse", "synapse_rec") if hasattr(layer, name)]
        synapses = tuple(getattr(layer, name) for name in named)
        groups.append(Group(layer.neuron, layer.out, synapses))
    return net, groups


def _by_us(task: Task) -> tuple[Any, list[Group]]:
    """What we build where netx cannot: a process of the network, the layers."""
    network = pickle.loads(Path(task["path"]).read_bytes())
    groups = lava_builder.build(network, _played(task), task["sparse"])
    return groups[0].neurons, groups


def _played(task: Task) -> dict[str, Any]:
    """Parameters of what plays the samples."""
    return {"path": task["inputs"], **{key: task[key] for key in ("first", "last", "interval")}}


def tell_failure(job: Path, sentence: str) -> None:
    """Leave the cause of a failure for `lava_cpu`; the first one stays.

    A process may fail more than once. Each time it writes a file of its own: to write the first
    one again would empty, for a moment, what `lava_cpu` reads.
    """
    handle, written = tempfile.mkstemp(prefix="failure.", dir=job)
    with os.fdopen(handle, "w") as file:
        file.write(" ".join(sentence.split()))
    with contextlib.suppress(FileExistsError):
        os.link(written, job / "failure")  # appears with all that is in it


def _described(error: BaseException) -> str:
    """An error in words: its type too, but where the message is for the user."""
    if isinstance(error, UnlikeFileError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _tell_of_failures(groups: list[Group], layers: list[LayerTask], job: Path) -> None:
    """Have every process model tell what it raises, and of which layer it is.

    Lava forks its processes, which so inherit what is wrapped here.
    """
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.runtime import runtime

    owners = {}
    for group, wanted in zip(groups, layers):
        owners[group.neurons.id] = f"neurons of layer {wanted['name']}"
        for synapse in group.synapses:
            owners[synapse.id] = f"synapses of layer {wanted['name']}"

    def telling(run: Callable[P, T], number: Callable[P, int | None]) -> Callable[P, T]:
        @wraps(run)
        def told(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return run(*args, **kwargs)
            except Exception as error:
                owner = owners.get(number(*args, **kwargs), "a process of Lava's")
                tell_failure(job, f"{owner}: {_described(error)}")
                raise

        return told

    for phase in PHASES:
        run = getattr(PyLoihiProcessModel, phase)
        setattr(PyLoihiProcessModel, phase, telling(run, attrgetter("model_id")))

    def number_of_builder(*_: object, **kwargs: object) -> int | None:
        return getattr(kwargs.get("builder"), "_model_id", None)

    # Lava forks with this function; a model's number is its builder's.
    runtime.target_fn = telling(runtime.target_fn, number_of_builder)


def _spare_slayer() -> None:
    """Let netx import without SLAYER and all it needs, half of a worker's start.

    netx takes one function from there, for resonate-and-fire neurons, which no network of
    ours has.
    """
    module = types.ModuleType("lava.lib.dl.slayer.neuron.rf")
    module.neuron_params = None  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def _record(groups: list[Group], task: Task, job: Path) -> None:
    """Connect what writes spikes and states to files."""
    from esl_lava.simulate.lava_processes.streams import Probe, Recorder

    for index, (group, wanted) in enumerate(zip(groups, task["layers"])):
        written = {
            "layer": index,
            "samples": task["last"] - task["first"],
            "steps": task["steps"],
            "interval": task["interval"],
        }
        if wanted["spikes"]:
            path = str(job / f"spikes{index}")
            recorder = Recorder(shape=group.spikes.shape, path=path, dtype="uint8", **written)
            group.spikes.connect(recorder.a_in)
        for name in wanted["states"]:
            path = str(job / f"{name}{index}")
            Probe(variable=getattr(group.neurons, name), path=path, dtype="int32", **written)


def _check_weights(layer: Any, wanted: LayerTask, job: Path) -> None:
    """Compare the weights a layer will use with those it should.

    netx and Lava's models disagree about the sign of some matrices (all weights at most 0,
    the least a power of two), and clip weights beyond -256..254, without a word.

    Raises:
        UnlikeFileError: naming the layer and the first weight that differs.
    """
    import numpy as np
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    for name in wanted["weights"]:
        synapse = getattr(layer, name)
        held = synapse.weights.init
        held = held if isinstance(held, np.ndarray) else held.toarray()
        sign = determine_sign_mode(held)
        bits, exponent = (synapse.proc_params[key] for key in ("num_weight_bits", "weight_exp"))
        held = truncate_weights(clip_weights(held, sign, num_bits=8), sign, bits)
        held = held << exponent if exponent > 0 else held >> -exponent
        intended = np.load(job.parent / wanted["weights"][name], mmap_mode="r")
        wrong = np.argwhere(held != intended)
        if wrong.size:
            post, pre = wrong[0]
            raise UnlikeFileError(
                f"layer {wanted['name']}: Lava would run weight {held[post, pre]} instead of "
                f"{intended[post, pre]} from input {pre} to neuron {post}"
            )
    if wanted["kernel"] is not None:
        # netx turns torch's kernels over (lava/lib/dl/netx/hdf5.py, create_conv).
        held = layer.synapse.weight.init.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1]
        intended = np.load(job.parent / wanted["kernel"])
        if not np.array_equal(held, intended):
            raise UnlikeFileError(f"layer {wanted['name']}: Lava would run another kernel")


def _end_with(parent: int) -> None:
    """End this process group once its parent is gone, however that died."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpid(), signal.SIGTERM)  # not SIGKILL: see `lava_cpu._end`


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except BaseException as error:
        # Leaving orderly would wait for Lava's processes, for ever once one has failed.
        tell_failure(Path(sys.argv[1]), _described(error))
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
