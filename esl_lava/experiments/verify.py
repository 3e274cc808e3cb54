"""Proof that training, file and simulators agree: integer by integer, then spike for spike.

First every integer of `net.h5` is held against what `model.pt` lowers to: samples reach only
some of them. Then spikes are compared. The reference is stock SLAYER, run from `model.pt`; no
simulator is compared with itself.
Where neurons fire once, training has exact times, and the chip a grid: the exact simulator is
compared with training by firing times (`firing_times`), other simulators with it by spikes.
What is to be found the model itself says (`models.reference`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava import netfile
from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.config import from_toml
from esl_lava.data.config import OWN, Encoding
from esl_lava.data.own import Own
from esl_lava.errors import BackendError, ConfigError, FileError
from esl_lava.experiments.evaluate import load_samples
from esl_lava.experiments.export import lowered
from esl_lava.experiments.firing_times import compare
from esl_lava.experiments.integers import compare_integers
from esl_lava.models.reference import SpikeReference, TimeReference
from esl_lava.models.restore import densified, restore
from esl_lava.models.stored import load_model
from esl_lava.network import Network
from esl_lava.results.verification import (
    Difference,
    IntegerComparison,
    IntegerDifference,
    LayerTimes,
    State,
    TimeDifference,
    Verification,
)
from esl_lava.simulate import Result, backend_options, simulate

Show = Callable[[str, int, int], None]
"""Told a backend, and how many samples it has finished of how many."""

Layers = Mapping[str, Ints]

VERIFIED_BACKENDS = ("exact", "lava-models", "lava")
"""All that need no chip."""

VERIFIED_SAMPLES = 20
"""Compared where nobody says how many."""


def verify(
    model_path: Path,
    net_path: Path,
    dataset: str | None = None,
    samples: int | None = None,
    backends: tuple[str, ...] = VERIFIED_BACKENDS,
    workers: int | None = None,
    show: Show | None = None,
    own: Own | None = None,
) -> Verification:
    """Compare training as in `model_path` with simulators run from `net_path`.

    Lava reads the file itself, through plain netx. Samples and their encoding are those
    the model was trained on, unless `dataset` names others.

    Args:
        model_path, net_path: a trained model, and what was exported of it.
        dataset: whose test split to use.
        samples: how many of its first; by default `VERIFIED_SAMPLES`, or all where there are fewer.
        backends: the simulators.
        workers: interpreters that run Lava at the same time; by default 1.
        show: told backend and progress.
        own: where samples of the user's own come from, in place of `dataset`.

    Raises:
        ConfigError: when both are given.
        FileError: when a file cannot be read, or one was not exported from the other.
        DataError, BackendError: as `simulate`; where workers are given, but no backend has any.
    """
    if workers is not None and not any("workers" in backend_options(b) for b in backends):
        raise BackendError(f"{workers} workers, but no backend among {', '.join(backends)} has any")
    network = netfile.read(net_path)
    saved, experiment = load_model(model_path)
    model = restore(densified(saved))  # as stock SLAYER takes it
    exported = lowered(model_path)
    _check_same_shape(exported, network, net_path)
    integers = _integers(experiment.encoding, exported, network)
    # Samples are presented as the model says; a file that says otherwise has been named.
    network = replace(network, steps=experiment.encoding.steps, input_range=exported.input_range)
    if own is not None and dataset not in (None, OWN):
        raise ConfigError(f"--data {dataset} names other data than {own.name}; give one of them")
    name = OWN if own is not None else dataset or experiment.data.name
    data = load_samples(
        network, name, "test", samples, VERIFIED_SAMPLES, encoding=experiment.encoding, own=own
    )
    spikes = np.ascontiguousarray(data.spikes(experiment.encoding))
    found: dict[str, Layers] = {}
    not_run = {}
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
    reference: SpikeReference | TimeReference = model.reference(spikes, exported)
    first: Difference | TimeDifference | None = None
    differences = {}
    times: tuple[LayerTimes, ...] = ()
    if isinstance(reference, SpikeReference):
        expected = reference
    else:  # the exact simulator is held against the times, and others against its spikes
        expected = _simulated(network, spikes, found.pop("exact", None))
        compared = compare(reference, exported, spikes, expected.layers)
        differences[reference.name] = compared.outside
        first, times = compared.first, compared.layers
    for backend, layers in found.items():
        unequal = {name: layers[name] != values for name, values in expected.layers.items()}
        differences[backend] = sum(int(where.sum()) for where in unequal.values())
        if first is None and differences[backend]:
            name = next(name for name, where in unequal.items() if where.any())
            at = sample, step, neuron = tuple(int(i) for i in np.argwhere(unequal[name])[0])
            one = spikes[sample : sample + 1]
            ran = _run(backend, net_path, network, one, states=(name,))
            first = Difference(
                backend,
                name,
                sample,
                step,
                neuron,
                int(expected.layers[name][at]),
                int(layers[name][at]),
                _state(*expected.states(one, name), step, neuron),
                _state(ran.u[name], ran.v[name], step, neuron),
                expected.name,
            )
    firing = [layer.name for layer in network.layers if layer.neuron.fires]
    return Verification(
        dataset=data.name,
        samples=len(data),
        backends=tuple(found),
        reference=reference.name,
        spikes=sum(int(expected.layers[name].sum()) for name in firing),
        positions=sum(values.size for values in expected.layers.values()),
        differences=differences,
        integers=integers,
        first=first,
        times=times,
        not_run=not_run,
    )


def _simulated(network: Network, spikes: Bytes, ran: Layers | None) -> SpikeReference:
    """What the exact simulator does; `ran` is that, where it has run already."""

    def states(one: Bytes, layer: str) -> tuple[Array, Array]:
        traced = simulate(network, one, states=(layer,))
        return traced.u[layer], traced.v[layer]

    layers = ran or _layers(network, simulate(network, spikes, record="all"))
    return SpikeReference("the exact simulator", layers, states)


def _integers(ours: Encoding, expected: Network, network: Network) -> IntegerComparison:
    """The file's integers against the model's, and how either turns samples into spikes."""
    compared = compare_integers(expected, network)
    if "config" not in network.provenance:
        return compared
    theirs = from_toml(network.provenance["config"], recorded=True).encoding
    if ours == theirs:
        return compared
    encodings = (_in_words(encoding) for encoding in (ours, theirs))
    other = IntegerDifference(None, "encoding of samples", 1, "", *encodings)
    return replace(compared, differences=(other, *compared.differences))


def _in_words(encoding: Encoding) -> str:
    bits = "" if encoding.bits is None else f" of {encoding.bits} bits"
    return f"{encoding.kind}{bits} in {encoding.steps} steps"


def _state(u: Array, v: Array, step: int, neuron: int) -> State:
    """Of the first sample; it starts from rest."""
    (u_before, v_before), (u_after, v_after) = (
        (int(u[0, t, neuron]), int(v[0, t, neuron])) if t >= 0 else (0, 0) for t in (step - 1, step)
    )
    return State(u_before, v_before, u_after, v_after)


def _run(
    backend: str,
    net_path: Path,
    network: Network,
    spikes: Bytes,
    states: tuple[str, ...] = (),
    **options: Any,
) -> Result:
    if backend == "lava":
        options["path"] = net_path
    return simulate(network, spikes, backend, record="all", states=states, **options)


def _layers(network: Network, result: Result) -> Layers:
    layers = {name: values.astype(np.int64) for name, values in result.spikes.items()}
    if network.readout is not None and result.readout is not None:
        layers[network.readout.name] = result.readout.astype(np.int64)
    return layers


def _check_same_shape(exported: Network, network: Network, net_path: Path) -> None:
    """Refuse files that cannot be of one network, with a FileError that names the layers."""
    theirs, ours = (
        ", ".join(
            f"{layer.name} {layer.inputs[0].connections.n_pre}-{layer.neurons}"
            for layer in of.layers
        )
        for of in (network, exported)
    )
    if theirs != ours:
        raise FileError(
            f"{net_path}: not exported from this model: it has layers {theirs}, the model {ours}"
        )
