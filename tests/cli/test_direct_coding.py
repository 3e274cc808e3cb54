"""Pixels as graded input, from the training to the chip."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.config import from_toml, override, to_toml
from esl_lava.data.datasets import Images
from esl_lava.experiments.evaluate import evaluate, read_inputs
from esl_lava.experiments.verify import verify
from tests.cifar import needs_subset
from tests.cli.refusals import refused

pytestmark = pytest.mark.slow

Command = Callable[..., Any]

SETTINGS = """\
seed = 3

[data]
name = "{data}"

[encoding]
kind = "direct"
steps = 2

[model]
{model}

[sparsity]
density = 0.5
t_iter = 4
keep_dense = ["readout"]

[training]
epochs = 1
batch_size = 100
learning_rate = 0.02
"""

MAPS = 'kind = "convolutional"\nlayers = "4C3-AP2-6C3-AP2"'
NEURONS = 'layers = "24-12"'


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and the values that `esl train --json` printed."""

    path: Path
    trained: Any

    @property
    def files(self) -> tuple[Path, Path]:
        return self.path / "model.pt", self.path / "net.h5"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("digits", MAPS), id="digits, maps"),
        pytest.param(("digits", NEURONS), id="digits, neurons"),
        pytest.param(("cifar10_subset", MAPS), id="CIFAR-10, maps", marks=needs_subset),
    ],
)
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, program: Command
) -> Run:
    data, model = request.param
    folder = tmp_path_factory.mktemp("direct")
    (folder / "settings.toml").write_text(SETTINGS.format(data=data, model=model))
    found = Run(folder / "run", None)
    trained = program("esl-train", "--config", folder / "settings.toml", "-o", found.path, "--json")
    assert trained.code == 0, trained.err
    exported = program("esl-export", *found.files)
    assert exported.code == 0, exported.err
    assert "could overflow" not in exported.err
    return replace(found, trained=trained.json)


def test_what_was_trained_is_what_runs(run: Run, invoke: Command) -> None:
    """The training and the simulator evaluate the same integers, so their accuracies are equal."""
    network = netfile.read(run.files[1])
    assert network.input_range == (-16, 15)
    done = invoke("run", run.files[1], "--json")
    assert done.code == 0, done.err
    assert done.json["accuracy"] == run.trained["accuracy"]
    assert done.json["samples"] == run.trained["samples"]
    assert run.trained["accuracy"] > 0.15  # of ten classes


def test_slayer_and_every_simulator_agree(run: Run, invoke: Command) -> None:
    done = invoke("verify", *run.files, "--samples", 3, "--json")
    assert done.code == 0, done.err
    assert done.json["differences_by_backend"] == {"exact": 0, "lava-models": 0, "lava": 0}
    assert done.json["integers_that_differ"] == 0
    assert done.json["spikes_compared"] > 50


def test_a_pixel_that_is_not_0_is_an_operation_at_each_synapse(run: Run, invoke: Command) -> None:
    network, samples, encoding = read_inputs(run.files[1], samples=20)
    found = evaluate(network, samples, encoding)
    assert isinstance(samples, Images)
    active = (samples.images >> 3) != 16
    fan_out = (network.first.unrolled().dense() != 0).sum(axis=0)
    assert found.result.counts.layers[0].sops == 2 * int((active @ fan_out).sum())
    done = invoke("energy", run.files[1], "--samples", 20, "--json")
    assert done.code == 0, done.err
    assert done.json["sops_per_sample"] == found.result.counts.sops / 20
    assert "neurobench" not in done.json  # which tells operations on graded input apart


def test_a_report_shows_it(run: Run, invoke: Command) -> None:
    done = invoke("report", run.path, "--samples", 2, "--overwrite")
    assert done.code == 0, done.err
    assert (run.path / "report.html").stat().st_size > 10_000


def test_pixels_of_other_bits_are_told(run: Run, tmp_path: Path) -> None:
    model, net = run.files
    network = netfile.read(net)
    other = override(from_toml(network.provenance["config"], recorded=True), {"encoding.bits": 4})
    facts = {**network.provenance, "config": to_toml(other)}
    netfile.write(replace(network, provenance=facts, input_range=(-8, 7)), tmp_path / "net.h5")
    found = verify(model, tmp_path / "net.h5", samples=1, backends=("exact",))
    first, second = found.integers.sentences
    assert all(part in first for part in ("direct", "4 bits", "5 bits"))
    assert all(part in second for part in ("-8..7", "-16..15"))


def test_pixels_are_no_spikes(tiny: Any, invoke: Command) -> None:
    done = invoke("run", tiny.net, "--encoder", "direct", "--samples", 1)
    refused(done, "range", "-16", "0", "1")


def test_spikes_are_within_the_range_of_pixels(run: Run, invoke: Command) -> None:
    done = invoke("run", run.files[1], "--encoder", "rate", "--samples", 5, "--json")
    assert done.code == 0, done.err
    pixels = np.full((1, 2, netfile.read(run.files[1]).inputs), 16, np.int64)
    np.save(run.path / "over.npy", pixels)
    done = invoke("run", run.files[1], "--data", run.path / "over.npy")
    refused(done, "range", "-16..15", "16")
