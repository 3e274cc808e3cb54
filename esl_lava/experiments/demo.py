"""The whole way on the embedded digits: train, export, run, verify, price, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esl_lava.data.datasets import load
from esl_lava.experiments.account import PROBES, Findings, account
from esl_lava.experiments.evaluate import Evaluation, encoding_of, evaluate
from esl_lava.experiments.export import export
from esl_lava.experiments.preset import load_preset
from esl_lava.experiments.price import DEFAULT_DEVICES, price
from esl_lava.experiments.report import Written, put
from esl_lava.experiments.rundir import create
from esl_lava.experiments.train import train
from esl_lava.experiments.verify import Verification, verify
from esl_lava.report.plots import plot_raster
from esl_lava.training.trainer import Progress

VERIFIED_SAMPLES = 100


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo found.

    Attributes:
        evaluation: of the exported network on the whole test split.
        verification: of its first samples, Lava included.
        written: the report, which says all of it.
    """

    evaluation: Evaluation
    verification: Verification
    written: Written


def demo(
    directory: Path,
    show: Callable[[Progress], None],
    tell: Callable[[str], None],
    samples: int = VERIFIED_SAMPLES,
) -> Demo:
    """Run the demo into a new directory.

    Args:
        show: given the training's progress.
        tell: given a line before each part.
        samples: test samples verified on Lava.

    Raises:
        UserError: as the parts do.
    """
    experiment = load_preset("digits")
    test = load(experiment.data.name, "test")
    test.take(samples)  # what cannot be is refused before the training
    create(directory)
    tell("1/4  training a sparse network from scratch on scikit-learn's digits")
    trained = train(experiment, directory, show)
    run = trained.run
    tell("2/4  exporting integers to net.h5 and running the whole test split exactly")
    network = export(run.model, run.net).network
    evaluation = evaluate(network, test, encoding_of(network), probes=PROBES)
    tell(f"3/4  verifying {samples} samples: SLAYER, our simulator and Lava, every layer and step")
    verification = verify(run.model, run.net, samples=samples)
    tell("4/4  counting operations and joules, and writing the report")
    prices = price(network, evaluation.result.counts, DEFAULT_DEVICES)
    findings = Findings(trained.model, experiment, network, test, evaluation, prices, verification)
    found = account(run, findings)
    one = found.shown
    assert one.readout is not None
    assert one.image is not None
    plot_raster(one.inputs, one.spikes, one.readout, one.image, one.label, run.raster_plot)
    written = put(run.page, [found], [directory.name])
    return Demo(evaluation, verification, written)
