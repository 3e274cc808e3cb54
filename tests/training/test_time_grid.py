"""What a trained network decides on the chip's grid of times."""

from esl_lava.config import override
from esl_lava.data.datasets import load
from esl_lava.experiments.preset import load_preset
from esl_lava.models.build import restore
from esl_lava.models.single_spike import grid_step
from esl_lava.training.kinds import input_times
from esl_lava.training.trainer import Trainer, accuracy
from tests.models.grid import grid_decisions, grid_times


def test_the_grid_costs_little_accuracy() -> None:
    experiment = override(load_preset("digits-single-spike"), {"training.epochs": 8})
    model = restore(Trainer(experiment, load("digits", "train")).run())
    test = load("digits", "test")
    exact = accuracy(experiment, model, test)
    assert exact > 0.85
    step, inputs = grid_step(experiment.model.current_decay), input_times(experiment, test.images)
    for steps, least, most in ((63, exact - 0.03, exact + 0.03), (16, 0, 0.6)):
        times = grid_times(model, inputs, step, steps)
        on_grid = (grid_decisions(model, times).numpy() == test.labels).mean()
        assert least <= on_grid <= most, steps  # few fire within a quarter of the sample
