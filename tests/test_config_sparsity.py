"""The section [sparsity]: its rules are those of the evolver, and it has one budget."""

import typing

import pytest

from esl_lava.config import from_mapping, from_toml, override, to_toml
from esl_lava.errors import ConfigError
from esl_lava.sparsity.config import Sparsity
from esl_lava.sparsity.density import DISTRIBUTIONS
from esl_lava.sparsity.growth import GROW
from esl_lava.sparsity.prune import PRUNE
from esl_lava.sparsity.redistribution import REDISTRIBUTE
from esl_lava.sparsity.schedule import SCHEDULES
from tests.faults import refused


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("distribution", DISTRIBUTIONS),
        ("prune", PRUNE),
        ("growth", GROW),
        ("redistribution", REDISTRIBUTE),
        ("schedule", SCHEDULES),
    ],
)
def test_every_rule_can_be_chosen_and_no_other(key, table):
    assert set(typing.get_args(Sparsity.model_fields[key].annotation)) == set(table)
    with refused(ConfigError, "unknown", key=f"sparsity.{key}", value="magic"):
        from_mapping({"sparsity": {"density": 0.1, key: "magic"}})


def test_densities_survive_toml():
    experiment = from_toml("[sparsity]\ndensities = {hidden1 = 0.05, hidden2 = 1}")
    assert experiment.sparsity.densities == {"hidden1": 0.05, "hidden2": 1.0}
    assert from_toml(to_toml(experiment)) == experiment


@pytest.mark.parametrize(
    ("budget", "code", "key"),
    [
        ({}, "missing", "density"),
        ({"density": 0.1, "eps": 3}, "conflict", "density"),
        ({"eps": 3, "densities": {}}, "conflict", "eps"),
    ],
)
def test_exactly_one_budget(budget, code, key):
    with refused(ConfigError, code, key=f"sparsity.{key}"):
        from_mapping({"sparsity": budget})


@pytest.mark.parametrize(
    ("density", "code"),
    [(0, "range"), (1.5, "range"), (float("nan"), "not-finite"), ("0.1", "type")],
)
def test_densities_are_checked(density, code):
    with refused(ConfigError, code, key="sparsity.densities.hidden1"):
        from_mapping({"sparsity": {"densities": {"hidden1": density}}})


def test_overriding_a_budget_removes_the_others():
    experiment = from_mapping({"sparsity": {"density": 0.1}})
    experiment = override(experiment, {"sparsity.densities.hidden1": 0.2})
    assert experiment.sparsity.densities == {"hidden1": 0.2}
    assert experiment.sparsity.density is None
    experiment = override(experiment, {"sparsity.densities.hidden2": 0.3})
    assert experiment.sparsity.densities == {"hidden1": 0.2, "hidden2": 0.3}
    experiment = override(experiment, {"sparsity.eps": 5.0})
    assert (experiment.sparsity.eps, experiment.sparsity.densities) == (5.0, None)
    experiment = override(experiment, {"sparsity.densities": {"hidden1": 0.5}})
    assert (experiment.sparsity.eps, experiment.sparsity.densities) == (None, {"hidden1": 0.5})
