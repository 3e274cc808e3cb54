"""Prove that training, file and simulators agree: compare all integers, then all spikes.

First every integer of `net.h5` is compared with the integer network of `model.pt`, because samples
reach only some of the integers. Then spikes are compared. The reference is stock SLAYER, run from
`model.pt`; no simulator is compared with itself.
If neurons fire once, training has exact times, but the chip has a grid of steps. Then the exact
simulator is compared with training by firing times (`firing_times`), and the other simulators with
the exact simulator by spikes. `models.reference` gives the expected spikes or times of a model.
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
from esl_lava.data.own import OwnData
from esl_lava.errors import BackendError, ConfigError, FileError
from esl_lava.experiments.evaluate import load_samples
from esl_lava.experiments.export import lower_model
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
"""Called with a backend, its number of finished samples and the number of samples."""

Layers = Mapping[str, Ints]

VERIFIED_BACKENDS = ("exact", "lava-models", "lava")
"""The backends that need no chip."""

VERIFIED_SAMPLES = 20
"""Default number of samples to compare."""


def verify(
    model_path: Path,
    net_path: Path,
    dataset: str | None = None,
    samples: int | None = None,
    backends: tuple[str, ...] = VERIFIED_BACKENDS,
    workers: int | None = None,
    show: Show | None = None,
    own: OwnData | None = None,
) -> Verification:
    """Compare the training of a model with simulators that run its exported file.

    Lava reads the file itself, through plain netx. The samples and their encoding are those of the
    training, unless `dataset` names other data.

    Args:
        model_path: the trained model.
        net_path: the file that was exported from the model.
        dataset: name of the data set; its test split is used.
        samples: number of first samples; by default `VERIFIED_SAMPLES`, or all if there are fewer.
        backends: the simulators.
        workers: number of interpreters that run Lava at the same time; by default 1.
        show: called with backend and progress.
        own: the source of the user's own samples, in place of `dataset`.

    Raises:
        ConfigError: if both `dataset` and `own` are given.
        FileError: if a file cannot be read, or `net_path` was not exported from `model_path`.
        DataError, BackendError: as in `simulate`.
        BackendError: if `workers` is given, but no backend has workers.
    """
    if workers is not None and not any("workers" in backend_options(b) for b in backends):
        raise BackendError(
            f"--workers {workers}: none of the backends {', '.join(backends)} has workers",
            "conflict",
            key="--workers",
            value=workers,
        )
    network = netfile.read(net_path)
    saved, experiment = load_model(model_path)
    model = restore(densified(saved))  # stock SLAYER needs dense weights
    exported = lower_model(model_path)
    _check_same_shape(exported, network, net_path)
    integers = _integers(experiment.encoding, exported, network)
    # A file with another number of steps or input range is a difference that is listed already.
    network = replace(network, steps=experiment.encoding.steps, input_range=exported.input_range)
    if own is not None and dataset not in (None, OWN):
        raise ConfigError(
            f"--data {dataset} names other data than {own.name}; give only one of them",
            "conflict",
            key="--data",
            value=dataset,
        )
    name = OWN if own is not None else dataset or experiment.data.name
    data = load_samples(
        network, name, "test", samples, VERIFIED_SAMPLES, encoding=experiment.encoding, own=own
    )
    spikes = np.ascontiguousarray(data.spikes(experiment.encoding))
    simulated: dict[str, Layers] = {}
    not_run = {}
    for backend in dict.fromkeys(backends):
        options: dict[str, Any] = {}
        if workers is not None and "workers" in backend_options(backend):
            options["workers"] = workers
        if show is not None and "progress" in backend_options(backend):
            options["progress"] = partial(show, backend)
        try:
            result = _run(backend, net_path, network, spikes, **options)
            simulated[backend] = _layers(network, result)
        except BackendError as error:
            if not integers.total:
                raise
            not_run[backend] = str(error)  # a backend may be unable to run a wrong file
    reference: SpikeReference | TimeReference = model.reference(spikes, exported)
    first: Difference | TimeDifference | None = None
    differences = {}
    times: tuple[LayerTimes, ...] = ()
    if isinstance(reference, SpikeReference):
        expected = reference
    else:  # compare the exact simulator by times, and the others with it by spikes
        expected = _exact_reference(network, spikes, simulated.pop("exact", None))
        comparison = compare(reference, exported, spikes, expected.layers)
        differences[reference.name] = comparison.outside
        first, times = comparison.first, comparison.layers
    for backend, layers in simulated.items():
        unequal = {name: layers[name] != values for name, values in expected.layers.items()}
        differences[backend] = sum(int(where.sum()) for where in unequal.values())
        if first is None and differences[backend]:
            name = next(name for name, where in unequal.items() if where.any())
            at = sample, step, neuron = tuple(int(i) for i in np.argwhere(unequal[name])[0])
            one = spikes[sample : sample + 1]
            traced = _run(backend, net_path, network, one, states=(name,))
            first = Difference(
                backend,
                name,
                sample,
                step,
                neuron,
                int(expected.layers[name][at]),
                int(layers[name][at]),
                _state(*expected.states(one, name), step, neuron),
                _state(traced.u[name], traced.v[name], step, neuron),
                expected.name,
            )
    firing = [layer.name for layer in network.layers if layer.neuron.fires]
    return Verification(
        dataset=data.name,
        samples=len(data),
        backends=tuple(simulated),
        reference=reference.name,
        spikes=sum(int(expected.layers[name].sum()) for name in firing),
        positions=sum(values.size for values in expected.layers.values()),
        differences=differences,
        integers=integers,
        first=first,
        times=times,
        not_run=not_run,
    )


def _exact_reference(network: Network, spikes: Bytes, layers: Layers | None) -> SpikeReference:
    """Return the exact simulator as reference. It runs now unless `layers` holds its spikes."""

    def states(one: Bytes, layer: str) -> tuple[Array, Array]:
        traced = simulate(network, one, states=(layer,))
        return traced.u[layer], traced.v[layer]

    layers = layers or _layers(network, simulate(network, spikes, record="all"))
    return SpikeReference("the exact simulator", layers, states)


def _integers(ours: Encoding, expected: Network, network: Network) -> IntegerComparison:
    """Compare the integers and the encodings of the file and the model."""
    comparison = compare_integers(expected, network)
    if "config" not in network.provenance:
        return comparison
    theirs = from_toml(network.provenance["config"], recorded=True).encoding
    if ours == theirs:
        return comparison
    encodings = (_describe(encoding) for encoding in (ours, theirs))
    other = IntegerDifference(None, "encoding of samples", 1, "", *encodings)
    return replace(comparison, differences=(other, *comparison.differences))


def _describe(encoding: Encoding) -> str:
    bits = "" if encoding.bits is None else f" with {encoding.bits} bits"
    return f"{encoding.kind}{bits} in {encoding.steps} steps"


def _state(u: Array, v: Array, step: int, neuron: int) -> State:
    """Return the state of a neuron of the first sample before and after a step."""
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
    """Run a backend and record all layers. Lava reads the file itself."""
    if backend == "lava":
        options["path"] = net_path
    return simulate(network, spikes, backend, record="all", states=states, **options)


def _layers(network: Network, result: Result) -> Layers:
    """Return the spikes of each firing layer and v of the readout."""
    layers = {name: values.astype(np.int64) for name, values in result.spikes.items()}
    if network.readout is not None and result.readout is not None:
        layers[network.readout.name] = result.readout.astype(np.int64)
    return layers


def _check_same_shape(exported: Network, network: Network, net_path: Path) -> None:
    """Check that file and model have the same layers.

    Raises:
        FileError: if they do not; the sentence names the layers.
    """
    theirs, ours = (
        ", ".join(
            f"{layer.name} {layer.inputs[0].connections.n_pre}-{layer.neurons}"
            for layer in one.layers
        )
        for one in (network, exported)
    )
    if theirs != ours:
        raise FileError(
            f"{net_path}: not exported from this model: the file has the layers {theirs}, but the "
            f"model has {ours}",
            "mismatch",
            value=theirs,
            limit=ours,
            file=net_path,
        )
