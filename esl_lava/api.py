"""The public interface of esl-lava in Python.

`import esl_lava` gives every name of this module. This module is loaded when one of its names is
first used; torch, Lava and matplotlib are loaded when a function first needs them. Names of other
modules are private: they may change in any release. docs/python.md shows all of this in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from esl_lava import errors
from esl_lava.config import Experiment
from esl_lava.connections import Convolution, Injection, Matrix
from esl_lava.data.own import OwnData as OwnSamples
from esl_lava.network import INPUT, Cuba, Input, Layer, Network
from esl_lava.packages import explain_missing

if TYPE_CHECKING:
    from esl_lava.arrays import Array, Ints
    from esl_lava.engines.fused import accelerate
    from esl_lava.experiments.export import ExportResult
    from esl_lava.experiments.report import ReportFiles
    from esl_lava.experiments.train import TrainingResult
    from esl_lava.results.evaluation import Evaluation
    from esl_lava.results.mapped import MappedNetwork
    from esl_lava.results.price import Price
    from esl_lava.results.verification import Verification
    from esl_lava.simulate.result import Names, Result
    from esl_lava.sparsity import MaskEvolver
    from esl_lava.training.trainer import TrainingProgress

__all__ = [
    "INPUT",
    "Convolution",
    "Cuba",
    "Experiment",
    "Injection",
    "Input",
    "Layer",
    "MaskEvolver",
    "Matrix",
    "Network",
    "OwnSamples",
    "Spikes",
    "accelerate",
    "evaluate",
    "export_model",
    "load_experiment",
    "load_spikes",
    "lower",
    "map_network",
    "own_samples",
    "price",
    "read",
    "resume",
    "run",
    "train",
    "verify",
    "write",
    "write_report",
]

_LATER = {
    "MaskEvolver": "esl_lava.sparsity.evolver",
    "accelerate": "esl_lava.engines.fused",
}
"""Public name -> the module that defines it and needs torch."""

AnyPath = str | PathLike[str]


class Spikes(NamedTuple):
    """Samples as a network takes them.

    Attributes:
        inputs: (samples, T, inputs) integers: 0 or 1, or graded spikes.
        labels: (samples,) int64 classes, or None where the samples have none.
    """

    inputs: Array
    labels: Ints | None


def __getattr__(name: str) -> Any:
    """Return a public name whose module needs torch."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)


@explain_missing()
def load_experiment(
    preset: str | None = None,
    settings: Mapping[str, object] | None = None,
    *,
    file: AnyPath | None = None,
) -> Experiment:
    """Load the configuration of an experiment.

    Args:
        preset: name of a configuration that comes with esl-lava, such as "digits" or "mnist".
        settings: dotted key -> value of each field that is changed, such as
            {"sparsity.density": 0.1, "training.epochs": 5}.
        file: a TOML file in place of a preset.

    Raises:
        ConfigError: for an unknown preset, key or value; where neither or both of preset and
            file are given.
        FileError: when the file cannot be read.
    """
    from esl_lava import config
    from esl_lava.experiments.preset import load_preset

    if (preset is None) == (file is None):
        raise errors.ConfigError(
            "load_experiment needs exactly one of preset and file",
            "missing" if preset is None else "conflict",
            key="preset",
        )
    experiment = load_preset(preset) if preset is not None else config.read_toml(Path(file or ""))
    return config.override(experiment, settings) if settings else experiment


@explain_missing()
def own_samples(source: AnyPath | Callable[[str], object], name: str = "own samples") -> OwnSamples:
    """Make a source of the user's own samples, for the functions with an argument `own`.

    Args:
        source: a folder of arrays (docs/data.md), or a function that takes "train" or "test" and
            returns a torch Dataset or a pair (samples, labels).
        name: the name of the samples in messages and reports.

    Raises:
        FileError, DataError: later, when a function needs the samples and they cannot be read.
            This function reads nothing.
    """
    from esl_lava.data.own import own_from_folder

    return OwnSamples(name, source) if callable(source) else own_from_folder(Path(source))


@explain_missing()
def train(
    experiment: Experiment,
    directory: AnyPath,
    *,
    own: OwnSamples | None = None,
    show: Callable[[TrainingProgress], None] | None = None,
) -> TrainingResult:
    """Train a sparse network from scratch into a new run directory.

    Args:
        experiment: the configuration.
        directory: the directory, which the training makes.
        own: the user's own samples, where `data.name` is "own".
        show: called with the progress of the training.

    Returns:
        The record of the training: `accuracy`, `density`, `connections`, `seconds`, and
        `run.model`, the path of `model.pt`.

    Raises:
        UserError: when the directory holds files, or the experiment does not fit the data.
    """
    from esl_lava.experiments import train as trainings

    return trainings.train(experiment, Path(directory), show or _ignore, own)


