"""`esl train` in several processes, as torchrun starts them."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import distributed, multiprocessing

from esl_lava import config, modelfile
from esl_lava.cli import app, launch
from esl_lava.errors import FileError
from esl_lava.modelfile import SavedModel
from esl_lava.models.restore import restore
from esl_lava.training.trainer import Trainer, TrainingProgress
from tests.cli.refusals import refused
from tests.conftest import Outcome, run_program

pytestmark = pytest.mark.slow

RANKS = 2
OUTPUTS = ["config.toml", "model.pt", "training.png", "updates.json"]
SMALL = ["--preset=digits", "--epochs=2", "--set=model.layers=32", "--set=sparsity.t_iter=20"]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- with torchrun itself ----------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_trains(tmp_path: Path) -> None:
    settings = [*SMALL, "--set=sparsity.growth=gradient", "--json"]
    done = run_program(
        *("torchrun", "--nproc-per-node", RANKS, "--standalone", "--monitor-interval", 0.1),
        *("-m", "esl_lava", "train", "-o", tmp_path / "two", *settings),
    )
    assert done.code == 0, done.err
    assert listing(tmp_path / "two") == OUTPUTS
    assert sum("epoch" in line for line in done.err.splitlines()) == 2  # one rank's progress
    one = run_program("esl", "train", "-o", tmp_path / "one", *settings)
    assert one.code == 0, one.err

    models = [modelfile.read(tmp_path / name / "model.pt") for name in ("one", "two")]
    for model in models:
        restore(model)  # refuses weights outside the masks
    # Both trainings minimise the same loss from the same start, so the numbers of connections
    # are equal and the results are close. Masks and weights differ: gradients are summed in
    # another order, the first steps of Adam are as long for a rounding error as for a gradient,
    # and the weights closest to 0, which are pruned, depend on them.
    assert done.json["connections"] == one.json["connections"]
    assert done.json["density"] == one.json["density"]
    first, second = models
    for name, mask in first.masks.items():
        assert mask.sum() == second.masks[name].sum()
    assert second.history[0]["loss"] == pytest.approx(first.history[0]["loss"], rel=0.05)
    assert done.json["accuracy"] == pytest.approx(one.json["accuracy"], abs=0.1)
    updates = json.loads((tmp_path / "two" / "updates.json").read_text())
    assert [update["iteration"] for update in updates] == [20]
    assert updates[0]["layers"]["hidden1"]["grown"] > 0
    assert updates[0]["layers"]["hidden1"]["silent_neurons"] is not None


# --- with torchrun's environment, rank by rank -------------------------------------------

Prepare = Callable[[int, pytest.MonkeyPatch], None]


def interrupted(rank: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second epoch."""
    real = Trainer.run

    def run(self: Trainer, show: Callable[[TrainingProgress], None], *rest: Any) -> SavedModel:
        def interrupt(progress: TrainingProgress) -> None:
            show(progress)
            if progress.iteration == 5:
                raise KeyboardInterrupt

        return real(self, interrupt, *rest)

    patch.setattr(Trainer, "run", run)


def terminated(rank: int, patch: pytest.MonkeyPatch) -> None:
    """Only rank 1 gets SIGTERM, in the second epoch."""
    real = Trainer.run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def run(self: Trainer, show: Callable[[TrainingProgress], None], *rest: Any) -> SavedModel:
        def terminate(progress: TrainingProgress) -> None:
            show(progress)
            if rank == 1 and progress.iteration == 5:
                os.kill(os.getpid(), signal.SIGTERM)

        return real(self, terminate, *rest)

    patch.setattr(Trainer, "run", run)


def misread(rank: int, patch: pytest.MonkeyPatch) -> None:
    """Only rank 1 cannot read a file, before the ranks communicate."""
    patch.setattr(launch, "FAILURE_WAIT", timedelta(seconds=0.2))
    if rank == 1:
        patch.setattr(config, "read_toml", Mock(side_effect=FileError("only here", "unreadable")))


NEW = ("train", "--config", "small.toml", "-o")
SCENARIOS: dict[str, tuple[tuple[str, ...], Prepare]] = {
    "whole": ((*NEW, "whole", "--json"), lambda rank, patch: None),
    "table": ((*NEW, "table"), lambda rank, patch: None),
    "refused": ((*NEW, "whole"), lambda rank, patch: None),
    "interrupted": ((*NEW, "broken"), interrupted),
    "resumed": (("train", "--resume", "broken", "--json"), lambda rank, patch: None),
    "terminated": ((*NEW, "ended"), terminated),
    "continued": (("train", "--resume", "ended"), lambda rank, patch: None),
    "finished": (("train", "--resume", "whole"), lambda rank, patch: None),
    "unnamed": (("train", "--config", "small.toml"), lambda rank, patch: None),
    "infinite": (
        (*NEW, "infinite", "--set", "model.weight_scale=1e39"),
        lambda rank, patch: None,
    ),
    # This scenario is the last one, because it ends rank 1.
    "misread": ((*NEW, "misread"), misread),
}


