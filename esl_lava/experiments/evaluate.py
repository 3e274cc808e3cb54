"""Running an exported network over a data set."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from esl_lava.config import Encoding, from_mapping, from_toml, override
from esl_lava.data.datasets import Dataset, load
from esl_lava.data.encoders import encode
from esl_lava.errors import ConfigError, DataError
from esl_lava.network import Network
from esl_lava.simulate import Result, simulate
from esl_lava.simulate.result import joined

ENCODED_BYTES = 64 << 20
"""Samples are encoded and run in portions whose spikes fit this, whatever their number."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's run over samples of a data set.

    Attributes:
        dataset, split, backend: what was run where.
        accuracy: share of samples decided right, 0..1.
        samples: how many there were.
        seconds: of the simulation, encoding and loading not included.
        result: the run itself, without recorded spikes.
    """

    dataset: str
    split: str
    backend: str
    accuracy: float
    samples: int
    seconds: float
    result: Result


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


def load_samples(network: Network, name: str, split: str, samples: int | None) -> Dataset:
    """The first `samples` (or all) of a split, checked against the network's inputs.

    Raises:
        DataError: when they do not fit, or there are not so many.
    """
    data = load(name, split)
    if data.images.shape[1] != network.inputs:
        raise DataError(
            f"{name} has {data.images.shape[1]} features, the network {network.inputs} inputs"
        )
    return data if samples is None else data.take(samples)


def evaluate(
    network: Network,
    data: Dataset,
    encoding: Encoding,
    *,
    split: str = "test",
    backend: str = "exact",
) -> Evaluation:
    """Run all of `data` and compare decisions with labels.

    Raises:
        DataError, BackendError: as `simulate`.
    """
    seconds = 0.0
    results = []
    each = max(1, ENCODED_BYTES // (encoding.steps * network.inputs))
    for first in range(0, len(data), each):
        some = replace(
            data, images=data.images[first : first + each], labels=data.labels[first : first + each]
        )
        spikes = encoded(some, encoding)
        start = time.perf_counter()
        results.append(simulate(network, spikes, backend))
        seconds += time.perf_counter() - start
    result = joined(results)
    right = int((result.decisions == data.labels).sum())
    return Evaluation(data.name, split, backend, right / len(data), len(data), seconds, result)
