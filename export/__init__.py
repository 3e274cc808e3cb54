"""Trained model -> integer network: quantising and checking (`esl_lava.export`)."""

from esl_lava.export.checks import check, unbounded_layers
from esl_lava.export.lower import lower

__all__ = ["check", "lower", "unbounded_layers"]
