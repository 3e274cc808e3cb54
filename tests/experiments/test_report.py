import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava import netfile
from esl_lava.config import Experiment, override
from esl_lava.errors import ConfigError, FileError
from esl_lava.experiments import account, report
from esl_lava.experiments.evaluate import encoding_of, evaluate, load_samples
from esl_lava.experiments.train import train
from esl_lava.results.firing import remarks
from esl_lava.values import as_values
from tests.faults import refused

pytestmark = pytest.mark.slow


def quiet(_: str) -> None:
    pass


TERMS = report.ReportTerms(samples=3)


@dataclass(frozen=True)
class Reports:
    """Reports on the tiny runs: on one run, on its copy elsewhere, and on both kinds.

    `lines` are the lines that were printed for the copy.
    """

    one: report.ReportFiles
    copy: report.ReportFiles
    both: report.ReportFiles
    lines: list[str]


@pytest.fixture(scope="module")
def reports(tiny: Any, tiny_once: Any, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    folder = tmp_path_factory.mktemp("reports")
    first, second = folder / "a" / "run", folder / "b" / "elsewhere"
    for path in (first, second):
        shutil.copytree(tiny.path, path)
    (second / "net.h5").unlink()  # the report exports it again
    lines: list[str] = []
    return Reports(
        report.write([first], None, False, TERMS, quiet),
        report.write([second], folder / "page.html", False, TERMS, lines.append),
        report.write([tiny.path, tiny_once.path], folder / "both.html", False, TERMS, quiet),
        lines,
    )


@pytest.mark.slow
def test_the_density_of_layers_that_store_only_their_connections(
    experiment: Experiment, tmp_path: Path
) -> None:
    changes = {"training.engine": "sparse", "training.epochs": 1, "training.batch_size": 432}
    train(override(experiment, changes), tmp_path / "run", lambda _: None)
    files = report.write([tmp_path / "run"], None, False, TERMS, quiet)
    assert files.values["sparse_density"] == pytest.approx(0.4, abs=0.01)


@pytest.mark.slow
def test_a_copy_of_a_run_gives_the_same_report_byte_for_byte(reports: Reports) -> None:
    assert reports.one.page.name == "report.html"
    assert reports.one.document.name == "report.json"
    assert reports.one.page.read_bytes() == reports.copy.page.read_bytes()
    assert reports.one.document.read_bytes() == reports.copy.document.read_bytes()
    assert any("net.h5: is missing; exporting it" in line for line in reports.lines)
    for path in (reports.one.page, reports.one.document, reports.both.page, reports.both.document):
        assert str(reports.one.page.parents[2]) not in path.read_text()


def test_the_document_holds_the_results_of_the_run(reports: Reports, tiny: Any) -> None:
    run = json.loads(reports.one.document.read_text())
    assert (run["format"], run["format_version"]) == ("esl-lava report", 1)
    assert not {"runs", "comparison", "label"} & set(run)
    network = netfile.read(tiny.net)
    evaluation = evaluate(
        network, load_samples(network, "digits", "test", None), encoding_of(network)
    )
    counts = evaluation.result.counts
    assert run["accuracy"] == evaluation.accuracy
    assert run["sops_per_sample"] == counts.sops / counts.samples
    assert run["connections"] == network.connections == tiny.trained.json["connections"]
    assert run["density"] == network.density
    assert run["sparse_density"] == pytest.approx(0.4, abs=0.01)
    assert run["differences"] == 0
    assert run["samples_verified"] == 3
    assert run["verification"]["differences_by_backend"] == {"exact": 0, "lava-models": 0}
    assert run["spikes_compared"] > 0
    assert len(run["updates"]) == len(json.loads((tiny.path / "updates.json").read_text()))
    assert run["firing"] == [as_values(layer) for layer in evaluation.firing]
    assert run["firing_remarks"] == remarks(network, evaluation.firing)
    last = run["history"][-1]
    assert set(last["silent"]) == set(last["saturated"]) == {"hidden1", "hidden2"}
    assert all(0 < rate < 1 for rate in last["rates"].values())
    assert run["table1"] is None  # not the paper's network
    assert all(run["core_maps"][chip]["fits"] for chip in account.CHIPS)
    assert run["config_toml"] == (tiny.path / "config.toml").read_text()
    assert tuple(run["devices"]) == TERMS.devices


def test_the_document_has_the_documented_keys(reports: Reports) -> None:
    documentation = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    both = json.loads(reports.both.document.read_text())
    one = json.loads(reports.one.document.read_text())
    assert set(one) - set(both) == set(both["runs"][0]) - {"label"}
    for key in (*one, *both, *both["runs"][0], *both["comparison"]):
        assert f"`{key}`" in documentation, key


def test_runs_of_both_kinds_are_compared(reports: Reports) -> None:
    values = json.loads(reports.both.document.read_text())
    assert values == reports.both.values
    assert [run["model"] for run in values["runs"]] == ["multi_spike", "single_spike"]
    assert values["runs"][1]["verification"]["reference"] == "training"
    assert values["runs"][1]["verification"]["firing_times"]
    assert reports.both.differences == 0
    for rows in values["comparison"]["devices"].values():
        assert [row["run"] for row in rows] == [run["label"] for run in values["runs"]]
        assert any(row["pareto"] for row in rows)
    text = reports.both.page.read_text()
    assert "side by side" in text
    assert "firing steps on the chip and exact times of the training" in text


def test_pareto() -> None:
    costs, accuracies = [1.0, 2.0, 3.0, 2.0, 1.0], [0.5, 0.9, 0.9, 0.4, 0.5]
    # The last run is the only one on its data set.
    optimal = report.pareto_optimal([*"aaaaab"], [*costs, 9.0], [*accuracies, 0.1])
    assert optimal == [True, True, False, False, True, True]


points = st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 5))


@pytest.mark.slow
@given(st.lists(points, min_size=1))
def test_every_run_is_matched_by_an_optimal_run(runs: list[tuple[str, int, int]]) -> None:
    names, costs, accuracies = zip(*runs)
    optimal = report.pareto_optimal(names, costs, accuracies)
    best = [run for run, is_optimal in zip(runs, optimal) if is_optimal]
    for name, cost, accuracy in runs:
        assert any(n == name and c <= cost and a >= accuracy for n, c, a in best)


def test_labels(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("x/run", "y/run", "z"))
    assert report.labels([a, b, c]) == ["run (1)", "run (2)", "z"]
    with refused(ConfigError, "conflict", value=a):
        report.labels([a, c, tmp_path / "x" / ".." / "x" / "run"])


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with refused(FileError, "not-found", file=tmp_path / "missing"):
        report.finished(tmp_path / "missing")
    with refused(FileError, "not-found", file=tmp_path):
        report.finished(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with refused(FileError, "not-found", file=tmp_path) as caught:
        report.finished(tmp_path)
    assert "esl train --resume" in str(caught.value)
    with pytest.raises(FileError):
        report.finished(tmp_path / ("x" * 300))


def test_existing_files_are_kept(reports: Reports) -> None:
    page = reports.one.page
    with refused(FileError, "exists", file=page):
        report.write([page.parent], None, False, TERMS, quiet)
    with refused(FileError, "exists", file=reports.copy.document):
        report.write([page.parent], reports.copy.page.with_suffix(".htm"), False, TERMS, quiet)
    with refused(ConfigError, "conflict", key="-o", value=page.with_name("new.json")):
        report.write([page.parent], page.with_name("new.json"), False, TERMS, quiet)
    with refused(ConfigError, "missing", key="-o"):
        report.write([page.parent, page.parent], None, False, TERMS, quiet)
