"""The commands that price a network, map it to a chip, and show devices."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from esl_lava.cli import options
from esl_lava.cli.output import answer, results_only
from esl_lava.errors import ConfigError


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
