"""The commands: each parses its arguments, makes one call and prints the outcome."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from esl_lava.cli.launch import ranked
from esl_lava.cli.output import (
    SamplesLine,
    print_json,
    print_tables,
    progress_line,
    results_only,
    tell,
)
from esl_lava.errors import ConfigError

# typer reads these annotations at run time: Optional, as Python 3.10's typing has it.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Data set (digits, mnist); by default the one trained on."),
]
DataOrSpikes = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Data set (digits, mnist), by default the one trained on; or a .npy file of "
        "spikes, integers of shape (samples, T, inputs).",
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
Samples = Annotated[
    int | None, typer.Option("--samples", help="Use the first N test samples; default all.")
]
Model = Annotated[Path, typer.Argument(help="A trained model, model.pt.")]
Net = Annotated[Path, typer.Argument(help="An exported network, net.h5.")]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="rate, latency or constant; by default as trained."),
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Steps per sample; by default as trained.")
]


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
        found = demos.demo(directory, progress_line(), tell, samples)
        values = found.written.values
    if as_json:
        print_json({**values, "seconds": found.evaluation.seconds})
    else:
        rows = [
            ("accuracy of the integer network", tables.percent(values["accuracy"])),
            ("on held-back test samples", f"{values['samples']:,}"),
            ("density, all layers", tables.percent(values["density"])),
            ("connections", f"{values['connections']:,}"),
            ("samples verified on Lava", f"{values['samples_verified']:,}"),
            ("spikes compared", f"{values['spikes_compared']:,}"),
            ("differences", f"{values['differences']:,}"),
            ("SOPs per sample", f"{values['sops_per_sample']:,.1f}"),
        ]
        rows += [
            (f"joules per sample, {name}", tables.joules(device["joules_per_sample"]))
            for name, device in values["devices"].items()
        ]
        left = "config.toml, model.pt, net.h5, updates.json, report.html, report.json, plots"
        print_tables(tables.facts(rows, f"left in {directory}: {left}"))
    _fail_on(found.verification)


@ranked
def train(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New directory for the run.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="An experiment that comes along: digits, mnist.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="An experiment as TOML.")] = None,
    density: Annotated[
        float | None, typer.Option(help="Of the layers made sparse (sparsity.density).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes (training.epochs).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random (seed).")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other field, e.g. --set model.hidden=[800]."),
    ] = None,
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
            trained = trainings.resume(resume, progress_line())
        else:
            if output is None:
                raise ConfigError("-o is missing: the new directory for the run")
            experiment = chosen_experiment(preset, config, settings, named)
            experiment = by_method(experiment, method or "esl")
            trained = trainings.train(experiment, output, progress_line())
    if as_json:
        print_json(
            {
                "accuracy": trained.accuracy,
                "samples": trained.samples,
                "density": trained.density,
                "connections": trained.connections,
                "seconds": trained.seconds,
            }
        )
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
        print_json(
            {
                "density": network.density,
                "connections": network.connections,
                "synapses": network.synapses,
                "bytes": exported.size,
            }
        )
        return
    print_tables(
        tables.facts(
            [
                ("layers", f"{len(network.layers)}"),
                ("density, all layers", tables.percent(network.density)),
                ("connections", f"{network.connections:,}"),
                ("synapses (weights not 0)", f"{network.synapses:,}"),
                ("bytes", f"{exported.size:,}"),
            ],
            f"exported: {net}",
        )
    )


def run(
    net: Net,
    data: DataOrSpikes = None,
    labels: Labels = None,
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
        typer.Option(help="Seconds until Lava is stopped; by default generous for the size."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an exported network over test samples and count what it does."""
    options = {"workers": workers, "sparse": sparse, "deadline": deadline}
    with results_only():
        from esl_lava.report import tables

        network, found = _evaluated(
            net, data, labels, samples, encoder, steps, backend, _given(options)
        )
    counts = found.result.counts
    if as_json:
        print_json(_run_values(network, found))
        return
    print_tables(
        tables.facts(
            [
                *(
                    [("accuracy", tables.percent(found.accuracy))]
                    if found.accuracy is not None
                    else []
                ),
                ("samples", f"{found.samples:,}"),
                ("density, all layers", tables.percent(network.density)),
                ("SOPs per sample", f"{counts.sops / counts.samples:,.1f}"),
                ("seconds", f"{found.seconds:.2f}"),
            ],
            f"{net} on {found.dataset}{f' ({found.split})' if found.split else ''}, "
            f"backend {backend}",
        ),
        tables.layer_counts(counts),
    )


