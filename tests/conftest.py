"""Shared fixtures: tiny trained runs, and functions that call the command line."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esl_lava.config import Experiment, from_toml
from tests import profiles

profiles.register()

# Several torch threads spin on busy cores, which makes tiny networks twenty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = """\
seed = 3

[encoding]
steps = 4

[model]
layers = "24-12"
weight_scale = 2.0

[sparsity]
density = 0.4
t_iter = 3

[training]
epochs = 4
batch_size = 100
learning_rate = 0.02
"""


COMPILING = "INFO: compiling kernels for their first use, which takes some seconds\n"

TINY_ONCE = """\
seed = 3

[encoding]
kind = "two_times"
steps = 21

[model]
kind = "single_spike"
layers = "24-12"
current_decay = 0.12
weight_scale = 2.0

[sparsity]
density = 0.4
t_iter = 3

[training]
epochs = 4
batch_size = 100
learning_rate = 0.01
gradient_norm = 1.0
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--docs", action="store_true", help="Run the commands of README and docs.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that run a page of the docs, unless they are asked for."""
    if config.getoption("--docs"):
        return
    pages = [item for item in items if item.get_closest_marker("docs")]
    config.hook.pytest_deselected(items=pages)
    items[:] = [item for item in items if item not in pages]


def pytest_runtest_setup() -> None:
    """Seed torch's global generator before each test, so that its numbers are the same."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command: exit code, standard output, standard error.

    The log line about compiled kernels is removed, because it depends on earlier commands.
    """

    code: int | str
    out: str
    err: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "err", self.err.replace(COMPILING, ""))

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object on standard output, which must hold nothing else."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        assert self.out.count("\n") == 1
        return value


@dataclass(frozen=True)
class TinyRun:
    """A finished run directory with net.h5. Tests copy it and do not write to it.

    Attributes:
        path: the directory.
        trained, exported: outcomes of `esl train --json` and `esl export --json`.
    """

    path: Path
    trained: Outcome
    exported: Outcome

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    @property
    def net(self) -> Path:
        return self.path / "net.h5"


def run_program(name: str, *args: object) -> Outcome:
    """Run a console script of this environment in a process of its own."""
    script = Path(sys.executable).parent / name
    process = subprocess.run(
        [script, *map(str, args)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return Outcome(process.returncode, process.stdout, process.stderr)


@pytest.fixture(scope="session")
def program() -> Callable[..., Outcome]:
    """Run a console script in a process of its own: `program("esl", "run", ...)`."""
    return run_program


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run `esl` within this process, which has imported the modules already."""

    def call(*args: object) -> Outcome:
        from esl_lava.cli import app

        monkeypatch.setattr(sys, "argv", ["esl", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        captured = capfd.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """The experiment of the tiny run."""
    return from_toml(TINY)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> TinyRun:
    """A run of a few seconds, made once for all workers by the real commands."""
    return _make_once("tiny", TINY, tmp_path_factory.getbasetemp(), worker_id)


@pytest.fixture(scope="session")
def tiny_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> TinyRun:
    """A run like `tiny`, of a network whose neurons fire once."""
    return _make_once("once", TINY_ONCE, tmp_path_factory.getbasetemp(), worker_id)


def _make_once(name: str, config: str, shared: Path, worker_id: str) -> TinyRun:
    """Return a run that all workers share, and make it if it does not exist."""
    if worker_id != "master":
        shared = shared.parent
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker makes the run, the others wait
        record = shared / f"{name}.json"
        if not record.exists():
            (shared / f"{name}.toml").write_text(config)
            outcomes = _make(folder, shared / f"{name}.toml")
            record.write_text(json.dumps([vars(outcome) for outcome in outcomes]))
        trained, exported = (Outcome(**values) for values in json.loads(record.read_text()))
    return TinyRun(folder, trained, exported)


def _make(folder: Path, config: Path) -> tuple[Outcome, Outcome]:
    trained = run_program("esl", "train", "--config", config, "-o", folder, "--json")
    assert trained.code == 0, trained.err
    exported = run_program("esl", "export", folder / "model.pt", folder / "net.h5", "--json")
    assert exported.code == 0, exported.err
    return trained, exported
