"""The commands of one network.

Train, export, run, verify, price, map to a chip, report, and all as a demo; and the devices.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esl_lava.cli import options
from esl_lava.cli.launch import ranked
from esl_lava.cli.output import answer, results_only, tell, warn
from esl_lava.cli.progress import show_samples, show_training
from esl_lava.errors import ConfigError

if TYPE_CHECKING:
    from esl_lava.config import Experiment
    from esl_lava.data.own import Own
    from esl_lava.results.verification import Verification

Data = Annotated[
    str | None,
    typer.Option(
        "--data", help="Data set (digits, mnist, cifar10, ...); by default the one trained on."
    ),
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
    as_json: options.Json = False,
) -> None:
    """Train, export, run, verify, price and report on a sparse network: the embedded digits."""
    with results_only():
        from esl_lava.experiments import demo as demos
        from esl_lava.experiments.rundir import next_free
        from esl_lava.report import tables

        directory = output or next_free(Path("runs/demo"))
        with show_training() as show:
            written = demos.demo(directory, show, tell, samples)
        (account,) = written.accounts.values()
        left = "config.toml, model.pt, net.h5, updates.json, report.html, report.json, plots"
    answer(
        as_json,
        {**written.values, "seconds": account.evaluation.seconds},
        tables.account(account, f"left in {directory}: {left}"),
    )
    if account.verification is not None:
        _fail_on(account.verification)


@ranked
def train(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New directory for the run.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="An experiment that comes along, such as digits, mnist or cifar10-small; "
            "a name that does not exist lists all."
        ),
    ] = None,
    config: options.Config = None,
    density: options.Density = None,
    epochs: options.Epochs = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random (seed).")] = None,
    settings: options.Settings = None,
    method: Annotated[
        str | None,
        typer.Option(help="A baseline instead: static, dense, small-dense, pruned."),
    ] = None,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on in this directory of an interrupted run.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Build the network, time a few steps, and print shapes, connections, cores, "
            "memory and the estimated time. Nothing is written.",
        ),
    ] = False,
    help_config: Annotated[
        bool, typer.Option("--help-config", help="Explain every field of an experiment.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a sparse network from scratch into a run directory."""
    from esl_lava import config as configs

    if help_config:
        for key, default, description in configs.documentation():
            head = f"{key} = {default}" if default else key
            typer.echo(f"{head}\n    {description}")
        return
    with results_only():
        from esl_lava.experiments.baselines import by_method
        from esl_lava.experiments.layers import check_layers

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
            if any(given is not None for given in others):
                raise ConfigError(
                    "--resume goes on as the run began and takes no other option, but "
                    "--data-folder or --data-module for samples of your own"
                )
        elif output is None and not dry_run:
            raise ConfigError("-o is missing: the new directory for the run")
        else:
            named |= options.own_settings(data_folder, data_module)
            experiment = options.chosen_experiment(preset, config, settings, named)
            check_layers(experiment)
            experiment = by_method(experiment, method or "esl", own)

    if dry_run:
        _print_plan(experiment, output, own, as_json)
        return
    with results_only():
        # Seconds of imports, which a fault above is not to wait for.
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
        tables.facts(
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
        *([tables.layer_firing(trained.firing)] if trained.firing else []),
    )