def verify(
    model: Model,
    net: Net,
    data: Data = None,
    samples: Annotated[int, typer.Option(help="The first N test samples.")] = 20,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="One to compare; may be repeated; by default all but loihi2."),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Prove that SLAYER, our simulator and Lava agree, spike for spike in every layer.

    Where neurons fire once, the steps of their spikes are compared with training's exact
    times, within what the rounding of the chip allows.
    """
    from dataclasses import asdict

    with results_only():
        from esl_lava.experiments import verify as verifications
        from esl_lava.report import tables

        lines: dict[str, SamplesLine] = defaultdict(SamplesLine)
        found = verifications.verify(
            model,
            net,
            data,
            samples,
            tuple(backend or verifications.BACKENDS),
            workers,
            lambda name, done, of: lines[name](done, of, f"{name}: "),
        )
    if as_json:
        print_json(
            {
                "samples_verified": found.samples,
                "spikes_compared": found.spikes,
                "positions_compared": found.positions,
                "differences": found.total,
                "differences_by_backend": dict(found.differences),
                "mask_differences": found.mask_differences,
                "first_difference": None if found.first is None else str(found.first),
                "firing_times": [asdict(layer) for layer in found.times],
            }
        )
    else:
        print_tables(
            tables.facts(
                [
                    ("samples verified", f"{found.samples:,}"),
                    ("spikes compared", f"{found.spikes:,}"),
                    ("positions compared (silent and readout too)", f"{found.positions:,}"),
                    *((f"differences, {b}", f"{n:,}") for b, n in found.differences.items()),
                    ("connections that differ", f"{found.mask_differences:,}"),
                ],
                f"{net} against {found.reference}, {model}, on {found.dataset}",
            ),
            *([tables.firing_times(found.times)] if found.times else []),
        )
    _fail_on(found)


def energy(
    net: Net,
    data: DataOrSpikes = None,
    samples: Samples = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="A device's name or TOML file; may be repeated."),
    ] = None,
    encoder: Encoder = None,
    steps: Steps = None,
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
        float | None, typer.Option(help="Share of its peak a GPU reaches, 0..1.")
    ] = None,
    flops_per_mac: Annotated[
        int | None, typer.Option(help="Operations a GPU is charged for a connection, 1 or 2.")
    ] = None,
    step_seconds: Annotated[
        float | None, typer.Option(help="A step takes: charges static power for it.")
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(help="The model.pt it came from: what its training took."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count synaptic operations on real spikes and price them on devices."""
    with results_only():
        from esl_lava.energy import neurobench
        from esl_lava.experiments import price as prices_of
        from esl_lava.report import hardware, tables

        network, found = _evaluated(net, data, None, samples, encoder, steps)
        counts = found.result.counts
        mapped = None
        if chip is not None:
            from esl_lava.experiments import activity

            seen = activity.measure_samples(network, data, samples, encoder, steps)
            mapped = activity.place(network, chip, activity=seen)
            assert mapped.activity is not None
            counts = mapped.activity.counts
        terms = prices_of.Terms(
            constants=prices_of.parse_constants(constant or ()),
            utilisation=utilisation,
            flops_per_mac=flops_per_mac,
            step_seconds=step_seconds,
            chips=1 if mapped is None else mapped.core_map.chips,
            cores=1 if mapped is None else mapped.core_map.cores,
        )
        chosen = device or prices_of.DEFAULT_DEVICES
        prices = dict(prices_of.price(network, counts, chosen, terms))
        cost = None if training is None else prices_of.cost_of_training(training, network, counts)
        apart = prices_of.disagreements(prices)
    if as_json:
        values = {**_run_values(network, found), "devices": prices_of.device_values(prices)}
        values["disagreements"] = [vars(one) for one in apart]
        if not network.input_bits:
            values["neurobench"] = neurobench.metrics(network, counts)
        if cost is not None:
            values["training"] = hardware.training_document(cost)
        print_json(values)
        return
    print_tables(
        tables.layer_counts(counts),
        tables.devices(
            [
                tables.DeviceRow(
                    name, p.measured.total, p.by_connections, ", ".join(p.measured.used)
                )
                for name, p in prices.items()
            ]
        ),
        hardware.further(prices),
        *(hardware.disagreement(one.chip, one.devices, one.least, one.most) for one in apart),
        *([] if cost is None else [hardware.training(cost)]),
        tables.sources(
            [
                (name, key, stated)
                for name, p in prices.items()
                for key, stated in p.device.constants.items()
            ]
        ),
    )


