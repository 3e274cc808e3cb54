"""The commands that run, verify and report on networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esl_lava.cli import options
from esl_lava.cli.output import answer, results_only, tell, warn
from esl_lava.cli.progress import show_samples

if TYPE_CHECKING:
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
    model: options.Model,
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
    fail_on_differences(verification)


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


def fail_on_differences(verification: Verification) -> None:
    """Print the differences of a verification and exit with code 1 if there are any."""
    if verification.total:
        for sentence in verification.sentences():
            warn(f"difference: {sentence}")
        raise typer.Exit(1)