@explain_missing()
def resume(
    directory: AnyPath,
    *,
    own: OwnSamples | None = None,
    show: Callable[[TrainingProgress], None] | None = None,
) -> TrainingResult:
    """Continue an interrupted training from its checkpoint, to the same bits.

    Args:
        directory: the directory of the run.
        own: the user's own samples, as in `train`.
        show: called with the progress of the training.

    Raises:
        UserError: when there is no checkpoint, the training is finished, or the data differ from
            those at its start.
    """
    from esl_lava.experiments import train as trainings

    return trainings.resume(Path(directory), show or _ignore, own)


@explain_missing()
def lower(model: AnyPath) -> Network:
    """Compute the integer network of a trained model without writing a file.

    Args:
        model: a `model.pt`.

    Raises:
        FileError: when the file cannot be read.
        LimitError: when a weight is not finite, or integers cannot express the model.
    """
    from esl_lava.experiments.export import lower_model

    return lower_model(Path(model))


@explain_missing()
def export_model(
    model: AnyPath, net: AnyPath, *, overwrite: bool = False, own: OwnSamples | None = None
) -> ExportResult:
    """Write a trained model as a netx HDF5 file, after all limits are checked.

    Args:
        model: a `model.pt`.
        net: the file to write.
        overwrite: whether an existing file may be replaced.
        own: the user's own samples, where the model was trained on them.

    Raises:
        FileError: when a file cannot be read, or `net` exists and `overwrite` is false.
        LimitError: with every limit of netx, Lava or the chip that the network breaks.
    """
    from esl_lava.experiments.export import export

    return export(Path(model), Path(net), overwrite, own)


@explain_missing()
def read(net: AnyPath, *, input_shape: tuple[int, int, int] | None = None) -> Network:
    """Read an integer network from a netx HDF5 file.

    Args:
        net: the file, written by esl-lava or by lava-dl.
        input_shape: (channels, rows, columns) of the input, where the file does not hold them.

    Raises:
        FileError: when the file is damaged, or holds something that netx would run differently
            from how SLAYER trained it.
    """
    from esl_lava import netfile

    return netfile.read(Path(net), input_shape=input_shape)


@explain_missing()
def write(network: Network, net: AnyPath, *, overwrite: bool = False) -> None:
    """Write an integer network as a netx HDF5 file, after all limits are checked.

    Raises:
        FileError: when the file exists or cannot be written.
        LimitError: with every limit of netx, Lava or the chip that the network breaks.
    """
    from esl_lava import netfile
    from esl_lava.experiments.rundir import refuse_overwrite

    refuse_overwrite(Path(net), overwrite)
    netfile.check(network)
    netfile.write(network, Path(net))


@explain_missing()
def load_spikes(
    network: Network | AnyPath,
    data: str | None = None,
    *,
    samples: int | None = None,
    own: OwnSamples | None = None,
) -> Spikes:
    """Load test samples as the spikes that a network takes.

    Args:
        network: an integer network, or its file.
        data: a data set; by default the one that the network was trained on.
        samples: number of samples from the first on; by default all.
        own: the user's own samples in place of `data`.

    Raises:
        UserError: when the samples do not fit the network, or there are fewer than `samples`.
    """
    from esl_lava.experiments import evaluate as evaluations
    from esl_lava.experiments.spikes import apply_input_block

    network = _as_network(network)
    name = "own" if own is not None else evaluations.data_name(network, data)
    encoding = evaluations.encoding_of(network, data=name)
    loaded = evaluations.load_samples(network, name, "test", samples, encoding=encoding, own=own)
    return Spikes(apply_input_block(network, loaded.spikes(encoding)), loaded.labels)


@explain_missing()
def run(
    network: Network | AnyPath,
    inputs: npt.ArrayLike,
    *,
    backend: str = "exact",
    record: Names = None,
    states: Names = None,
    **options: Any,
) -> Result:
    """Run samples through a network. Every sample starts from rest: u = v = 0.

    Args:
        network: an integer network, or its file.
        inputs: (samples, T, inputs) integers, as `load_spikes` gives them.
        backend: "exact", "lava", "lava-models" or "loihi2".
        record: names of the layers whose spikes are kept, or "all".
        states: names of the layers whose u and v are kept, or "all".
        options: options of the backend, such as `workers` of "lava".

    Returns:
        The result: `decisions`, `spikes`, `readout`, `counts`, `u`, `v`.

    Raises:
        DataError: when the inputs or the names of layers do not fit the network.
        BackendError: when the backend or an option is unknown, or the backend fails.
        PackageError: when the backend needs Lava, and Lava is not installed.
    """
    from esl_lava.simulate import simulate

    return simulate(_as_network(network), inputs, backend, record, states, **options)