def devices(
    device: Annotated[
        list[str] | None, typer.Argument(help="Names or TOML files; default: all that come along.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List devices with their constants and limits, and where these come from."""
    with results_only():
        from esl_lava.devices import device_names, load_device
        from esl_lava.report import hardware

        found = [load_device(name) for name in device or device_names()]
    if as_json:
        print_json({one.name: hardware.device_document(one) for one in found})
        return
    print_tables(
        *([] if device else [hardware.device_overview(found)]),
        *(hardware.device_details(one) for one in found),
    )


def map_to_chip(
    net: Net,
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
    data: DataOrSpikes = None,
    samples: Annotated[
        int, typer.Option("--samples", help="Test samples that spikes are measured on.")
    ] = 100,
    encoder: Encoder = None,
    steps: Steps = None,
    as_json: Json = False,
) -> None:
    """Say on how many cores a network fits, what binds, and what a step takes at least."""
    with results_only():
        from esl_lava import netfile
        from esl_lava.experiments import activity
        from esl_lava.report import hardware

        network = netfile.read(net)
        seen = None
        if spikes:
            seen = activity.measure_samples(network, data, samples, encoder, steps)
        found = activity.place(network, chip, packing=packing, chips=chips, activity=seen)
    if as_json:
        print_json(activity.mapped_values(found))
        return
    shown = [hardware.core_map(found.core_map)]
    if found.traffic is not None and seen is not None:
        sent = {name: n / seen.counts.samples for name, n in found.traffic.sent.items()}
        shown.append(hardware.bounds(found.bounds, found.step_nanoseconds, sent))
    print_tables(*shown)


def chosen_experiment(
    preset: str | None,
    config: Path | None,
    settings: list[str] | None,
    named: Mapping[str, Any],
) -> Any:
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
    return configs.override(base, overrides)


def _evaluated(
    net: Path,
    data: str | None,
    labels: Path | None,
    samples: int | None,
    encoder: str | None,
    steps: int | None,
    backend: str = "exact",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Any, Any]:
    """The network of a file and its evaluation on samples of a data set or a file."""
    from esl_lava import netfile
    from esl_lava.experiments import evaluate as evaluations

    network = netfile.read(net)
    chosen: dict[str, Any] = {"backend": backend, "options": options, "show": SamplesLine()}
    if data is not None and data.endswith(".npy"):
        if encoder is not None or steps is not None:
            raise ConfigError(f"{data} holds spikes: --encoder and --steps are for data sets")
        return network, evaluations.evaluate_spikes(
            network, Path(data), labels, samples=samples, **chosen
        )
    if labels is not None:
        raise ConfigError(f"--labels {labels} belongs to --data FILE.npy; a data set has its own")
    encoding = evaluations.encoding_of(network, encoder, steps)
    name = evaluations.data_name(network, data)
    test = evaluations.load_samples(network, name, "test", samples)
    return network, evaluations.evaluate(network, test, encoding, **chosen)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have been given."""
    return {name: value for name, value in options.items() if value is not None}


def _run_values(network: Any, found: Any) -> dict[str, Any]:
    counts = found.result.counts
    return {
        "accuracy": found.accuracy,
        "samples": found.samples,
        "density": network.density,
        "connections": network.connections,
        "seconds": found.seconds,
        "sops_per_sample": counts.sops / counts.samples,
    }


def _fail_on(verification: Any) -> None:
    """Exit code 1, with the first difference, when a comparison failed."""
    if verification.total:
        if verification.first is not None:
            tell(f"first difference: {verification.first}")
        else:
            tell("all spikes agree, but the two files do not hold the same connections")
        raise typer.Exit(1)
