"""Proof that training, file and simulators agree: integer by integer, then spike for spike.

First every integer of `net.h5` is held against what `model.pt` lowers to: samples reach only
some of them. Then spikes are compared. The reference is stock SLAYER, run from `model.pt`; no
simulator is compared with itself.
Where neurons fire once, training has exact times, and the chip a grid: the exact simulator is
compared with training by firing times (`firing_times`), other simulators with it by spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from esl_lava import modelfile, netfile
from esl_lava.chip import STATE_SHIFT, WEIGHT_SCALE
from esl_lava.config import from_toml
from esl_lava.errors import BackendError, FileError
from esl_lava.experiments.evaluate import encoded, load_samples
from esl_lava.experiments.export import lowered
from esl_lava.experiments.firing_times import compare
from esl_lava.experiments.integers import compare_integers
from esl_lava.models.build import densified, restore
from esl_lava.models.mlp import SpikingMLP
from esl_lava.models.single_spike import SingleSpikeMLP
from esl_lava.network import Connections, Network
from esl_lava.results.verification import (
    Difference,
    IntegerComparison,
    IntegerDifference,
    LayerTimes,
    State,
    TimeDifference,
    Verification,
)
from esl_lava.simulate import Result, backend_options, lava_cpu, simulate

Show = Callable[[str, int, int], None]
"""Told a backend, and how many samples it has finished of how many."""

Layers = dict[str, npt.NDArray[np.int64]]

BACKENDS = ("exact", "lava-models", "lava")
"""All that need no chip."""

VERIFIED_SAMPLES = 20
"""Compared where nobody says how many."""


def verify(
    model_path: Path,
    net_path: Path,
    dataset: str | None = None,
    samples: int | None = None,
    backends: tuple[str, ...] = BACKENDS,
    workers: int | None = None,
    show: Show | None = None,
) -> Verification:
    """Compare training as in `model_path` with simulators run from `net_path`.

    Lava reads the file itself, through plain netx. Samples and their encoding are those
    the model was trained on, unless `dataset` names others.

    Args:
        model_path: a trained model.
        net_path: what was exported of it.
        dataset: whose test split to use.
        samples: how many of its first; by default `VERIFIED_SAMPLES`, or all where there are fewer.
        backends: the simulators.
        workers: interpreters that run Lava at the same time; by default 1.
        show: told backend and progress.

    Raises:
        FileError: when a file cannot be read, or one was not exported from the other.
        DataError, BackendError: as `simulate`; where workers are given, but no backend has any.
    """
    if workers is not None and not any("workers" in backend_options(b) for b in backends):
        raise BackendError(f"{workers} workers, but no backend among {', '.join(backends)} has any")
    network = netfile.read(net_path)
    saved = densified(modelfile.read(model_path))  # as stock SLAYER takes it
    model = restore(saved)
    _check_same_shape(model, network, net_path)
    exported = lowered(model_path)
    integers = _integers(saved, exported, network)
    # Samples are presented as the model says; a file that says otherwise has been named.
    network = replace(network, steps=saved.config.encoding.steps)
    name = saved.config.data.name if dataset is None else dataset
    data = load_samples(network, name, "test", samples, VERIFIED_SAMPLES)
    spikes = encoded(data, saved.config.encoding)
    found, not_run = {}, {}
    for backend in dict.fromkeys(backends):
        options: dict[str, Any] = {}
        if workers is not None and "workers" in backend_options(backend):
            options["workers"] = workers
        if show is not None and "progress" in backend_options(backend):
            options["progress"] = partial(show, backend)
        try:
            found[backend] = _layers(network, _run(backend, net_path, network, spikes, **options))
        except BackendError as error:
            if not integers.total:
                raise
            not_run[backend] = str(error)  # a wrong file may be one that nothing can run
    first: Difference | TimeDifference | None = None
    times: tuple[LayerTimes, ...] = ()
    differences = {}
    if isinstance(model, SingleSpikeMLP):
        reference = "training"
        ours = simulate(network, spikes, record="all")
        expected = _layers(network, ours)
        compared = compare(model, exported, spikes, ours.spikes)
        times, first = compared.layers, compared.first
        differences["training"] = compared.outside
        found.pop("exact", None)
    else:
        reference = "SLAYER"
        expected = slayer_layers(model, spikes)
    for backend, layers in found.items():
        unequal = {name: layers[name] != expected[name] for name in expected}
        differences[backend] = sum(int(where.sum()) for where in unequal.values())
        if first is None and differences[backend]:
            name = next(name for name, where in unequal.items() if where.any())
            at = tuple(int(i) for i in np.argwhere(unequal[name])[0])
            first = _first(backend, name, at, expected, layers, net_path, network, model, spikes)
    firing = [layer.name for layer in network.layers if layer.neuron.fires]
    return Verification(
        dataset=data.name,
        samples=len(data),
        backends=tuple(found),
        reference=reference,
        spikes=sum(int(expected[name].sum()) for name in firing),
        positions=sum(values.size for values in expected.values()),
        differences=differences,
        integers=integers,
        first=first,
        times=times,
        not_run=not_run,
    )


def _integers(
    saved: modelfile.SavedModel, expected: Network, network: Network
) -> IntegerComparison:
    """The file's integers against the model's, and how either turns samples into spikes."""
    compared = compare_integers(expected, network)
    if "config" not in network.provenance:
        return compared
    ours, theirs = saved.config.encoding, from_toml(network.provenance["config"]).encoding
    if ours == theirs:
        return compared
    encodings = (f"{encoding.kind} in {encoding.steps} steps" for encoding in (ours, theirs))
    other = IntegerDifference(None, "encoding of samples", 1, "", *encodings)
    return replace(compared, differences=(other, *compared.differences))


def _first(
    backend: str,
    layer: str,
    at: tuple[int, ...],
    expected: Layers,
    found: Layers,
    net_path: Path,
    network: Network,
    model: Any,
    spikes: npt.NDArray[np.uint8],
) -> Difference:
    """A difference at (sample, step, neuron), with the states around it."""
    sample, step, neuron = at
    one = spikes[sample : sample + 1]
    theirs = _run(backend, net_path, network, one, states=(layer,))
    if isinstance(model, SingleSpikeMLP):
        ours = simulate(network, one, states=(layer,))
        states: tuple[Any, Any] = (ours.u[layer], ours.v[layer])
        reference = "the exact simulator"
    else:
        states = slayer_states(model, one, layer)
        reference = "SLAYER"
    return Difference(
        backend,
        layer,
        sample,
        step,
        neuron,
        int(expected[layer][at]),
        int(found[layer][at]),
        _state(*states, step, neuron),
        _state(theirs.u[layer], theirs.v[layer], step, neuron),
        reference,
    )


def slayer_layers(model: SpikingMLP, spikes: npt.NDArray[np.uint8]) -> Layers:
    """Stock SLAYER's spikes per hidden layer, and the running sum of its readout as v.

    Args:
        model: as trained.
        spikes: (samples, T, inputs).

    Returns:
        Layer name -> (samples, T, neurons) int64.
    """
    outputs = _outputs(model, spikes)
    return {
        name: values.astype(np.int64) if name != "readout" else _running_sum(values)
        for name, values in outputs.items()
    }


def slayer_states(
    model: SpikingMLP, spikes: npt.NDArray[np.uint8], layer: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What u and v of a layer are after each step in stock SLAYER, in units of 2**-6 weights.

    Args:
        model: as trained.
        spikes: (samples, T, inputs).
        layer: name of a hidden layer, or "readout".

    Returns:
        Two arrays (samples, T, neurons); v is 0 where the neuron has just fired.
    """
    outputs = _outputs(model, spikes)
    if layer == "readout":  # which holds no current
        weighted = (outputs[layer] * WEIGHT_SCALE).astype(np.int64) << STATE_SHIFT
        return weighted, _running_sum(outputs[layer])
    fed_by: dict[str, npt.NDArray[Any]] = dict(zip(list(outputs)[1:], outputs.values()))
    before = spikes if layer == "hidden1" else fed_by[layer]
    block = model.get_submodule(layer)
    with torch.no_grad():
        arriving = torch.from_numpy(np.ascontiguousarray(before.swapaxes(1, 2))).float()
        current, voltage = block.neuron.dynamics(block.synapse(arriving))
    scale = WEIGHT_SCALE << STATE_SHIFT
    u, v = (
        np.rint(state.double().numpy() * scale).astype(np.int64).swapaxes(1, 2)
        for state in (current, voltage)
    )
    return u, np.where(outputs[layer] != 0, 0, v)


