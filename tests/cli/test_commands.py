"""Tests of the commands: exit codes, output streams and written files."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import pytest
import typer

from esl_lava import modelfile, netfile
from esl_lava.cli import options, progress
from esl_lava.cli.app import app
from esl_lava.config import documentation, read_toml
from esl_lava.data.catalogue import NAMES
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import load
from esl_lava.data.encoders import ENCODERS
from esl_lava.devices import device_names, load_device
from esl_lava.energy import by_connections, per_sample
from esl_lava.energy.table1 import compute_table1
from esl_lava.experiments import activity
from esl_lava.experiments.baselines import METHODS
from esl_lava.experiments.evaluate import encoding_of, evaluate, load_samples, measure
from esl_lava.experiments.preset import preset_names
from esl_lava.experiments.price import DEFAULT_DEVICES, price
from esl_lava.experiments.scales import TABLE2
from esl_lava.mapping.packing import PACKINGS
from esl_lava.network import (
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Matrix,
)
from esl_lava.simulate import BACKENDS, Result, exact, simulate
from esl_lava.sparsity.growth import GROW
from esl_lava.sparsity.prune import PRUNE
from esl_lava.values import as_values
from tests.cli.refusals import refusals, refused
from tests.folders import contents
from tests.graphs import a_layer, a_network
from tests.netfile import test_others as others

Command = Callable[..., Any]


def heed_ctrl_c() -> None:
    """Let a child process react to Ctrl-C, which background processes of a shell ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def rows(text: str) -> dict[str, str]:
    """Return the lines of a table of facts: name -> value."""
    lines = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return {cells[0]: cells[1] for cells in lines if len(cells) == 2}


# --- the commands, one by one ------------------------------------------------------------


@pytest.mark.slow
def test_train(tiny: Any) -> None:
    values = tiny.trained.json
    told = "accuracy samples dataset density weights connections seconds firing".split()
    assert list(values) == told
    assert values["weights"] == values["connections"]  # where every layer is fully connected
    assert values["dataset"] == "digits"
    assert values["samples"] == 357
    assert 0.5 < values["accuracy"] <= 1
    assert values["connections"] == round(0.4 * (64 * 24 + 24 * 12)) + 120
    assert values["density"] == values["connections"] / (64 * 24 + 24 * 12 + 120)
    assert values["seconds"] > 0
    # Progress goes to standard error. Without a terminal there is a line for each epoch.
    assert [line.split()[:4] for line in tiny.trained.err.splitlines() if "epoch" in line] == [
        ["epoch", f"{epoch}/4", "step", f"{13 * epoch}/52"] for epoch in (1, 2, 3, 4)
    ]


def test_export(tiny: Any) -> None:
    network = netfile.read(tiny.net)
    assert tiny.exported.json == {
        "density": network.density,
        "weights": network.weights,
        "connections": network.connections,
        "synapses": network.synapses,
        "bytes": tiny.net.stat().st_size,
    }
    assert network.connections == tiny.trained.json["connections"]


@pytest.mark.slow
def test_export_as_a_program_of_its_own(tiny: Any, program: Command, tmp_path: Path) -> None:
    net = tmp_path / "net.h5"
    done = program("esl-export", tiny.model, net)
    assert done.code == 0, done.err
    assert net.read_bytes() == tiny.net.read_bytes()
    assert f"exported: {net}" in done.out.splitlines()  # whole, however long
    values = tiny.exported.json
    assert rows(done.out) == {
        "layers": "3",
        "density, all layers": f"{100 * values['density']:.2f} %",
        "weights": f"{values['weights']:,}",
        "connections": f"{values['connections']:,}",
        "synapses (weight not 0)": f"{values['synapses']:,}",
        "bytes": f"{values['bytes']:,}",
    }


@pytest.mark.slow
def test_run(tiny: Any, invoke: Command) -> None:
    values = invoke("run", tiny.net, "--json").json
    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", None)
    found = evaluate(network, data, encoding_of(network))
    assert values.pop("seconds") > 0
    assert values == {
        "accuracy": tiny.trained.json["accuracy"],  # SLAYER's own, before the export
        "samples": 357,
        "density": network.density,
        "weights": network.weights,
        "connections": network.connections,
        "sops_per_sample": found.result.counts.sops / 357,
        # SLAYER's network has the same firing.
        "firing": tiny.trained.json["firing"],
    }
    spikes = simulate(network, data.spikes(encoding_of(network)), record="all").spikes
    assert values["firing"] == [
        {
            "layer": name,
            "neurons": own.shape[2],
            "silent": int((own.sum(axis=(0, 1)) == 0).sum()),
            "saturated": int(own.all(axis=(0, 1)).sum()),
            "rate": int(own.sum(dtype=int)) / own.size,
            "largest_rate": int(own.sum(axis=(0, 1), dtype=int).max()) / (357 * 4),
            "spikes_per_sample": int(own.sum(dtype=int)) / 357,
        }
        for name, own in spikes.items()
    ]


@pytest.mark.slow
def test_run_as_a_program_of_its_own(tiny: Any, program: Command) -> None:
    done = program("esl-run", tiny.net, "--samples", 40, "--backend", "exact")
    assert done.code == 0
    assert done.err == ""
    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", 40)
    found = evaluate(network, data, encoding_of(network))
    assert found.accuracy is not None
    assert f"{tiny.net} on digits (test), backend exact" in done.out.splitlines()
    shown = rows(done.out)
    assert shown["accuracy"] == f"{100 * found.accuracy:.2f} %"
    assert shown["samples"] == "40"
    assert shown["SOPs per sample"] == f"{found.result.counts.sops / 40:,.1f}"
    for layer in found.result.counts.layers:
        line = next(line for line in done.out.splitlines() if f"{layer.name} " in line)
        assert f"{layer.sops / 40:,.1f}" in line.split()
    table = done.out[done.out.index("neuron activity") :]
    for one in found.firing:
        (line,) = (line for line in table.splitlines() if f" {one.layer} " in line)
        numbers = (f"{one.rate:.4f}", f"{one.largest_rate:.4f}", f"{one.spikes_per_sample:,.1f}")
        assert tuple(line.split()[-3:]) == numbers
    assert max(map(len, done.out.splitlines())) <= max(100, len(str(tiny.net)) + 50)


