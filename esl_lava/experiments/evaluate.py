"""One pass of samples through an exported network, and all that is asked of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from esl_lava.arrays import Array, Ints
from esl_lava.config import from_mapping, from_toml, override
from esl_lava.data.catalogue import load
from esl_lava.data.config import OWN, Data, Encoding
from esl_lava.data.own import Own, of_folder
from esl_lava.data.samples import Samples, TrainingSamples
from esl_lava.errors import ConfigError, DataError
from esl_lava.experiments.activity import Meter
from esl_lava.experiments.samedata import remark_others
from esl_lava.experiments.spikes import (
    PLAIN,
    Layout,
    driven,
    number_of,
    read_network,
    read_spikes,
    refuse_others_options,
    spikes_file,
)
from esl_lava.network import Network
from esl_lava.results.evaluation import Evaluation, Recording
from esl_lava.results.firing import firing_of
from esl_lava.results.mapped import Activity
from esl_lava.simulate import Result, backend_options, simulate
from esl_lava.simulate.result import Progress, checked_input, joined, sops_by_sample

ENCODED_BYTES = 64 << 20
"""Samples are encoded and run in portions whose spikes fit this, whatever their number."""

NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Probes:
    """What a pass records beside decisions and counts. Each costs time.

    Attributes:
        activity: of so many of the first samples, or all where there are fewer, what every
            neuron does.
        sops: the synaptic operations of every sample.
        first: the first sample's spikes in all layers, and its readout.
    """

    activity: int = 0
    sops: bool = False
    first: bool = False

    def recorded(self, samples: int) -> int:
        """Of how many of the first of so many samples spikes have to be recorded."""
        return samples if self.sops else min(samples, max(self.activity, int(self.first)))


NO_PROBES = Probes()


def data_name(network: Network, given: str | None) -> str:
    """The data set to use: the given one, else the one the network was trained on.

    Raises:
        ConfigError: when neither is known.
    """
    if given is not None:
        return given
    trained = _trained_on(network)
    if trained is None:
        raise ConfigError("the network file does not say on which data it was trained; name them")
    return trained.name


def _trained_on(network: Network) -> Data | None:
    """The data that the network was trained on; None where its file does not say it."""
    if "config" not in network.provenance:
        return None
    return from_toml(network.provenance["config"], recorded=True).data


def encoding_of(
    network: Network,
    kind: str | None = None,
    steps: int | None = None,
    data: str | None = None,
) -> Encoding:
    """How samples become spikes for this network: as trained, unless said otherwise.

    Args:
        network: as read from its file.
        kind, steps: what is said otherwise.
        data: the data set; own samples may be of another kind than those trained on.

    Raises:
        ConfigError: when neither the file nor the arguments say it, or they are no encoding.
    """
    said = {"encoding.kind": kind, "encoding.steps": steps}
    given: dict[str, object] = {key: value for key, value in said.items() if value is not None}
    if "config" not in network.provenance and len(given) < 2:
        raise ConfigError("the network file names no encoding; give --encoder and --steps")
    if data == OWN:
        given["data.name"] = OWN
    if "config" in network.provenance:
        return override(from_toml(network.provenance["config"], recorded=True), given).encoding
    return override(from_mapping({"sparsity": {"density": 1}}), given).encoding


def load_samples(
    network: Network,
    name: str,
    split: str,
    samples: int | None,
    most: int | None = None,
    *,
    encoding: Encoding | None = None,
    own: Own | None = None,
) -> TrainingSamples:
    """The first samples of a split, checked against the network's inputs.

    Where they are not those that the training had under this name, the log says so. `encoding`
    makes frames of recordings; `number_of` says how many samples they are. Samples of the name
    `own` come from `own`, else from the folder in which they lay in the training.

    Raises:
        DataError: when they do not fit, or there are not so many.
    """
    trained = _trained_on(network)
    known = trained is not None and trained.name == name
    if own is None and known and trained is not None and trained.folder is not None:
        own = of_folder(trained.folder)
    data = load(name, split, encoding, own)
    features = math.prod(data.shape)
    if features != network.inputs:
        raise DataError(f"{data.name} has {features} features, the network {network.inputs} inputs")
    if known:
        remark_others(network.provenance, data)
    taken = network.input_shape
    if len(taken) > 1 and (1, *taken)[-3:] != data.shape:
        raise DataError(f"{data.name} has samples of shape {data.shape}, the network takes {taken}")
    return data.take(number_of(samples, most, len(data)))


def read_inputs(
    net: Path,
    data: str | None = None,
    *,
    labels: Path | None = None,
    layout: Layout = PLAIN,
    samples: int | None = None,
    most: int | None = None,
    encoder: str | None = None,
    steps: int | None = None,
    own: Own | None = None,
) -> tuple[Network, Samples, Encoding | None]:
    """A network from a file, and what a user wants it to be presented.

    Args:
        net: netx HDF5.
        data: a data set, of which the test split is taken, or the path of a .npy file of
            spikes; by default the data set that the network was trained on.
        labels, layout: of a file: its samples' classes, and what its axes and values are.
        samples, most: how many of the first, as `number_of`.
        encoder, steps: of a data set: other than as trained.
        own: where samples of the user's own come from, in place of `data`.

    Returns:
        The network, the samples, and how they become spikes, None where they are such.

    Raises:
        ConfigError: where options do not belong to such data, or are missing.
        FileError, DataError: as `read_network`, `read_spikes` and `load_samples`.
    """
    if own is not None:
        if data not in (None, OWN):
            raise ConfigError(f"--data {data} names other data than {own.name}; give one of them")
        data = OWN
    file = spikes_file(data)
    refuse_others_options(data, file, encoder=encoder, steps=steps, layout=layout, labels=labels)
    network = read_network(net, file, layout)
    if file is not None:
        spikes = read_spikes(network, file, samples, labels=labels, layout=layout, most=most)
        return network, spikes, None
    name = data_name(network, data)
    encoding = encoding_of(network, encoder, steps, name)
    found = load_samples(network, name, "test", samples, most, encoding=encoding, own=own)
    return network, found, encoding


def evaluate(
    network: Network,
    samples: Samples,
    encoding: Encoding | None,
    *,
    backend: str = "exact",
    options: Mapping[str, object] = NO_OPTIONS,
    show: Progress | None = None,
    probes: Probes = NO_PROBES,
    judged: bool = True,
) -> Evaluation:
    """Run samples once, in portions, compare decisions with labels, and record what is asked for.

    Args:
        network: what to run.
        samples: all of them are run.
        encoding: how they become spikes; None where they have a length of their own.
        backend, options: as `simulate`.
        show: told how far the run is.
        probes: what is recorded.
        judged: whether labels, where there are any, are looked at.

    Raises:
        DataError, BackendError: as `simulate`; for classes that the network does not have.
    """
    classes = network.layers[-1].neurons
    if judged and samples.classes > classes:
        raise DataError(
            f"{samples.name} has {samples.classes} classes, the network decides of {classes}"
        )
    seconds = 0.0
    results, sops = [], []
    fired: dict[str, Ints] = {}
    meter = Meter(network) if probes.activity else None
    first = None
    for here, recorded in _portions(network, samples, encoding, probes):
        own: dict[str, Any] = dict(options)
        if show is not None and "progress" in backend_options(backend):
            own["progress"] = lambda done, _, before=here.start: show(before + done, len(samples))
        # Once and for all in the type and order that simulators take.
        inputs = checked_input(network, driven(network, samples.choose(here).spikes(encoding)))
        start = time.perf_counter()
        result = simulate(network, inputs, backend, record="all" if recorded else None, **own)
        seconds += time.perf_counter() - start
        if show is not None:
            show(here.stop, len(samples))
        if meter is not None and here.start < probes.activity:
            meter.add(inputs, result)
        if probes.sops:
            sops.append(sops_by_sample(network, inputs, result.spikes))
        if probes.first and here.start == 0:
            first = _first(inputs, result)
        for name, spikes in result.fired.items():  # of all: no portion need keep its own
            fired[name] = fired[name] + spikes if name in fired else spikes
        results.append(replace(result, spikes={}, fired={}))
    result = replace(joined(results), fired=fired)
    accuracy = None
    if judged and samples.labels is not None:
        accuracy = int((result.decisions == samples.labels).sum()) / len(samples)
    return Evaluation(
        dataset=samples.name,
        split=samples.split,
        backend=backend,
        accuracy=accuracy,
        samples=len(samples),
        seconds=seconds,
        result=result,
        firing=firing_of(network, result),
        activity=None if meter is None else meter.activity(),
        sops=np.concatenate(sops) if sops else None,
        first=first,
    )


def measure(network: Network, samples: Samples, encoding: Encoding | None) -> Activity:
    """Run samples once and say what every neuron does, whatever the network decides.

    Raises:
        DataError, BackendError: as `simulate`.
    """
    probes = Probes(activity=len(samples))
    activity = evaluate(network, samples, encoding, probes=probes, judged=False).activity
    assert activity is not None
    return activity


def _portions(
    network: Network, samples: Samples, encoding: Encoding | None, probes: Probes
) -> Iterator[tuple[slice, bool]]:
    """Slices of the samples that fit `ENCODED_BYTES`, and whether their spikes are recorded.

    A portion is probed as a whole or not at all.
    """
    steps = samples.choose(slice(1)).spikes(encoding).shape[1]
    widest = max(network.inputs, *(layer.neurons for layer in network.layers))
    taken = network.inputs * (4 if network.message_bits else 1)  # bytes, of `checked_input`
    total = len(samples)
    recorded = probes.recorded(total)
    start = 0
    for stop in sorted({min(probes.activity, total), recorded, total} - {0}):
        kept = start < recorded
        each = steps * (4 * widest if kept else taken)
        size = max(1, ENCODED_BYTES // max(1, each))
        for begin in range(start, stop, size):
            yield slice(begin, min(begin + size, stop)), kept
        start = stop


def _first(inputs: Array, result: Result) -> Recording:
    """The first sample of a recorded portion, in memory of its own."""
    return Recording(
        inputs[0].copy(),
        {name: spikes[0].copy() for name, spikes in result.spikes.items()},
        None if result.readout is None else result.readout[0].copy(),
        int(result.decisions[0]),
    )