def _outputs(
    model: SpikingMLP, spikes: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.float64]]:
    """What each block of the model puts out, (samples, T, neurons)."""
    with torch.no_grad():
        outputs = model.layer_outputs(torch.from_numpy(spikes).float().swapaxes(1, 2))
    values = (output.swapaxes(1, 2).double().numpy() for output in outputs)
    return dict(zip((*model.hidden_names, "readout"), values))


def _running_sum(readout: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    weighted = readout * WEIGHT_SCALE  # whole numbers: weights are multiples of 1/64
    return weighted.cumsum(axis=1).astype(np.int64) << STATE_SHIFT


def _state(u: npt.NDArray[Any], v: npt.NDArray[Any], step: int, neuron: int) -> State:
    """Of the first sample; it starts from rest."""
    (u_before, v_before), (u_after, v_after) = (
        (int(u[0, t, neuron]), int(v[0, t, neuron])) if t >= 0 else (0, 0) for t in (step - 1, step)
    )
    return State(u_before, v_before, u_after, v_after)


def _run(
    backend: str,
    net_path: Path,
    network: Network,
    spikes: npt.NDArray[np.uint8],
    states: tuple[str, ...] = (),
    **options: Any,
) -> Result:
    if backend == "lava":
        firing = tuple(layer.name for layer in network.layers if layer.neuron.fires)
        return lava_cpu.run_file(net_path, network, spikes, firing, states=states, **options)
    return simulate(network, spikes, backend, record="all", states=states, **options)


def _layers(network: Network, result: Result) -> Layers:
    layers = {name: values.astype(np.int64) for name, values in result.spikes.items()}
    if network.readout is not None and result.readout is not None:
        layers[network.readout.name] = result.readout.astype(np.int64)
    return layers


def _check_same_shape(model: SpikingMLP | SingleSpikeMLP, network: Network, net_path: Path) -> None:
    """Refuse files that cannot be of one network.

    Raises:
        FileError: naming the layers of both.
    """
    names = [*model.hidden_names, "readout"]
    blocks = [(name, model.get_submodule(name)) for name in names]
    ours = [(name, *getattr(b, "synapse", b).weight.shape[:2]) for name, b in blocks]
    theirs = [(layer.name, layer.neurons, layer.connections.n_pre) for layer in network.layers]
    connected = all(isinstance(layer.connections, Connections) for layer in network.layers)
    if ours != theirs or not connected:
        described = [
            ", ".join(f"{name} {n_pre}-{n_post}" for name, n_post, n_pre in layers)
            for layers in (theirs, ours)
        ]
        raise FileError(
            f"{net_path}: not exported from this model: it has layers {described[0]}, "
            f"the model {described[1]}"
        )