def test_lava_runs_the_file_itself(
    tiny: Any, invoke: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lava must not get the network of our reader, which would hide an error of the reader."""
    from esl_lava.simulate import lava_cpu

    ran = []

    @wraps(lava_cpu.run)  # its options
    def instead_of_lava(
        network: Any, inputs: Any, record: Any, states: Any, *, path: Path, **options: Any
    ) -> Result:
        ran.append(path)
        return exact.run(network, inputs, record)

    monkeypatch.setattr(lava_cpu, "run", instead_of_lava)
    done = invoke("run", tiny.net, "--backend", "lava", "--samples", 3)
    assert done.code == 0, done.err
    assert ran == [tiny.net]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "energy", "map"])
def test_networks_from_elsewhere(command: str, invoke: Command, tmp_path: Path) -> None:
    """An input block scales its input; --input-shape gives the shape for a convolution."""
    block, conv, spikes = (tmp_path / name for name in ("block.net", "conv.net", "x.npy"))
    others.written(block, others.INPUT_BLOCK | {"0/weight": 36.0, "0/bias": [34.0]})
    with h5py.File(others.written(conv), "r+") as file:
        del file["layer/0"]
        for index in range(4):
            file.move(f"layer/{index + 1}", f"layer/{index}")
    rng = np.random.default_rng(0)
    np.save(spikes, rng.integers(0, 2, (3, 6, 50), np.uint8))

    def active(net: Path, *options: object) -> Any:
        values = invoke(command, net, "--data", spikes, *options, "--json").json
        return values["messages_per_sample" if command == "map" else "sops_per_sample"]

    assert active(block) != active(block, "--drive")
    refused(invoke(command, conv, "--data", spikes), "missing", "--input-shape")
    with_shape = active(conv, "--input-shape", "2,5,5")
    np.save(spikes, np.load(spikes).reshape(3, 6, 2, 5, 5))
    assert active(conv) == with_shape
    refused(invoke(command, conv, "--data", spikes, "--drive"), "conflict", "--drive")


@pytest.mark.slow
def test_run_of_spikes_from_a_file(tiny: Any, invoke: Command, tmp_path: Path) -> None:
    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", 30)
    np.save(tmp_path / "spikes.npy", data.spikes(encoding_of(network)).reshape(30, -1, 8, 8))
    np.save(tmp_path / "labels.npy", data.labels)
    given = ("run", tiny.net, "--data", tmp_path / "spikes.npy")
    as_known = invoke("run", tiny.net, "--samples", 30, "--json").json
    labelled = invoke(*given, "--labels", tmp_path / "labels.npy", "--json").json
    unlabelled = invoke(*given, "--json").json
    for values in (as_known, labelled, unlabelled):
        del values["seconds"]
    assert labelled == as_known
    assert unlabelled == {**as_known, "accuracy": None}
    for_people = invoke(*given, "--samples", 7)
    assert "accuracy" not in for_people.out
    assert f"{tiny.net} on spikes.npy, backend exact" in for_people.out.splitlines()
    assert rows(for_people.out)["samples"] == "7"


def test_samples_of_a_file_are_all_there_are_where_a_default_is_more(
    tiny: Any, invoke: Command, tmp_path: Path
) -> None:
    data = load_samples(netfile.read(tiny.net), "digits", "test", 3)
    np.save(tmp_path / "spikes.npy", data.spikes(encoding_of(netfile.read(tiny.net))))
    done = invoke("map", tiny.net, "--data", tmp_path / "spikes.npy", "--json")
    assert done.code == 0, done.err
    assert done.json["samples"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "energy", "map"])
def test_axes_of_a_file_may_be_in_any_order(
    command: str, tiny: Any, invoke: Command, tmp_path: Path
) -> None:
    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", 9)
    spikes = data.spikes(encoding_of(network))
    np.save(tmp_path / "flat.npy", spikes)
    np.save(tmp_path / "last.npy", spikes.reshape(9, 4, 2, 4, 8).transpose(0, 1, 3, 4, 2))
    np.save(tmp_path / "slayer.npy", spikes.transpose(0, 2, 1))
    found = []
    for name, *axes in (("flat",), ("last", "--axes", "NTHWC"), ("slayer", "--axes", "NCT")):
        done = invoke(command, tiny.net, "--data", tmp_path / f"{name}.npy", *axes, "--json")
        assert done.code == 0, done.err
        found.append({key: value for key, value in done.json.items() if key != "seconds"})
    assert found[1] == found[2] == found[0]


@pytest.mark.slow
def test_other_data_of_the_same_name_are_remarked_beside_the_result(
    tiny: Any, invoke: Command, program: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file records another digest of the test samples."""
    network = netfile.read(tiny.net)
    other = {**network.provenance, "test_data_sha256": "ab" * 32}
    net = tmp_path / "net.h5"
    netfile.write(dataclasses.replace(network, provenance=other), net)
    digests = load("digits", "test").digest[:12], "abababababab"
    for command, *line in (
        ("run", net),
        ("energy", net),
        ("map", net),
        ("verify", tiny.model, net, "--backend", "exact"),
    ):
        caplog.clear()
        assert invoke(command, *line, "--json").code == 0
        (remark,) = caplog.messages
        assert all(part in remark for part in ("digits", "test", *digests))
    caplog.clear()
    assert invoke("run", tiny.net).code == 0
    assert caplog.messages == []
    done = program("esl-run", net, "--json")
    assert done.json["samples"] == 357
    assert done.err == f"WARNING: {remark}\n"


def test_help_says_what_is_accepted(invoke: Command) -> None:
    limits = Encoding.model_fields["steps"].metadata
    least, most = limits[0].ge, limits[1].le
    for command in ("run", "energy", "map"):
        said = " ".join(invoke(command, "--help").out.split())
        for name in (*ENCODERS, "direct", "frames"):
            assert name in said
        assert f"Number of steps per sample, {least} to {most}." in said


def test_help_lists_the_names_that_are_accepted() -> None:
    assert ", ".join(BACKENDS) == options.BACKENDS
    assert ", ".join(NAMES) == options.DATA_SETS
    assert ", ".join(device_names()) == options.DEVICES
    assert ", ".join(get_args(Encoding.model_fields["kind"].annotation)) == options.ENCODERS
    assert ", ".join(METHODS) == options.METHODS
    assert ", ".join(PACKINGS) == options.PACKINGS
    assert ", ".join(preset_names()) == options.PRESETS


def test_help_of_every_option_is_a_sentence() -> None:
    def parameters(command: Any, name: str) -> Iterator[tuple[str, str]]:
        yield name, command.help.partition("\n\n")[0]
        for one in command.params:
            if one.name != "help" and not getattr(one, "hidden", False):
                yield f"{name} {one.name}", one.help
        for word, inner in getattr(command, "commands", {}).items():
            yield from parameters(inner, f"{name} {word}")

    texts = dict(parameters(typer.main.get_command(app), "esl"))
    assert len(texts) > 100
    for name, text in texts.items():
        assert text, name
        assert text[0].isupper(), name
        assert text.endswith("."), name
    for scale, parts in TABLE2.items():
        listed = f"With --scale {scale}: {', '.join(part.name for part in parts)}."
        assert listed in texts["esl reproduce table2 parts"]
    for rules, option in ((PRUNE, "prune"), (GROW, "growth")):
        assert f": {', '.join(rules)}." in texts[f"esl reproduce fig4 {option}"]


def test_run_on_lava_with_its_options(
    tiny: Any, invoke: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lava gets the options, and a long run shows its progress."""
    from esl_lava.simulate import lava_cpu

    given: dict[str, Any] = {}

    def instead_of_lava(
        network: Any,
        inputs: Any,
        record: Any,
        states: Any,
        *,
        path: Path | None = None,
        workers: int = 1,
        sparse: bool = False,
        deadline: float | None = None,
        progress: Any = None,
    ) -> Result:
        given.update(path=path, workers=workers, sparse=sparse, deadline=deadline)
        for done in (0, 1, 3, 20):
            progress(done, 20)
        return exact.run(network, inputs, record, states)

    clock = iter(range(100))
    monkeypatch.setattr(lava_cpu, "run", instead_of_lava)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    line = ("run", tiny.net, "--samples", 20, "--backend", "lava")
    done = invoke(*line, "--workers", 2, "--sparse", "--deadline", 9)
    assert done.code == 0, done.err
    assert given == {"path": tiny.net, "workers": 2, "sparse": True, "deadline": 9.0}
    # One sample is less than a tenth, and the result follows the last sample.
    assert done.err == "     3/20 samples  17 s left\n"
    invoke(*line)
    assert given == {"path": tiny.net, "workers": 1, "sparse": False, "deadline": None}


def test_a_layer_without_synapses_has_no_density(tmp_path: Path, invoke: Command) -> None:
    driven = a_layer("in", Injection((3,)), Cuba(4096, 4096, 5))
    readout = a_layer("out", Matrix.from_dense(np.full((2, 3), 2)), INTEGRATOR)
    netfile.write(a_network((driven, readout), input_range=(-255, 255)), tmp_path / "net.h5")
    np.save(tmp_path / "drive.npy", np.full((1, 4, 3), 200))
    done = invoke("run", tmp_path / "net.h5", "--data", tmp_path / "drive.npy")
    assert done.code == 0, done.err
    line, fired = (line for line in done.out.splitlines() if line.split()[:1] == ["in"])
    assert line.split() == ["in", "3", "0", "0", "0", "0.0", "12.0", "12"]
    assert fired.split() == ["in", "3", "0", "3", "(100.00", "%)", "1.0000", "1.0000", "12.0"]


@pytest.mark.slow
def test_weights_and_connections_of_a_convolution(tmp_path: Path, invoke: Command) -> None:
    """A kernel of 144 weights makes 322,624 connections, which the energy is computed from."""
    rng = np.random.default_rng(1)
    conv = Convolution(2 * rng.integers(1, 20, (8, 2, 3, 3)), (2, 48, 48), padding=(1, 1))
    mask = rng.random((10, conv.n_post)) < 0.01
    readout = Matrix.from_dense(2 * mask, mask)
    layers = (
        a_layer("conv", conv, Cuba(4096, 2048, 60)),
        a_layer("readout", readout, INTEGRATOR),
    )
    network = a_network(layers, 6)
    net, data = tmp_path / "net.h5", tmp_path / "spikes.npy"
    netfile.write(network, net)
    np.save(data, (rng.random((2, 6, 2, 48, 48)) < 0.1).astype(np.uint8))
    given = (net, "--data", data)
    weights, connections = 144 + readout.count, 322_624 + readout.count
    for command in ("run", "energy"):
        values = invoke(command, *given, "--json").json
        assert (values["weights"], values["connections"]) == (weights, connections)
        assert values["density"] == weights / (144 + readout.possible)
        shown = [line.split() for line in invoke(command, *given).out.splitlines()]
        line, *fired = (line for line in shown if line[:1] == ["conv"])
        assert len(fired) == (command == "run")
        assert line[1:7] == ["18,432", "144", "100.00", "%", "322,624", "322,624"]
    paper = load_device("v100_paper")
    found = values["devices"]["v100_paper"]
    assert found["joules_by_connections"] == by_connections(connections, paper)
    assert found["joules_as_ann"] == by_connections(322_624 + readout.possible, paper)
    on_chip = ("map", *given, "--chip", "loihi1", "--samples", 2)
    (of_conv, _) = invoke(*on_chip, "--json").json["layers"]
    assert (
        list(of_conv)
        == (
            "name neurons cores format weight_bits weights connections density by_format "
            "break_even_density utilisation binding one_core_fewer waits spread regions"
        ).split()
    )
    assert (of_conv["weights"], of_conv["connections"]) == (144, 322_624)
    shown = [line.split() for line in invoke(*on_chip).out.splitlines()]
    assert next(line for line in shown if line[:1] == ["conv"])[1:4] == ["18,432", "322,624", "144"]


@pytest.mark.slow
def test_verify_with_lava(tiny: Any, program: Command) -> None:
    done = program("esl", "verify", tiny.model, tiny.net, "--samples", 5, "--json")
    assert done.code == 0, done.err
    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", 5)
    spikes = simulate(network, data.spikes(encoding_of(network)), record="all").counts.spikes
    assert spikes > 50
    assert done.json == {
        "samples_verified": 5,
        "spikes_compared": spikes,
        "positions_compared": 5 * 4 * (24 + 12 + 10),
        "differences": 0,
        "differences_by_backend": {"exact": 0, "lava-models": 0, "lava": 0},
        "integers_compared": network.connections + 5 * (24 + 12 + 10) + 3,
        "integers_that_differ": 0,
        "integer_differences": [],
        "not_run": {},
        "first_difference": None,
        "firing_times": [],
    }


@pytest.mark.slow
def test_energy(tiny: Any, invoke: Command) -> None:
    values = invoke("energy", tiny.net, "--samples", 50, "--json").json
    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", 50)
    counts = simulate(network, data.spikes(encoding_of(network))).counts
    assert values["samples"] == 50
    assert values["sops_per_sample"] == counts.sops / 50
    assert values["neurobench"]["effective_acs"] == counts.sops / 50
    assert 0 < values["neurobench"]["activation_sparsity"] < 1
    assert tuple(values["devices"]) == DEFAULT_DEVICES
    for name, found in values["devices"].items():
        device = load_device(name)
        assert found["joules_per_sample"] == per_sample(counts, device).total
        assert found["joules_by_connections"] == by_connections(network.connections, device)
        assert found["sources"] == {k: c.source for k, c in device.constants.items()}


@pytest.mark.slow
def test_energy_as_a_program_of_its_own(tiny: Any, program: Command) -> None:
    chosen = ("truenorth_measured", "v100_paper")
    flags = (word for name in chosen for word in ("--device", name))
    done = program("esl-energy", tiny.net, "--samples", 50, *flags)
    assert done.code == 0, done.err
    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", 50)
    counts = simulate(network, data.spikes(encoding_of(network))).counts
    lines = [line.split() for line in done.out.splitlines()]
    for name, found in price(network, counts, chosen).items():
        charged = ", ".join(found.measured.used)
        figures = [f"{found.measured.total:.2E}", f"{found.by_connections:.2E}"]
        assert [name, *figures, charged] in lines
    assert "loihi1_sanafe" not in done.out


@pytest.mark.slow
def test_energy_of_a_placed_network_charges_messages_and_active_updates(
    tiny: Any, invoke: Command, tmp_path: Path
) -> None:
    flags = ("--samples", 20, "--device", "loihi1_sanafe", "--map", "loihi1")
    values = invoke("energy", tiny.net, *flags, "--json").json
    network = netfile.read(tiny.net)
    seen = measure(network, load_samples(network, "digits", "test", 20), encoding_of(network))
    placed = activity.place(network, "loihi1", activity=seen)
    assert placed.flow is not None
    expected = per_sample(placed.flow.counts, load_device("loihi1_sanafe"))
    (found,) = values["devices"].values()
    assert found["joules_per_sample"] == expected.total
    assert {"neuron_update_inactive", "message"} <= set(found["charged"])
    assert found["parts"]["messages"] == expected.messages > 0
    (apart,) = values["disagreements"]
    assert [apart["least"], apart["most"]] == found["joules_span"]
    spikes = load_samples(network, "digits", "test", 20).spikes(encoding_of(network))
    np.save(tmp_path / "spikes.npy", spikes)
    of_file = invoke("energy", tiny.net, *flags, "--data", tmp_path / "spikes.npy", "--json").json
    assert of_file["devices"] == values["devices"]
    shown = invoke("energy", tiny.net, *flags).out
    assert f"{expected.messages:.2E}" in shown
    assert "- Loihi 1: " in shown


@pytest.mark.slow
def test_energy_takes_what_the_user_says(tiny: Any, invoke: Command) -> None:
    own = ("--device", "loihi2", "--constant", "sop=2", "--step-seconds", 0.001)
    (found,) = invoke("energy", tiny.net, "--samples", 20, *own, "--json").json["devices"].values()
    assert found["parts"]["static"] == pytest.approx(0.232 * 4 * 1e-3)
    assert list(found["sources"]) == ["sop"]
    gpu = ("--device", "a100_sxm4", "--utilisation", 0.5, "--flops-per-mac", 1)
    (half,) = invoke("energy", tiny.net, "--samples", 20, *gpu, "--json").json["devices"].values()
    (full,) = (
        invoke("energy", tiny.net, "--samples", 20, *gpu[:2], "--json").json["devices"].values()
    )
    assert half["joules_per_sample"] == pytest.approx(full["joules_per_sample"])


@pytest.mark.slow
def test_energy_of_the_training(tiny: Any, invoke: Command) -> None:
    flags = ("--samples", 20, "--training", tiny.model)
    values = invoke("energy", tiny.net, *flags, "--json").json["training"]
    assert 0 < values["event_ratio"] < values["operations_ratio"] < 1
    assert set(values["sparse"]["operations"]) == {"forward", "backward", "update", "evolution"}
    shown = invoke("energy", tiny.net, *flags).out
    assert f"{values['dense_twin']['operations']['forward']:.2E}" in shown


def test_devices(invoke: Command, tmp_path: Path) -> None:
    values = invoke("devices", "--json").json
    assert tuple(values) == device_names()
    assert values["loihi2"]["charges"] is None
    sop = values["truenorth_measured"]["constants"]["energy.sop"]
    assert (sop["kind"], sop["value"]) == ("measured", "26 pJ (21.7 to 28.1)")
    assert "Merolla" in sop["source"]
    shown = invoke("devices", "loihi1").out
    assert "loihi1: Loihi 1: capacity and time only (Intel)" in shown
    assert "16,384" in shown
    assert "truenorth" not in shown
    assert "truenorth_best" in invoke("devices").out
    own = tmp_path / "mine.toml"
    own.write_text(
        'name = "mine"\ntitle = "t"\nmaker = "m"\ncharges = "events"\n[energy.sop]\nvalue = 3\n'
        'unit = "pJ"\nkind = "assumed"\noperating_point = "o"\nsource = "a napkin"\n'
    )
    assert "a napkin" in invoke("devices", own).out


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
def test_map(tiny: Any, invoke: Command, chip: str) -> None:
    values = invoke("map", tiny.net, "--chip", chip, "--samples", 10, "--json").json
    network = netfile.read(tiny.net)
    seen = measure(network, load_samples(network, "digits", "test", 10), encoding_of(network))
    expected = as_values(activity.place(network, chip, activity=seen))
    assert values == json.loads(json.dumps(expected))
    shown = invoke("map", tiny.net, "--chip", chip, "--samples", 10).out
    assert f"{values['cores']} cores, 1 of {chip}" in shown
    assert ("unknown" in shown) == (chip == "loihi2")


def test_map_without_data(tiny: Any, invoke: Command) -> None:
    values = invoke(
        *("map", tiny.net, "--chip", "loihi1", "--packing", "nengo-loihi", "--no-spikes"), "--json"
    ).json
    assert values["packing"] == "nengo-loihi"
    assert "bounds" not in values
    shown = invoke("map", tiny.net, "--no-spikes").out
    assert "cores, 1 of loihi2 (packing netx)" in shown
    assert "A step takes" not in shown


@pytest.mark.slow
def test_reproduce_table1(program: Command) -> None:
    done = program("esl", "reproduce", "table1", "--counts-only")
    assert done.code == 0, done.err
    words = done.out.split()
    for figure in ("1.13E-05", "7.95E-06", "1.84E-06", "1.29E-06"):
        assert words.count(figure) >= 2  # ours, and the paper's beside it
    assert {"635,200", "103,040"} <= set(words)
    assert "about one order of magnitude" in " ".join(words)


def test_reproduce_table1_as_json(invoke: Command) -> None:
    values = invoke("reproduce", "table1", "--counts-only", "--json").json
    assert [row["connections"] for row in values["rows"]] == [635_200, 103_040]
    result = compute_table1()
    assert [row["gpu_joules"] for row in values["rows"]] == [r.gpu_joules for r in result.rows]
    assert values["remarks"] == list(result.remarks)


QUICK = ["--epochs", "1", "--set", "sparsity.t_iter=4", "--set", "model.layers=8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "runs"),
    [
        ("reproduce fig2 --eps 1,3 --seeds 1,2 --jobs 1", ["eps-1_seed-1", "eps-3_seed-2"]),
        (
            "reproduce fig4 --densities 0.3 --growth random,gradient --prune set --jobs 1",
            ["density-0.3_prune-set_growth-gradient_seed-1"],
        ),
        ("baselines --methods esl,dense --seeds 1 --jobs 2", ["method-dense_seed-1"]),
    ],
    ids=["fig2", "fig4", "baselines"],
)
def test_sweeps(
    command: str, runs: list[str], tiny: Any, program: Command, invoke: Command, tmp_path: Path
) -> None:
    config = tiny.path / "config.toml"
    line = [*command.split(), "--config", config, *QUICK, "-o", tmp_path / "sweep"]
    made = program("esl", *line, "--json")
    assert made.code == 0, made.err
    assert all((tmp_path / "sweep" / run / "model.pt").exists() for run in runs)
    varied = {run.rpartition("_seed-")[0] for run in runs}
    for row in made.json["rows"]:
        assert {"accuracy", "connections", "density", "exploration", "sops_per_sample"} <= set(row)
        assert 0 < row["accuracy"] <= 1
        varied.discard("_".join(f"{k}-{v}".removesuffix(".0") for k, v in row["settings"].items()))
    assert not varied
    written = json.loads((tmp_path / "sweep" / f"{made.json['figure']}.json").read_text())
    assert written["rows"] == made.json["rows"]
    before = contents(tmp_path)
    again = invoke(*line)  # for people, and nothing left to do
    assert again.code == 0
    finished = len(made.json["rows"]) * len(made.json["rows"][0]["seeds"])
    assert f"{finished} of {finished}" in again.err
    assert f"{100 * made.json['rows'][0]['accuracy']:.2f}" in again.out
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_table1_of_tiny_networks(
    tiny_once: Any, program: Command, invoke: Command, tmp_path: Path
) -> None:
    line = ["reproduce", "table1", "--config", tiny_once.path / "config.toml", "--epochs", 2]
    line += ["--seeds", "1,2", "-o", tmp_path / "t"]
    made = program("esl", *line, "--json")
    assert made.code == 0, made.err
    assert list((tmp_path / "t").glob("table1.png"))
    written = json.loads((tmp_path / "t" / "table1.json").read_text())
    assert {key: written[key] for key in ("rows", "paper", "measured")} == made.json
    dense, sparse, small = made.json["measured"]
    assert [row["method"] for row in (dense, sparse, small)] == ["dense", "esl", "small-dense"]
    assert [row["paper"] is None for row in (dense, sparse, small)] == [False, False, True]
    assert dense["density"] == small["density"] == 1
    assert sparse["connections"] <= small["connections"] < dense["connections"]
    for row in (dense, sparse, small):
        assert 0 < row["sops"] <= row["most_sops"] <= row["connections"]
        assert row["gpu"] == by_connections(row["connections"], load_device("v100_paper"))
        assert row["loss"] == dense["accuracy"] - row["accuracy"]
        per_sop = row["truenorth"] / row["connections"]
        assert row["truenorth_by_sops"] == pytest.approx(per_sop * row["sops"])
    shown = invoke(*line).out
    assert f"{100 * sparse['accuracy']:.2f}" in shown
    assert f"{sparse['most_sops']:,}" in shown
    assert "96.58" in shown
    assert "by operations" in " ".join(shown.split())


@pytest.mark.slow
def test_fig2_of_networks_that_fire_once(tiny_once: Any, invoke: Command, tmp_path: Path) -> None:
    config = tiny_once.path / "config.toml"
    line = ("reproduce", "fig2", "--network", "single-spike", "--config", config, "--eps", "2,4")
    made = invoke(*line, "--epochs", 1, "-o", tmp_path / "f", "--jobs", 1, "--json")
    assert made.code == 0, made.err
    assert [row["settings"] for row in made.json["rows"]] == [{"eps": 2.0}, {"eps": 4.0}]
    assert all(0 < row["most_sops"] <= row["connections"] for row in made.json["rows"])


@pytest.mark.slow
def test_run_and_verify_networks_that_fire_once(tiny_once: Any, invoke: Command) -> None:
    values = invoke("run", tiny_once.net, "--json").json
    # The grid rounds spike times up. The training only rounds the times of the inputs.
    assert abs(values["accuracy"] - tiny_once.trained.json["accuracy"]) < 0.05
    assert 0 < values["sops_per_sample"] <= values["connections"]
    assert [layer["layer"] for layer in values["firing"]] == ["hidden1", "hidden2", "readout"]
    for own in (values, tiny_once.trained.json):
        for layer in own["firing"]:
            assert layer["saturated"] is None
            assert 0 < layer["rate"] <= layer["largest_rate"] <= 1 / 21
    chosen = ("--samples", 6, "--backend", "exact", "--backend", "lava-models")
    shown = invoke("verify", tiny_once.model, tiny_once.net, *chosen)
    assert shown.code == 0, shown.err
    found = rows(shown.out)
    for what in ("training", "lava-models"):
        assert found[f"differences, {what}"] == "0"
    assert found["integers that differ"] == "0"
    assert "mean drift" in shown.out
    as_json = invoke("verify", tiny_once.model, tiny_once.net, *chosen, "--json").json
    assert [layer["layer"] for layer in as_json["firing_times"]] == [
        "hidden1",
        "hidden2",
        "readout",
    ]
    assert as_json["differences"] == 0


@pytest.mark.slow
def test_train_by_another_method(tiny: Any, invoke: Command, tmp_path: Path) -> None:
    done = invoke(
        *["train", "--config", tiny.path / "config.toml", *QUICK, "--method", "dense"],
        *["-o", tmp_path / "run", "--json"],
    )
    assert done.code == 0, done.err
    assert done.json["density"] == 1
    assert read_toml(tmp_path / "run" / "config.toml").sparsity.density == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_sweep_that_a_signal_ends_can_be_continued(
    tiny: Any, tmp_path: Path, number: int, code: int, word: str
) -> None:
    script = Path(sys.executable).parent / "esl"
    line = [script, "reproduce", "fig2", "--config", tiny.path / "config.toml", "--jobs", "2"]
    line += ["--set", "model.layers=200", "--epochs", "40000", "-o", tmp_path / "sweep"]
    with subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    ) as esl:
        try:
            # Wait for both workers, because a starting worker prints a traceback on Ctrl-C.
            while len(list(tmp_path.glob("sweep/*/config.toml"))) < 2:
                assert esl.poll() is None
                time.sleep(0.2)
            os.killpg(esl.pid, number)  # as a terminal does with Ctrl-C
            _, err = esl.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(esl.pid, signal.SIGKILL)
    assert esl.returncode == code
    assert err.splitlines()[-1] == word
    assert "Traceback" not in err
    left = {path.name for path in tmp_path.glob("sweep/*/[!.]*")}
    assert left == {"checkpoint.pt", "config.toml"}


@pytest.mark.slow
def test_sigterm_ends_a_training_that_can_be_continued(tiny: Any, tmp_path: Path) -> None:
    script, run = Path(sys.executable).parent / "esl", tmp_path / "run"
    line = [script, "train", "--config", tiny.path / "config.toml", "--epochs", "40000", "-o", run]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as esl:
        try:
            assert esl.stderr is not None
            while "epoch 2/" not in esl.stderr.readline():
                assert esl.poll() is None
            esl.send_signal(signal.SIGTERM)
            _, err = esl.communicate()
        finally:
            esl.kill()
    assert esl.returncode == 143
    assert err.splitlines()[-1] == "terminated"
    assert f"esl train --resume {run}" in err
    assert "Traceback" not in err
    assert set(contents(run)) == {"checkpoint.pt", "config.toml"}
    assert modelfile.read(run / "checkpoint.pt").state["iteration"] >= 26


TERMINATED_WHILE_IT_WRITES = """
import os, signal
from esl_lava.cli.app import main
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGTERM)
main()
"""


def test_sigterm_leaves_no_temporary_file(tiny: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", TERMINATED_WHILE_IT_WRITES),
            *("export", tiny.model, tmp_path / "net.h5"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 143
    assert done.stderr.splitlines()[-1] == "terminated"
    assert "Traceback" not in done.stderr
    assert contents(tmp_path) == {}


def test_help_config_explains_every_field(invoke: Command) -> None:
    done = invoke("train", "--help-config")
    assert done.code == 0
    for key, default, description in documentation():
        assert (
            f"\n{key}{f' = {default}' if default else ''}\n    {description}\n" in f"\n{done.out}"
        )


@pytest.mark.slow
def test_without_a_command_there_is_help_but_no_success(program: Command) -> None:
    done = program("esl")
    assert (done.code, done.out) == (2, "")
    for command in (
        *("demo", "train", "export", "run", "verify", "energy", "devices", "map", "report"),
        *("events", "reproduce"),
    ):
        assert f"\n  {command} " in done.err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo(program: Command, tmp_path: Path) -> None:
    """The demo with fewer samples on Lava."""
    run = tmp_path / "run"
    done = program("esl", "demo", "-o", run, "--samples", 5, "--json")
    assert done.code == 0, done.err
    assert sorted(path.name for path in run.iterdir()) == [
        *("config.toml", "model.pt", "net.h5", "raster.png"),
        *("report.html", "report.json", "training.png", "updates.json"),
    ]
    for part in ("1/4", "2/4", "3/4", "4/4"):
        assert f"\n{part}  " in f"\n{done.err}"
    values = done.json
    assert values.pop("seconds") > 0
    assert values == json.loads((run / "report.json").read_text())
    network = netfile.read(run / "net.h5")
    assert values["samples"] == 357
    assert values["samples_verified"] == 5
    assert values["differences"] == 0
    assert values["spikes_compared"] > 100
    assert values["density"] == network.density < 0.5
    assert values["connections"] == network.connections
    assert values["accuracy"] > 0.9
    assert tuple(values["devices"]) == DEFAULT_DEVICES
    assert values["sops_per_sample"] == sum(layer["sops"] for layer in values["layers"]) / 357
    assert len(values["history"]) == read_toml(run / "config.toml").training.epochs
    assert values["verification"]["differences_by_backend"]["lava"] == 0
    for name in ("report.html", "report.json"):
        assert str(tmp_path) not in (run / name).read_text()
    for plot in ("raster.png", "training.png"):
        assert (run / plot).read_bytes().startswith(b"\x89PNG")
    again = program("esl", "report", run, "--samples", 5, "--lava", "-o", tmp_path / "report.html")
    assert again.code == 0, again.err
    for name in ("report.html", "report.json"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


# --- output for people --------------------------------------------------------------------


@pytest.mark.slow
def test_train_for_people(tiny: Any, invoke: Command, tmp_path: Path) -> None:
    config = tiny.path / "config.toml"
    run = tmp_path / "run"
    flags = ["--epochs", 1, "--seed", 5, "--density", 0.5, "--set", "model.layers=8"]
    done = invoke("train", "--config", config, "-o", run, *flags)
    assert done.code == 0, done.err
    kept = read_toml(run / "config.toml")
    assert (kept.training.epochs, kept.seed, kept.sparsity.density) == (1, 5, 0.5)
    assert kept.model.layers == "8"
    assert done.out.splitlines()[0] == f"trained: {run / 'model.pt'}"
    shown = rows(done.out)
    assert shown["connections"] == f"{64 * 8 // 2 + 80}"
    assert shown["density, all layers"] == f"{100 * (256 + 80) / (512 + 80):.2f} %"
    assert (shown["test samples"], shown["data set"]) == ("357", "digits")
    assert re.fullmatch(r"\d+\.\d\d %", shown["test accuracy"])
    assert [line.split()[:2] for line in done.out.splitlines()[-2:]] == [["hidden1", "8"], []]


@pytest.mark.slow
def test_verify_for_people_and_its_failure(
    tiny: Any, invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esl_lava.experiments import verify
    from esl_lava.simulate import lava_cpu
    from tests.experiments.test_verify import changed

    @wraps(lava_cpu.run)  # its options
    def instead_of_lava(
        network: Any, inputs: Any, record: Any, states: Any, *, path: Path, **options: Any
    ) -> Result:
        assert not options or options.pop("workers") == 2
        return exact.run(netfile.read(path), inputs, record, states)

    monkeypatch.setattr(lava_cpu, "run", instead_of_lava)
    chosen = ("--samples", 5, "--backend", "exact", "--backend", "lava", "--workers", 2)
    good = invoke("verify", tiny.model, tiny.net, *chosen)
    assert good.code == 0
    shown = rows(good.out)
    assert "differences, lava-models" not in shown
    assert shown["samples verified"] == "5"
    assert shown["differences, exact"] == shown["differences, lava"] == "0"
    assert shown["integers that differ"] == "0" != shown["integers compared"]

    network = netfile.read(tiny.net)
    data = load_samples(network, "digits", "test", 5)
    spikes = simulate(network, data.spikes(encoding_of(network)), record="all").spikes
    busiest = int(spikes["hidden2"].sum(axis=(0, 1)).argmax())
    net = changed(tiny, tmp_path / "net.h5", "readout", post=7, pre=busiest, by=2)
    expected = verify.verify(tiny.model, net, samples=5, backends=("exact", "lava"), workers=2)
    assert expected.first is not None
    bad = invoke("verify", tiny.model, net, *chosen)
    assert bad.code == 1
    assert rows(bad.out)["differences, lava"] == f"{expected.differences['lava']:,}" != "0"
    told = [f"difference: {sentence}" for sentence in expected.sentences()]
    assert bad.err.splitlines() == told
    for part in ("layer readout", "weight", "neuron 7", f"input {busiest}"):
        assert part in told[0]
    assert told[1] == f"difference: {expected.first}"
    for word in ("layer readout", "neuron 7", "sample ", "step ", str(expected.first.found)):
        assert word in bad.err

    as_json = invoke("verify", tiny.model, net, *chosen, "--json")
    assert as_json.code == 1
    assert as_json.json["differences"] == expected.total
    assert as_json.json["first_difference"] == str(expected.first)


@pytest.mark.slow
def test_demo_for_people(
    tiny: Any, invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of a demo, whose result is replaced by the tiny run."""
    from esl_lava.experiments import demo as demos
    from esl_lava.experiments import report as reports
    from esl_lava.experiments.rundir import RunDirectory
    from esl_lava.results.verification import IntegerComparison, IntegerDifference

    run = RunDirectory(tiny.path)
    whole = reports.find(run, reports.ReportTerms(samples=3), lambda line: None)
    network, evaluation = whole.network, whole.evaluation
    written = reports.put(tmp_path / "page.html", [whole], ["run"])
    monkeypatch.setattr(demos, "demo", lambda *arguments: written)
    done = invoke("demo", "-o", tmp_path / "new")
    assert done.code == 0, done.err
    counts = evaluation.result.counts
    shown = rows(done.out)
    joules = {
        f"joules per sample, {name}": f"{per_sample(counts, load_device(name)).total:.2E}"
        for name in DEFAULT_DEVICES
    }
    assert evaluation.accuracy is not None
    assert shown == {
        "accuracy of the integer network": f"{100 * evaluation.accuracy:.2f} %",
        "test samples": "357",
        "density, all layers": f"{100 * network.density:.2f} %",
        "connections": f"{network.connections:,}",
        "samples verified on Lava": "3",
        "spikes compared": f"{whole.verification.spikes:,}",
        "differences": "0",
        "SOPs per sample": f"{counts.sops / 357:,.1f}",
        **joules,
    }
    for name in (str(tmp_path / "new"), "report.html", "report.json"):
        assert name in done.out

    other = IntegerDifference("hidden1", "bias", 2, "neuron 3", 0, 1)
    compared = IntegerComparison(90, (other,))
    broken = dataclasses.replace(whole.verification, integers=compared)
    written = dataclasses.replace(
        written,
        values={**written.values, "differences": 2},
        accounts={"run": dataclasses.replace(whole, verification=broken)},
    )
    done = invoke("demo", "-o", tmp_path / "new", "--json")
    assert done.code == 1
    assert done.json["differences"] == 2
    assert f"difference: {other}\n" in done.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace standard error by a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_progress_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from esl_lava.training.trainer import TrainingProgress

    shown = terminal(monkeypatch)
    with progress.show_training() as show:  # of a run resumed after 50 of 100 steps
        for iteration in (51, 52, 53, 100):
            show(TrainingProgress(iteration, 100, 1 + (iteration > 75), 2, 0.5, 0.9, 0.1, 10))
    text = shown.getvalue()
    assert "epoch 2/2  step 100/100  loss 0.5000  validation 90.00%  density 10.00%" in text
    assert text.count("\n") == 1  # the line is drawn anew in its place


def test_progress_without_a_terminal_is_a_line_an_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from esl_lava.training.trainer import TrainingProgress

    clock = iter([0.0, 1.0, 2.0, 3.0, 8.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress.show_training() as show:  # of a run resumed after 4 of 20 steps
        for iteration in (5, 6, 10, 20):
            accuracy = 0.875 if iteration >= 10 else None
            show(TrainingProgress(iteration, 20, 1 + (iteration > 10), 2, 0.5, accuracy, 0.1, 100))
    found = "loss 0.5000  validation 87.50%  density 10.00%  200 samples/s"
    assert capsys.readouterr().err.splitlines() == [
        f"     epoch 1/2  step 10/20  {found}  5 s left",
        f"     epoch 2/2  step 20/20  {found}  0 s left",
    ]


def test_samples_on_a_terminal_are_a_line_for_each_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = terminal(monkeypatch)
    delay = dict.fromkeys(("exact", "lava", "quick"), 0.0) | {"quick": 1.0}
    with progress.show_samples() as show:
        for name in delay:
            monkeypatch.setattr(progress, "SAMPLES_DELAY", delay[name])
            for done in (0, 20, 40, 40):
                show(name, done, 40)
    text = shown.getvalue()
    assert "exact: 40/40 samples" in text
    assert "lava: 40/40 samples" in text
    assert "quick" not in text  # finished within a second
    assert text.count("\n") == 2


def test_a_path_is_not_markup(tiny: Any, invoke: Command, tmp_path: Path) -> None:
    net = tmp_path / "[bold]net[/x] :heart:" / ("long" * 30 + ".h5")
    net.parent.mkdir(parents=True)
    shutil.copy(tiny.net, net)
    done = invoke("run", net, "--samples", 1)
    assert done.code == 0, done.err
    assert f"{net} on digits (test), backend exact" in done.out.splitlines()


# --- bad input ---------------------------------------------------------------------------

BAD = [
    ("bake", "unknown", "bake"),
    ("--loud", "unknown", "--loud"),
    ("run", "missing", "net"),
    ("run {net} --loud", "unknown", "--loud"),
    ("run {net} more", "unknown", "more"),
    ("run missing.h5", "not-found", "missing.h5"),
    ("run {folder}", "unreadable", "run"),
    ("run {model}", "damaged", "model.pt"),
    ("run damaged.h5", "damaged", "damaged.h5"),
    ("run {net} --data mnits", "unknown", "mnits", "mnist"),
    ("run {net} --backend loihi9", "unknown", "loihi9", "lava-models"),
    ("run {net} --samples 0", "range", "0"),
    ("run {net} --samples -2", "range", "-2"),
    ("run {net} --samples 358", "range", "358", "digits", "357"),
    ("run {net} --samples many", "type", "--samples", "many"),
    ("run {net} --encoder morse", "unknown", "encoding.kind", "morse"),
    ("run {net} --steps 0", "range", "encoding.steps", "0"),
    ("run {net} --steps 9", "mismatch", "9", "4"),
    ("run {net} --workers 2", "unknown", "exact", "workers"),
    ("run {net} --backend lava-models --deadline 9", "unknown", "deadline", "sparse"),
    ("run {net} --labels spikes.npy", "conflict", "--labels", "spikes.npy", "--data"),
    ("run {net} --data missing.npy", "not-found", "missing.npy"),
    ("run {net} --data damaged.npy", "damaged", "damaged.npy"),
    ("run {net} --data floats.npy", "type", "floats.npy", "float64"),
    ("run {net} --data flat.npy", "shape", "flat.npy", "(5,)"),
    ("run {net} --data spikes.npy --steps 4", "conflict", "spikes.npy", "--steps"),
    ("run {net} --data spikes.npy --samples 6", "range", "6", "spikes.npy", "5"),
    ("run {net} --data spikes.npy --labels missing.npy", "not-found", "missing.npy"),
    ("run {net} --data spikes.npy --labels spikes.npy", "shape", "spikes.npy", "(5,)"),
    ("run {net} --data spikes.npy", "mismatch", "3", "64"),
    ("run {net} --data maps.npy", "shape", "(8, 2, 4)", "64"),
    ("energy {net} --data maps.npy", "shape", "maps.npy", "(5, 4, 8, 2, 4)"),
    ("map {net} --data maps.npy", "shape", "maps.npy", "--axes"),
    ("run {net} --data maps.npy --axes NTHW", "mismatch", "--axes", "NTHW", "4"),
    ("energy {net} --data maps.npy --axes NTXYZ", "type", "--axes", "NTXYZ"),
    ("map {net} --axes NTC", "conflict", "--axes", "NTC", "--data"),
    ("run {net} --data maps.npy --axes NTHWC --labels ten.npy", "range", "10", "4"),
    ("run {net} --data spikes.npz", "type", "spikes.npz"),
    ("energy {net} --data SPIKES.NPY", "type", "SPIKES.NPY", ".npy"),
    ("map {net} --data spikes.csv", "unknown", "spikes.csv", "digits"),
    ("energy missing.h5", "not-found", "missing.h5"),
    ("energy {net} --device abacus", "unknown", "abacus"),
    ("energy {net} --device missing.toml", "not-found", "missing.toml"),
    ("energy {net} --samples 0", "range", "0"),
    ("energy {net} --device loihi2", "missing", "loihi2", "energy.sop"),
    ("energy {net} --constant sop", "type", "--constant", "sop"),
    ("energy {net} --utilisation 2", "range", "energy.operation.utilisation", "2.0"),
    ("energy {net} --flops-per-mac 3", "range", "ops_per_connection", "3"),
    ("map {net} --no-spikes --samples 3", "conflict", "--samples", "3", "--no-spikes"),
    ("map {net} --no-spikes --data mnist", "conflict", "--data", "mnist", "--no-spikes"),
    ("map {net} --no-spikes --axes NTC", "conflict", "--axes", "NTC", "--data"),
    ("map {net} --no-spikes --steps 3", "conflict", "--steps", "3", "--no-spikes"),
    ("map {net} --no-spikes --drive", "conflict", "--drive", "--no-spikes"),
    ("energy {net} --step-seconds -1", "range", "-1.0"),
    ("energy {net} --device rolls --utilisation 1", "conflict", "--utilisation"),
    ("energy {net} --map rolls", "unsupported", "rolls", "capacity"),
    ("energy {net} --training missing.pt", "not-found", "missing.pt"),
    ("devices abacus", "unknown", "abacus"),
    ("map missing.h5", "not-found", "missing.h5"),
    ("map {net} --chip rolls", "unsupported", "rolls", "capacity"),
    ("map {net} --chip loihi1 --packing zip", "unknown", "zip", "nxtf"),
    ("map {net} --packing nxtf", "conflict", "nxtf", "64", "loihi2", "32"),
    ("map {net} --chips 0", "limit", "0"),
    ("map {net} --samples 0", "range", "0"),
    ("map {net} --samples 358", "range", "358", "357"),
    ("verify {model}", "missing", "net"),
    ("verify {model} missing.h5", "not-found", "missing.h5"),
    ("verify missing.pt {net}", "not-found", "missing.pt"),
    ("verify {net} {model}", "damaged", "model.pt"),
    ("verify {model} {net} --samples 0", "range", "0"),
    ("verify {model} {net} --backend loihi9", "unknown", "loihi9"),
    ("verify {model} {net} --backend exact --workers 2", "conflict", "exact", "workers"),
    ("run {net} --backend lava --deadline 0", "range", "0.0"),
    ("run {net} --backend lava --deadline nan", "not-finite", "--deadline", "nan"),
    ("run {net} --backend lava --deadline soon", "type", "--deadline", "soon"),
    ("run {net} --backend lava --workers 0", "range", "workers", "0"),
    ("verify {model} {net} --data mnits", "unknown", "mnits"),
    ("verify {model} {net} --data spikes.npy", "unknown", "spikes.npy", "digits"),
    ("verify {model} {net} --samples 358", "range", "358", "357"),
    ("export {model}", "missing", "net"),
    ("export missing.pt new.h5", "not-found", "missing.pt"),
    ("export {net} new.h5", "damaged", "net.h5"),
    ("export {model} damaged.h5", "exists", "damaged.h5", "--overwrite"),
    ("export {model} nowhere/new.h5", "not-found", "nowhere"),
    ("export {model} {folder} --overwrite", "unwritable", "run"),
    ("train", "missing", "--output", "-o"),
    ("train -o new", "missing", "--preset", "--config"),
    ("train -o new --preset digits --config {config}", "conflict", "--preset", "--config"),
    ("train -o new --preset digist", "unknown", "digist", "digits"),
    ("train -o new --config missing.toml", "not-found", "missing.toml"),
    ("train -o new --config {net}", "damaged", "net.h5", "UTF-8"),
    ("train -o new --config damaged.toml", "damaged", "damaged.toml"),
    ("train -o new --config {config} --set epochs", "type", "epochs"),
    (
        "train -o new --config {config} --set training.epoch=3",
        *("unknown", "training.epoch", "training.epochs"),
    ),
    ("train -o new --config {config} --set sparsity.keep_dense=['x']", "unknown", "x"),
    ("train -o new --config {config} --density 2", "range", "sparsity.density", "2.0"),
    ("train -o new --config {config} --density nan", "not-finite", "--density", "nan"),
    ("train -o new --config {config} --epochs 0", "range", "training.epochs", "0"),
    (
        "train -o new --config {config} --set training.learning_rate=1e38",
        *("range", "training.learning_rate", "1e+38"),
    ),
    ("train -o new --config {config} --seed -1", "range", "seed", "-1"),
    ("train -o {folder} --config {config}", "exists", "run"),
    ("train -o damaged.h5/new --config {config}", "unwritable", "damaged.h5/new"),
    ("train --resume {folder} --epochs 3", "conflict", "--resume", "run"),
    ("train --resume {folder} -o new", "conflict", "--resume", "run"),
    ("train --resume missing", "not-found", "missing/checkpoint.pt"),
    ("train --resume {folder}", "exists", "run/model.pt"),
    ("demo --samples 0", "range", "0"),
    ("demo --samples 358", "range", "358", "357"),
    ("demo -o {folder}", "exists", "run"),
    ("train -o new --config {config} --method small", "unknown", "small", "small-dense"),
    (
        "train -o new --config {config} --method pruned --epochs 1",
        *("range", "training.epochs", "1", "pruned", "2"),
    ),
    (
        "train -o new --config {config} --set sparsity.dense_epochs=4",
        *("conflict", "sparsity.dense_epochs", "4", "training.epochs"),
    ),
    ("train --resume {folder} --method static", "conflict", "--resume", "run"),
    ("reproduce fig2 -o new --config {config} --eps 10,x", "type", "--eps", "10,x"),
    ("reproduce table2 -o new --scale large", "unknown", "--scale", "large", "small", "paper"),
    ("reproduce table2 -o new --scale=", "unknown", "--scale", "small", "paper"),
    ("reproduce fig3 -o new --scale=", "unknown", "--scale", "small", "paper"),
    ("reproduce fig4 -o new --config {config} --densities=", "type", "--densities", "''"),
    ("reproduce fig4 -o new --config {config} --seeds=", "type", "--seeds", "''"),
    ("reproduce table2 -o new --parts vgg", "unknown", "--parts", "vgg", "cifar10-resnet"),
    (
        "reproduce table2 -o new --set sparsity.density=0.2",
        *("conflict", "sparsity.density", "--scale"),
    ),
    ("reproduce table2 -o new --parts nmnist --set data.x=1", "unknown", "data.x"),
    ("reproduce fig3 -o new --scale small --preset digits", "conflict", "--scale", "--preset"),
    (
        "reproduce fig3 -o new --set sparsity.growth='random'",
        *("conflict", "sparsity.growth", "esl reproduce fig4"),
    ),
    ("reproduce fig3 -o new --densities 0.1,2", "range", "sparsity.density", "2.0"),
    ("reproduce fig4 -o new --scale paper --densities 0.1", "not-found", "airplane", "truck"),
    ("reproduce fig2 -o new --config {config} --eps 0", "range", "sparsity.eps", "0.0"),
    ("reproduce fig2 -o new --config {config} --seeds 1,1", "conflict", "eps-10_seed-1"),
    ("reproduce fig2 -o new --config {config} --jobs 0", "range", "--jobs", "0", "1"),
    (
        "reproduce fig2 -o new --config {config} --set sparsity.density=0.2",
        *("conflict", "sparsity.density", "--eps"),
    ),
    (
        "reproduce fig2 -o new --config {config} --set sparsity.distribution='erk'",
        *("conflict", "erk"),
    ),
    ("reproduce fig4 -o new --config {config} --set seed=9", "conflict", "seed", "--seeds"),
    (
        "reproduce fig4 -o new --config {config} --set sparsity.growth='random'",
        *("conflict", "sparsity.growth", "--growth"),
    ),
    ("baselines -o new --config {config} --epochs 1", "range", "pruned", "training.epochs"),
    (
        "reproduce fig2 -o new --config {config} --preset digits",
        *("conflict", "--preset", "--config"),
    ),
    ("reproduce fig2 -o damaged.h5/new --config {config}", "unwritable", "damaged.h5/new"),
    (
        "reproduce fig4 -o new --config {config} --growth rigl",
        *("unknown", "sparsity.growth", "rigl"),
    ),
    ("baselines -o new --config {config} --methods esl,small", "unknown", "small", "small-dense"),
    ("baselines -o new --config {config} --seeds 1,-2", "range", "seed", "-2"),
    ("reproduce", "missing", "command"),
    ("reproduce table3", "unknown", "table3"),
    (
        "reproduce table1 --config {config}",
        *("unsupported", "model.kind", "multi_spike", "single_spike"),
    ),
    ("reproduce table1 --counts-only --epochs 2", "conflict", "--counts-only", "--epochs"),
    ("reproduce table1 --counts-only --seeds 1", "conflict", "--counts-only", "--seeds"),
    ("reproduce table1 --counts-only --jobs 1", "conflict", "--counts-only", "--jobs"),
    ("reproduce table1 --counts-only -o runs/x", "conflict", "--counts-only", "--output"),
    ("reproduce table1 --counts-only --set seed=1", "conflict", "--counts-only", "--set"),
    ("reproduce table1 --counts-only --cluster ray", "conflict", "--counts-only", "--cluster"),
    (
        "baselines -o new --config {config} --cluster x --jobs 2",
        *("conflict", "--jobs", "2", "--cluster"),
    ),
    ("baselines -o new --config {config} --cluster x", "failed", "--cluster", "x"),
    ("sweep", "missing", "directory"),
    ("sweep {folder}", "not-found", "run/cells.json"),
    ("reproduce table1 --preset digits-single-spike --jobs 0 -o new", "range", "--jobs", "0"),
    (
        "reproduce fig2 -o new --network two-spike",
        *("unknown", "--network", "two-spike", "multi-spike, single-spike"),
    ),
    (
        "reproduce fig2 -o new --network single-spike --config {config}",
        *("conflict", "--network", "single-spike", "multi_spike"),
    ),
]


@pytest.fixture
def workplace(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a current directory with some valid and some damaged files."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.path, tmp_path / "run")
    (tmp_path / "damaged.h5").write_bytes(tiny.net.read_bytes()[:1000])
    (tmp_path / "damaged.toml").write_text("seed = = 1")
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00")
    np.save(tmp_path / "floats.npy", np.zeros((5, 4, 64)))
    np.save(tmp_path / "flat.npy", np.zeros(5, np.int64))
    np.save(tmp_path / "spikes.npy", np.zeros((5, 4, 3), np.uint8))
    np.save(tmp_path / "maps.npy", np.zeros((5, 4, 8, 2, 4), np.uint8))
    np.save(tmp_path / "ten.npy", np.arange(6, 11))
    return tmp_path


def words(line: str) -> list[str]:
    places = {
        "net": "run/net.h5",
        "model": "run/model.pt",
        "config": "run/config.toml",
        "folder": "run",
    }
    return [word.format(**places) for word in line.split()]


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD, ids=[case[0] for case in BAD])
def test_bad_input_is_one_sentence(case: tuple[str, ...], workplace: Path, invoke: Command) -> None:
    line, code, *parts = case
    before = contents(workplace)
    done = invoke(*words(line))
    refused(done, code, *parts)
    assert done.out == ""
    if "reproduce" not in line:
        refused(invoke(*words(line), "--json"), code, *parts)
    assert contents(workplace) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line", "code", "parts"),
    [
        ("esl", "run {net} --backend loihi9", "unknown", ["loihi9"]),
        ("esl-run", "{net} --samples 358", "range", ["358", "357"]),
        ("esl-energy", "", "missing", ["net"]),
        ("esl-train", "-o new --preset digist", "unknown", ["digist"]),
        ("esl-export", "{model} {net}", "exists", ["run/net.h5", "--overwrite"]),
    ],
)
def test_bad_input_in_a_process_of_its_own(
    name: str, line: str, code: str, parts: list[str], workplace: Path, program: Command
) -> None:
    before = contents(workplace)
    done = program(name, *words(line))
    refused(done, code, *parts)
    assert done.out == ""
    assert contents(workplace) == before


def test_every_fault_has_its_line(workplace: Path, invoke: Command) -> None:
    (workplace / "bad.toml").write_text("seed = -1\n[sparsity]\ndensity = 0\n[colour]\n")
    line = ("train", "-o", "new", "--config", "bad.toml")
    done = invoke(*line)
    assert done.out == ""
    assert len(done.err.splitlines()) == 3
    for code, name in (("range", "seed"), ("range", "sparsity.density"), ("unknown", "colour")):
        assert sum(
            shown == code and name in sentence and "bad.toml" in sentence
            for shown, sentence in refusals(done)
        )
    assert refusals(invoke(*line, "--json")) == refusals(done)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "reproduce fig2 -o new --config {config} --jobs 0",
            {"code": "range", "key": "--jobs", "value": 0, "limit": 1},
        ),
        (
            "reproduce fig2 -o new --network two-spike",
            {
                "code": "unknown",
                "key": "--network",
                "value": "two-spike",
                "limit": "multi-spike, single-spike",
            },
        ),
        ("run {net} --samples many", {"code": "type", "key": "--samples", "value": "many"}),
        ("run {net} --deadline inf", {"code": "not-finite", "key": "--deadline", "value": "inf"}),
        (
            "events run/net.h5 --frames=0",
            {"code": "range", "key": "--frames", "value": "0"},
        ),
        ("run {net} --loud", {"code": "unknown", "key": "--loud"}),
        ("run", {"code": "missing", "key": "net"}),
        ("bake", {"code": "unknown"}),
    ],
)
def test_json_of_a_fault_is_one_object(
    line: str, fault: dict[str, object], workplace: Path, invoke: Command
) -> None:
    done = invoke(*words(line), "--json")
    ((_, sentence),) = refusals(done)
    assert done.json == {"error": [{"sentence": sentence, **fault}]}


