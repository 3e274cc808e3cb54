"""What a report says of finished runs: gathered here as plain values, drawn in `esl_lava.report`.

`report.json` (docs/report.md) holds every number of the page. Nothing in either depends on
the clock or on where a run lies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from esl_lava import netfile
from esl_lava.data.datasets import Dataset
from esl_lava.devices import load_device
from esl_lava.energy import by_connections, table1
from esl_lava.errors import ConfigError, FileError, LimitError
from esl_lava.experiments.activity import mapped_values, measure_samples, place
from esl_lava.experiments.evaluate import (
    Evaluation,
    encoded,
    encoding_of,
    evaluate,
    load_samples,
)
from esl_lava.experiments.export import export
from esl_lava.experiments.price import (
    DEFAULT_DEVICES,
    Price,
    cost_of_training,
    device_values,
    disagreements,
    price,
)
from esl_lava.experiments.rundir import RunDirectory, refuse_overwrite
from esl_lava.experiments.verify import Verification, verify
from esl_lava.files import replace_file
from esl_lava.models import modelfile
from esl_lava.models.history import kept_epoch
from esl_lava.models.modelfile import SavedModel
from esl_lava.network import Connections, Network
from esl_lava.report import html
from esl_lava.report.hardware import stated, training_document
from esl_lava.report.pictures import Shown
from esl_lava.simulate import simulate

FORMAT, FORMAT_VERSION = "esl-lava report", 1

CHIPS = ("loihi1", "loihi2")
"""What networks are mapped to."""

BACKENDS = ("exact", "lava-models")
"""Verified always; Lava itself takes longer and is asked for."""

VERIFIED_SAMPLES = 20
TRAFFIC_SAMPLES = 100
"""Test samples on which messages between cores are counted, at most."""

UPDATES_LIMIT = 1 << 28
"""Most bytes of an updates.json that is read."""

PACKAGES = ("esl-lava", "lava-nc", "lava-dl", "torch", "numpy", "numba", "h5py", "matplotlib")
"""Whose versions a report states."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Terms:
    """What is asked of a report.

    Attributes:
        devices: names or paths of those to price on.
        samples: test samples to verify.
        lava: whether Lava itself is among what is verified.
    """

    devices: tuple[str, ...] = DEFAULT_DEVICES
    samples: int = VERIFIED_SAMPLES
    lava: bool = False


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        label: its name among the runs of a report.
        network: the exported one.
        test: the whole test split it was evaluated on.
        shown: the first sample of that.
        evaluation: of that.
        prices: device -> joules.
        verification: of some samples.
        values: all of it as plain values, for `report.json`.
    """

    label: str
    network: Network
    test: Dataset
    shown: Shown
    evaluation: Evaluation
    prices: Mapping[str, Price]
    verification: Verification
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """A report's files.

    Attributes:
        page, document: HTML and JSON.
        differences: of all verifications together.
        values: what the JSON holds.
    """

    page: Path
    document: Path
    differences: int
    values: Mapping[str, Any]


def write(
    runs: Sequence[Path], page: Path | None, overwrite: bool, terms: Terms, tell: Tell
) -> Written:
    """Report on runs: a page, and its numbers as JSON beside it under the same name.

    Args:
        runs: run directories, at least one.
        page: the HTML file; default `report.html` in the only run's directory.
        overwrite: whether existing files may be replaced.
        terms: what is asked.
        tell: given a line before each run.

    Raises:
        ConfigError: when several runs have no page named, or a run is named twice.
        FileError: for what is no finished run, and for files that exist.
        UserError: as evaluation, pricing and verification do.
    """
    if page is None:
        if len(runs) > 1:
            raise ConfigError("a report on several runs needs a file to be written to: -o FILE")
        page = RunDirectory(runs[0]).page
    document = page.with_suffix(".json")
    if page == document:
        raise ConfigError(f"{page}: the page cannot end in .json, as its numbers do; use .html")
    checked = [finished(path) for path in runs]
    for path in (page, document):
        refuse_overwrite(path, overwrite)
    found = []
    for label, run in zip(labels(runs), checked):
        tell(f"{run.path}: evaluating, pricing, mapping and verifying")
        found.append(gather(run, label, terms, tell))
    values = report_values(found)
    drawings = [
        html.drawings(
            run.values,
            f"r{number}",
            first_sparse(run.network),
            _image_shape(run.test),
            run.shown,
        )
        for number, run in enumerate(found, 1)
    ]
    text = html.page(values, drawings)
    replace_file(document, (json.dumps(values, indent=1) + "\n").encode())
    replace_file(page, text.encode())
    return Written(page, document, sum(run.verification.total for run in found), values)


def finished(path: Path) -> RunDirectory:
    """The run in a directory, if it is a finished one.

    Raises:
        FileError: when there is no such directory, or no finished run in it.
    """
    run = RunDirectory(path)
    try:
        if not path.is_dir():
            raise FileError(f"{path}: no such run directory")
        if run.model.exists():
            return run
        if run.checkpoint.exists():
            raise FileError(
                f"{path}: the training is not finished; go on with esl train --resume {path}"
            )
    except OSError as error:  # a name too long, a folder that may not be searched
        raise FileError(f"{path}: {error.strerror}") from None
    raise FileError(f"{path}: holds no trained model ({run.model.name})")


def labels(runs: Sequence[Path]) -> list[str]:
    """What runs are called: their directories' names, numbered where these are the same.

    A single run needs no name: a copy of it elsewhere gives the same report.

    Raises:
        ConfigError: where a directory is named twice.
    """
    if len(runs) == 1:
        return [""]
    places = [path.resolve() for path in runs]
    for path, real in zip(runs, places):
        if places.count(real) > 1:
            raise ConfigError(f"{path}: the same run is named twice")
    names = ["".join(c if c.isprintable() else "?" for c in place.name) for place in places]
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def gather(run: RunDirectory, label: str, terms: Terms, tell: Tell) -> Run:
    """Everything a report says of one run.

    A `net.h5` that is missing is exported first.

    Raises:
        UserError: as evaluation, pricing and verification do.
    """
    saved = modelfile.read(run.model)
    if not run.net.exists():
        tell(f"{run.net}: was missing and is exported")
        export(run.model, run.net)
    network = netfile.read(run.net)
    test = load_samples(network, saved.config.data.name, "test", None)
    evaluation = evaluate(network, test, encoding_of(network))
    counts = evaluation.result.counts
    prices = price(network, counts, terms.devices)
    backends = (*BACKENDS, "lava") if terms.lava else BACKENDS
    verification = verify(
        run.model, run.net, samples=min(terms.samples, len(test)), backends=backends
    )
    cost = cost_of_training(run.model, network, counts)
    layer = first_sparse(network)
    one = shown(network, test)
    values = {
        "label": label,
        "title": _title(saved, network),
        "accuracy": evaluation.accuracy,
        "samples": evaluation.samples,
        "dataset": evaluation.dataset,
        "split": evaluation.split,
        "model": saved.config.model.kind,
        "steps": network.steps,
        "density": network.density,
        "sparse_density": _sparse_density(saved, network),
        "connections": network.connections,
        "synapses": network.synapses,
        "sops_per_sample": counts.sops / counts.samples,
        "spikes_per_sample": counts.spikes / counts.samples,
        "layers": [asdict(layer) for layer in counts.layers],
        "validation_accuracy": saved.history[kept_epoch(saved.history)]["validation_accuracy"],
        "kept_epoch": saved.history[kept_epoch(saved.history)]["epoch"],
        "history": saved.history,
        "updates": _updates(run.updates),
        "connectivity": None if layer is None else _described(layer),
        "sample": {
            "label": one.label,
            "decision": one.decision if one.decision >= 0 else None,
        },
        **_verified(verification),
        "devices": _devices(prices),
        "disagreements": [asdict(one) for one in disagreements(prices)],
        "training": training_document(cost),
        "table1": _table1(network, test, evaluation),
        "core_maps": {chip: _mapped(network, chip, len(test)) for chip in CHIPS},
        "config": saved.config.model_dump(mode="json", exclude_none=True),
        "config_toml": network.provenance["config"],
        "trained_by": saved.package,
        "digests": {
            "model.pt": modelfile.digest(run.model),
            "net.h5 (content)": netfile.digest(network),
        },
    }
    return Run(label, network, test, one, evaluation, prices, verification, values)


def report_values(runs: Sequence[Run]) -> dict[str, Any]:
    """The whole of `report.json`."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {name: version(name) for name in PACKAGES},
        "runs": [dict(run.values) for run in runs],
        "comparison": compared(runs) if len(runs) > 1 else None,
    }


