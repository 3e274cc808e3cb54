"""Write the report on finished runs: an HTML page, and its numbers as JSON.

docs/report.md describes the JSON. Neither file depends on the clock or on the path of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from markupsafe import Markup

from esl_lava import netfile
from esl_lava.data.config import OWN
from esl_lava.data.own import OwnData
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
"""The backends that a report verifies. Lava takes longer, so it runs only on request."""

PACKAGES = ("esl_lava", "lava-nc", "lava-dl", "torch", "numpy", "numba", "h5py", "matplotlib")
"""A report lists the versions of these packages if they are installed."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ReportTerms:
    """The options of a report.

    Attributes:
        devices: names of the devices to price on, or paths of TOML files.
        samples: number of test samples to verify; None takes the default of `verify`.
        lava: whether Lava itself is verified too.
        own: the source of the samples of runs that were trained on the user's own.
    """

    devices: tuple[str, ...] = DEFAULT_DEVICES
    samples: int | None = None
    lava: bool = False
    own: OwnData | None = None


@dataclass(frozen=True, eq=False)
class ReportFiles:
    """The files of a report that was written.

    Attributes:
        page, document: the HTML file and the JSON file.
        values: the content of the JSON file.
        accounts: name of a run -> its account.
    """

    page: Path
    document: Path
    values: Values
    accounts: Mapping[str, Account]

    @property
    def differences(self) -> int | None:
        """Number of differences in all verifications; None if nothing was verified."""
        verifications = [account.verification for account in self.accounts.values()]
        totals = [one.total for one in verifications if one is not None]
        return sum(totals) if totals else None


def write(
    runs: Sequence[Path], page: Path | None, overwrite: bool, terms: ReportTerms, tell: Tell
) -> ReportFiles:
    """Examine runs and write their report: an HTML page, and a JSON file of the same name.

    Args:
        runs: run directories, at least one.
        page: the HTML file; by default `report.html` in the run directory. Several runs need this
            argument.
        overwrite: whether existing files may be replaced.
        terms: the options of the report.
        tell: called with a line before each run, and if its `net.h5` or Lava is missing.

    Raises:
        ConfigError: if there are several runs but no page, the name of the page ends in .json, a
            run is named twice, or own samples are given but no run had any.
        FileError: if a directory holds no finished run, or a file exists and `overwrite` is false.
        UserError: as raised by evaluation, pricing and verification.
    """
    if page is None:
        if len(runs) > 1:
            raise ConfigError(
                "-o FILE is missing: a report on several runs needs an output file",
                "missing",
                key="-o",
            )
        page = RunDirectory(runs[0]).page
    if page == page.with_suffix(".json"):
        raise ConfigError(
            f"-o {page}: the name of the page must not end in .json, because the file of its "
            "numbers has that name; use .html",
            "conflict",
            key="-o",
            value=page,
        )
    names = labels(runs)
    checked = [finished(path) for path in runs]
    if terms.own is not None:
        trained_on = [load_model(run.model)[1].data.name for run in checked]
        if OWN not in trained_on:
            trained = ", ".join(dict.fromkeys(trained_on))
            raise ConfigError(
                f"the data {terms.own.name} are given, but data.name of the runs is {trained}",
                "conflict",
                key="data.name",
                value=trained,
                limit=OWN,
            )
    for path in (page, page.with_suffix(".json")):
        refuse_overwrite(path, overwrite)
    accounts = []
    for run in checked:
        tell(f"{run.path}: evaluating, pricing, mapping and verifying")
        accounts.append(find(run, terms, tell))
    return put(page, accounts, names)


def put(page: Path, accounts: Sequence[Account], names: Sequence[str]) -> ReportFiles:
    """Write the page of a report and its JSON file.

    Args:
        page: the HTML file; an existing file is replaced.
        accounts: the accounts of the runs, at least one.
        names: the names of the runs; the report of a single run does not show its name.

    Raises:
        FileError: if a file cannot be written.
    """
    versions = {name: installed for name in PACKAGES if (installed := _version(name)) is not None}
    runs = [as_values(one) for one in accounts]
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
    run_pictures: list[dict[str, Markup]] = [{} for _ in accounts]
    comparison_pictures: dict[str, Markup] = {}
    if is_installed("matplotlib"):
        run_pictures = [html.draw_run(one, f"r{n}") for n, one in enumerate(accounts, 1)]
        if comparison is not None:
            comparison_pictures = html.draw_comparison(accounts, comparison)
    document = page.with_suffix(".json")
    text = html.page(
        runs,
        comparison,
        versions,
        notes=html.footnotes(accounts),
        drawn=run_pictures,
        compared=comparison_pictures,
    )
    replace_json(document, values)
    replace_file(page, text.encode())
    return ReportFiles(page, document, values, dict(zip(names, accounts)))