@explain_missing()
def evaluate(
    network: Network | AnyPath,
    data: str | None = None,
    *,
    samples: int | None = None,
    backend: str = "exact",
    own: OwnSamples | None = None,
) -> Evaluation:
    """Run a network on test samples and compare its decisions with the labels.

    Args:
        network: an integer network, or its file.
        data: a data set; by default the one that the network was trained on.
        samples: number of samples from the first on; by default all.
        backend: "exact", "lava", "lava-models" or "loihi2".
        own: the user's own samples in place of `data`.

    Returns:
        The evaluation: `accuracy`, `samples`, `result.counts`, `firing`.

    Raises:
        UserError: as `load_spikes` and `run`.
    """
    from esl_lava.experiments import evaluate as evaluations

    network = _as_network(network)
    name = "own" if own is not None else evaluations.data_name(network, data)
    encoding = evaluations.encoding_of(network, data=name)
    loaded = evaluations.load_samples(network, name, "test", samples, encoding=encoding, own=own)
    return evaluations.evaluate(network, loaded, encoding, backend=backend)


@explain_missing()
def verify(
    model: AnyPath,
    net: AnyPath,
    data: str | None = None,
    *,
    samples: int | None = None,
    backends: Sequence[str] | None = None,
    own: OwnSamples | None = None,
) -> Verification:
    """Compare a file with its model: every integer first, then every spike.

    Args:
        model: a `model.pt`.
        net: the file that was exported from it.
        data: a data set; by default the one that the model was trained on.
        samples: number of test samples from the first on; by default 20, or all if there are
            fewer.
        backends: the simulators; by default every one that needs no chip.
        own: the user's own samples in place of `data`.

    Returns:
        The verification: `total` is the number of differences, `sentences()` names them.

    Raises:
        UserError: when a file cannot be read or a backend fails.
    """
    from esl_lava.experiments import verify as verifications

    chosen = verifications.VERIFIED_BACKENDS if backends is None else tuple(backends)
    return verifications.verify(Path(model), Path(net), data, samples, chosen, own=own)


@explain_missing()
def map_network(
    network: Network | AnyPath,
    chip: AnyPath = "loihi2",
    *,
    packing: str | None = None,
    chips: int | None = None,
) -> MappedNetwork:
    """Place a network on the cores of a chip.

    Args:
        network: an integer network, or its file.
        chip: the name or TOML file of a device that has a capacity.
        packing: how synapses are packed: "nxtf", "nengo-loihi" or "netx"; by default the chip's.
        chips: number of chips; by default as many as the network takes.

    Returns:
        The mapping: `core_map.cores`, `core_map.chips`, `core_map.layers`.

    Raises:
        ConfigError: for an unknown chip or packing, or a device without a capacity.
        LimitError: naming layer, resource, use and limit, when the network does not fit.
    """
    from esl_lava.experiments.activity import place

    device = chip if isinstance(chip, str) else Path(chip)
    return place(_as_network(network), device, packing=packing, chips=chips)


@explain_missing()
def price(
    network: Network | AnyPath,
    result: Result | Evaluation,
    devices: Sequence[str] | None = None,
) -> Mapping[str, Price]:
    """Compute the energy of a run on devices.

    Args:
        network: the network that was run, or its file.
        result: what `run` or `evaluate` returned.
        devices: names or TOML files of devices; by default truenorth_paper, v100_paper,
            loihi1_davies2018 and loihi1_sanafe.

    Returns:
        Name of a device -> its price: `measured.total` is the energy of a sample in joules.

    Raises:
        ConfigError: for an unknown device, or one that lacks a necessary constant.
        FileError: when a TOML file cannot be read.
    """
    from esl_lava.experiments import price as prices
    from esl_lava.results.evaluation import Evaluation

    counts = result.result.counts if isinstance(result, Evaluation) else result.counts
    return prices.price(_as_network(network), counts, devices or prices.DEFAULT_DEVICES)


@explain_missing()
def write_report(
    runs: AnyPath | Sequence[AnyPath],
    page: AnyPath | None = None,
    *,
    overwrite: bool = False,
    own: OwnSamples | None = None,
) -> ReportFiles:
    """Write a report on a finished run, or a comparison of several, as HTML and JSON.

    Args:
        runs: one run directory or several.
        page: the HTML file; by default `report.html` in the run directory. Several runs need this
            argument.
        overwrite: whether existing files may be replaced.
        own: the user's own samples, where a run was trained on them.

    Raises:
        UserError: when a run is not finished, or a file exists.
    """
    from esl_lava.experiments import report

    directories = [runs] if isinstance(runs, str | PathLike) else runs
    terms = report.ReportTerms(own=own)
    paths = [Path(directory) for directory in directories]
    return report.write(paths, None if page is None else Path(page), overwrite, terms, _ignore)


def _as_network(network: Network | AnyPath) -> Network:
    """Return the network itself, or read it from its file."""
    return network if isinstance(network, Network) else read(network)


def _ignore(_: object) -> None:
    """Show nothing."""
