"""Turn trained layers into an integer network: quantise and check (`esl_lava.export`)."""

from esl_lava.export.bounds import unbounded_layers
from esl_lava.export.lower import lower
from esl_lava.netfile import check

__all__ = ["check", "lower", "unbounded_layers"]
