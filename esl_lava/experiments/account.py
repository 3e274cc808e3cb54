"""The account of a finished run: what was found of it, as plain values for `report.json`.

docs/report.md says what each value is. None depends on the clock or on where the run lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from esl_lava import modelfile, netfile
from esl_lava.config import Experiment, to_toml
from esl_lava.data.samples import TrainingSamples
from esl_lava.devices import load_device
from esl_lava.energy import by_connections, table1
from esl_lava.errors import LimitError
from esl_lava.experiments.activity import (
    TRAFFIC_SAMPLES,
    Activity,
    mapped_values,
    place,
)
from esl_lava.experiments.evaluate import Evaluation, Probes
from esl_lava.experiments.price import Price, cost_of_training, device_values, disagreements
from esl_lava.experiments.rundir import RunDirectory, read_updates
from esl_lava.experiments.verify import Verification, verification_values
from esl_lava.modelfile import SavedModel
from esl_lava.models.history import kept_epoch
from esl_lava.network import Connections, Network
from esl_lava.report.hardware import stated, training_document
from esl_lava.report.pictures import Shown

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


@dataclass(frozen=True, eq=False)
class Account:
    """A run as a report has it.

    Attributes:
        values: all that is said of it, as plain values.
        sparse: name, place in the network and connections of the layer that is shown, if any.
        image_shape: (rows, columns) of a sample, where it is an image.
        shown: the first test sample, run.
    """

    values: Mapping[str, Any]
    sparse: tuple[str, int, Connections] | None
    image_shape: tuple[int, int] | None
    shown: Shown


def account(run: RunDirectory, found: Findings) -> Account:
    """All that a report says of a run.

    What the findings do not hold is computed: the cores of every chip, the cost of the
    training.

    Raises:
        UserError: where files of the run are missing or damaged.
    """
    saved, network, test, experiment = found.saved, found.network, found.test, found.experiment
    counts = found.evaluation.result.counts
    cost = cost_of_training(run.model, network, counts)
    layer = first_sparse(network)
    one = first_sample(found)
    seen = found.evaluation.activity
    assert seen is not None
    kept = saved.history[kept_epoch(saved.history)]
    values = {
        "title": _title(experiment, network),
        "accuracy": found.evaluation.accuracy,
        "samples": found.evaluation.samples,
        "dataset": found.evaluation.dataset,
        "split": found.evaluation.split,
        "model": experiment.model.kind,
        "steps": experiment.encoding.steps,
        "density": network.density,
        "sparse_density": _sparse_density(saved, network),
        "weights": network.weights,
        "connections": network.connections,
        "synapses": network.synapses,
        "sops_per_sample": counts.sops / counts.samples,
        "spikes_per_sample": counts.spikes / counts.samples,
        "layers": [asdict(counted) for counted in counts.layers],
        "validation_accuracy": kept["validation_accuracy"],
        "kept_epoch": kept["epoch"],
        "history": saved.history,
        "updates": read_updates(run.updates),
        "connectivity": None if layer is None else _described(layer),
        "sample": {
            "label": one.label,
            "decision": one.decision if one.decision >= 0 else None,
        },
        **_verified(found.verification),
        "devices": _devices(found.prices),
        "disagreements": [asdict(apart) for apart in disagreements(found.prices)],
        "training": training_document(cost),
        "table1": _table1(network, test, found.evaluation),
        "core_maps": {chip: _mapped(network, chip, seen) for chip in CHIPS},
        "config": experiment.model_dump(mode="json", exclude_none=True),
        "config_toml": to_toml(experiment),
        "trained_by": saved.package,
        "digests": {
            "model.pt": modelfile.digest(run.model),
            "net.h5 (content)": netfile.digest(network),
        },
    }
    shape = None if one.image is None else (one.image.shape[0], one.image.shape[1])
    return Account(values, layer, shape, one)


def first_sparse(network: Network) -> tuple[str, int, Connections] | None:
    """Name, place and connections of the first layer that is not dense, else of the first.

    None where it is no matrix of connections.
    """
    places = [
        (layer.name, index, matrix)
        for index, layer in enumerate(network.layers)
        if isinstance(matrix := layer.inputs[0].connections, Connections)
    ]
    sparse = [found for found in places if found[2].stored < found[2].possible]
    return next(iter(sparse or places), None)


def first_sample(found: Findings) -> Shown:
    """The first test sample, as the evaluation ran it."""
    one = found.evaluation.first
    assert one is not None
    return Shown(
        one.inputs,
        one.spikes,
        one.readout,
        found.test.picture(0),
        int(found.test.labels[0]),
        one.decision,
    )


def _title(experiment: Experiment, network: Network) -> str:
    widths = "-".join(str(n) for n in (network.inputs, *(x.neurons for x in network.layers)))
    return f"{experiment.data.name}, {widths}"


def _sparse_density(saved: SavedModel, network: Network) -> float | None:
    """Of the layers made sparse alone; None where there is none."""
    masked = [layer.inputs[0].connections for layer in network.layers if layer.name in saved.masks]
    possible = sum(part.possible for part in masked)
    return sum(part.stored for part in masked) / possible if possible else None


def _described(layer: tuple[str, int, Connections]) -> dict[str, Any]:
    """Which layer is shown, and the spread of its fan-in and fan-out."""
    name, _, connections = layer
    fan_in = np.diff(connections.indptr)
    fan_out = np.bincount(connections.indices, minlength=connections.n_pre)
    return {
        "layer": name,
        "fan_in": [int(fan_in.min()), float(fan_in.mean()), int(fan_in.max())],
        "fan_out": [int(fan_out.min()), float(fan_out.mean()), int(fan_out.max())],
    }


def _verified(found: Verification) -> dict[str, Any]:
    values = verification_values(found)
    totals = ("samples_verified", "spikes_compared", "positions_compared", "differences")
    return {
        **{key: values.pop(key) for key in totals},
        "verification": {
            "reference": found.reference,
            "backends": list(found.backends),
            **values,
        },
    }


def _devices(prices: Mapping[str, Price]) -> dict[str, dict[str, Any]]:
    """`device_values` with what a reader of the page needs of the device."""
    values = device_values(prices)
    for name, priced in prices.items():
        device = priced.device
        values[name] |= {
            "title": device.title,
            "notes": list(device.notes),
            "constants": [
                asdict(one) for one in stated(device) if one.key.startswith(("energy", "memory"))
            ],
        }
    return values


def _table1(
    network: Network, test: TrainingSamples, evaluation: Evaluation
) -> dict[str, Any] | None:
    """The paper's Table 1 and the network's row; None where it is not the paper's network."""
    sizes = (network.inputs, *(layer.neurons for layer in network.layers))
    if test.name != "mnist" or sizes != (table1.INPUTS, table1.HIDDEN, table1.CLASSES):
        return None
    counts = evaluation.result.counts
    sops = counts.sops / counts.samples
    devices = {"gpu": load_device("v100_paper"), "truenorth": load_device("truenorth_paper")}
    joules = {name: by_connections(network.connections, d) for name, d in devices.items()}
    measured = {
        f"{name}_by_sops": sops * joule / network.connections for name, joule in joules.items()
    }
    return {
        "paper": [asdict(row) for row in table1.PAPER],
        "ours": {
            "accuracy": evaluation.accuracy,
            "density": network.density,
            "connections": network.connections,
            "sops": sops,
            **joules,
            **measured,
        },
        "remarks": list(table1.compute_table1().remarks),
    }


def _mapped(network: Network, chip: str, seen: Activity) -> dict[str, Any]:
    """Where the network lies on a chip, or why it does not fit."""
    try:
        return {"fits": True, **mapped_values(place(network, chip, activity=seen))}
    except LimitError as error:
        return {"fits": False, "chip": chip, "violations": list(error.violations)}