def export(
    model: Model,
    net: Annotated[Path, typer.Argument(help="The netx HDF5 file to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    as_json: options.Json = False,
) -> None:
    """Write a trained model as netx HDF5 that Lava loads."""
    with results_only():
        from esl_lava.experiments import export as exports
        from esl_lava.report import tables

        own = options.own_samples(data_folder, data_module)
        exported = exports.export(model, net, overwrite, own)
        network = exported.network
    answer(
        as_json,
        exported,
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
        ),
    )


def run(
    net: options.Net,
    data: options.DataOrSpikes = None,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    labels: Labels = None,
    axes: options.Axes = None,
    input_shape: options.InputShape = None,
    drive: options.Drive = False,
    samples: options.Samples = None,
    backend: Annotated[
        str,
        typer.Option(
            help="exact (ours), lava (Lava's CPU), lava-models (Lava's process models without "
            "its runtime) or loihi2 (needs Lava's Loihi extension; untested on silicon)"
        ),
    ] = "exact",
    encoder: options.Encoder = None,
    steps: options.Steps = None,
    workers: Workers = None,
    sparse: Annotated[
        bool | None,
        typer.Option("--sparse/--dense", help="Which of Lava's synapses to use; dense ones."),
    ] = None,
    deadline: Annotated[
        float | None,
        options.number("Seconds until Lava is stopped; by default generous for the size."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run an exported network over test samples and count what it does."""
    limits = {"workers": workers, "sparse": sparse, "deadline": deadline}
    with results_only():
        from esl_lava.report import tables

        layout = options.layout_of(axes, input_shape, drive)
        given = {name: value for name, value in limits.items() if value is not None}
        own = options.own_samples(data_folder, data_module)
        found = options.evaluated(
            net, data, labels, layout, samples, encoder, steps, backend, given, own=own
        )
    done = found.evaluation
    answer(
        as_json,
        found,
        tables.network_run(found, str(net)),
        tables.layer_counts(done.result.counts),
        *([tables.layer_firing(done.firing)] if done.firing else []),
    )


def verify(
    model: Model,
    net: options.Net,
    data: Data = None,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    samples: Annotated[
        int | None,
        typer.Option(help="The first N test samples; default 20, or all where there are fewer."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="One to compare; may be repeated; by default all but loihi2."),
    ] = None,
    workers: Workers = None,
    as_json: options.Json = False,
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
        own = options.own_samples(data_folder, data_module)
        with show_samples() as show:
            found = verifications.verify(model, net, data, samples, chosen, workers, show, own)
    answer(
        as_json,
        found,
        tables.verification(found, f"{net} against {found.reference}, {model}"),
        *([tables.firing_times(found.times)] if found.times else []),
    )
    _fail_on(found)


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories; several are compared.", metavar="RUN...")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The page; its numbers go beside it as .json. Default: report.html in the "
            "run's directory.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the files if they exist.")] = False,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    device: options.Devices = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="The first N test samples are verified; default 20, or all where there are fewer.",
            min=1,
        ),
    ] = None,
    lava: Annotated[
        bool, typer.Option("--lava", help="Verify on Lava itself too, which takes longer.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write a report on one run, or a comparison of several, as one page of HTML and JSON."""
    with results_only():
        from esl_lava.experiments import report as reports
        from esl_lava.experiments.price import DEFAULT_DEVICES
        from esl_lava.report import tables

        own = options.own_samples(data_folder, data_module)
        terms = reports.ReportTerms(tuple(device or DEFAULT_DEVICES), samples, lava, own)
        written = reports.write(runs, output, overwrite, terms, tell)
    rows = [
        (
            name if len(runs) > 1 else found.title,
            f"{tables.percent(found.evaluation.accuracy or 0.0)} right",
        )
        for name, found in written.accounts.items()
    ]
    differences = written.differences
    rows.append(("differences", "not verified" if differences is None else f"{differences:,}"))
    title = f"written: {written.page}, {written.document}"
    answer(as_json, written.values, tables.facts(rows, title))
    if differences:
        warn("a verification found differences: the page names the first")
        raise typer.Exit(1)


def energy(
    net: options.Net,
    data: options.DataOrSpikes = None,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    axes: options.Axes = None,
    input_shape: options.InputShape = None,
    drive: options.Drive = False,
    samples: options.Samples = None,
    device: options.Devices = None,
    encoder: options.Encoder = None,
    steps: options.Steps = None,
    chip: Annotated[
        str | None,
        typer.Option(
            "--map", help="Place on this chip first: messages and active updates are charged too."
        ),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(help="KEY=PICOJOULES of your own, for chips charged by events."),
    ] = None,
    utilisation: Annotated[
        float | None,
        options.number("Share of its peak a GPU reaches, 0..1."),
    ] = None,
    flops_per_mac: Annotated[
        int | None, typer.Option(help="Operations a GPU is charged for a connection, 1 or 2.")
    ] = None,
    step_seconds: Annotated[
        float | None,
        options.number("A step takes: charges static power for it."),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(help="The model.pt it came from: what its training took."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Count synaptic operations on real spikes and price them on devices."""
    with results_only():
        from esl_lava.energy import neurobench
        from esl_lava.experiments import activity
        from esl_lava.experiments import price as prices
        from esl_lava.report import tables
        from esl_lava.results.price import Bill

        terms = prices.PriceTerms(
            constants=prices.parse_constants(constant or ()),
            utilisation=utilisation,
            flops_per_mac=flops_per_mac,
            step_seconds=step_seconds,
        )
        layout = options.layout_of(axes, input_shape, drive)
        everything = 0 if chip is None else sys.maxsize
        own = options.own_samples(data_folder, data_module)
        found = options.evaluated(
            net, data, None, layout, samples, encoder, steps, measured=everything, own=own
        )
        network, counts = found.network, found.evaluation.result.counts
        if chip is not None:
            mapped = activity.place(network, chip, activity=found.evaluation.activity)
            assert mapped.flow is not None
            counts = mapped.flow.counts
            terms = replace(terms, chips=mapped.core_map.chips, cores=mapped.core_map.cores)
        by_device = prices.price(network, counts, device or prices.DEFAULT_DEVICES, terms)
        bill = Bill(
            found,
            by_device,
            prices.disagreements(by_device),
            neurobench=None if network.message_bits else neurobench.metrics(network, counts),
            training=None
            if training is None
            else prices.cost_of_training(training, network, counts, own),
        )
    answer(
        as_json,
        bill,
        tables.layer_counts(counts),
        tables.devices(bill.devices),
        tables.further(bill.devices),
        *map(tables.disagreement, bill.disagreements),
        *([] if bill.training is None else [tables.training(bill.training)]),
        tables.sources(bill.devices),
    )


def devices(
    device: Annotated[
        list[str] | None, typer.Argument(help="Names or TOML files; default: all that come along.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List devices with their constants and limits, and where these come from."""
    with results_only():
        from esl_lava.devices import device_names, load_device
        from esl_lava.report import tables
        from esl_lava.results.price import DeviceFacts
        from esl_lava.values import as_values

        found = [load_device(name) for name in device or device_names()]
    answer(
        as_json,
        {one.name: as_values(DeviceFacts(one)) for one in found},
        *([] if device else [tables.device_overview(found)]),
        *(tables.device_details(one) for one in found),
    )


def map_to_chip(
    net: options.Net,
    chip: Annotated[
        str, typer.Option(help="loihi1, loihi2, or a TOML file with a [capacity].")
    ] = "loihi2",
    packing: Annotated[
        str | None,
        typer.Option(help="How synapses are packed: nxtf, nengo-loihi, netx; default the chip's."),
    ] = None,
    chips: Annotated[
        int | None, typer.Option(help="Chips there are; default as many as it takes.")
    ] = None,
    spikes: Annotated[
        bool,
        typer.Option(help="Measure spikes on test samples: traffic and the time of a step."),
    ] = True,
    data: options.DataOrSpikes = None,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    axes: options.Axes = None,
    input_shape: options.InputShape = None,
    drive: options.Drive = False,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            help="Test samples that spikes are measured on; default 100, or all where there are "
            "fewer.",
        ),
    ] = None,
    encoder: options.Encoder = None,
    steps: options.Steps = None,
    as_json: options.Json = False,
) -> None:
    """Say on how many cores a network fits, what binds, and what a step takes at least."""
    with results_only():
        from esl_lava.experiments import activity
        from esl_lava.experiments import evaluate as evaluations
        from esl_lava.experiments.spikes import (
            read_network,
            refuse_others_options,
            spikes_file,
        )
        from esl_lava.report import tables

        measuring: dict[str, object] = {
            "--samples": samples,
            "--encoder": encoder,
            "--steps": steps,
        }
        measuring["--drive"] = drive or None
        measuring |= {"--data-folder": data_folder, "--data-module": data_module}
        for option, given in measuring.items():
            if not spikes and given is not None:
                raise ConfigError(
                    f"{option} belongs to measured spikes, which --no-spikes leaves out"
                )
        layout = options.layout_of(axes, input_shape, drive)
        seen = None
        if spikes:
            network, presented, encoding = evaluations.read_inputs(
                net,
                data,
                layout=layout,
                samples=samples,
                most=activity.TRAFFIC_SAMPLES,
                encoder=encoder,
                steps=steps,
                own=options.own_samples(data_folder, data_module),
            )
            seen = evaluations.measure(network, presented, encoding)
        else:
            file = spikes_file(data)
            if data is not None and file is None:
                raise ConfigError(
                    f"--data {data} belongs to measured spikes, which --no-spikes leaves out"
                )
            refuse_others_options(data, file, encoder=None, steps=None, layout=layout)
            network = read_network(net, file, layout)
        found = activity.place(network, chip, packing=packing, chips=chips, activity=seen)
    flow = [] if found.flow is None else [tables.flow(found.flow)]
    answer(as_json, found, tables.core_map(found.core_map), *flow)


def _print_plan(
    experiment: Experiment, output: Path | None, own: Own | None, as_json: bool
) -> None:
    """Print what the training of an experiment would be."""
    with results_only():
        from esl_lava.experiments.rundir import check_free

        if output is not None:
            check_free(output)
        from esl_lava.experiments.dryrun import plan
        from esl_lava.report.plan import show_plan

        planned = plan(experiment, own)
    answer(as_json, planned, show_plan(planned))


def _fail_on(verification: Verification) -> None:
    """Exit code 1, with what differs, when a comparison failed."""
    if verification.total:
        for sentence in verification.sentences():
            warn(f"difference: {sentence}")
        raise typer.Exit(1)
