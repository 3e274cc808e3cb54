"""Each file of an attack is refused within a second, with little memory, by one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from esl_lava import netfile
from esl_lava.config import read_toml
from esl_lava.data.arrays import read_array
from esl_lava.data.idx import read_idx
from esl_lava.data.npz import read_member
from esl_lava.devices import load_device
from esl_lava.errors import CODES
from esl_lava.experiments.export import lower_model
from esl_lava.models.stored import load_model
from esl_lava.printable import make_printable
from esl_lava.training.trainer import Trainer
from tests.attacks import (
    arrays,
    checkpoints,
    events,
    models,
    networks,
    places,
    structures,
    tables,
)
from tests.attacks.attack import ATTACKS, SECONDS, Attack, Reading, read_apart
from tests.fuzz import trainings
from tests.fuzz.events import read as read_events

MODULES = (models, checkpoints, networks, structures, arrays, events, tables, places)
"""Modules whose functions are attacks."""


def _resume(path: Path) -> None:
    saved, experiment = load_model(path)
    Trainer(experiment, _samples(), saved)


@cache
def _samples() -> Any:
    return trainings.samples()


READERS: dict[str, Callable[[Path], object]] = {
    "model.pt": lower_model,
    "checkpoint.pt": _resume,
    "net.h5": netfile.read,
    "spikes.npy": lambda path: read_array(path, "spikes"),
    "samples.npz": lambda path: read_member(path, "samples", 1 << 20),
    "images-idx3-ubyte": read_idx,
    "a.aedat": read_events,
    "a.aedat4": read_events,
    "a.bin": read_events,
    "config.toml": read_toml,
    "device.toml": load_device,
}
"""Name of a file -> its reader."""


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Import and compile before the clock runs."""
    experiment = trainings.settings("sparse")
    Trainer(experiment, _samples(), trainings.stopped(experiment, _samples(), 1))


def refusal(attack: Attack, folder: Path) -> Reading:
    """Write the file, read it in a process of its own, and assert that it is refused."""
    path = folder / attack.file
    attack.make(path)
    found = read_apart(READERS[attack.file], path)
    assert found.status == 0, f"the process ended with {found.status}"
    assert "traceback" not in found.fault, found.fault["traceback"]
    assert found.fault, "it was read"
    assert found.fault["code"] in (attack.codes or CODES), found.fault
    for field, value in attack.fields.items():
        assert found.fault.get(field) == value, found.fault
    assert str(path) in found.fault["sentence"] or attack.file == "checkpoint.pt", found.fault
    return found


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused(attack: Attack, tmp_path: Path) -> None:
    found = refusal(attack, tmp_path)
    assert found.seconds < SECONDS, f"{found.seconds:.2f} s"
    assert found.memory < attack.memory, f"{found.memory >> 20} MiB"
    for line in found.fault["sentence"].split("\n"):
        shown = make_printable(line)
        assert shown.isprintable()
        assert len(shown) < 2000


def test_every_attack_has_a_line_that_says_what_it_is() -> None:
    assert len(ATTACKS) >= 60
    assert {attack.file for attack in ATTACKS} == set(READERS)
    lines = [attack.make.__doc__ for attack in ATTACKS]
    assert all(line and "\n" not in line and line.endswith(".") for line in lines)
    assert len(set(lines)) == len(lines)
    assert {attack.make.__module__ for attack in ATTACKS} == {m.__name__ for m in MODULES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "status", "fault"),
    [
        (lambda path: os.abort(), -6, {}),
        (lambda path: len(bytes(1 << 40)), 0, "traceback"),
        (lambda path: path.read_text(), 0, {}),
    ],
)
def test_a_bad_reader_is_noticed(read: Any, status: int, fault: Any, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    found = read_apart(read, tmp_path / "x")
    assert found.status == status
    assert found.fault == fault or list(found.fault) == [fault]
