"""The account of a finished run, made of its files and of what was computed of it."""

from __future__ import annotations

from collections.abc import Mapping

from esl_lava import modelfile, netfile
from esl_lava.config import Experiment
from esl_lava.data.own import Own
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
from esl_lava.results.account import Account, BesideTable1, Misfit, OwnRow, Sample, ShownLayer
from esl_lava.results.evaluation import Evaluation
from esl_lava.results.mapped import Activity, Mapped
from esl_lava.results.price import Price
from esl_lava.results.training import read_history
from esl_lava.results.verification import Verification

CHIPS = ("loihi1", "loihi2")
"""What networks are mapped to."""

PROBES = Probes(activity=TRAFFIC_SAMPLES, first=True)
"""What the evaluation of a run records for its account."""


def account(
    run: RunDirectory,
    saved: SavedModel,
    experiment: Experiment,
    network: Network,
    test: TrainingSamples,
    evaluation: Evaluation,
    prices: Mapping[str, Price],
    verification: Verification | None,
    own: Own | None = None,
) -> Account:
    """All that a report says of a run.

    What is not given is computed: the cores of every chip, the cost of the training.

    Args:
        run: where it lies.
        saved, experiment: the trained model, and what made it.
        network: exported from it.
        test: the whole test split.
        evaluation: of the network on that, with `PROBES`.
        prices: device -> joules of that.
        verification: of some samples of that, if there is one.
        own: where the training's samples come from, where these were the user's own.

    Raises:
        UserError: where files of the run are missing or damaged.
    """
    seen, first = evaluation.activity, evaluation.first
    assert seen is not None
    assert first is not None
    return Account(
        config=experiment,
        trained_by=saved.package,
        network=network,
        evaluation=evaluation,
        history=read_history(saved.history),
        updates=read_updates(run.updates),
        sparse_density=_sparse_density(saved, network),
        layer=_shown_layer(network),
        sample=Sample(first, test.picture(0), int(test.labels[0])),
        verification=verification,
        prices=prices,
        disagreements=disagreements(prices),
        cost=cost_of_training(run.model, network, evaluation.result.counts, own),
        table1=_beside_table1(network, test, evaluation),
        core_maps={chip: _mapped(network, chip, seen) for chip in CHIPS},
        digests={
            "model.pt": modelfile.digest(run.model),
            "net.h5 (content)": netfile.digest(network),
        },
    )


def _shown_layer(network: Network) -> ShownLayer | None:
    """The first layer that is not dense, else the first; None where it is no matrix."""
    matrices = [
        ShownLayer(layer.name, place, matrix)
        for place, layer in enumerate(network.layers)
        if isinstance(matrix := layer.inputs[0].connections, Matrix)
    ]
    sparse = [one for one in matrices if one.connections.stored < one.connections.possible]
    return next(iter(sparse or matrices), None)


def _sparse_density(saved: SavedModel, network: Network) -> float | None:
    """Of the layers made sparse alone; None where there is none."""
    masked = [
        given
        for layer in network.layers
        for given in layer.inputs
        if (given.origin.name if given.origin else layer.name) in saved.masks
    ]
    positions = sum(given.positions for given in masked)
    return sum(given.weights for given in masked) / positions if positions else None


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


def _mapped(network: Network, chip: str, seen: Activity) -> Mapped | Misfit:
    """Where the network lies on a chip, or why it does not fit."""
    try:
        return place(network, chip, activity=seen)
    except LimitError as error:
        return Misfit(chip, tuple(error.violations))
