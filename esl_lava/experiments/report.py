"""The report on finished runs: a page of HTML, and its numbers as JSON beside it.

docs/report.md says what the JSON holds. Nothing in either depends on the clock or on where
a run lies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from markupsafe import Markup

from esl_lava import netfile
from esl_lava.data.config import OWN
from esl_lava.data.own import Own
from esl_lava.errors import ConfigError, FileError
from esl_lava.experiments.account import PROBES, account
from esl_lava.experiments.evaluate import evaluate, load_samples
from esl_lava.experiments.export import export
from esl_lava.experiments.price import DEFAULT_DEVICES, price
from esl_lava.experiments.rundir import RunDirectory, refuse_overwrite
from esl_lava.files import replace_file, replace_json
from esl_lava.models.stored import load_model
from esl_lava.packages import LAVA, is_installed, needed
from esl_lava.report import html
from esl_lava.results.account import Account, Comparison, Place
from esl_lava.values import Values, as_values

FORMAT, FORMAT_VERSION = "esl-lava report", 1

BACKENDS = ("exact", "lava-models")
"""Verified always; Lava itself takes longer and is asked for."""

PACKAGES = ("esl_lava", "lava-nc", "lava-dl", "torch", "numpy", "numba", "h5py", "matplotlib")
"""Whose versions a report states, where they are installed."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ReportTerms:
    """What is asked of a report.

    Attributes:
        devices: names or paths of those to price on.
        samples: test samples to verify; None as `verify` has it.
        lava: whether Lava itself is among what is verified.
        own: where samples come from, of the runs that were trained on the user's own.
    """

    devices: tuple[str, ...] = DEFAULT_DEVICES
    samples: int | None = None
    lava: bool = False
    own: Own | None = None


@dataclass(frozen=True, eq=False)
class Written:
    """A report's files.

    Attributes:
        page, document: HTML and JSON.
        values: what the JSON holds.
        accounts: name -> the account of a run.
    """

    page: Path
    document: Path
    values: Values
    accounts: Mapping[str, Account]

    @property
    def differences(self) -> int | None:
        """Of all verifications together; None where nothing was verified."""
        verified = [found.verification for found in self.accounts.values()]
        totals = [found.total for found in verified if found is not None]
        return sum(totals) if totals else None


def write(
    runs: Sequence[Path], page: Path | None, overwrite: bool, terms: ReportTerms, tell: Tell
) -> Written:
    """Report on runs: a page, and its numbers as JSON beside it under the same name.

    Args:
        runs: run directories, at least one.
        page: the HTML file; default `report.html` in the only run's directory.
        overwrite: whether existing files may be replaced.
        terms: what is asked.
        tell: given a line before each run.

    Raises:
        ConfigError: when several runs have no page named, a run is named twice, or own samples
            are given and no run had any.
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
    if terms.own is not None:
        trained_on = [load_model(run.model)[1].data.name for run in checked]
        if OWN not in trained_on:
            had = ", ".join(dict.fromkeys(trained_on))
            raise ConfigError(f"{terms.own.name} was given, and no run had it: they had {had}")
    for path in (page, page.with_suffix(".json")):
        refuse_overwrite(path, overwrite)
    accounts = []
    for run in checked:
        tell(f"{run.path}: evaluating, pricing, mapping and verifying")
        accounts.append(find(run, terms, tell))
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
    versions = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    runs = [as_values(found) for found in accounts]
    values: Values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {**versions},
    }
    comparison = None
    if len(runs) > 1:
        comparison = compared(names, accounts)
        runs = [{"label": name, **run} for name, run in zip(names, runs)]
        values |= {"runs": [*runs], "comparison": as_values(comparison)}
    else:
        values |= runs[0]
    drawn: list[dict[str, Markup]] = [{} for _ in accounts]
    across: dict[str, Markup] = {}
    if is_installed("matplotlib"):
        drawn = [html.draw_run(found, f"r{n}") for n, found in enumerate(accounts, 1)]
        across = {} if comparison is None else html.draw_comparison(accounts, comparison)
    document = page.with_suffix(".json")
    text = html.page(
        runs,
        comparison,
        versions,
        notes=html.footnotes(accounts),
        drawn=drawn,
        compared=across,
    )
    replace_json(document, values)
    replace_file(page, text.encode())
    return Written(page, document, values, dict(zip(names, accounts)))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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


def find(run: RunDirectory, terms: ReportTerms, tell: Tell) -> Account:
    """Evaluate, price, map and verify a run. A `net.h5` that is missing is exported first.

    Where Lava is not installed nothing is verified.

    Raises:
        PackageError: where a verification is asked for, and Lava is not installed.
        UserError: as evaluation, pricing and verification do.
    """
    verifying = is_installed(LAVA)
    if not verifying and (terms.lava or terms.samples is not None):
        raise needed("lava")
    saved, experiment = load_model(run.model)
    own = terms.own if experiment.data.name == OWN else None
    if not run.net.exists():
        tell(f"{run.net}: was missing and is exported")
        export(run.model, run.net, own=own)
    network = netfile.read(run.net)
    test = load_samples(
        network, experiment.data.name, "test", None, encoding=experiment.encoding, own=own
    )
    if terms.samples is not None:
        test.take(terms.samples)  # what cannot be is refused before the work
    evaluation = evaluate(network, test, experiment.encoding, probes=PROBES)
    prices = price(network, evaluation.result.counts, terms.devices)
    verification = None
    if verifying:
        from esl_lava.experiments.verify import verify

        backends = (*BACKENDS, "lava") if terms.lava else BACKENDS
        verification = verify(run.model, run.net, samples=terms.samples, backends=backends, own=own)
    else:
        tell(f"{run.net}: not verified, as {needed('lava')}")
    return account(run, saved, experiment, network, test, evaluation, prices, verification, own)


def compared(names: Sequence[str], accounts: Sequence[Account]) -> Comparison:
    """For each device: joules and accuracy of every run, and which of them nothing beats."""
    datasets = [found.evaluation.dataset for found in accounts]
    accuracies = [found.evaluation.accuracy or 0.0 for found in accounts]
    devices = {}
    for device in accounts[0].prices:
        costs = [found.prices[device].measured.total for found in accounts]
        best = unbeaten(datasets, costs, accuracies)
        devices[device] = list(map(Place, names, costs, accuracies, best))
    return Comparison(sorted(set(datasets)), devices)


def unbeaten(
    datasets: Sequence[str], costs: Sequence[float], accuracies: Sequence[float]
) -> list[bool]:
    """Which of some runs none beats: costs no more, reaches no less, and differs.

    Accuracies on different data sets do not compare: a run is beaten by those of its own.

    Args:
        datasets, costs, accuracies: of every run.
    """
    runs = list(zip(datasets, costs, accuracies))

    def beaten(dataset: str, cost: float, accuracy: float) -> bool:
        return any(
            other == dataset and c <= cost and a >= accuracy and (c, a) != (cost, accuracy)
            for other, c, a in runs
        )

    return [not beaten(*run) for run in runs]
