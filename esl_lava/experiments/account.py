"""Build the account of a finished run from its files and results."""

from __future__ import annotations

from collections.abc import Mapping

from esl_lava import modelfile, netfile
from esl_lava.config import Experiment
from esl_lava.data.own import OwnData
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
from esl_lava.results.account import Account, Misfit, OwnRow, Sample, ShownLayer, Table1Comparison
from esl_lava.results.evaluation import Evaluation
from esl_lava.results.mapped import Activity, MappedNetwork
from esl_lava.results.price import Price
from esl_lava.results.training import read_history
from esl_lava.results.verification import Verification

CHIPS = ("loihi1", "loihi2")
"""The chips that a network is mapped to."""

PROBES = Probes(activity=TRAFFIC_SAMPLES, first=True)
"""The recordings that an account needs from the evaluation of its run."""


def account(
    run: RunDirectory,
    saved: SavedModel,
    experiment: Experiment,
    network: Network,
    test: TrainingSamples,
    evaluation: Evaluation,
    prices: Mapping[str, Price],
    verification: Verification | None,
    own: OwnData | None = None,
) -> Account:
    """Return everything that the report of a run shows.

    This computes the mapping to each chip and the cost of the training; the caller gives the rest.

    Args:
        run: the directory of the run.
        saved, experiment: the trained model and its experiment.
        network: the network that was exported from the model.
        test: the whole test split.
        evaluation: the run of the network on the test split, with `PROBES`.
        prices: device -> energy of the evaluation.
        verification: the verification of some test samples, if there is one.
        own: the source of the samples, if the run was trained on the user's own.

    Raises:
        UserError: if files of the run are missing or damaged.
    """
    activity, first = evaluation.activity, evaluation.first
    assert activity is not None
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
        table1=_compare_with_table1(network, test, evaluation),
        core_maps={chip: _map(network, chip, activity) for chip in CHIPS},
        digests={
            "model.pt": modelfile.digest(run.model),
            "net.h5 (content)": netfile.digest(network),
        },
    )


def _shown_layer(network: Network) -> ShownLayer | None:
    """Return the first sparse matrix, else the first matrix; None if there is none."""
    matrices = [
        ShownLayer(layer.name, index, matrix)
        for index, layer in enumerate(network.layers)
        if isinstance(matrix := layer.inputs[0].connections, Matrix)
    ]
    sparse = [shown for shown in matrices if shown.connections.stored < shown.connections.possible]
    return next(iter(sparse or matrices), None)


def _sparse_density(saved: SavedModel, network: Network) -> float | None:
    """Return the density of the sparse layers together; None if there are none."""
    sparse = [
        one
        for layer in network.layers
        for one in layer.inputs
        if (one.origin.name if one.origin else layer.name) in saved.ever
    ]
    positions = sum(one.positions for one in sparse)
    return sum(one.weights for one in sparse) / positions if positions else None


def _compare_with_table1(
    network: Network, test: TrainingSamples, evaluation: Evaluation
) -> Table1Comparison | None:
    """Return Table 1 and the row of a network; None unless it is 784-800-10 on MNIST."""
    if test.name != "mnist" or not table1.has_its_layers(network):
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
    return Table1Comparison(table1.PAPER, ours, table1.compute_table1().remarks)


def _map(network: Network, chip: str, activity: Activity) -> MappedNetwork | Misfit:
    """Return the mapping of a network to a chip, or the limits of the chip that it breaks."""
    try:
        return place(network, chip, activity=activity)
    except LimitError as error:
        return Misfit(chip, tuple(fault.sentence for fault in error.faults))
