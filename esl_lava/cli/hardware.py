"""The commands about chips: what a network costs on them, and whether it fits."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from esl_lava.cli.options import (
    Axes,
    DataOrSpikes,
    Drive,
    Encoder,
    InputShape,
    Json,
    Net,
    Samples,
    Steps,
    evaluated,
    finite,
    layout_of,
)
from esl_lava.cli.output import print_json, print_tables, results_only
from esl_lava.errors import ConfigError


def energy(
    net: Net,
    data: DataOrSpikes = None,
    axes: Axes = None,
    input_shape: InputShape = None,
    drive: Drive = False,
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
        float | None,
        typer.Option(parser=finite, metavar="FLOAT", help="Share of its peak a GPU reaches, 0..1."),
    ] = None,
    flops_per_mac: Annotated[
        int | None, typer.Option(help="Operations a GPU is charged for a connection, 1 or 2.")
    ] = None,
    step_seconds: Annotated[
        float | None,
        typer.Option(
            parser=finite, metavar="FLOAT", help="A step takes: charges static power for it."
        ),
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
        from esl_lava.experiments import activity
        from esl_lava.experiments import price as prices
        from esl_lava.experiments.price import cost_of_training
        from esl_lava.report import tables
        from esl_lava.results.price import Bill

        terms = prices.PriceTerms(
            constants=prices.parse_constants(constant or ()),
            utilisation=utilisation,
            flops_per_mac=flops_per_mac,
            step_seconds=step_seconds,
        )
        layout = layout_of(axes, input_shape, drive)
        everything = 0 if chip is None else sys.maxsize
        found = evaluated(net, data, None, layout, samples, encoder, steps, measured=everything)
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
            neurobench=None if network.input_bits else neurobench.metrics(network, counts),
            training=None if training is None else cost_of_training(training, network, counts),
        )
    if as_json:
        print_json(bill)
        return
    print_tables(
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
    as_json: Json = False,
) -> None:
    """List devices with their constants and limits, and where these come from."""
    with results_only():
        from esl_lava.devices import device_names, load_device
        from esl_lava.report import tables
        from esl_lava.results.price import DeviceFacts
        from esl_lava.values import as_values

        found = [load_device(name) for name in device or device_names()]
    if as_json:
        print_json({one.name: as_values(DeviceFacts(one)) for one in found})
        return
    print_tables(
        *([] if device else [tables.device_overview(found)]),
        *(tables.device_details(one) for one in found),
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
    axes: Axes = None,
    input_shape: InputShape = None,
    drive: Drive = False,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            help="Test samples that spikes are measured on; default 100, or all where there are "
            "fewer.",
        ),
    ] = None,
    encoder: Encoder = None,
    steps: Steps = None,
    as_json: Json = False,
) -> None:
    """Say on how many cores a network fits, what binds, and what a step takes at least."""
    with results_only():
        from esl_lava.experiments import activity
        from esl_lava.experiments import evaluate as evaluations
        from esl_lava.experiments.spikes import read_network, spikes_file
        from esl_lava.report import tables

        measuring = {"--samples": samples, "--encoder": encoder, "--steps": steps}
        measuring["--drive"] = drive or None
        for option, given in measuring.items():
            if not spikes and given is not None:
                raise ConfigError(
                    f"{option} belongs to measured spikes, which --no-spikes leaves out"
                )
        layout = layout_of(axes, input_shape, drive)
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
            )
            seen = evaluations.measure(network, presented, encoding)
        else:
            network = read_network(net, spikes_file(data), layout)
        found = activity.place(network, chip, packing=packing, chips=chips, activity=seen)
    if as_json:
        print_json(found)
        return
    flow = [] if found.flow is None else [tables.flow(found.flow)]
    print_tables(tables.core_map(found.core_map), *flow)
