"""The demo on the embedded digits: train, export, run, verify, price and report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from esl_lava.data.catalogue import load
from esl_lava.experiments.account import PROBES, account
from esl_lava.experiments.evaluate import encoding_of, evaluate
from esl_lava.experiments.export import export
from esl_lava.experiments.preset import load_preset
from esl_lava.experiments.price import DEFAULT_DEVICES, price
from esl_lava.experiments.report import ReportFiles, put
from esl_lava.experiments.rundir import create
from esl_lava.experiments.train import train
from esl_lava.experiments.verify import verify
from esl_lava.report.canvas import save_png
from esl_lava.report.pictures import draw_raster
from esl_lava.training.trainer import TrainingProgress


def demo(
    directory: Path,
    show: Callable[[TrainingProgress], None],
    tell: Callable[[str], None],
    samples: int = 100,
) -> ReportFiles:
    """Run the demo in a new directory. Its report verifies Lava too.

    Args:
        directory: the new run directory.
        show: called with the progress of the training.
        tell: called with a line before each part.
        samples: number of test samples to verify on Lava.

    Raises:
        UserError: as raised by the parts.
    """
    experiment = load_preset("digits")
    test = load(experiment.data.name, "test", experiment.encoding)
    test.take(samples)  # refuses an impossible number before the training
    create(directory)
    tell("1/4  training a sparse network from scratch on 8x8 handwritten digits")
    trained = train(experiment, directory, show)
    run = trained.run
    tell(
        "2/4  exporting integers to net.h5 and running the whole test split in the exact simulator"
    )
    network = export(run.model, run.net).network
    evaluation = evaluate(network, test, encoding_of(network), probes=PROBES)
    tell(
        f"3/4  verifying {samples} samples: SLAYER, exact simulator and Lava, every layer and step"
    )
    verification = verify(run.model, run.net, samples=samples)
    tell("4/4  computing energies and writing the report")
    prices = price(network, evaluation.result.counts, DEFAULT_DEVICES)
    result = account(
        run, trained.model, experiment, network, test, evaluation, prices, verification
    )
    save_png(draw_raster(result.sample), run.raster_plot)
    return put(run.page, [result], [directory.name])
