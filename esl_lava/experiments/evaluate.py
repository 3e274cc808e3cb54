"""Running an exported network over a data set, or over spikes from a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.config import Encoding, from_mapping, from_toml, override
from esl_lava.data.datasets import Dataset, load
from esl_lava.data.encoders import encode
from esl_lava.errors import ConfigError, DataError
from esl_lava.experiments.input_block import driven
from esl_lava.experiments.samedata import fact_name, remark_others
from esl_lava.experiments.spikes import PLAIN, Layout, number_of, read_labels, read_spikes
from esl_lava.network import Network
from esl_lava.results.evaluation import Evaluation
from esl_lava.simulate import Result, backend_options, simulate
from esl_lava.simulate.result import Progress, joined, sops_by_sample

ENCODED_BYTES = 64 << 20
"""Samples are encoded and run in portions whose spikes fit this, whatever their number."""

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def data_name(network: Network, given: str | None) -> str:
    """The data set to use: the given one, else the one the network was trained on.

    Raises:
        ConfigError: when neither is known.
    """
    if given is not None:
        return given
    if "config" not in network.provenance:
        raise ConfigError("the network file does not say on which data it was trained; name them")
    return from_toml(network.provenance["config"]).data.name


def encoding_of(network: Network, kind: str | None = None, steps: int | None = None) -> Encoding:
    """How samples become spikes for this network: as trained, unless said otherwise.

    Raises:
        ConfigError: when neither the file nor the arguments say it, or they are no encoding.
    """
    given = {"encoding.kind": kind, "encoding.steps": steps}
    given = {key: value for key, value in given.items() if value is not None}
    if "config" in network.provenance:
        return override(from_toml(network.provenance["config"]), given).encoding
    if len(given) < 2:
        raise ConfigError("the network file names no encoding; give --encoder and --steps")
    return override(from_mapping({"sparsity": {"density": 1}}), given).encoding


def encoded(data: Dataset, encoding: Encoding) -> npt.NDArray[np.uint8]:
    """(samples, T, features) spikes of a data set."""
    # Encoders treat pixels apart: all there is to look up are 256 spike trains.
    trains = encode(encoding.kind, np.arange(256, dtype=np.uint8)[:, None], encoding.steps)
    samples, features = data.images.shape
    spikes = np.empty((samples, encoding.steps, features), np.uint8)
    for t in range(encoding.steps):
        spikes[:, t] = trains[:, 0, t][data.images]
    return spikes


def load_samples(
    network: Network, name: str, split: str, samples: int | None, most: int | None = None
) -> Dataset:
    """The first samples of a split, checked against the network's inputs.

    Where they are not those that the training had under this name, the log says so.

    Args:
        network: that is to take them.
        name, split: of the data set.
        samples: how many; by default `most`, or all where there are fewer or it is None.
        most: see there.

    Raises:
        DataError: when they do not fit, or there are not so many.
    """
    data = load(name, split)
    if data.images.shape[1] != network.inputs:
        raise DataError(
            f"{name} has {data.images.shape[1]} features, the network {network.inputs} inputs"
        )
    if "config" in network.provenance and name == data_name(network, None):
        remark_others(network.provenance.get(fact_name(split)), data, split)
    taken = network.input_shape
    if len(taken) > 1 and taken not in (data.image_shape, (1, *data.image_shape)):
        raise DataError(f"{name} has images of shape {data.image_shape}, the network takes {taken}")
    return data.take(number_of(samples, most, len(data)))


def evaluate(
    network: Network,
    data: Dataset,
    encoding: Encoding,
    *,
    split: str = "test",
    backend: str = "exact",
    options: Mapping[str, Any] = NO_OPTIONS,
    show: Progress | None = None,
) -> Evaluation:
    """Run all of `data` and compare decisions with labels.

    Args:
        network: what to run.
        data: samples, which become spikes as `encoding` says.
        encoding: of the samples.
        split: which of the data set's they are.
        backend, options: as `simulate`.
        show: told how far the run is.

    Raises:
        DataError, BackendError: as `simulate`; for classes that the network does not have.
    """
    classes = network.layers[-1].neurons
    if data.classes > classes:
        raise DataError(f"{data.name} has {data.classes} classes, the network decides of {classes}")

    def spikes(here: slice) -> npt.NDArray[Any]:
        some = replace(data, images=data.images[here], labels=data.labels[here])
        return driven(network, encoded(some, encoding))

    result, seconds = _run(network, spikes, len(data), encoding.steps, backend, options, show)
    right = int((result.decisions == data.labels).sum())
    return Evaluation(data.name, split, backend, right / len(data), len(data), seconds, result)


def evaluate_spikes(
    network: Network,
    path: Path,
    labels: Path | None = None,
    *,
    layout: Layout = PLAIN,
    samples: int | None = None,
    backend: str = "exact",
    options: Mapping[str, Any] = NO_OPTIONS,
    show: Progress | None = None,
) -> Evaluation:
    """Run the spikes of a file.

    Args:
        network: what to run.
        path, layout: the file, as `read_spikes`.
        labels: a .npy file of (samples,) integers, the classes to decide for, if known.
        samples: how many of the first to run; by default all.
        backend, options: as `simulate`.
        show: told how far the run is.

    Raises:
        FileError: when a file cannot be read or is no such array.
        ConfigError, DataError, BackendError: as `read_spikes` and `simulate`; when there are not
            so many labels, or classes that the network does not have.
    """
    inputs = read_spikes(network, path, samples, layout=layout)
    classes = None
    if labels is not None:
        whole = read_spikes(network, path, layout=layout).samples
        classes = read_labels(network, labels, whole)
    total = inputs.samples
    result, seconds = _run(network, inputs, total, inputs.steps, backend, options, show)
    accuracy = None
    if classes is not None:
        accuracy = int((result.decisions == classes[:total]).sum()) / total
    return Evaluation(path.name, None, backend, accuracy, total, seconds, result)


def most_sops(network: Network, data: Dataset, encoding: Encoding) -> int:
    """The synaptic operations of the sample that takes most of them."""
    most = 0
    for here in _portions(len(data), encoding.steps * network.inputs):
        some = replace(data, images=data.images[here], labels=data.labels[here])
        spikes = encoded(some, encoding)
        result = simulate(network, spikes, record="all")
        most = max(most, int(sops_by_sample(network, spikes, result.spikes).max()))
    return most


def _portions(samples: int, bytes_each: int) -> list[slice]:
    """Slices of the samples whose spikes fit `ENCODED_BYTES`."""
    size = max(1, ENCODED_BYTES // max(1, bytes_each))
    return [slice(n, min(n + size, samples)) for n in range(0, samples, size)]


def _run(
    network: Network,
    spikes: Callable[[slice], npt.NDArray[Any]],
    samples: int,
    steps: int,
    backend: str,
    options: Mapping[str, Any],
    show: Progress | None,
) -> tuple[Result, float]:
    """Run samples in portions; the whole result, and the seconds that `simulate` took."""
    seconds = 0.0
    results = []
    for here in _portions(samples, steps * network.inputs):
        own = dict(options)
        if show is not None and "progress" in backend_options(backend):
            own["progress"] = lambda done, _, before=here.start: show(before + done, samples)
        portion = spikes(here)
        start = time.perf_counter()
        results.append(simulate(network, portion, backend, **own))
        seconds += time.perf_counter() - start
        if show is not None:
            show(here.stop, samples)
    return joined(results), seconds
