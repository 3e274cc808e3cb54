"""Options that several commands share, and functions that evaluate them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.models import OptionInfo

from esl_lava.cli.progress import show_samples
from esl_lava.errors import ConfigError

if TYPE_CHECKING:
    from esl_lava.config import Experiment
    from esl_lava.data.own import OwnData
    from esl_lava.experiments.spikes import Layout
    from esl_lava.results.evaluation import NetworkRun


def _list_files(package: str, folder: str = ".") -> str:
    """Return the names of the TOML files in a folder, sorted, with commas between them."""
    place = resources.files(package).joinpath(folder)
    files = [Path(file.name) for file in place.iterdir()]
    return ", ".join(sorted(file.stem for file in files if file.suffix == ".toml"))


# Importing the tables of these names would import heavy packages; tests compare the lists.
BACKENDS = "exact, lava, lava-models, loihi2"
DATA_SETS = (
    "digits, mnist, cifar10, cifar10_subset, cifar100, nmnist, nmnist_subset, dvs_cifar10, "
    "dvs_cifar10_tet, dvs_gesture, shd, moving_digits, own"
)
DEVICES = _list_files("esl_lava.hw_configs")
ENCODERS = "rate, latency, constant, two_times, direct, frames"
METHODS = "esl, static, dense, small-dense, pruned"
PACKINGS = "nengo-loihi, nxtf, netx"
PRESETS = _list_files("esl_lava.experiments", "presets")

# typer reads these annotations at run time.
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object instead of tables.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help=f"Name of the data set: {DATA_SETS}. The default is the data set that the training "
        "used.",
    ),
]
DataOrSpikes = Annotated[
    str | None,
    typer.Option(
        "--data",
        help=f"Name of the data set: {DATA_SETS}. The default is the data set that the training "
        "used. Or a .npy file of spikes: an integer array of shape (samples, T, inputs) or "
        "(samples, T, channels, rows, columns).",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        help="Order of the axes of the array in --data, one letter for each axis: N samples, T "
        "steps, C channels (or inputs), H rows, W columns. Example: NTHWC. SLAYER uses NCHWT, or "
        "NCT for flat inputs.",
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        help="Channels, rows and columns of the input, for example 2,34,34. A network file that "
        "esl-lava did not write may need this shape if its first layer is a convolution. By "
        "default it is taken from the array in --data.",
    ),
]
Drive = Annotated[
    bool,
    typer.Option(
        "--drive",
        help="Pass the values of the file in --data unchanged to the neurons of the network's "
        "input block. By default the weight and the bias of the block are applied to the values "
        "first.",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples", help="Number of test samples, from the first one. The default is all samples."
    ),
]
Model = Annotated[Path, typer.Argument(help="File of the trained model, model.pt.")]
Net = Annotated[Path, typer.Argument(help="File of the exported network, for example net.h5.")]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        help=f"Name of a device: {DEVICES}. Or a TOML file of a device of your own. Repeat the "
        "option for several devices. The default is truenorth_paper, v100_paper, "
        "loihi1_davies2018 and loihi1_sanafe.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help=f"Name of the encoder: {ENCODERS}. The default is the encoder that the training used.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        help="Number of steps per sample, 1 to 4096. The default is the number of steps that the "
        "training used.",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data-folder",
        help="Folder of your own samples. It holds train.npz and test.npz, each with the arrays "
        "samples and labels. Or it holds train_samples.npy, train_labels.npy, test_samples.npy and "
        "test_labels.npy.",
    ),
]
DataModule = Annotated[
    str | None,
    typer.Option(
        "--data-module",
        metavar="FILE.py:FUNCTION",
        help="Python function that returns your own samples. It is called with 'train' or 'test' "
        "and returns a torch Dataset or a pair (samples, labels). esl-lava runs the whole FILE.py.",
    ),
]


def number_option(purpose: str) -> OptionInfo:
    """Return an option that accepts a finite number."""
    return typer.Option(parser=parse_finite, metavar="FLOAT", help=purpose)


def parse_finite(text: str) -> float:
    """Return a number of the command line.

    Raises:
        typer.BadParameter: when the text is not a number, or the number is NaN or infinite.
    """
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter("a number is needed") from None
    if not math.isfinite(value):
        raise typer.BadParameter("a finite number is needed")
    return value


Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of an experiment. The command esl train --help-config explains its keys."
    ),
]
Density = Annotated[
    float | None,
    number_option(
        "Density of the sparse layers, above 0 and at most 1 (overrides sparsity.density)."
    ),
]
Epochs = Annotated[
    int | None, typer.Option(help="Number of training epochs (overrides training.epochs).")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Value of any other key of the experiment, for example --set model.layers=800. Repeat "
        "the option for several keys.",
    ),
]


def load_experiment(
    preset: str | None,
    config: Path | None,
    settings: list[str] | None,
    named: Mapping[str, object],
) -> Experiment:
    """Return the experiment of `--preset` or `--config` with the changes of the other options.

    Args:
        preset: name of a preset, or None.
        config: TOML file of an experiment, or None.
        settings: texts KEY=VALUE of `--set`.
        named: configuration key -> value of the option for this key, None if it is not given.

    Raises:
        ConfigError: when not exactly one of `preset` and `config` is given, or a value is wrong.
        FileError: when the file cannot be read.
    """
    from esl_lava import config as configs
    from esl_lava.experiments.preset import load_preset

    if preset is None and config is None:
        raise ConfigError("give one of --preset and --config", "missing", key="--preset")
    if preset is not None and config is not None:
        raise ConfigError(
            "give only one of --preset and --config", "conflict", key="--preset", value=preset
        )
    base = configs.read_toml(config) if config is not None else load_preset(preset or "")
    overrides = dict(configs.parse_setting(text) for text in settings or ())
    overrides |= {key: value for key, value in named.items() if value is not None}
    experiment = configs.override(base, overrides)
    if (folder := experiment.data.folder) is None:
        return experiment
    # Later commands may run in another directory, so the run records an absolute path.
    place = {"data.name": experiment.data.name, "data.folder": os.path.abspath(folder)}
    return configs.override(experiment, place)


def own_settings(folder: Path | None, module: str | None) -> dict[str, object]:
    """Return the configuration values of `--data-folder` and `--data-module`.

    A configuration can name a folder but no module, because esl-lava never executes code that a
    file names.
    """
    if folder is None and module is None:
        return {}
    return {"data.name": "own", "data.folder": None if folder is None else str(folder)}


def own_samples(folder: Path | None, module: str | None) -> OwnData | None:
    """Return the source of the user's own samples that `--data-folder` or `--data-module` names.

    Raises:
        ConfigError: when both are given, or a module is not of the form FILE.py:FUNCTION.
        DataError, FileError: as `data.modules.own_from_module`.
    """
    if folder is not None and module is not None:
        raise ConfigError(
            "give only one of --data-folder and --data-module",
            "conflict",
            key="--data-module",
            value=module,
        )
    if module is not None:
        from esl_lava.data.modules import own_from_module

        return own_from_module(module)
    if folder is None:
        return None
    from esl_lava.data.own import own_from_folder

    return own_from_folder(folder)


def parse_layout(axes: str | None, input_shape: str | None, drive: bool) -> Layout:
    """Return the layout of a file of spikes from `--axes`, `--input-shape` and `--drive`.

    Raises:
        ConfigError: when `--input-shape` is not a shape.
    """
    from esl_lava.experiments.spikes import Layout, parse_shape

    return Layout(axes, None if input_shape is None else parse_shape(input_shape), drive)


def run_network(
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
    own: OwnData | None = None,
) -> NetworkRun:
    """Run the network of a file on samples of a data set or of a file.

    Args:
        net, data, labels, layout, samples, encoder, steps, own: as `evaluate.read_inputs`.
        backend, options: the simulator and its own options.
        measured: number of the first samples on which the activity of the neurons is measured.

    Raises:
        UserError: as `evaluate.read_inputs` and `evaluate.evaluate`.
    """
    from esl_lava.experiments import evaluate as evaluations
    from esl_lava.results.evaluation import NetworkRun
    from esl_lava.simulate import backend_options

    network, inputs, encoding = evaluations.read_inputs(
        net,
        data,
        labels=labels,
        layout=layout,
        samples=samples,
        encoder=encoder,
        steps=steps,
        own=own,
    )
    # Lava reads the file itself, so that an error of our reader becomes visible.
    file = {"path": net} if "path" in backend_options(backend) else {}
    with show_samples() as show:
        evaluation = evaluations.evaluate(
            network,
            inputs,
            encoding,
            backend=backend,
            options={**(options or {}), **file},
            show=partial(show, ""),
            probes=evaluations.Probes(activity=measured),
        )
    return NetworkRun(network, evaluation)
