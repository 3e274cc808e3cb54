"""The account of a finished run, made of its files and of what was computed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from esl_lava import modelfile, netfile
from esl_lava.config import Experiment
from esl_lava.data.samples import TrainingSamples
from esl_lava.devices import load_device
from esl_lava.energy import by_connections, table1
from esl_lava.errors import LimitError
from esl_lava.experiments.activity import TRAFFIC_SAMPLES, place
from esl_lava.experiments.evaluate import Probes
from esl_lava.experiments.price import cost_of_training, disagreements
from esl_lava.experiments.rundir import RunDirectory, read_updates
from esl_lava.modelfile import SavedModel
from esl_lava.network import Matrix, Network
from esl_lava.results.account import (
    Account,
    BesideTable1,
    Misfit,
    OwnRow,
    ReportedMap,
    Sample,
    ShownLayer,
)
from esl_lava.results.evaluation import Evaluation
from esl_lava.results.mapped import Activity
from esl_lava.results.price import Price
from esl_lava.results.training import read_history
from esl_lava.results.verification import Verification

CHIPS = ("loihi1", "loihi2")
"""What networks are mapped to."""

PROBES = Probes(activity=TRAFFIC_SAMPLES, first=True)
"""What the evaluation of a run records for its account."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What was computed of a run.

    Attributes:
        saved: the trained model.
        experiment: that made it.
        network: exported from it.
        test: the whole test split.
        evaluation: of the network on that, with `PROBES`.
        prices: device -> joules of that.
        verification: of some samples of that.
    """

    saved: SavedModel
    experiment: Experiment
    network: Network
    test: TrainingSamples
    evaluation: Evaluation
    prices: Mapping[str, Price]
    verification: Verification


def account(run: RunDirectory, found: Findings) -> Account:
    """All that a report says of a run.

    What the findings do not hold is computed: the cores of every chip, the cost of the
    training.

    Raises:
        UserError: where files of the run are missing or damaged.
    """
    saved, network, test = found.saved, found.network, found.test
    layer = first_sparse(network)
    seen = found.evaluation.activity
    assert seen is not None
    sample = first_sample(found)
    return Account(
        config=found.experiment,
        trained_by=saved.package,
        network=network,
        evaluation=found.evaluation,
        history=read_history(saved.history),
        updates=read_updates(run.updates),
        sparse_density=_sparse_density(saved, network),
        layer=None if layer is None else ShownLayer(*layer),
        image_shape=None if sample.image is None else (len(sample.image), len(sample.image.T)),
        sample=sample,
        verification=found.verification,
        prices=found.prices,
        disagreements=disagreements(found.prices),
        cost=cost_of_training(run.model, network, found.evaluation.result.counts),
        table1=_beside_table1(network, test, found.evaluation),
        core_maps={chip: _mapped(network, chip, seen) for chip in CHIPS},
        digests={
            "model.pt": modelfile.digest(run.model),
            "net.h5 (content)": netfile.digest(network),
        },
    )


def first_sparse(network: Network) -> tuple[str, int, Matrix] | None:
    """Name, place and connections of the first layer that is not dense, else of the first.

    None where it is no matrix of connections.
    """
    places = [
        (layer.name, index, matrix)
        for index, layer in enumerate(network.layers)
        if isinstance(matrix := layer.inputs[0].connections, Matrix)
    ]
    sparse = [found for found in places if found[2].stored < found[2].possible]
    return next(iter(sparse or places), None)


def first_sample(found: Findings) -> Sample:
    """The first test sample, as the evaluation ran it."""
    one = found.evaluation.first
    assert one is not None
    return Sample(
        inputs=one.inputs,
        spikes=one.spikes,
        readout=one.readout,
        image=found.test.picture(0),
        label=int(found.test.labels[0]),
        decision=one.decision if one.decision >= 0 else None,
    )


def _sparse_density(saved: SavedModel, network: Network) -> float | None:
    """Of the layers made sparse alone; None where there is none."""
    masked = [layer.inputs[0].connections for layer in network.layers if layer.name in saved.masks]
    possible = sum(part.possible for part in masked)
    return sum(part.stored for part in masked) / possible if possible else None


def _beside_table1(
    network: Network, test: TrainingSamples, evaluation: Evaluation
) -> BesideTable1 | None:
    """The paper's Table 1 and the network's row; None where it is not the paper's network."""
    sizes = (network.inputs, *(layer.neurons for layer in network.layers))
    if test.name != "mnist" or sizes != (table1.INPUTS, table1.HIDDEN, table1.CLASSES):
        return None
    sops, connections = evaluation.sops_per_sample, network.connections
    gpu = by_connections(connections, load_device("v100_paper"))
    truenorth = by_connections(connections, load_device("truenorth_paper"))
    ours = OwnRow(
        accuracy=evaluation.accuracy,
        density=network.density,
        connections=connections,
        sops=sops,
        gpu=gpu,
        truenorth=truenorth,
        gpu_by_sops=sops * gpu / connections,
        truenorth_by_sops=sops * truenorth / connections,
    )
    return BesideTable1(table1.PAPER, ours, table1.compute_table1().remarks)


def _mapped(network: Network, chip: str, seen: Activity) -> ReportedMap | Misfit:
    """Where the network lies on a chip, or why it does not fit."""
    try:
        return ReportedMap(place(network, chip, activity=seen))
    except LimitError as error:
        return Misfit(chip, tuple(error.violations))
