"""Check that a network fits its data set, before any slow reading or importing."""

from __future__ import annotations

from esl_lava.config import Experiment
from esl_lava.data.catalogue import shape_and_classes
from esl_lava.data.config import OWN


def check_layers(experiment: Experiment) -> None:
    """Check that the layers fit the samples of the experiment's data set; own samples are skipped.

    Raises:
        ConfigError: as `topology.describe`.
        DataError: as `catalogue.shape_and_classes`.
    """
    if experiment.data.name == OWN:
        return  # their shape is known only when the training reads them
    experiment.model.describe(*shape_and_classes(experiment.data.name, experiment.encoding))
