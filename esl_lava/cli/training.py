"""The commands that make a network: `demo`, `train` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esl_lava.cli import options
from esl_lava.cli.launch import join_ranks
from esl_lava.cli.networks import fail_on_differences
from esl_lava.cli.output import answer, results_only, tell
from esl_lava.cli.progress import show_training
from esl_lava.errors import ConfigError

if TYPE_CHECKING:
    from esl_lava.config import Experiment
    from esl_lava.data.own import OwnData


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="New directory for the run. The default is runs/demo, or the next free name.",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Number of test samples that are verified on Lava.")
    ] = 100,
    as_json: options.Json = False,
) -> None:
    """Train, export, verify and report a network on the built-in digits, into a run directory."""
    with results_only():
        from esl_lava.experiments.rundir import check_free, next_free

        directory = output or next_free(Path("runs/demo"))
        check_free(directory)
        # These imports take seconds, so the error above is reported before them.
        from esl_lava.experiments import demo as demos
        from esl_lava.report import tables

        with show_training() as show:
            report = demos.demo(directory, show, tell, samples)
        (account,) = report.accounts.values()
        files = "config.toml, model.pt, net.h5, updates.json, report.html, report.json, plots"
    answer(
        as_json,
        {**report.values, "seconds": account.evaluation.seconds},
        tables.render_account(account, f"written to {directory}: {files}"),
    )
    if account.verification is not None:
        fail_on_differences(account.verification)


@join_ranks
def train(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="New directory for the run. It is required without --resume or --dry-run, and "
            "--resume refuses it.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Name of a built-in experiment: {options.PRESETS}.")
    ] = None,
    config: options.Config = None,
    density: options.Density = None,
    epochs: options.Epochs = None,
    seed: Annotated[int | None, typer.Option(help="Random seed (overrides the key seed).")] = None,
    settings: options.Settings = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Training method: {options.METHODS}. The default is esl, which rewires the "
            "sparse layers. The other methods are baselines."
        ),
    ] = None,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Directory of an interrupted run, which continues from its last checkpoint."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Build the network, time a few steps of the optimiser, and print shapes, "
            "connections, cores, memory and the estimated time. No run is written; only the cache "
            "of data may grow.",
        ),
    ] = False,
    help_config: Annotated[
        bool,
        typer.Option("--help-config", help="Explain every key of an experiment, and do not train."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Read an experiment, train its sparse network from scratch and write a run directory."""
    from esl_lava import config as configs

    if help_config:
        for key, default, description in configs.documentation():
            head = f"{key} = {default}" if default else key
            typer.echo(f"{head}\n    {description}")
        return
    with results_only():
        from esl_lava.experiments.baselines import by_method
        from esl_lava.experiments.layers import check_layers
        from esl_lava.experiments.rundir import check_free

        named: dict[str, object] = {
            "sparsity.density": density,
            "training.epochs": epochs,
            "seed": seed,
        }
        own = options.own_samples(data_folder, data_module)
        if resume is not None and dry_run:
            raise ConfigError(
                "--dry-run: a training that is resumed has begun already; leave out --resume",
                "conflict",
                key="--dry-run",
            )
        if resume is not None:
            others = (output, preset, config, settings, method, *named.values())
            if any(value is not None for value in others):
                raise ConfigError(
                    f"--resume {resume}: the run continues with the experiment that it began "
                    "with; the only other options allowed are --data-folder, --data-module, "
                    "--json, --quiet and --verbose",
                    "conflict",
                    key="--resume",
                    value=resume,
                )
        elif output is None and not dry_run:
            raise ConfigError(
                "--output is missing: give a new directory for the run with -o DIRECTORY",
                "missing",
                key="--output",
            )
        else:
            named |= options.own_settings(data_folder, data_module)
            experiment = options.load_experiment(preset, config, settings, named)
            if output is not None:
                check_free(output)
            check_layers(experiment)
            experiment = by_method(experiment, method or "esl", own)

    if dry_run:
        _print_plan(experiment, own, as_json)
        return
    with results_only():
        # These imports take seconds, so the errors above are reported before them.
        from esl_lava.experiments import train as trainings
        from esl_lava.report import tables

        with show_training() as show:
            if resume is not None:
                trained = trainings.resume(resume, show, own)
            elif output is not None:
                trained = trainings.train(experiment, output, show, own)
    answer(
        as_json,
        trained,
        tables.render_facts(
            [
                ("test accuracy", tables.percent(trained.accuracy)),
                ("test samples", f"{trained.samples:,}"),
                ("data set", trained.dataset),
                ("density, all layers", tables.percent(trained.density)),
                ("weights", f"{trained.weights:,}"),
                ("connections", f"{trained.connections:,}"),
                ("seconds", f"{trained.seconds:.0f}"),
            ],
            f"trained: {trained.run.model}",
        ),
        *([tables.render_firing(trained.firing)] if trained.firing else []),
    )


def export(
    model: options.Model,
    net: Annotated[Path, typer.Argument(help="File to write, in netx HDF5, for example net.h5.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    as_json: options.Json = False,
) -> None:
    """Read a trained model and write its integer network as a netx HDF5 file, which Lava loads."""
    with results_only():
        from esl_lava.experiments import export as exports
        from esl_lava.report import tables

        own = options.own_samples(data_folder, data_module)
        exported = exports.export(model, net, overwrite, own)
        network = exported.network
    answer(
        as_json,
        exported,
        tables.render_facts(
            [
                ("layers", f"{len(network.layers)}"),
                ("density, all layers", tables.percent(network.density)),
                ("weights", f"{network.weights:,}"),
                ("connections", f"{network.connections:,}"),
                ("synapses (weight not 0)", f"{network.synapses:,}"),
                ("bytes", f"{exported.size:,}"),
            ],
            f"exported: {net}",
        ),
    )


def _print_plan(experiment: Experiment, own: OwnData | None, as_json: bool) -> None:
    """Print the plan of a training for `--dry-run`: its network, memory and estimated time.

    Args:
        experiment: the experiment that would be trained.
        own: source of the user's own samples, or None.
        as_json: whether the plan is printed as JSON.
    """
    with results_only():
        from esl_lava.experiments.dryrun import plan
        from esl_lava.report.plan import show_plan

        planned = plan(experiment, own)
    answer(as_json, planned, show_plan(planned))
