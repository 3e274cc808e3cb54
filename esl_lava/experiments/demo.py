"""The whole way on the embedded digits: train, export, run, verify, price."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from esl_lava.data.datasets import load
from esl_lava.experiments.evaluate import Evaluation, encoded, encoding_of, evaluate
from esl_lava.experiments.export import Exported, export
from esl_lava.experiments.preset import load_preset
from esl_lava.experiments.price import DEFAULT_DEVICES, Price, device_values, price
from esl_lava.experiments.rundir import create
from esl_lava.experiments.train import Trained, train
from esl_lava.experiments.verify import Verification, verify
from esl_lava.files import replace_file
from esl_lava.report.plots import plot_raster
from esl_lava.simulate import simulate
from esl_lava.training.trainer import Progress

VERIFIED_SAMPLES = 100


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo found, and where it lies."""

    trained: Trained
    exported: Exported
    evaluation: Evaluation
    verification: Verification
    prices: dict[str, Price]


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
    exported = export(run.model, run.net)
    network = exported.network
    encoding = encoding_of(network)
    evaluation = evaluate(network, test, encoding)
    tell(f"3/4  verifying {samples} samples: SLAYER, our simulator and Lava, every layer and step")
    verification = verify(run.model, run.net, samples=samples)
    tell("4/4  counting operations and joules")
    prices = dict(price(network, evaluation.result.counts, DEFAULT_DEVICES))
    one = test.take(1)
    spikes = encoded(one, encoding)
    result = simulate(network, spikes, record="all")
    assert result.readout is not None
    plot_raster(
        spikes[0],
        {name: values[0] for name, values in result.spikes.items()},
        result.readout[0],
        one.images[0].reshape(one.image_shape),
        int(one.labels[0]),
        run.raster_plot,
    )
    found = Demo(trained, exported, evaluation, verification, prices)
    replace_file(run.demo, (json.dumps(document(found), indent=2) + "\n").encode())
    return found


def document(found: Demo) -> dict[str, Any]:
    """The run as plain values for `demo.json`: no clock and no path in it."""
    counts = found.evaluation.result.counts
    return {
        "accuracy": found.evaluation.accuracy,
        "samples": found.evaluation.samples,
        "density": found.exported.network.density,
        "connections": found.exported.network.connections,
        "synapses": found.exported.network.synapses,
        "samples_verified": found.verification.samples,
        "spikes_compared": found.verification.spikes,
        "positions_compared": found.verification.positions,
        "differences": found.verification.total,
        "sops_per_sample": counts.sops / counts.samples,
        "layers": [asdict(layer) for layer in counts.layers],
        "devices": device_values(found.prices),
        "history": found.trained.model.history,
        "versions": {"esl_lava": found.trained.model.package},
    }
