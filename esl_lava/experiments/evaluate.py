"""Run samples once through an exported network and record the requested results."""

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
from esl_lava.data.own import OwnData, own_from_folder
from esl_lava.data.samples import Samples, TrainingSamples
from esl_lava.errors import ConfigError, DataError
from esl_lava.experiments.activity import Meter
from esl_lava.experiments.samedata import warn_of_other_data
from esl_lava.experiments.spikes import (
    PLAIN,
    Layout,
    apply_input_block,
    read_network,
    read_spikes,
    refuse_unrelated_options,
    sample_count,
    spikes_file,
)
from esl_lava.network import Network
from esl_lava.results.evaluation import Evaluation, Recording
from esl_lava.results.firing import firing_of
from esl_lava.results.mapped import Activity
from esl_lava.simulate import Result, backend_options, simulate
from esl_lava.simulate.result import Progress, checked_input, join_results, sops_by_sample

ENCODED_BYTES = 64 << 20
"""Samples are encoded and run in portions. The input spikes of a portion take at most this many
bytes, unless a single sample takes more."""

NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Probes:
    """What a run records in addition to decisions and counts. Each probe costs time.

    Attributes:
        activity: number of first samples on which the activity of every neuron is recorded; all
            samples if there are fewer.
        sops: whether the SOPs of every sample are recorded.
        first: whether the spikes of all layers and the readout of the first sample are recorded.
    """

    activity: int = 0
    sops: bool = False
    first: bool = False

    def recorded(self, samples: int) -> int:
        """Return how many of `samples` samples, the first ones, need recorded spikes."""
        return samples if self.sops else min(samples, max(self.activity, int(self.first)))


NO_PROBES = Probes()


def data_name(network: Network, name: str | None) -> str:
    """Return the name of the data set: `name`, else the data set of the training.

    Raises:
        ConfigError: if neither is known.
    """
    if name is not None:
        return name
    trained = _training_data(network)
    if trained is None:
        raise ConfigError(
            "--data is missing: the network file does not name the data of its training",
            "missing",
            key="--data",
        )
    return trained.name


def _training_data(network: Network) -> Data | None:
    """Return the data that the network was trained on; None if its file does not name them."""
    if "config" not in network.provenance:
        return None
    return from_toml(network.provenance["config"], recorded=True).data


def encoding_of(
    network: Network,
    kind: str | None = None,
    steps: int | None = None,
    data: str | None = None,
) -> Encoding:
    """Return the encoding of samples for this network: that of the training, with changes.

    Args:
        network: the network as read from its file.
        kind, steps: values that replace those of the training.
        data: name of the data set. "own" allows the encodings of the user's own samples, whatever
            data the training had.

    Raises:
        ConfigError: if the encoding is unknown or not valid.
    """
    options = {"encoding.kind": kind, "encoding.steps": steps}
    changes: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    if "config" not in network.provenance and len(changes) < 2:
        key = "--encoder" if kind is None else "--steps"
        raise ConfigError(
            f"{key} is missing: the network file names no encoding; give --encoder and --steps",
            "missing",
            key=key,
        )
    if data == OWN:
        changes["data.name"] = OWN
    if "config" in network.provenance:
        return override(from_toml(network.provenance["config"], recorded=True), changes).encoding
    return override(from_mapping({"sparsity": {"density": 1}}), changes).encoding


def load_samples(
    network: Network,
    name: str,
    split: str,
    samples: int | None,
    most: int | None = None,
    *,
    encoding: Encoding | None = None,
    own: OwnData | None = None,
) -> TrainingSamples:
    """Load the first samples of a split and check that they fit the inputs of the network.

    A warning is logged if the data differ from the data of this name in the training.

    Args:
        network: the network that takes the samples.
        name: name of the data set.
        split: "train" or "test".
        samples, most: the number of samples, as in `sample_count`.
        encoding: the encoding that makes frames of recordings.
        own: the source of own samples; by default the folder that the training used.

    Raises:
        DataError: if the samples do not fit, or there are fewer than `samples`; or as in `load`.
        FileError: as in `load`.
    """
    trained = _training_data(network)
    known = trained is not None and trained.name == name
    if own is None and known and trained is not None and trained.folder is not None:
        own = own_from_folder(trained.folder)
    data = load(name, split, encoding, own)
    features = math.prod(data.shape)
    if features != network.inputs:
        raise DataError(
            f"{data.name} has {features} features, but the network has {network.inputs} inputs",
            "mismatch",
            value=features,
            limit=network.inputs,
        )
    if known:
        warn_of_other_data(network.provenance, data)
    shape = network.input_shape
    if len(shape) > 1 and (1, *shape)[-3:] != data.shape:
        raise DataError(
            f"{data.name} has samples of shape {data.shape}, but the network takes {shape}",
            "mismatch",
            value=data.shape,
            limit=shape,
        )
    return data.take(sample_count(samples, most, len(data)))


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
    own: OwnData | None = None,
) -> tuple[Network, Samples, Encoding | None]:
    """Read a network from its file, and the samples to run it on.

    Args:
        net: file of the network, netx HDF5.
        data: name of a data set, whose test split is used, or path of a .npy file of spikes; by
            default the data set of the training.
        labels, layout: for a file of spikes: the file of its labels, and its axes and values.
        samples, most: number of samples, as in `sample_count`.
        encoder, steps: for a data set: values that replace those of the training.
        own: the source of the user's own samples, in place of `data`.

    Returns:
        The network, the samples and their encoding; the encoding of a file of spikes is None.

    Raises:
        ConfigError: if options do not apply to the data, or are missing.
        FileError, DataError: as `read_network`, `read_spikes` and `load_samples`.
    """
    if own is not None:
        if data not in (None, OWN):
            raise ConfigError(
                f"--data {data} names other data than {own.name}; give only one of them",
                "conflict",
                key="--data",
                value=data,
            )
        data = OWN
    file = spikes_file(data)
    refuse_unrelated_options(data, file, encoder=encoder, steps=steps, layout=layout, labels=labels)
    network = read_network(net, file, layout)
    if file is not None:
        spikes = read_spikes(network, file, samples, labels=labels, layout=layout, most=most)
        return network, spikes, None
    name = data_name(network, data)
    encoding = encoding_of(network, encoder, steps, name)
    first = load_samples(network, name, "test", samples, most, encoding=encoding, own=own)
    return network, first, encoding