def compared(runs: Sequence[Run]) -> dict[str, Any]:
    """For each device: joules and accuracy of every run, and which of them nothing beats."""
    found = {}
    for device in runs[0].prices:
        costs = [(run.prices[device].measured.total, run.evaluation.accuracy) for run in runs]
        front = pareto([(joules, accuracy or 0.0) for joules, accuracy in costs])
        found[device] = [
            {"run": run.label, "joules_per_sample": joules, "accuracy": accuracy, "pareto": best}
            for run, (joules, accuracy), best in zip(runs, costs, front)
        ]
    datasets = sorted({run.test.name for run in runs})
    return {"datasets": datasets, "devices": found}


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether no other point costs less or as much and reaches as much or more, one strictly.

    Args:
        points: (cost, what is reached).
    """
    return [
        not any(
            other != (cost, reached) and other[0] <= cost and other[1] >= reached
            for other in points
        )
        for cost, reached in points
    ]


def first_sparse(network: Network) -> tuple[str, int, Connections] | None:
    """Name, place and connections of the first layer that is not dense, else of the first.

    None where it is no matrix of connections.
    """
    places = [
        (layer.name, index, layer.connections)
        for index, layer in enumerate(network.layers)
        if isinstance(layer.connections, Connections)
    ]
    sparse = [found for found in places if found[2].count < found[2].possible]
    return next(iter(sparse or places), None)


def shown(network: Network, test: Dataset) -> Shown:
    """The first test sample, run."""
    one = test.take(1)
    spikes = encoded(one, encoding_of(network))
    result = simulate(network, spikes, record="all")
    shape = _image_shape(one)
    return Shown(
        spikes[0],
        {name: values[0] for name, values in result.spikes.items()},
        None if result.readout is None else result.readout[0],
        None if shape is None else one.images[0].reshape(shape),
        int(one.labels[0]),
        int(result.decisions[0]),
    )


def _image_shape(data: Dataset) -> tuple[int, int] | None:
    if len(data.image_shape) != 2:
        return None
    rows, columns = data.image_shape
    return rows, columns


def _title(saved: SavedModel, network: Network) -> str:
    widths = "-".join(str(n) for n in (network.inputs, *(x.neurons for x in network.layers)))
    return f"{saved.config.data.name}, {widths}"


def _sparse_density(saved: SavedModel, network: Network) -> float | None:
    """Of the layers made sparse alone; None where there is none."""
    masked = [layer.connections for layer in network.layers if layer.name in saved.masks]
    possible = sum(part.possible for part in masked)
    return sum(part.count for part in masked) / possible if possible else None


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
    return {
        "samples_verified": found.samples,
        "spikes_compared": found.spikes,
        "positions_compared": found.positions,
        "differences": found.total,
        "verification": {
            "reference": found.reference,
            "backends": list(found.backends),
            "differences_by_backend": dict(found.differences),
            "mask_differences": found.mask_differences,
            "first_difference": None if found.first is None else str(found.first),
            "firing_times": [asdict(layer) for layer in found.times],
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


def _table1(network: Network, test: Dataset, evaluation: Evaluation) -> dict[str, Any] | None:
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


def _mapped(network: Network, chip: str, samples: int) -> dict[str, Any]:
    """Where the network lies on a chip, or why it does not fit."""
    seen = measure_samples(network, None, min(samples, TRAFFIC_SAMPLES), None, None)
    try:
        return {"fits": True, **mapped_values(place(network, chip, activity=seen))}
    except LimitError as error:
        return {"fits": False, "chip": chip, "violations": list(error.violations)}


def _updates(path: Path) -> list[dict[str, Any]]:
    """What every update of the masks did, of an `updates.json`.

    Raises:
        FileError: when it cannot be read, or is no such record.
    """
    try:
        with path.open("rb") as file:
            content = file.read(UPDATES_LIMIT + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > UPDATES_LIMIT:
        raise FileError(f"{path}: larger than the {UPDATES_LIMIT} bytes that are read")
    try:
        return [
            {
                "iteration": int(update["iteration"]),
                "layers": {
                    name: {key: int(layer[key]) for key in ("pruned", "grown", "connections")}
                    for name, layer in update["layers"].items()
                },
            }
            for update in json.loads(content)
        ]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise FileError(f"{path}: is not a record of updates of masks") from None
