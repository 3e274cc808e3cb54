"""The commands for one network.

They train, export, run and verify a network, compute its energy, map it to a chip and write
reports. `demo` does all of this, and `devices` lists the devices.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esl_lava.cli import options
from esl_lava.cli.launch import join_ranks
from esl_lava.cli.output import answer, results_only, tell, warn
from esl_lava.cli.progress import show_samples, show_training
from esl_lava.errors import ConfigError

if TYPE_CHECKING:
    from esl_lava.config import Experiment
    from esl_lava.data.own import OwnData
    from esl_lava.results.verification import Verification

Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="A .npy file with the classes of the samples in the file in --data.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Number of Python processes that run Lava at the same time. The default is 1.",
    ),
]
Model = Annotated[Path, typer.Argument(help="File of the trained model, model.pt.")]


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
        _fail_on_differences(account.verification)


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
    model: Model,
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
            help="Name of the simulator: exact (the simulator of esl-lava), lava (Lava's CPU "
            "simulator), lava-models (Lava's process models without its runtime) or loihi2 (needs "
            "Lava's Loihi extension; not tested on a chip)."
        ),
    ] = "exact",
    encoder: options.Encoder = None,
    steps: options.Steps = None,
    workers: Workers = None,
    sparse: Annotated[
        bool | None,
        typer.Option(
            "--sparse/--dense",
            help="Class of the Lava processes that hold the weights of fully connected layers: "
            "Sparse or Dense. The default is --dense.",
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        options.number_option(
            "Number of seconds after which Lava is stopped. The default grows with the network."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Read an exported network and test samples, simulate it and print accuracy and counts."""
    backend_values = {"workers": workers, "sparse": sparse, "deadline": deadline}
    with results_only():
        from esl_lava.report import tables

        layout = options.parse_layout(axes, input_shape, drive)
        backend_values = {k: value for k, value in backend_values.items() if value is not None}
        own = options.own_samples(data_folder, data_module)
        network_run = options.run_network(
            net, data, labels, layout, samples, encoder, steps, backend, backend_values, own=own
        )
    evaluation = network_run.evaluation
    answer(
        as_json,
        network_run,
        tables.render_run(network_run, str(net)),
        tables.render_counts(evaluation.result.counts),
        *([tables.render_firing(evaluation.firing)] if evaluation.firing else []),
    )


