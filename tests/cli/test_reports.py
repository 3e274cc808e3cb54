import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from esl_lava.experiments import report as reports
from tests.cli.refusals import refused
from tests.conftest import Outcome, TinyRun

Command = Callable[..., Outcome]


@pytest.mark.slow
def test_report(tiny: TinyRun, invoke: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = invoke("report", tiny.path, "-o", page, "--samples", 2, "--device", "loihi1_sanafe")
    assert done.code == 0, done.err
    assert "page.html" in done.out
    assert page.read_text().startswith("<!DOCTYPE html>")
    again = invoke("report", tiny.path, "-o", page)
    assert again.out == ""
    refused(again, "exists", page, "--overwrite")
    third = invoke(
        *("report", tiny.path, "-o", page, "--samples", 2, "--device", "loihi1_sanafe"),
        *("--overwrite", "--json"),
    )
    assert third.json == json.loads(page.with_suffix(".json").read_text())
    assert list(third.json["devices"]) == ["loihi1_sanafe"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "code", "part"),
    [
        (lambda run: shutil.rmtree(run), "not-found", "run"),
        (lambda run: (run / "model.pt").rename(run / "checkpoint.pt"), "not-found", "--resume"),
        (lambda run: (run / "model.pt").unlink(), "not-found", "model.pt"),
        (lambda run: (run / "updates.json").unlink(), "not-found", "updates.json"),
        (lambda run: (run / "net.h5").write_bytes(b"no network"), "damaged", "net.h5"),
    ],
)
def test_bad_runs_are_one_sentence(
    prepare: Callable[[Path], None],
    code: str,
    part: str,
    tiny: TinyRun,
    invoke: Command,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny.path, run)
    prepare(run)
    done = invoke("report", run, "-o", tmp_path / "page.html", "--samples", 2)
    assert done.out == ""
    refused(done, code, part, alone=False)
    assert not list(tmp_path.glob("page.*"))


def test_a_difference_is_exit_code_1(
    tiny: TinyRun, invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Any = SimpleNamespace(
        title="digits",
        evaluation=SimpleNamespace(accuracy=0.5),
        verification=SimpleNamespace(total=3),
    )
    page = tmp_path / "page.html"
    written = reports.ReportFiles(page, page.with_suffix(".json"), {}, {"run": run})
    monkeypatch.setattr(reports, "write", lambda *_: written)
    done = invoke("report", tiny.path, "-o", tmp_path / "page.html", "--samples", 2)
    assert done.code == 1
    assert "found differences" in done.err
