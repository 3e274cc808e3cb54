"""Whether a network fits its data set, known before anything slow is read or imported."""

from __future__ import annotations

from esl_lava.config import Experiment
from esl_lava.data.catalogue import shape_and_classes


def check_layers(experiment: Experiment) -> None:
    """Refuse layers that samples of the experiment's data set do not fit.

    Raises:
        ConfigError: as `topology.describe`.
    """
    experiment.model.describe(*shape_and_classes(experiment.data.name, experiment.encoding))
