"""Tests of the commands with the user's own samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava import modelfile, netfile
from esl_lava.config import from_toml, read_toml
from esl_lava.data.datasets import load
from esl_lava.data.own import OwnData
from esl_lava.experiments.report import ReportTerms, find
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.experiments.train import train
from esl_lava.models.stored import load_model
from esl_lava.training.trainer import Trainer
from tests.cli.refusals import refused
from tests.conftest import TINY, Outcome, TinyRun, run_program

pytestmark = pytest.mark.slow

Command = Callable[..., Any]

MODULE = """\
import torch
from torch.utils.data import Dataset

from esl_lava.data.datasets import load


class Digits(Dataset):
    def __init__(self, split):
        self.known = load("digits", split)

    def __len__(self):
        return len(self.known)

    def __getitem__(self, place):
        pixels = torch.from_numpy(self.known.images[place].reshape(1, 8, 8))
        return pixels / 255, int(self.known.labels[place])


def digits(split):
    return Digits(split)


def broken(split):
    raise RuntimeError(f"no {split} today")
"""

CONVOLUTIONAL = """\
seed = 5

[data]
name = "own"

[encoding]
kind = "frames"
steps = 3
bits = 2

[model]
kind = "convolutional"
layers = "4C3-AP2-4C3"

[sparsity]
density = 0.5

