"""Whether a network fits its data set, known before anything slow is read or imported."""

from __future__ import annotations

from esl_lava.config import Experiment
from esl_lava.data.catalogue import shape_and_classes
from esl_lava.data.config import OWN


def check_layers(experiment: Experiment) -> None:
    """Refuse layers that samples of the experiment's data set do not fit; of own samples none.

    Raises:
        ConfigError: as `topology.describe`.
    """
    if experiment.data.name == OWN:
        return  # these have to be read first, as the training does
    experiment.model.describe(*shape_and_classes(experiment.data.name, experiment.encoding))
