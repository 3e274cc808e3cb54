"""A dry run says what the training then is, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from esl_lava import netfile
from esl_lava.config import Experiment, override
from esl_lava.errors import Fault, LimitError
from esl_lava.experiments import dryrun
from esl_lava.experiments.dryrun import TIMED_STEPS, plan
from esl_lava.report.plan import _facts, duration

pytestmark = pytest.mark.slow


def test_it_is_what_the_training_is(experiment: Experiment, tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = plan(experiment)
    assert list(Path().iterdir()) == []
    network = netfile.read(tiny.net)
    assert planned.connections == network.connections
    assert [layer.name for layer in planned.layers] == [layer.name for layer in network.layers]
    # Masks move, and keep the number of their weights.
    assert [layer.weights for layer in planned.layers] == [
        layer.inputs[0].weights for layer in network.layers
    ]
    assert planned.density == pytest.approx(network.density, abs=0)
    assert planned.dataset == tiny.trained.json["dataset"]
    assert planned.test_samples == tiny.trained.json["samples"]
    assert planned.epochs == 4
    assert planned.mask_updates > 0
    assert 1 <= planned.timed_iterations <= TIMED_STEPS
    assert planned.seconds > 0
    assert planned.memory_bytes > 1 << 20
    assert [mapping.chip for mapping in planned.mapping] == ["loihi1", "loihi2"]
    assert all(mapping.cores and mapping.synapse_words for mapping in planned.mapping)


def test_a_network_that_no_chip_holds_says_why(experiment: Experiment, monkeypatch) -> None:
    def refuse(network, chip: str) -> None:
        raise LimitError.of([Fault(f"layer hidden1: too large for {chip}", "limit")])

    monkeypatch.setattr(dryrun, "place", refuse)
    (first, _) = plan(experiment).mapping
    assert (first.cores, first.obstacle) == (None, "layer hidden1: too large for loihi1")
    assert "none: layer hidden1" in dict(_facts(plan(experiment)))["cores on loihi1"]


def test_convolutions_are_planned_too(experiment: Experiment) -> None:
    settings = {
        "model.kind": "convolutional",
        "model.layers": "4C3-AP2-10",
        "encoding.kind": "direct",
        "encoding.bits": 5,
        "encoding.steps": 2,
    }
    planned = plan(override(experiment, settings))
    assert planned.layers[0].shape == (4, 1, 3, 3)
    assert planned.connections is None or planned.connections > 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (150, "2 min 30 s"),
        (11_100, "3 h 5 min"),
        (4e6, "1,111 h 6 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