def verify(
    model: Model,
    net: options.Net,
    data: options.Data = None,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Number of test samples, from the first one. The default is 20, or all samples if "
            "there are fewer."
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Name of a simulator to compare: {options.BACKENDS}. Repeat the option for "
            "several simulators. The default is all simulators except loihi2."
        ),
    ] = None,
    workers: Workers = None,
    as_json: options.Json = False,
) -> None:
    """Read a trained model and its exported network, and check that both compute the same spikes.

    First every integer of the file is compared with the integer that the export of the model
    gives: weights, connections, thresholds, biases, decays, delays, refractory periods and
    steps. Then SLAYER and the simulators run the samples, and their spikes are compared in
    every layer at every step.

    If neurons fire only once, the steps of their spikes are compared with the exact times of
    the training. A spike may differ as far as the rounding of the chip allows.

    The exit code is 1 if there is a difference.
    """
    with results_only():
        from esl_lava.experiments import verify as verifications
        from esl_lava.report.verification import render_firing_times, render_verification

        backends = tuple(backend or verifications.VERIFIED_BACKENDS)
        own = options.own_samples(data_folder, data_module)
        with show_samples() as show:
            verification = verifications.verify(
                model, net, data, samples, backends, workers, show, own
            )
    answer(
        as_json,
        verification,
        render_verification(verification, f"{net} against {verification.reference}, {model}"),
        *([render_firing_times(verification.times)] if verification.times else []),
    )
    _fail_on_differences(verification)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run directories. Several runs are compared on one page.", metavar="RUN..."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="HTML file to write. The JSON file is written beside it under the same name. The "
            "default for a single run is report.html in its directory. Several runs need this "
            "option.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the files if they exist.")] = False,
    data_folder: options.DataFolder = None,
    data_module: options.DataModule = None,
    device: options.Devices = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Number of test samples that are verified, from the first one. The default is 20, "
            "or all samples if there are fewer.",
            min=1,
        ),
    ] = None,
    lava: Annotated[
        bool,
        typer.Option("--lava", help="Verify on Lava's own runtime too, which takes longer."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Read run directories and write a report, or a comparison of several runs, as HTML and JSON.

    The exit code is 1 if the verification finds a difference.
    """
    with results_only():
        from esl_lava.experiments import report as reports
        from esl_lava.experiments.price import DEFAULT_DEVICES
        from esl_lava.report import tables

        own = options.own_samples(data_folder, data_module)
        terms = reports.ReportTerms(tuple(device or DEFAULT_DEVICES), samples, lava, own)
        written = reports.write(runs, output, overwrite, terms, tell)
    rows = [
        (
            name if len(runs) > 1 else account.title,
            f"accuracy {tables.percent(account.evaluation.accuracy or 0.0)}",
        )
        for name, account in written.accounts.items()
    ]
    differences = written.differences
    rows.append(("differences", "not verified" if differences is None else f"{differences:,}"))
    title = f"written: {written.page}, {written.document}"
    answer(as_json, written.values, tables.render_facts(rows, title))
    if differences:
        warn("the verification found differences: the page shows the first one")
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
            "--map",
            help="Name of a chip (loihi1, loihi2), or the TOML file of a chip with a [capacity] "
            "table. The network is mapped to the chip first. The energy then includes messages "
            "between cores, and the energy of a neuron update depends on whether a spike reached "
            "the neuron.",
        ),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=PICOJOULES",
            help="Energy constant of your own, for devices whose energy is a sum over events, for "
            "example sop=23.6. Repeat the option for several constants.",
        ),
    ] = None,
    utilisation: Annotated[
        float | None,
        options.number_option(
            "Share of its peak performance that a GPU reaches, above 0 and at most 1. The default "
            "is that of the device file."
        ),
    ] = None,
    flops_per_mac: Annotated[
        int | None,
        typer.Option(
            help="Number of GPU operations that are counted for a connection, 1 or 2. The default "
            "is that of the device file."
        ),
    ] = None,
    step_seconds: Annotated[
        float | None,
        options.number_option(
            "Duration of a step in seconds. The energy then includes static power for this time."
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(help="File model.pt of the network. The cost of its training is printed too."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Read an exported network and test samples, count operations and print their energy."""
    with results_only():
        from esl_lava.energy import neurobench
        from esl_lava.energy.table1 import has_its_layers
        from esl_lava.experiments import activity
        from esl_lava.experiments import price as prices
        from esl_lava.report import hardware, tables
        from esl_lava.results.price import Bill

        terms = prices.PriceTerms(
            constants=prices.parse_constants(constant or ()),
            utilisation=utilisation,
            flops_per_mac=flops_per_mac,
            step_seconds=step_seconds,
        )
        layout = options.parse_layout(axes, input_shape, drive)
        measured = 0 if chip is None else sys.maxsize
        own = options.own_samples(data_folder, data_module)
        network_run = options.run_network(
            net, data, None, layout, samples, encoder, steps, measured=measured, own=own
        )
        network, counts = network_run.network, network_run.evaluation.result.counts
        if chip is not None:
            mapped = activity.place(network, chip, activity=network_run.evaluation.activity)
            assert mapped.flow is not None
            counts = mapped.flow.counts
            terms = replace(terms, chips=mapped.core_map.chips, cores=mapped.core_map.cores)
        by_device = prices.price(network, counts, device or prices.DEFAULT_DEVICES, terms)
        bill = Bill(
            network_run,
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
        tables.render_counts(counts),
        hardware.render_prices(bill.devices, has_its_layers(network)),
        hardware.render_parts(bill.devices),
        *map(hardware.render_disagreement, bill.disagreements),
        *([] if bill.training is None else [hardware.render_training(bill.training)]),
        hardware.render_sources(bill.devices),
    )


def devices(
    device: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Names of devices, or TOML files. The default is all names: {options.DEVICES}."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Read device files and print their constants and limits with the sources."""
    with results_only():
        from esl_lava.devices import device_names, load_device
        from esl_lava.report import hardware
        from esl_lava.results.price import DeviceFacts
        from esl_lava.values import as_values

        loaded = [load_device(name) for name in device or device_names()]
    answer(
        as_json,
        {one.name: as_values(DeviceFacts(one)) for one in loaded},
        *([] if device else [hardware.render_overview(loaded)]),
        *(hardware.render_device(one) for one in loaded),
    )


def map_to_chip(
    net: options.Net,
    chip: Annotated[
        str,
        typer.Option(
            help="Name of the chip (loihi1, loihi2), or the TOML file of a chip with a [capacity] "
            "table."
        ),
    ] = "loihi2",
    packing: Annotated[
        str | None,
        typer.Option(
            help=f"Method of packing synapses into memory words: {options.PACKINGS}. The default "
            "is the method that the TOML file of the chip names."
        ),
    ] = None,
    chips: Annotated[
        int | None,
        typer.Option(
            help="Number of available chips. The default is as many as the network needs."
        ),
    ] = None,
    spikes: Annotated[
        bool,
        typer.Option(
            help="Measure the spikes of test samples, to compute traffic and the time of a step."
        ),
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
            help="Number of test samples whose spikes are measured, from the first one. The "
            "default is 100, or all samples if there are fewer.",
        ),
    ] = None,
    encoder: options.Encoder = None,
    steps: options.Steps = None,
    as_json: options.Json = False,
) -> None:
    """Read an exported network, map it to a chip and print its cores, their limits and timing."""
    with results_only():
        from esl_lava.experiments import activity as activities
        from esl_lava.experiments import evaluate as evaluations
        from esl_lava.experiments.spikes import (
            read_network,
            refuse_unrelated_options,
            spikes_file,
        )
        from esl_lava.report import hardware

        layout = options.parse_layout(axes, input_shape, drive)
        activity = None
        if spikes:
            network, inputs, encoding = evaluations.read_inputs(
                net,
                data,
                layout=layout,
                samples=samples,
                most=activities.TRAFFIC_SAMPLES,
                encoder=encoder,
                steps=steps,
                own=options.own_samples(data_folder, data_module),
            )
            activity = evaluations.measure(network, inputs, encoding)
        else:
            file = spikes_file(data)
            _refuse_measurement(
                {
                    "--samples": samples,
                    "--encoder": encoder,
                    "--steps": steps,
                    "--drive": drive or None,
                    "--data-folder": data_folder,
                    "--data-module": data_module,
                    "--data": None if file else data,
                }
            )
            refuse_unrelated_options(data, file, encoder=None, steps=None, layout=layout)
            network = read_network(net, file, layout)
        mapped = activities.place(network, chip, packing=packing, chips=chips, activity=activity)
    answer(
        as_json,
        mapped,
        hardware.render_core_map(mapped.core_map),
        *([] if mapped.flow is None else [hardware.render_flow(mapped.flow)]),
    )


def _refuse_measurement(values: dict[str, object]) -> None:
    """Refuse options that apply to measured spikes only, because `--no-spikes` measures none.

    Args:
        values: option -> its value, None if it is not given.

    Raises:
        ConfigError: if one of the options is given.
    """
    for option, value in values.items():
        if value is not None:
            shown = option if value is True else f"{option} {value}"
            raise ConfigError(
                f"{shown}: the option applies to measured spikes, but --no-spikes measures none",
                "conflict",
                key=option,
                value=value,
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


def _fail_on_differences(verification: Verification) -> None:
    """Print the differences of a verification and exit with code 1 if there are any."""
    if verification.total:
        for sentence in verification.sentences():
            warn(f"difference: {sentence}")
        raise typer.Exit(1)
