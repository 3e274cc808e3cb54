"""Trained model -> integer network: quantising and checking (`esl_lava.export`)."""

from esl_lava.export.bounds import unbounded_layers
from esl_lava.export.lower import lower
from esl_lava.export.time_grid import lower_single_spike
from esl_lava.netfile import check

__all__ = ["check", "lower", "lower_single_spike", "unbounded_layers"]