def run_rank(rank: int, folder: str, ports: list[int]) -> None:
    """Run all scenarios as one rank, each with a store at its own port, and write the outcomes."""
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ |= {
        **{"WORLD_SIZE": str(RANKS), "RANK": str(rank), "TORCHELASTIC_USE_AGENT_STORE": "True"},
        **{"MASTER_ADDR": "localhost", "TORCHELASTIC_RESTART_COUNT": "0"},
    }
    found = {}
    for port, (name, (arguments, prepare)) in zip(ports, SCENARIOS.items()):
        os.environ["MASTER_PORT"] = str(port)
        out, err, code = io.StringIO(), io.StringIO(), None
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(sys, "argv", ["esl", *arguments])
            prepare(rank, patch)
            try:
                app.main()
            except SystemExit as ended:
                code = ended.code or 0
            except RuntimeError:  # a bug's traceback, or that of a lost peer
                code = "RuntimeError"
        found[name] = [code, out.getvalue(), err.getvalue()]
    Path(f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def outcomes(folder: Path, experiment: config.Experiment) -> list[dict[str, Outcome]]:
    """The outcomes of the scenarios, by rank."""
    short = {"training.epochs": 2, "training.batch_size": 432}  # two epochs of three steps
    (folder / "small.toml").write_text(config.to_toml(config.override(experiment, short)))
    # With torchrun its agent, and not rank 0, holds the store of each attempt.
    stores = [
        distributed.TCPStore(  # type: ignore[attr-defined]
            "localhost", 0, is_master=True, wait_for_workers=False
        )
        for _ in SCENARIOS
    ]
    multiprocessing.spawn(  # type: ignore[attr-defined]
        run_rank, (str(folder), [store.port for store in stores]), nprocs=RANKS
    )
    return [
        {name: Outcome(*left) for name, left in json.loads((folder / file).read_text()).items()}
        for file in ("0.json", "1.json")
    ]


@pytest.mark.slow
def test_only_rank_0_speaks(outcomes: list[dict[str, Outcome]]) -> None:
    for name, left in outcomes[1].items():
        if name != "misread":
            assert (left.out, left.err) == ("", ""), name


@pytest.mark.parametrize(
    ("scenario", "code"),
    [("whole", 0), ("table", 0), ("resumed", 0), ("interrupted", 130)]
    + [("terminated", 143), ("continued", 0)]
    + [(name, 2) for name in ("refused", "finished", "unnamed", "infinite")],
)
def test_all_ranks_end_alike(outcomes: list[dict[str, Outcome]], scenario: str, code: int) -> None:
    assert [found[scenario].code for found in outcomes] == [code, code], outcomes[0][scenario]


def test_what_is_printed_and_left(outcomes: list[dict[str, Outcome]], folder: Path) -> None:
    whole = outcomes[0]["whole"]
    assert whole.json["samples"] == 357
    assert [line.split()[1] for line in whole.err.splitlines()] == ["1/2", "2/2"]
    assert "trained: table/model.pt" in outcomes[0]["table"].out
    for name in ("whole", "table", "broken", "ended"):
        assert listing(folder / name) == OUTPUTS


def test_interrupted_and_resumed_to_the_same_bits(
    outcomes: list[dict[str, Outcome]], folder: Path
) -> None:
    assert outcomes[0]["interrupted"].err.splitlines()[-1] == "interrupted"
    assert "epoch 1/2" in outcomes[0]["interrupted"].err
    assert "epoch 1/2" not in outcomes[0]["resumed"].err
    for name in OUTPUTS:
        assert (folder / "broken" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_sigterm_of_one_rank_saves_a_checkpoint_of_all(
    outcomes: list[dict[str, Outcome]], folder: Path
) -> None:
    assert outcomes[0]["terminated"].err.splitlines()[-1] == "terminated"
    for name in OUTPUTS:
        assert (folder / "ended" / name).read_bytes() == (folder / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("scenario", "code", "parts"),
    [
        ("refused", "exists", ["whole"]),
        ("finished", "exists", ["whole/model.pt"]),
        ("unnamed", "missing", ["--output"]),
        ("infinite", "not-finite", ["212", "hidden2"]),
    ],
)
def test_an_error_is_one_sentence(
    outcomes: list[dict[str, Outcome]], scenario: str, code: str, parts: list[str]
) -> None:
    refused(outcomes[0][scenario], code, *parts, alone=False)
    assert outcomes[0][scenario].out == ""


def test_an_error_of_one_rank_is_told_by_it(outcomes: list[dict[str, Outcome]]) -> None:
    assert outcomes[1]["misread"].code == 2
    assert outcomes[1]["misread"].err == "error: only here [unreadable]\n"
    # The other rank ends too.
    assert outcomes[0]["misread"].code == "RuntimeError"


# --- without -----------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", ["2", "many"])
def test_a_stray_variable_is_a_users_error(
    invoke: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ranks: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", ranks)
    done = invoke("train", *SMALL, "-o", tmp_path / "run")
    refused(done, "conflict", "WORLD_SIZE", ranks, "torchrun")
    assert listing(tmp_path) == []


@pytest.mark.slow
def test_the_package_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "esl_lava", "train", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--resume" in done.stdout
