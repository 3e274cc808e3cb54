"""TensorBoard scalars of a training, beside the record that esl-lava keeps itself.

`training.log = "tensorboard"` writes them into the folder `tensorboard` of the run. After a
resumption they go on in a new file of that folder, from the epoch that is trained next.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from esl_lava.config import Experiment
from esl_lava.packages import is_installed, needed
from esl_lava.results.training import Epoch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_logger = logging.getLogger(__name__)

FOLDER = "tensorboard"

Log = Callable[[Sequence[Epoch]], None]
"""Takes the epochs of a training; writes those that it has not written yet."""


def check_log(experiment: Experiment) -> None:
    """Refuse an experiment whose log needs a package that is not installed.

    Raises:
        PackageError: naming the package.
    """
    if experiment.training.log == "tensorboard" and not is_installed("tensorboard"):
        raise needed("tensorboard")


@contextlib.contextmanager
def open_log(experiment: Experiment, directory: Path, trained: int) -> Iterator[Log]:
    """Open the log that an experiment asks for, in the directory of its run.

    If the log cannot be written later, for example because the disk is full, a warning says so,
    and the rest of the training is not logged.

    Args:
        experiment: the configuration.
        directory: directory of the run.
        trained: number of epochs that are trained already; an earlier file holds them.

    Raises:
        PackageError: as `check_log`.
    """
    check_log(experiment)
    if experiment.training.log != "tensorboard":
        yield lambda epochs: None
        return
    from torch.utils.tensorboard import SummaryWriter

    written, failed = trained, False
    writer = SummaryWriter(str(directory / FOLDER), purge_step=trained + 1)

    def log(epochs: Sequence[Epoch]) -> None:
        nonlocal written, failed
        if failed:  # the writer of TensorBoard cannot continue after an error
            return
        try:
            for epoch in epochs[written:]:
                _write(writer, epoch)
                written = epoch.epoch
            writer.flush()
        except OSError as error:
            failed = True
            _logger.warning(
                "%s cannot be written (%s): the rest of the training is not logged there",
                *(directory / FOLDER, error.strerror or error),
            )

    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            writer.close()


def _write(writer: SummaryWriter, epoch: Epoch) -> None:
    """Write the scalars of one epoch under its number."""
    scalars = {"loss": epoch.loss, "density": epoch.density, "exploration": epoch.exploration}
    if epoch.validation_accuracy is not None:
        scalars["validation_accuracy"] = epoch.validation_accuracy
    for name, values in (
        ("density", epoch.densities),
        ("silent_neurons", epoch.silent),
        ("saturated_neurons", epoch.saturated),
        ("rate", epoch.rates),
        ("weights_beyond_range", epoch.beyond_range),
    ):
        scalars |= {f"{name}/{layer}": value for layer, value in (values or {}).items()}
    for tag, value in scalars.items():
        writer.add_scalar(tag, value, epoch.epoch)