def _version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def finished(path: Path) -> RunDirectory:
    """Return the run in a directory after checking that it is finished.

    Raises:
        FileError: if the directory does not exist, or holds no finished run.
    """
    run = RunDirectory(path)
    try:
        if not path.is_dir():
            raise FileError(f"{path}: the run directory does not exist", "not-found", file=path)
        if run.model.exists():
            return run
        if run.checkpoint.exists():
            raise FileError(
                f"{path}: the training is not finished; continue it with esl train --resume {path}",
                "not-found",
                file=path,
            )
    except OSError as error:  # the name is too long, or a directory may not be searched
        raise FileError(f"{path}: {error.strerror}", "unreadable", file=path) from None
    raise FileError(
        f"{path}: the directory holds no trained model ({run.model.name})", "not-found", file=path
    )


def labels(runs: Sequence[Path]) -> list[str]:
    """Return the names of runs: the names of their directories, numbered if several are equal.

    Raises:
        ConfigError: if a directory is given twice.
    """
    resolved = [path.resolve() for path in runs]
    for path, real in zip(runs, resolved):
        if resolved.count(real) > 1:
            raise ConfigError(f"{path}: the same run is given twice", "conflict", value=path)
    names = ["".join(c if c.isprintable() else "?" for c in path.name) for path in resolved]
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def find(run: RunDirectory, terms: ReportTerms, tell: Tell) -> Account:
    """Evaluate, price, map and verify a run. A missing `net.h5` is exported first.

    If Lava is not installed, nothing is verified.

    Raises:
        PackageError: if a verification is requested, but Lava is not installed.
        UserError: as raised by evaluation, pricing and verification.
    """
    verifying = is_installed(LAVA)
    if not verifying and (terms.lava or terms.samples is not None):
        raise needed("lava")
    saved, experiment = load_model(run.model)
    own = terms.own if experiment.data.name == OWN else None
    if not run.net.exists():
        tell(f"{run.net}: is missing; exporting it")
        export(run.model, run.net, own=own)
    network = netfile.read(run.net)
    test = load_samples(
        network, experiment.data.name, "test", None, encoding=experiment.encoding, own=own
    )
    if terms.samples is not None:
        test.take(terms.samples)  # refuses an impossible number before the work
    evaluation = evaluate(network, test, experiment.encoding, probes=PROBES)
    prices = price(network, evaluation.result.counts, terms.devices)
    verification = None
    if verifying:
        from esl_lava.experiments.verify import verify

        backends = (*BACKENDS, "lava") if terms.lava else BACKENDS
        verification = verify(run.model, run.net, samples=terms.samples, backends=backends, own=own)
    else:
        tell(f"{run.net}: not verified: {needed('lava')}")
    return account(run, saved, experiment, network, test, evaluation, prices, verification, own)


def compared(names: Sequence[str], accounts: Sequence[Account]) -> Comparison:
    """Compare the energy and accuracy of all runs on every device."""
    datasets = [one.evaluation.dataset for one in accounts]
    accuracies = [one.evaluation.accuracy or 0.0 for one in accounts]
    devices = {}
    for device in accounts[0].prices:
        costs = [one.prices[device].measured.total for one in accounts]
        pareto = pareto_optimal(datasets, costs, accuracies)
        devices[device] = list(map(Place, names, costs, accuracies, pareto))
    return Comparison(sorted(set(datasets)), devices)


def pareto_optimal(
    datasets: Sequence[str], costs: Sequence[float], accuracies: Sequence[float]
) -> list[bool]:
    """Return for each run whether it is Pareto optimal among the runs on its data set.

    A run is Pareto optimal if no other run is at least as good in cost and in accuracy and better
    in one of them. Accuracies on different data sets cannot be compared.

    Args:
        datasets, costs, accuracies: one value for each run.
    """
    runs = list(zip(datasets, costs, accuracies))

    def dominated(dataset: str, cost: float, accuracy: float) -> bool:
        return any(
            other == dataset and c <= cost and a >= accuracy and (c, a) != (cost, accuracy)
            for other, c, a in runs
        )

    return [not dominated(*run) for run in runs]
