"""How much commands say: `--quiet`, `--verbose`; and `esl train --dry-run`."""

from __future__ import annotations

import pytest
import typer

from esl_lava.cli import app


def all_commands():
    """(words, command) of every command."""
    root = typer.main.get_command(app.app)
    for name, command in root.commands.items():
        for inner, subcommand in getattr(command, "commands", {"": command}).items():
            yield f"{name} {inner}".strip(), subcommand


@pytest.mark.parametrize(("words", "command"), list(all_commands()), ids=lambda x: str(x)[:20])
def test_every_command_takes_both_options(words: str, command) -> None:
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= options
    assert command.help
    helps = [parameter.help for parameter in command.params if not parameter.hidden]
    assert all(helps), words


TRAIN = ("train", "--preset", "digits", "--epochs", 2, "--set", "training.batch_size=500")


@pytest.mark.slow
def test_quiet_prints_results_only(program, tmp_path) -> None:
    loud = program("esl", *TRAIN, "-o", tmp_path / "a")
    assert loud.code == 0
    assert "epoch 1/2" in loud.err
    quiet = program("esl", *TRAIN, "-o", tmp_path / "b", "--quiet")
    assert quiet.code == 0
    assert "epoch" not in quiet.err
    assert "test accuracy" in quiet.out
    assert (tmp_path / "a/model.pt").read_bytes() == (tmp_path / "b/model.pt").read_bytes()


def test_quiet_does_not_hide_errors(invoke) -> None:
    done = invoke("run", "no.h5", "-q")
    assert done.code == 2
    assert done.err.startswith("error: no.h5")


def test_quiet_and_verbose_exclude_each_other(invoke) -> None:
    done = invoke("devices", "-q", "-v")
    assert done.code == 2
    assert "--quiet and --verbose" in done.err


@pytest.mark.slow
def test_a_choice_does_not_outlive_its_command(invoke) -> None:
    invoke("devices", "-q")
    done = invoke("devices", "no_such_device")
    assert done.code == 2
    from esl_lava.cli.output import is_quiet

    assert not is_quiet()


@pytest.mark.slow
def test_a_dry_run_writes_nothing(program, tmp_path) -> None:
    done = program("esl", *TRAIN, "--dry-run", "--json", "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert not (tmp_path / "run").exists()
    assert done.json["layers"][0]["name"] == "hidden1"
    assert done.json["seconds"] > 0
    words = program("esl", *TRAIN, "--dry-run")
    assert "no run was written" in words.out
    assert "estimated training time" in words.out


def test_a_dry_run_refuses_what_the_training_would(invoke, tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    done = invoke(*TRAIN, "--dry-run", "-o", tmp_path / "full")
    assert done.code == 2
    assert str(tmp_path / "full") in done.err
    done = invoke("train", "--resume", tmp_path, "--dry-run")
    assert done.code == 2
    assert "--dry-run" in done.err
