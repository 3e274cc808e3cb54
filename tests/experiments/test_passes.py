"""A command simulates each sample only once."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esl_lava.config import Experiment
from esl_lava.experiments import demo as demos
from esl_lava.experiments.sweep import Cell, sweep
from esl_lava.experiments.verify import verify
from esl_lava.models.stored import load_model
from esl_lava.simulate import exact

pytestmark = pytest.mark.slow

ALL = 357
"""Number of test samples of the digits."""


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of samples of each call of the exact simulator."""
    counts: list[int] = []
    run = exact.run

    @functools.wraps(run)
    def counting(network: Any, inputs: Any, *args: Any) -> Any:
        counts.append(len(inputs))
        return run(network, inputs, *args)

    monkeypatch.setattr(exact, "run", counting)
    return counts


@pytest.mark.parametrize(
    ("command", "samples"),
    [
        ("run {net}", ALL),
        ("run {net} --samples 30", 30),
        ("energy {net}", ALL),
        ("energy {net} --map loihi1", ALL),
        ("energy {net} --map loihi1 --samples 20", 20),
        ("map {net}", 100),
        ("map {net} --samples 120", 120),
        ("map {net} --no-spikes", 0),
    ],
)
def test_a_command_runs_every_sample_once(
    tiny: Any, invoke: Callable[..., Any], simulated: list[int], command: str, samples: int
) -> None:
    assert invoke(*command.format(net=tiny.net).split()).code == 0
    assert sum(simulated) == samples


def test_a_report_runs_the_split_once_and_the_verified_samples(
    tiny: Any, invoke: Callable[..., Any], simulated: list[int], tmp_path: Path
) -> None:
    run = shutil.copytree(tiny.path, tmp_path / "run")
    assert invoke("report", run, "--samples", 3).code == 0
    # A verification runs its samples in every simulator again.
    assert sum(simulated) == ALL + 3


def test_the_demo_runs_the_split_once_and_the_verified_samples(
    experiment: Experiment,
    simulated: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(demos, "load_preset", lambda name: experiment)
    monkeypatch.setattr(demos, "verify", functools.partial(verify, backends=("exact",)))
    demos.demo(tmp_path / "run", lambda progress: None, lambda line: None, samples=3)
    assert sum(simulated) == ALL + 3


@pytest.mark.parametrize("kind", ["tiny", "tiny_once"])
def test_a_run_of_a_sweep_runs_the_split_once(
    kind: str, request: pytest.FixtureRequest, simulated: list[int], tmp_path: Path
) -> None:
    finished = request.getfixturevalue(kind)
    cell = Cell({}, load_model(finished.model)[1])
    shutil.copytree(finished.path, tmp_path / cell.name)
    rows, failures = sweep([cell], tmp_path, print)
    assert (len(rows), failures) == (1, [])
    assert sum(simulated) == ALL


@pytest.mark.parametrize("kind", ["tiny", "tiny_once"])
def test_a_verification_runs_its_samples_once(
    kind: str, request: pytest.FixtureRequest, simulated: list[int]
) -> None:
    run = request.getfixturevalue(kind)
    assert verify(run.model, run.net, samples=4, backends=("exact",)).total == 0
    assert sum(simulated) == 4
