"""`esl --version`, `esl doctor` and `esl data`, as a user calls them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from esl_lava.data.catalogue import NAMES

pytestmark = pytest.mark.slow


def test_version_names_the_stack(program) -> None:
    done = program("esl", "--version")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:2] == [f"esl-lava {version('esl-lava')}", f"Python {platform.python_version()}"]
    assert f"numpy {version('numpy')}" in lines
    assert any(line.startswith("lava-dl ") for line in lines)


def test_doctor_in_words_and_as_json(program) -> None:
    done = program("esl", "doctor", "--json")
    assert done.code == 0, done.err
    states = {check["subject"]: check["state"] for check in done.json["checks"]}
    assert states["Python"] == "ok"
    assert done.json["version"] == version("esl-lava")
    words = program("esl", "doctor")
    assert words.code == 0
    assert "nothing is broken" in words.out


def test_doctor_fails_where_something_is_broken(program, monkeypatch) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", "/no/such/folder")
    done = program("esl", "doctor")
    assert done.code == 1
    assert "/no/such/folder is not a folder" in done.out


def test_data_lists_every_set(invoke, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ESL_LAVA_DATA", str(tmp_path))
    (tmp_path / "cifar100").mkdir()
    done = invoke("data", "--json")
    assert list(done.json) == list(NAMES)
    assert done.json["cifar100"]["place"] == str(tmp_path / "cifar100")
    assert done.json["shd"]["available"] is False
    words = invoke("data")
    assert str(tmp_path) in words.out
    assert all(name in words.out for name in NAMES)


def test_completion_completes_commands_and_options() -> None:
    script = Path(sys.executable).parent / "esl"

    def complete(words: str) -> str:
        environment = {
            **os.environ,
            "_ESL_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        done = subprocess.run([script], env=environment, capture_output=True, text=True)
        return done.stdout

    assert "train" in complete("esl tr").split()
    assert "--preset" in complete("esl train --pr").split()
