"""Accuracy on the grid of times: the preset for digits loses next to nothing by it."""

import pytest

from esl_lava.config import Experiment, override
from esl_lava.data.datasets import load
from esl_lava.errors import ConfigError
from esl_lava.experiments.grid import grid_accuracy
from esl_lava.experiments.preset import load_preset
from esl_lava.models.modelfile import SavedModel
from esl_lava.training.trainer import Trainer


def test_the_grid_costs_little_accuracy() -> None:
    experiment = override(load_preset("digits-single-spike"), {"training.epochs": 8})
    model = Trainer(experiment, load("digits", "train")).run()
    found = grid_accuracy(model, load("digits", "test"))
    assert found.exact > 0.8
    assert abs(found.exact - found.on_grid) < 0.03  # ten of 357 samples
    # A sample as short as two thirds of a time constant lets nobody fire.
    short = override(experiment, {"encoding.steps": 16})
    cut = SavedModel(short, model.weights, model.masks, model.ever)
    assert grid_accuracy(cut, load("digits", "test")).on_grid < 0.5


def test_other_networks_have_no_grid(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"model\.kind multi_spike"):
        grid_accuracy(SavedModel(experiment, {}, {}, {}), load("digits", "test"))
