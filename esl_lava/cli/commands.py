"""The commands of one network's way: train, export, run, verify, and all of it as a demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esl_lava.cli.launch import ranked
from esl_lava.cli.options import (
    Axes,
    Config,
    DataOrSpikes,
    Density,
    Drive,
    Encoder,
    Epochs,
    InputShape,
    Json,
    Net,
    Samples,
    Settings,
    Steps,
    chosen_experiment,
    evaluated,
    finite,
    layout_of,
)
from esl_lava.cli.output import print_json, print_tables, results_only, tell
from esl_lava.cli.progress import show_samples, show_training
from esl_lava.errors import ConfigError

if TYPE_CHECKING:
    from esl_lava.results.verification import Verification

Data = Annotated[
    str | None,
    typer.Option("--data", help="Data set (digits, mnist); by default the one trained on."),
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="A .npy file of the classes of the samples in a file."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Interpreters that run Lava at the same time."),
]
Model = Annotated[Path, typer.Argument(help="A trained model, model.pt.")]


def demo(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="New directory; default runs/demo, or the next free."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Test samples verified on Lava.")] = 100,
    as_json: Json = False,
) -> None:
    """Train, export, run, verify, price and report on a sparse network: the embedded digits."""
    with results_only():
        from esl_lava.experiments import demo as demos
        from esl_lava.experiments.rundir import next_free
        from esl_lava.report import tables

        directory = output or next_free(Path("runs/demo"))
        with show_training() as show:
            found = demos.demo(directory, show, tell, samples)
        account = found.account
    if as_json:
        print_json({**found.written.values, "seconds": account.evaluation.seconds})
    else:
        left = "config.toml, model.pt, net.h5, updates.json, report.html, report.json, plots"
        print_tables(tables.account(account, f"left in {directory}: {left}"))
    _fail_on(account.verification)


@ranked
def train(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New directory for the run.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="An experiment that comes along: digits, mnist.")
    ] = None,
    config: Config = None,
    density: Density = None,
    epochs: Epochs = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random (seed).")] = None,
    settings: Settings = None,
    method: Annotated[
        str | None,
        typer.Option(help="A baseline instead: static, dense, small-dense, pruned."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on in this directory of an interrupted run.")
    ] = None,
    help_config: Annotated[
        bool, typer.Option("--help-config", help="Explain every field of an experiment.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a sparse network from scratch into a run directory."""
    from esl_lava import config as configs

    if help_config:
        for key, default, description in configs.documentation():
            typer.echo(
                f"{key} = {default}\n    {description}" if default else f"{key}\n    {description}"
            )
        return
    with results_only():
        from esl_lava.experiments import train as trainings
        from esl_lava.experiments.baselines import by_method
        from esl_lava.report import tables

        named = {"sparsity.density": density, "training.epochs": epochs, "seed": seed}
        if resume is not None:
            others = (output, preset, config, settings, method, *named.values())
            if any(given is not None for given in others):
                raise ConfigError("--resume goes on as the run began and takes no other option")
            with show_training() as show:
                trained = trainings.resume(resume, show)
        else:
            if output is None:
                raise ConfigError("-o is missing: the new directory for the run")
            experiment = chosen_experiment(preset, config, settings, named)
            experiment = by_method(experiment, method or "esl")
            with show_training() as show:
                trained = trainings.train(experiment, output, show)
    if as_json:
        print_json(trained)
        return
    print_tables(
        tables.facts(
            [
                ("test accuracy", tables.percent(trained.accuracy)),
                ("test samples", f"{trained.samples:,}"),
                ("density, all layers", tables.percent(trained.density)),
                ("connections", f"{trained.connections:,}"),
                ("seconds", f"{trained.seconds:.0f}"),
            ],
            f"trained: {trained.run.model}",
        )
    )


def export(
    model: Model,
    net: Annotated[Path, typer.Argument(help="The netx HDF5 file to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write a trained model as netx HDF5 that Lava loads."""
    with results_only():
        from esl_lava.experiments import export as exports
        from esl_lava.report import tables

        exported = exports.export(model, net, overwrite)
        network = exported.network
    if as_json:
        print_json(exported)
        return
    print_tables(
        tables.facts(
            [
                ("layers", f"{len(network.layers)}"),
                ("density, all layers", tables.percent(network.density)),
                ("weights", f"{network.weights:,}"),
                ("connections", f"{network.connections:,}"),
                ("synapses (weight not 0)", f"{network.synapses:,}"),
                ("bytes", f"{exported.size:,}"),
            ],
            f"exported: {net}",
        )
    )


def run(
    net: Net,
    data: DataOrSpikes = None,
    labels: Labels = None,
    axes: Axes = None,
    input_shape: InputShape = None,
    drive: Drive = False,
    samples: Samples = None,
    backend: Annotated[
        str,
        typer.Option(
            help="exact (ours), lava (Lava's CPU), lava-models (Lava's process models without "
            "its runtime) or loihi2 (needs Lava's Loihi extension; untested on silicon)"
        ),
    ] = "exact",
    encoder: Encoder = None,
    steps: Steps = None,
    workers: Workers = None,
    sparse: Annotated[
        bool | None,
        typer.Option("--sparse/--dense", help="Which of Lava's synapses to use; dense ones."),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            parser=finite,
            metavar="FLOAT",
            help="Seconds until Lava is stopped; by default generous for the size.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an exported network over test samples and count what it does."""
    options = {"workers": workers, "sparse": sparse, "deadline": deadline}
    with results_only():
        from esl_lava.report import tables

        layout = layout_of(axes, input_shape, drive)
        given = {name: value for name, value in options.items() if value is not None}
        found = evaluated(net, data, labels, layout, samples, encoder, steps, backend, given)
    if as_json:
        print_json(found)
        return
    print_tables(
        tables.network_run(found, str(net)), tables.layer_counts(found.evaluation.result.counts)
    )


def verify(
    model: Model,
    net: Net,
    data: Data = None,
    samples: Annotated[
        int | None,
        typer.Option(help="The first N test samples; default 20, or all where there are fewer."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="One to compare; may be repeated; by default all but loihi2."),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Prove that a file is its model's, and that SLAYER, our simulator and Lava agree.

    First every integer of the file is compared with what the model lowers to: weights,
    connections, thresholds, biases, decays, delays, refractory periods, steps. Then samples
    run, and spikes are compared in every layer at every step.

    Where neurons fire once, the steps of their spikes are compared with training's exact
    times, within what the rounding of the chip allows.
    """
    with results_only():
        from esl_lava.experiments import verify as verifications
        from esl_lava.report import tables

        chosen = tuple(backend or verifications.VERIFIED_BACKENDS)
        with show_samples() as show:
            found = verifications.verify(model, net, data, samples, chosen, workers, show)
    if as_json:
        print_json(found)
    else:
        print_tables(
            tables.verification(found, f"{net} against {found.reference}, {model}"),
            *([tables.firing_times(found.times)] if found.times else []),
        )
    _fail_on(found)


def _fail_on(verification: Verification) -> None:
    """Exit code 1, with what differs, when a comparison failed."""
    if verification.total:
        for sentence in verification.sentences():
            tell(f"difference: {sentence}")
        raise typer.Exit(1)
