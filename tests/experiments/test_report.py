import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava import netfile
from esl_lava.errors import ConfigError, FileError
from esl_lava.experiments import account, report
from esl_lava.experiments.evaluate import encoding_of, evaluate, load_samples
from esl_lava.results.firing import remarks
from esl_lava.values import as_values


def quiet(_: str) -> None:
    pass


TERMS = report.ReportTerms(samples=3)


@dataclass(frozen=True)
class Made:
    """Reports on the tiny runs, made once: on one run, its copy elsewhere, and both kinds."""

    one: report.Written
    copy: report.Written
    both: report.Written
    said: list[str]


@pytest.fixture(scope="module")
def made(tiny: Any, tiny_once: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("reports")
    first, second = folder / "a" / "run", folder / "b" / "elsewhere"
    for place in (first, second):
        shutil.copytree(tiny.path, place)
    (second / "net.h5").unlink()  # is exported anew
    said: list[str] = []
    return Made(
        report.write([first], None, False, TERMS, quiet),
        report.write([second], folder / "page.html", False, TERMS, said.append),
        report.write([tiny.path, tiny_once.path], folder / "both.html", False, TERMS, quiet),
        said,
    )


def test_a_copy_of_a_run_gives_the_same_report_byte_for_byte(made: Made) -> None:
    assert made.one.page.name == "report.html"
    assert made.one.document.name == "report.json"
    assert made.one.page.read_bytes() == made.copy.page.read_bytes()
    assert made.one.document.read_bytes() == made.copy.document.read_bytes()
    assert any("net.h5: was missing and is exported" in line for line in made.said)
    for path in (made.one.page, made.one.document, made.both.page, made.both.document):
        assert str(made.one.page.parents[2]) not in path.read_text()


def test_the_document_holds_what_the_run_found(made: Made, tiny: Any) -> None:
    run = json.loads(made.one.document.read_text())
    assert (run["format"], run["format_version"]) == ("esl-lava report", 1)
    assert not {"runs", "comparison", "label"} & set(run)
    network = netfile.read(tiny.net)
    found = evaluate(network, load_samples(network, "digits", "test", None), encoding_of(network))
    counts = found.result.counts
    assert run["accuracy"] == found.accuracy
    assert run["sops_per_sample"] == counts.sops / counts.samples
    assert run["connections"] == network.connections == tiny.trained.json["connections"]
    assert run["density"] == network.density
    assert run["sparse_density"] == pytest.approx(0.4, abs=0.01)
    assert run["differences"] == 0
    assert run["samples_verified"] == 3
    assert run["verification"]["differences_by_backend"] == {"exact": 0, "lava-models": 0}
    assert run["spikes_compared"] > 0
    assert len(run["updates"]) == len(json.loads((tiny.path / "updates.json").read_text()))
    assert run["firing"] == [as_values(layer) for layer in found.firing]
    assert run["firing_remarks"] == remarks(network, found.firing)
    last = run["history"][-1]
    assert set(last["silent"]) == set(last["saturated"]) == {"hidden1", "hidden2"}
    assert all(0 < rate < 1 for rate in last["rates"].values())
    assert run["table1"] is None  # not the paper's network
    assert all(run["core_maps"][chip]["fits"] for chip in account.CHIPS)
    assert run["config_toml"] == (tiny.path / "config.toml").read_text()
    assert tuple(run["devices"]) == TERMS.devices


def test_the_document_has_the_documented_keys(made: Made) -> None:
    said = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    both = json.loads(made.both.document.read_text())
    one = json.loads(made.one.document.read_text())
    assert set(one) - set(both) == set(both["runs"][0]) - {"label"}
    for key in (*one, *both, *both["runs"][0], *both["comparison"]):
        assert f"`{key}`" in said, key


def test_runs_of_both_kinds_are_compared(made: Made) -> None:
    values = json.loads(made.both.document.read_text())
    assert values == made.both.values
    assert [run["model"] for run in values["runs"]] == ["multi_spike", "single_spike"]
    assert values["runs"][1]["verification"]["reference"] == "training"
    assert values["runs"][1]["verification"]["firing_times"]
    assert made.both.differences == 0
    for places in values["comparison"]["devices"].values():
        assert [place["run"] for place in places] == [run["label"] for run in values["runs"]]
        assert any(place["pareto"] for place in places)
    text = made.both.page.read_text()
    assert "side by side" in text
    assert "firing steps against exact times" in text


def test_pareto() -> None:
    costs, accuracies = [1.0, 2.0, 3.0, 2.0, 1.0], [0.5, 0.9, 0.9, 0.4, 0.5]
    # The last is of another data set: there is none to beat it.
    best = report.unbeaten([*"aaaaab"], [*costs, 9.0], [*accuracies, 0.1])
    assert best == [True, True, False, False, True, True]


points = st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 5))


@given(st.lists(points, min_size=1))
def test_who_is_beaten_is_beaten_by_one_whom_nobody_beats(runs: list[tuple[str, int, int]]) -> None:
    names, costs, accuracies = zip(*runs)
    best = [run for run, first in zip(runs, report.unbeaten(names, costs, accuracies)) if first]
    for name, cost, accuracy in runs:
        assert any(n == name and c <= cost and a >= accuracy for n, c, a in best)


def test_labels(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("x/run", "y/run", "z"))
    assert report.labels([a, b, c]) == ["run (1)", "run (2)", "z"]
    with pytest.raises(ConfigError, match="named twice"):
        report.labels([a, c, tmp_path / "x" / ".." / "x" / "run"])


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such run directory"):
        report.finished(tmp_path / "missing")
    with pytest.raises(FileError, match="holds no trained model"):
        report.finished(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(FileError, match=r"not finished; go on with esl train --resume"):
        report.finished(tmp_path)
    with pytest.raises(FileError):
        report.finished(tmp_path / ("x" * 300))


def test_files_that_exist_stay(made: Made) -> None:
    page = made.one.page
    with pytest.raises(FileError, match=r"report\.html: exists; use --overwrite"):
        report.write([page.parent], None, False, TERMS, quiet)
    with pytest.raises(FileError, match=r"page\.json: exists; use --overwrite"):
        report.write([page.parent], made.copy.page.with_suffix(".htm"), False, TERMS, quiet)
    with pytest.raises(ConfigError, match=r"cannot end in \.json"):
        report.write([page.parent], page.with_name("new.json"), False, TERMS, quiet)
    with pytest.raises(ConfigError, match="several runs needs a file"):
        report.write([page.parent, page.parent], None, False, TERMS, quiet)