def test_an_option_without_its_value(invoke: Command) -> None:
    refused(invoke("run", "net.h5", "--samples"), "missing", "--samples")


def test_json_of_a_sweep_with_a_failed_run_is_one_object(
    workplace: Path, invoke: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the other runs stand beside the fault."""
    from esl_lava.experiments import figures
    from esl_lava.results.sweep import Outcome, Sweep, SweepRow

    row = SweepRow.of({"eps": 1.0}, [1], [Outcome(0.5, None, 9, 0.5, 0.5, 0.1, 3.0)])
    failed = Sweep("fig2", None, [row], ["eps-3_seed-1: the disk is full"])
    monkeypatch.setattr(figures, "draw", lambda *arguments, **options: failed)
    line = words("reproduce fig2 -o new --config {config} --eps 1,3")
    done = invoke(*line, "--json")
    assert done.code == 2
    assert done.err == "error: eps-3_seed-1: the disk is full [failed]\n"
    fault = {"sentence": "eps-3_seed-1: the disk is full", "code": "failed"}
    assert done.json["error"] == [fault]
    assert done.json["rows"][0]["accuracy"] == 0.5
    shown = invoke(*line)
    assert shown.code == 2
    assert shown.err.endswith(done.err)
    assert "50.00" in shown.out


# --- interruptions -----------------------------------------------------------------------


INTERRUPTED_IN_THE_THIRD_EPOCH = """
import os, signal, sys
from contextlib import contextmanager
from esl_lava.cli import app
from esl_lava.cli.progress import show_training

@contextmanager
def interrupting():
    with show_training() as show:
        def told(progress):
            show(progress)
            if progress.iteration == 8:
                os.kill(os.getpid(), signal.SIGINT)
        yield told

app.training.show_training = interrupting
app.train_main()
"""


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(
    tiny: Any, invoke: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    length = ["--epochs", "5", "--set", "training.batch_size=432"]  # three steps an epoch
    flags = ["--config", tiny.path / "config.toml", "-o", run, *length]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_THE_THIRD_EPOCH, *flags],
        capture_output=True,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert done.returncode == 130
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint.pt", "config.toml"]

    done = invoke("train", "--resume", run, "--json")
    assert done.code == 0, done.err
    assert [line.split()[:2] for line in done.err.splitlines()] == [
        ["epoch", f"{epoch}/5"] for epoch in (3, 4, 5)
    ]
    assert done.json["samples"] == 357
    assert sorted(path.name for path in run.iterdir()) == [
        *("config.toml", "model.pt", "training.png", "updates.json"),
    ]


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_news(tmp_path: Path) -> None:
    for flags in (["--json"], []):
        reader, writer = os.pipe()
        os.close(reader)
        script = Path(sys.executable).parent / "esl"
        done = subprocess.run(
            [script, "reproduce", "table1", "--counts-only", *flags],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")