def evaluate(
    network: Network,
    samples: Samples,
    encoding: Encoding | None,
    *,
    backend: str = "exact",
    options: Mapping[str, object] = NO_OPTIONS,
    show: Progress | None = None,
    probes: Probes = NO_PROBES,
    compare_labels: bool = True,
) -> Evaluation:
    """Run all samples once, in portions, and compare the decisions with the labels.

    Args:
        network: the network to run.
        samples: the samples to run.
        encoding: the encoding of the samples; None if they are spikes already.
        backend, options: as in `simulate`.
        show: called with the progress of the run.
        probes: what the run records.
        compare_labels: whether decisions are compared with the labels, if there are any.

    Raises:
        DataError, BackendError: as in `simulate`.
        DataError: if the samples have more classes than the network.
    """
    classes = network.layers[-1].neurons
    if compare_labels and samples.classes > classes:
        raise DataError(
            f"{samples.name} has {samples.classes} classes, but the network has {classes}",
            "mismatch",
            value=samples.classes,
            limit=classes,
        )
    seconds = 0.0
    results, sops = [], []
    fired: dict[str, Ints] = {}
    meter = Meter(network) if probes.activity else None
    first = None
    for portion, recorded in _portions(network, samples, encoding, probes):
        arguments: dict[str, Any] = dict(options)
        if show is not None and "progress" in backend_options(backend):
            arguments["progress"] = lambda finished, _, before=portion.start: show(
                before + finished, len(samples)
            )
        # Converted once here, so that simulators and probes need no conversion.
        inputs = checked_input(
            network, apply_input_block(network, samples.choose(portion).spikes(encoding))
        )
        start = time.perf_counter()
        result = simulate(network, inputs, backend, record="all" if recorded else None, **arguments)
        seconds += time.perf_counter() - start
        if show is not None:
            show(portion.stop, len(samples))
        if meter is not None and portion.start < probes.activity:
            meter.add(inputs, result)
        if probes.sops:
            sops.append(sops_by_sample(network, inputs, result.spikes))
        if probes.first and portion.start == 0:
            first = _record_first(inputs, result)
        for name, spikes in result.fired.items():  # summed here, so portions need not keep them
            fired[name] = fired[name] + spikes if name in fired else spikes
        results.append(replace(result, spikes={}, fired={}))
    result = replace(join_results(results), fired=fired)
    accuracy = None
    if compare_labels and samples.labels is not None:
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
    """Run samples once and return the activity of the neurons; labels are not needed.

    Raises:
        DataError, BackendError: as in `simulate`.
    """
    probes = Probes(activity=len(samples))
    activity = evaluate(network, samples, encoding, probes=probes, compare_labels=False).activity
    assert activity is not None
    return activity


def _portions(
    network: Network, samples: Samples, encoding: Encoding | None, probes: Probes
) -> Iterator[tuple[slice, bool]]:
    """Yield slices of the samples that fit `ENCODED_BYTES`, and whether their spikes are recorded.

    Either all samples of a portion are recorded or none.
    """
    steps = samples.choose(slice(1)).spikes(encoding).shape[1]
    widest = max(network.inputs, *(layer.neurons for layer in network.layers))
    encoded = network.inputs * (4 if network.message_bits else 1)  # bytes per step
    total = len(samples)
    recorded = probes.recorded(total)
    start = 0
    for stop in sorted({min(probes.activity, total), recorded, total} - {0}):
        record = start < recorded
        sample_bytes = steps * (4 * widest if record else encoded)
        size = max(1, ENCODED_BYTES // max(1, sample_bytes))
        for begin in range(start, stop, size):
            yield slice(begin, min(begin + size, stop)), record
        start = stop


def _record_first(inputs: Array, result: Result) -> Recording:
    """Return copies of the inputs and outputs of the first sample of a portion."""
    return Recording(
        inputs[0].copy(),
        {name: spikes[0].copy() for name, spikes in result.spikes.items()},
        None if result.readout is None else result.readout[0].copy(),
        int(result.decisions[0]),
    )
