"""Options that several commands take, and what they mean together."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.models import OptionInfo

from esl_lava.cli.progress import show_samples
from esl_lava.errors import ConfigError

if TYPE_CHECKING:
    from esl_lava.config import Experiment
    from esl_lava.data.own import Own
    from esl_lava.experiments.spikes import Layout
    from esl_lava.results.evaluation import NetworkRun

# typer reads these annotations at run time: Optional, as Python 3.10's typing has it.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
DataOrSpikes = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Data set (digits, mnist, cifar10, ...), by default the one trained on; or a .npy "
        "file of spikes, integers of shape (samples, T, inputs) or (samples, T, channels, rows, "
        "columns).",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        help="Which axis of the file is which, by letters: N samples, T steps, C channels (or "
        "inputs), H rows, W columns. E.g. NTHWC; SLAYER's are NCHWT, of flat inputs NCT.",
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        help="Channels, rows and columns of the input, e.g. 2,34,34, for a file of others that "
        "begins with a convolution and does not say it; by default the axes of --data FILE.npy.",
    ),
]
Drive = Annotated[
    bool,
    typer.Option(
        "--drive",
        help="The values of --data FILE.npy drive the neurons of the network's input block as "
        "they are; by default its weight and bias are applied to them first.",
    ),
]
Samples = Annotated[
    int | None, typer.Option("--samples", help="Use the first N test samples; default all.")
]
Net = Annotated[Path, typer.Argument(help="An exported network, net.h5.")]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="A device's name or TOML file; may be repeated."),
]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="rate, latency, constant or two_times; by default as trained."),
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Steps per sample, 1 to 4096; by default as trained.")
]


DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data-folder",
        help="A folder of your own samples: train.npz and test.npz of arrays samples and labels, "
        "or train_samples.npy, train_labels.npy and the same of test.",
    ),
]
DataModule = Annotated[
    str | None,
    typer.Option(
        "--data-module",
        metavar="FILE.py:FUNCTION",
        help="A function of your own that gives samples: called with 'train' or 'test', it returns "
        "a torch Dataset or a pair (samples, labels). The file is run.",
    ),
]


def number(purpose: str) -> OptionInfo:
    """An option that takes a number; NaN and infinity are none."""
    return typer.Option(parser=finite, metavar="FLOAT", help=purpose)


def finite(text: str) -> float:
    """A number given on the command line, or `typer.BadParameter`."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise typer.BadParameter(f"{text!r} is not a finite number.")


Config = Annotated[Path | None, typer.Option(help="An experiment as TOML.")]
Density = Annotated[
    float | None,
    number("Of the layers made sparse (sparsity.density)."),
]
Epochs = Annotated[int | None, typer.Option(help="Passes (training.epochs).")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other field, e.g. --set model.layers=800."),
]


def chosen_experiment(
    preset: str | None,
    config: Path | None,
    settings: list[str] | None,
    named: Mapping[str, object],
) -> Experiment:
    """The experiment that `--preset` or `--config` names, with what other options change.

    Args:
        settings: key=value texts of `--set`.
        named: dotted key -> value of an option of its own, None where it was not given.

    Raises:
        ConfigError, FileError: where they do not name one, or one that cannot be.
    """
    from esl_lava import config as configs
    from esl_lava.experiments.preset import load_preset

    if (preset is None) == (config is None):
        raise ConfigError("give one of --preset and --config")
    base = configs.read_toml(config) if config is not None else load_preset(preset or "")
    overrides = dict(configs.parse_setting(text) for text in settings or ())
    overrides |= {key: value for key, value in named.items() if value is not None}
    experiment = configs.override(base, overrides)
    if (folder := experiment.data.folder) is None:
        return experiment
    # What is recorded is to be found from wherever later commands are called.
    place = {"data.name": experiment.data.name, "data.folder": os.path.abspath(folder)}
    return configs.override(experiment, place)


def own_settings(folder: Path | None, module: str | None) -> dict[str, object]:
    """What an experiment says of samples by `--data-folder` and `--data-module`.

    It names a folder, but never a module: what a file says is not run.
    """
    if folder is None and module is None:
        return {}
    return {"data.name": "own", "data.folder": None if folder is None else str(folder)}


def own_samples(folder: Path | None, module: str | None) -> Own | None:
    """Where samples of the user's own come from, by `--data-folder` and `--data-module`.

    Raises:
        ConfigError: for both at once, or a module that is not of the form FILE.py:FUNCTION.
        DataError, FileError: as `data.modules.of_module`.
    """
    if folder is not None and module is not None:
        raise ConfigError("give one of --data-folder and --data-module")
    if module is not None:
        from esl_lava.data.modules import of_module

        return of_module(module)
    if folder is None:
        return None
    from esl_lava.data.own import of_folder

    return of_folder(folder)


def layout_of(axes: str | None, input_shape: str | None, drive: bool) -> Layout:
    """`experiments.spikes.Layout` of the options.

    Raises:
        ConfigError: when a shape is none.
    """
    from esl_lava.experiments.spikes import Layout, parse_shape

    return Layout(axes, None if input_shape is None else parse_shape(input_shape), drive)


def evaluated(
    net: Path,
    data: str | None,
    labels: Path | None,
    layout: Layout,
    samples: int | None,
    encoder: str | None,
    steps: int | None,
    backend: str = "exact",
    options: Mapping[str, object] | None = None,
    measured: int = 0,
    own: Own | None = None,
) -> NetworkRun:
    """The network of a file, run on samples of a data set or a file.

    Args:
        net, data, labels, layout, samples, encoder, steps, own: as `evaluate.read_inputs`.
        backend, options: what runs it.
        measured: of so many of the first samples the neurons' activity is measured.

    Raises:
        UserError: as `evaluate.read_inputs` and `evaluate.evaluate`.
    """
    from esl_lava.experiments import evaluate as evaluations
    from esl_lava.results.evaluation import NetworkRun
    from esl_lava.simulate import backend_options

    network, chosen, encoding = evaluations.read_inputs(
        net,
        data,
        labels=labels,
        layout=layout,
        samples=samples,
        encoder=encoder,
        steps=steps,
        own=own,
    )
    # Lava reads the file itself, so that a fault of our reader would show.
    file = {"path": net} if "path" in backend_options(backend) else {}
    with show_samples() as show:
        found = evaluations.evaluate(
            network,
            chosen,
            encoding,
            backend=backend,
            options={**(options or {}), **file},
            show=partial(show, ""),
            probes=evaluations.Probes(activity=measured),
        )
    return NetworkRun(network, found)
