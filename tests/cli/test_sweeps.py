"""Tests of sweeps: on a terminal, seen from another terminal, and on a cluster."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esl_lava.experiments.states import mark_running, write_state
from esl_lava.results.sweep import RunState
from tests.folders import contents

pytestmark = pytest.mark.slow

Command = Callable[..., Any]

LINE = "baselines --methods esl,dense --seeds 1,2 --epochs 1 --set sparsity.t_iter=4".split()
RUNS = ["method-esl_seed-1", "method-esl_seed-2", "method-dense_seed-1", "method-dense_seed-2"]


@pytest.fixture(scope="module")
def made(tiny: Any, program: Command, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a sweep in one process without a terminal: its directory and its outcome."""
    folder = tmp_path_factory.mktemp("made") / "sweep"
    config = tiny.path / "config.toml"
    done = program("esl", *LINE, "--config", config, "-o", folder, "--jobs", 1, "--json")
    assert done.code == 0, done.err
    return folder, done


def test_without_a_terminal_lines_are_said(made: Any) -> None:
    _, done = made
    said = [line for line in done.err.splitlines() if "INFO" not in line]
    assert [line.partition(":")[0] for line in said] == RUNS
    assert all(re.fullmatch(r"\S+: .*\d+\.\d\d %.*", line) for line in said)


def seen_on_a_terminal(*command: object) -> tuple[str, str]:
    """Run `esl` on a terminal of 24 rows: its standard output and the text on the terminal."""
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [Path(sys.executable).parent / "esl", *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"},
    ) as esl:
        os.close(theirs)
        try:
            while read := os.read(ours, 65536):
                shown += read
        except OSError:  # its end
            pass
        assert esl.stdout is not None
        out = esl.stdout.read()
    os.close(ours)
    assert esl.returncode == 0, shown
    return out.decode(), re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "\n", shown.decode())


def test_on_a_terminal_a_table_says_where_the_runs_stand(
    made: Any, tiny: Any, tmp_path: Path
) -> None:
    folder, done = made
    config = tiny.path / "config.toml"
    line = [*LINE, "--config", config, "-o", tmp_path / "sweep", "--jobs", 2, "--json"]
    out, shown = seen_on_a_terminal(*line)
    assert json.loads(out) == done.json
    assert contents(tmp_path / "sweep") == contents(folder)
    stage = re.compile(rf"(?:{'|'.join(RUNS)}) +([a-z]+)")
    tables = [found for part in shown.split("elapsed") if (found := stage.findall(part))]
    assert all(len(table) == len(RUNS) for table in tables)
    assert tables[0][-1] == "waiting"
    assert any("running" in table for table in tables)
    assert tables[-1] == ["done"] * 4
    assert "4 done" in shown
    for run, accuracy in re.findall(r"(\S+): .*?(\d+\.\d\d) %", done.err):
        assert re.search(rf"{run} +done +{accuracy} % on the test split", shown)
    # The table may not have shown the start of the last runs.
    assert len(set(re.findall(r"(\S+) +done .* 0:\d\d:\d\d", shown)) & set(RUNS)) >= 2
    assert not re.search(r"seed-\d: ", shown)  # lines would say it twice


def test_a_sweep_is_looked_at_from_elsewhere(made: Any, invoke: Command, tmp_path: Path) -> None:
    folder, done = made
    shown = invoke("sweep", folder)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"{folder}, no sweep is running: 4 done\n")
    assert [line.split()[:2] for line in shown.out.splitlines() if "seed" in line] == [
        [run, "done"] for run in RUNS
    ]
    values = invoke("sweep", folder, "--json").json
    assert values["going"] is False
    assert [(run["name"], run["stage"]) for run in values["runs"]] == [(r, "done") for r in RUNS]
    accuracies = [accuracy for row in done.json["rows"] for accuracy in row["accuracies"]]
    assert [run["accuracy"] for run in values["runs"]] == accuracies
    with mark_running(tmp_path, RUNS[:2]):
        write_state(tmp_path, RunState(RUNS[0], "running", "far", 0.0, None, 3, 9, 0.5))
        values = invoke("sweep", tmp_path, "--json").json
        assert values["going"] is True
        assert [run["stage"] for run in values["runs"]] == ["running", "waiting"]
        out = invoke("sweep", tmp_path).out
        assert out.startswith(f"{tmp_path}, the sweep is running: 1 running, 1 waiting\n")
        assert "epoch 3/9, loss 0.5000" in out


@pytest.mark.timeout(600)
def test_a_cluster_prints_the_same(made: Any, tiny: Any, program: Command, tmp_path: Path) -> None:
    from distributed import LocalCluster

    folder, done = made
    config = tiny.path / "config.toml"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        line = ["--config", config, "-o", tmp_path / "far", "--cluster", cluster.scheduler_address]
        far = program("esl", *LINE, *line, "--json")
    assert far.code == 0, far.err
    assert far.json == done.json
    assert contents(tmp_path / "far") == contents(folder)