[training]
epochs = 2
batch_size = 50
learning_rate = 0.01
shift = 1
flip = true
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a module, and folders of digits: `pictures` of images, and `frames`."""
    place = tmp_path_factory.mktemp("mine")
    (place / "mine.py").write_text(MODULE)
    (place / "tiny.toml").write_text(TINY)
    (place / "conv.toml").write_text(CONVOLUTIONAL)
    for name in ("pictures", "frames"):
        (place / name).mkdir()
    for split in ("train", "test"):
        digits = load("digits", split)
        pictures = digits.images.reshape(-1, 8, 8)
        np.savez(place / "pictures" / split, samples=pictures, labels=digits.labels)
        frames = (pictures[:200, None, None] // 64).repeat(3, axis=1).astype(np.int16)
        np.save(place / "frames" / f"{split}_samples.npy", frames)
        np.save(place / "frames" / f"{split}_labels.npy", digits.labels[:200].astype(np.uint8))
    return place


@pytest.fixture(scope="module")
def by_module(mine: Path) -> tuple[Path, Outcome]:
    """Train and export the tiny run on samples of a function."""
    run = mine / "by_module"
    given = ("--config", mine / "tiny.toml", "--data-module", f"{mine}/mine.py:digits")
    trained = run_program("esl", "train", *given, "-o", run, "--json")
    assert trained.code == 0, trained.err
    exported = run_program("esl", "export", run / "model.pt", run / "net.h5")
    assert exported.code == 0, exported.err
    return run, trained


def weights(run: Path) -> dict[str, Any]:
    return {
        name: array.tolist() for name, array in modelfile.read(run / "model.pt").weights.items()
    }


def test_a_folder_of_pictures_trains_as_the_data_set_itself(
    mine: Path, tiny: TinyRun, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = ("--config", mine / "tiny.toml", "--data-folder", mine / "pictures")
    trained = run_program("esl", "train", *given, "-o", run, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["dataset"] == "own (pictures)"
    assert trained.json["accuracy"] == tiny.trained.json["accuracy"]
    assert weights(run) == weights(tiny.path)
    data = read_toml(run / "config.toml").data
    assert (data.name, data.folder) == ("own", str(mine / "pictures"))
    # The run records the folder, so the commands find the samples.
    assert run_program("esl", "export", run / "model.pt", run / "net.h5").code == 0
    ran = run_program("esl", "run", run / "net.h5", "--json")
    assert (ran.json["samples"], ran.json["accuracy"]) == (357, trained.json["accuracy"])
    assert ran.err == ""


def test_a_folder_named_in_a_configuration(
    mine: Path, invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "own.toml"
    config.write_text(TINY + '[data]\nname = "own"\nfolder = "pictures"\n')
    monkeypatch.chdir(mine)
    done = invoke("train", "--config", config, "--epochs", 1, "-o", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.json["dataset"] == "own (pictures)"
    assert read_toml(tmp_path / "run" / "config.toml").data.folder == str(mine / "pictures")


def test_a_function_gives_the_same_samples(by_module: tuple[Path, Outcome], tiny: TinyRun) -> None:
    run, trained = by_module
    assert trained.json["dataset"] == "own (mine.py)"
    assert trained.json["accuracy"] == tiny.trained.json["accuracy"]
    assert weights(run) == weights(tiny.path)


def test_no_file_names_a_module(by_module: tuple[Path, Outcome], mine: Path) -> None:
    run, _ = by_module
    data = read_toml(run / "config.toml").data
    assert (data.name, data.folder) == ("own", None)
    assert load_model(run / "model.pt")[1].data == data
    assert from_toml(netfile.read(run / "net.h5").provenance["config"]).data == data
    for path in run.iterdir():
        if path.is_file():
            assert b"mine.py" not in path.read_bytes(), path


@pytest.mark.parametrize(
    "command",
    [
        "run {run}/net.h5",
        "verify {run}/model.pt {run}/net.h5 --backend exact",
        "energy {run}/net.h5 --samples 9 --training {run}/model.pt",
        "map {run}/net.h5",
        "report {run} -o {new}.html",
    ],
)
def test_commands_take_the_module_again_and_say_so(
    by_module: tuple[Path, Outcome],
    mine: Path,
    invoke: Command,
    tmp_path: Path,
    command: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    args = command.format(run=by_module[0], new=tmp_path / "page").split()
    lacking = invoke(*args)
    parts = ("data.name", "own", "--data-folder", "--data-module")
    refused(lacking, "missing", *parts, alone=False)
    assert list(tmp_path.iterdir()) == []
    done = invoke(*args, "--data-module", f"{mine}/mine.py:digits", "--json")
    assert done.code == 0, done.err
    assert not caplog.records
    assert done.json
    done = invoke(*args, "--data-folder", mine / "pictures", "--json", *overwriting(command))
    assert done.code == 0, done.err


def overwriting(command: str) -> list[str]:
    return ["--overwrite"] if command.startswith("report") else []


def test_it_is_the_users_samples_that_run(
    by_module: tuple[Path, Outcome],
    mine: Path,
    tmp_path: Path,
    invoke: Command,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, trained = by_module
    given = ("--data-module", f"{mine}/mine.py:digits")
    ran = invoke("run", run / "net.h5", *given, "--json").json
    assert (ran["samples"], ran["accuracy"]) == (357, trained.json["accuracy"])
    verified = invoke("verify", run / "model.pt", run / "net.h5", *given, "--json").json
    assert verified["differences"] == 0
    assert verified["spikes_compared"] > 0
    assert not caplog.records
    few = tmp_path / "few"
    few.mkdir()
    digits = load("digits", "test").take(7)
    for split in ("train", "test"):
        np.savez(few / split, samples=digits.images.reshape(-1, 1, 8, 8), labels=digits.labels)
    done = invoke("run", run / "net.h5", "--data-folder", few, "--json")
    assert done.json["samples"] == 7
    (record,) = caplog.records
    assert "own (few)" in record.getMessage()


def test_a_network_of_another_data_set_runs_on_own_samples(
    tiny: TinyRun, mine: Path, invoke: Command
) -> None:
    ran = invoke("run", tiny.net, "--data-folder", mine / "pictures", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["accuracy"] == tiny.trained.json["accuracy"]
    framed = ("--data-folder", mine / "frames", "--encoder", "frames", "--steps", 3)
    refused(invoke("run", tiny.net, *framed), "range", "own (frames)", "3", "0..1")


def test_resumed_to_the_same_bits(
    by_module: tuple[Path, Outcome], mine: Path, tmp_path: Path, invoke: Command
) -> None:
    """The training resumes from a checkpoint, as after a power failure."""
    finished, _ = by_module
    saved, experiment = load_model(finished / "model.pt")
    checkpoints: list[Any] = []
    digits = load("digits", "train")
    Trainer(experiment, digits).run(save=checkpoints.append)
    run = tmp_path / "run"
    run.mkdir()
    modelfile.write(replace(checkpoints[1], data=saved.data), run / "checkpoint.pt")
    lacking = invoke("train", "--resume", run)
    refused(lacking, "missing", "--data-folder", "--data-module")
    other = invoke("train", "--resume", run, "--data-folder", mine / "frames")
    refused(other, "conflict", "own (frames)", "encoding.kind")
    fewer = tmp_path / "fewer.py"
    fewer.write_text(MODULE.replace("return len(self.known)", "return 300"))
    other = invoke("train", "--resume", run, "--data-module", f"{fewer}:digits")
    refused(other, "mismatch", "checkpoint.pt", alone=False)
    done = invoke("train", "--resume", run, "--data-module", f"{mine}/mine.py:digits", "--json")
    assert done.code == 0, done.err
    assert weights(run) == weights(finished)


def test_frames_in_a_convolutional_network(mine: Path, tmp_path: Path, invoke: Command) -> None:
    """Frames are mapped into memory, shifted, mirrored, used for validation and run on Lava."""
    run = tmp_path / "run"
    given = ("--config", mine / "conv.toml", "--data-folder", mine / "frames")
    trained = invoke("train", *given, "-o", run, "--json")
    assert trained.code == 0, trained.err
    assert (trained.json["dataset"], trained.json["samples"]) == ("own (frames)", 200)
    net = run / "net.h5"
    assert invoke("export", run / "model.pt", net).code == 0
    assert netfile.read(net).input_range == (0, 3)
    verified = invoke("verify", run / "model.pt", net, "--samples", 2, "--json").json
    assert (verified["differences"], verified["spikes_compared"] > 0) == (0, True)
    ran = invoke("run", net, "--json").json
    assert (ran["samples"], ran["accuracy"]) == (200, trained.json["accuracy"])
    for command in (("map", net), ("energy", net, "--training", run / "model.pt"), ("report", run)):
        done = invoke(*command)
        assert done.code == 0, done.err
    assert "own (frames)" in (run / "report.html").read_text()
    # The folder was moved.
    moved = tmp_path / "moved"
    shutil.copytree(mine / "frames", moved)
    config = (run / "config.toml").read_text().replace(str(mine / "frames"), str(tmp_path / "gone"))
    (tmp_path / "gone.toml").write_text(config)
    gone = invoke("train", "--config", tmp_path / "gone.toml", "-o", tmp_path / "again")
    refused(gone, "not-found", tmp_path / "gone")
    assert not (tmp_path / "again").exists()
    again = ("--config", tmp_path / "gone.toml", "--data-folder", moved, "-o", tmp_path / "again")
    assert invoke("train", *again).code == 0
    assert weights(tmp_path / "again") == weights(run)


def test_baselines_of_a_folder(mine: Path, tmp_path: Path, invoke: Command) -> None:
    given = ("baselines", "--config", mine / "tiny.toml", "--epochs", 1, "--seeds", 1, "--jobs", 1)
    out = ("-o", tmp_path / "out", "--methods", "static,small-dense")
    done = invoke(*given, *out, "--data-folder", mine / "pictures", "--json")
    assert done.code == 0, done.err
    assert [row["settings"]["method"] for row in done.json["rows"]] == ["static", "small-dense"]
    again = invoke(*given, *out, "--data-folder", mine / "pictures", "--json")
    assert "2 of 2" in again.err
    shutil.copytree(mine / "pictures", tmp_path / "copy")
    other = invoke(*given, *out, "--data-folder", tmp_path / "copy")
    refused(other, "mismatch", "data.folder", alone=False)
    module = invoke(*given, *out, "--data-module", f"{mine}/mine.py:digits")
    refused(module, "unsupported", "--data-module", "--data-folder")


@pytest.mark.parametrize(
    ("args", "code", "parts"),
    [
        ("--data-folder {mine}/none", "not-found", ["{mine}/none"]),
        ("--data-folder {mine}", "not-found", ["{mine}", "train_samples.npy", "train.npz"]),
        ("--data-folder {mine}/frames", "conflict", ["own (frames)", "encoding.kind", "frames"]),
        (
            "--data-folder {mine}/pictures --set encoding.kind=frames",
            *("conflict", ["own (pictures)", "encoding.kind"]),
        ),
        (
            "--data-module {mine}/mine.py:broken",
            *("failed", ["{mine}/mine.py", "24", "RuntimeError", "no train today"]),
        ),
        ("--data-module {mine}/none.py:load", "not-found", ["{mine}/none.py"]),
        (
            "--data-module {mine}/mine.py",
            *("type", ["--data-module", "{mine}/mine.py", "FILE.py:FUNCTION"]),
        ),
        (
            "--data-module {mine}/mine.py:a --data-folder {mine}",
            *("conflict", ["--data-folder", "--data-module"]),
        ),
        ("--set data.name=own", "missing", ["data.name", "own", "--data-folder"]),
        ("--set data.folder=x", "conflict", ["data.folder", "x", "data.name", "digits"]),
        ("--set data.module=mine.py:load", "unknown", ["data.module"]),
    ],
)
def test_what_is_wrong_is_one_sentence(
    mine: Path, tmp_path: Path, invoke: Command, args: str, code: str, parts: list[str]
) -> None:
    given = args.format(mine=mine).split()
    done = invoke("train", "--config", mine / "tiny.toml", *given, "-o", tmp_path / "run")
    refused(done, code, *(part.format(mine=mine) for part in parts))
    assert done.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "code", "parts"),
    [
        (
            "run {net} --data mnist --data-folder {mine}/pictures",
            *("conflict", ["--data", "mnist"]),
        ),
        (
            "verify {model} {net} --data mnist --data-folder {mine}/pictures",
            *("conflict", ["--data", "mnist"]),
        ),
        (
            "map {net} --no-spikes --data-folder {mine}/pictures",
            *("conflict", ["--data-folder", "--no-spikes"]),
        ),
        ("export {model} {new} --data-folder {mine}/pictures", "conflict", ["own (pictures)"]),
        ("report {run} -o {new} --data-folder {mine}/pictures", "conflict", ["own (pictures)"]),
        ("train --resume {run} --data-folder {mine}/pictures", "exists", ["{run}/model.pt"]),
    ],
)
def test_what_does_not_go_together(
    tiny: TinyRun,
    mine: Path,
    tmp_path: Path,
    invoke: Command,
    command: str,
    code: str,
    parts: list[str],
) -> None:
    places = {"net": tiny.net, "model": tiny.model, "run": tiny.path, "new": tmp_path / "new"}
    done = invoke(*command.format(mine=mine, **places).split())
    refused(done, code, *(part.format(**places) for part in parts), alone=False)
    assert list(tmp_path.iterdir()) == []


def test_from_python(tmp_path: Path) -> None:
    """Objects of the protocol need no file of the user."""
    few = {split: load("digits", split).take(100) for split in ("train", "test")}
    experiment = from_toml(TINY.replace("epochs = 4", "epochs = 1") + '[data]\nname = "own"\n')
    own = OwnData("few digits", few.__getitem__)
    trained = train(experiment, tmp_path / "run", lambda progress: None, own)
    assert (trained.samples, trained.dataset) == (100, "digits")  # as they call themselves
    told: list[str] = []
    found = find(RunDirectory(tmp_path / "run"), ReportTerms(own=own), told.append)
    assert found.evaluation.accuracy == trained.accuracy
