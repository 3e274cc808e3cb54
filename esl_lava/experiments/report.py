"""The report on finished runs: a page of HTML, and its numbers as JSON beside it.

docs/report.md says what the JSON holds. Nothing in either depends on the clock or on where
a run lies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from esl_lava import netfile
from esl_lava.errors import ConfigError, FileError
from esl_lava.experiments.account import PROBES, Account, Findings, account
from esl_lava.experiments.evaluate import evaluate, load_samples
from esl_lava.experiments.export import export
from esl_lava.experiments.price import DEFAULT_DEVICES, price
from esl_lava.experiments.rundir import RunDirectory, refuse_overwrite
from esl_lava.experiments.verify import verify
from esl_lava.files import as_json, replace_file
from esl_lava.models.stored import load_model
from esl_lava.report import html

FORMAT, FORMAT_VERSION = "esl-lava report", 1

BACKENDS = ("exact", "lava-models")
"""Verified always; Lava itself takes longer and is asked for."""

PACKAGES = ("esl_lava", "lava-nc", "lava-dl", "torch", "numpy", "numba", "h5py", "matplotlib")
"""Whose versions a report states."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Terms:
    """What is asked of a report.

    Attributes:
        devices: names or paths of those to price on.
        samples: test samples to verify; None as `verify` has it.
        lava: whether Lava itself is among what is verified.
    """

    devices: tuple[str, ...] = DEFAULT_DEVICES
    samples: int | None = None
    lava: bool = False


@dataclass(frozen=True)
class Written:
    """A report's files.

    Attributes:
        page, document: HTML and JSON.
        values: what the JSON holds.
        runs: what it says of each run.
    """

    page: Path
    document: Path
    values: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    @property
    def differences(self) -> int:
        """Of all verifications together."""
        return sum(run["differences"] for run in self.runs)


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
    if page == page.with_suffix(".json"):
        raise ConfigError(f"{page}: the page cannot end in .json, as its numbers do; use .html")
    names = labels(runs)
    checked = [finished(path) for path in runs]
    for path in (page, page.with_suffix(".json")):
        refuse_overwrite(path, overwrite)
    accounts = []
    for run in checked:
        tell(f"{run.path}: evaluating, pricing, mapping and verifying")
        accounts.append(account(run, find(run, terms, tell)))
    return put(page, accounts, names)


def put(page: Path, accounts: Sequence[Account], names: Sequence[str]) -> Written:
    """Write the page on runs, and its numbers beside it.

    Args:
        page: the HTML file; what is there is replaced.
        accounts: of the runs, at least one.
        names: what the runs are called; of a single one it is not said.

    Raises:
        FileError: when a file cannot be written.
    """
    versions = {name: version(name) for name in PACKAGES}
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "versions": versions}
    several = len(accounts) > 1
    runs = [
        {**({"label": name} if several else {}), **found.values}
        for name, found in zip(names, accounts)
    ]
    comparison = compared(runs) if several else None
    values = {**head, **({"runs": runs, "comparison": comparison} if several else runs[0])}
    drawn = [
        html.drawings(run, f"r{number}", found.sparse, found.image_shape, found.shown)
        for number, (run, found) in enumerate(zip(runs, accounts), 1)
    ]
    text = html.page(runs, comparison, versions, drawn)
    document = page.with_suffix(".json")
    replace_file(document, (as_json(values, indent=1) + "\n").encode())
    replace_file(page, text.encode())
    return Written(page, document, values, runs)


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

    Raises:
        ConfigError: where a directory is named twice.
    """
    places = [path.resolve() for path in runs]
    for path, real in zip(runs, places):
        if places.count(real) > 1:
            raise ConfigError(f"{path}: the same run is named twice")
    names = ["".join(c if c.isprintable() else "?" for c in place.name) for place in places]
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def find(run: RunDirectory, terms: Terms, tell: Tell) -> Findings:
    """Evaluate, price and verify a run.

    A `net.h5` that is missing is exported first.

    Raises:
        UserError: as evaluation, pricing and verification do.
    """
    saved, experiment = load_model(run.model)
    if not run.net.exists():
        tell(f"{run.net}: was missing and is exported")
        export(run.model, run.net)
    network = netfile.read(run.net)
    test = load_samples(network, experiment.data.name, "test", None)
    if terms.samples is not None:
        test.take(terms.samples)  # what cannot be is refused before the work
    evaluation = evaluate(network, test, experiment.encoding, probes=PROBES)
    prices = price(network, evaluation.result.counts, terms.devices)
    backends = (*BACKENDS, "lava") if terms.lava else BACKENDS
    verification = verify(run.model, run.net, samples=terms.samples, backends=backends)
    return Findings(saved, experiment, network, test, evaluation, prices, verification)


def compared(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each device: joules and accuracy of every run, and which of them nothing beats.

    Accuracies on different data sets do not compare: a run is beaten by those of its own.
    """
    datasets = [run["dataset"] for run in runs]
    found: dict[str, list[dict[str, Any]]] = {}
    for device in runs[0]["devices"]:
        costs = [(run["devices"][device]["joules_per_sample"], run["accuracy"]) for run in runs]
        found[device] = [
            {
                "run": run["label"],
                "joules_per_sample": cost[0],
                "accuracy": cost[1],
                "pareto": not any(
                    beats(other, cost)
                    for other, dataset in zip(costs, datasets)
                    if dataset == run["dataset"]
                ),
            }
            for run, cost in zip(runs, costs)
        ]
    return {"datasets": sorted(set(datasets)), "devices": found}


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether `one` costs no more than `other` and reaches no less, and differs.

    Args:
        one, other: (cost, what is reached).
    """
    return one != other and one[0] <= other[0] and one[1] >= other[1]
