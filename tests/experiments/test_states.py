"""Where the runs of a sweep stand, read from files."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.errors import FileError
from esl_lava.experiments.states import going_on, is_going, read_states, settled, write_state
from esl_lava.results.sweep import Outcome, RunState
from esl_lava.values import as_values

OUTCOME = Outcome(0.75, None, 10, 0.5, 0.4, 0.6, 123.0)
NAMES = ["b_seed-1", "a_seed-1", "c_seed-1"]


def finish(directory: Path, name: str) -> None:
    (directory / name).mkdir(exist_ok=True)
    (directory / name / "outcome.json").write_text(json.dumps(as_values(OUTCOME)))


def test_states_of_a_sweep_from_its_begin_to_its_end(tmp_path: Path) -> None:
    finish(tmp_path, "a_seed-1")
    waiting = [RunState(name, "waiting") for name in NAMES]
    before = RunState("a_seed-1", "done before", accuracy=0.75)
    with going_on(tmp_path, NAMES) as marker:
        assert marker.exists()
        assert is_going(tmp_path)
        assert read_states(tmp_path) == [waiting[0], before, waiting[2]]
        running = RunState("b_seed-1", "running", "here", 5.0, epoch=2, epochs=9, loss=0.25)
        write_state(tmp_path, running)
        failed = RunState("c_seed-1", "failed", "there", 5.0, 7.5, reason="it is so")
        write_state(tmp_path, failed)
        assert read_states(tmp_path) == [running, before, failed]
        finish(tmp_path, "b_seed-1")  # a moment before its state says so
        assert read_states(tmp_path) == [running, before, failed]
        done = replace(running, stage="done", accuracy=0.75, ended=9.0)
        write_state(tmp_path, done)
        assert read_states(tmp_path) == [done, before, failed]
    assert not marker.exists()
    assert not is_going(tmp_path)
    assert read_states(tmp_path) == [
        RunState("b_seed-1", "done", accuracy=0.75),
        RunState("a_seed-1", "done", accuracy=0.75),
        failed,
    ]
    with going_on(tmp_path, NAMES[2:]):  # what failed is tried again
        assert read_states(tmp_path) == waiting[2:]
    left = ["a_seed-1", "b_seed-1", "cells.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize("error", [KeyboardInterrupt, FileError])
def test_what_an_interrupted_sweep_leaves(tmp_path: Path, error: type[BaseException]) -> None:

    def interrupted() -> None:
        with going_on(tmp_path, NAMES):
            write_state(tmp_path, RunState("b_seed-1", "running"))
            raise error

    with pytest.raises(error):
        interrupted()
    assert not is_going(tmp_path)
    assert read_states(tmp_path) == [RunState(name, "waiting") for name in NAMES]
    assert [path.name for path in tmp_path.iterdir()] == ["cells.json"]


def test_a_sweep_that_was_killed_does_not_go_on(tmp_path: Path) -> None:
    """This machine knows of its own processes; of another machine's it is believed."""
    made = os.fork()
    if made == 0:
        with going_on(tmp_path, NAMES):
            write_state(tmp_path, RunState("b_seed-1", "running"))
            os._exit(0)
    os.waitpid(made, 0)
    marker = tmp_path / ".states" / f"{socket.gethostname()}-{made}.sweep"
    assert marker.exists()
    other = marker.with_name(f"another-machine-{made}.sweep")
    other.touch()
    assert is_going(tmp_path)
    assert not marker.exists()
    assert read_states(tmp_path)[0].stage == "running"
    other.unlink()
    assert read_states(tmp_path)[0].stage == "waiting"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "b_seed-1"}'])
def test_a_damaged_state_says_nothing(tmp_path: Path, content: str) -> None:
    with going_on(tmp_path, NAMES):
        (tmp_path / ".states" / "b_seed-1.json").write_text(content)
        assert read_states(tmp_path)[0] == RunState("b_seed-1", "waiting")


def test_a_state_that_cannot_be_written_is_not_missed(tmp_path: Path) -> None:
    write_state(tmp_path / "nowhere", RunState("b_seed-1", "running"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cells\.json: cannot be read \(No such file or directory\): a sweep writes it"),
        ("{}", r"cells\.json: is not a list of runs"),
        ("[1]", r"cells\.json: is not a list of runs"),
    ],
)
def test_a_directory_without_a_sweep(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "cells.json").write_text(content)
    with pytest.raises(FileError, match=said):
        read_states(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".states").touch()
    with pytest.raises(FileError, match=r"\.states: cannot be written"), going_on(tmp_path, NAMES):
        pass


RUNNING = RunState("a", "running", "here", 5.0, epoch=2, epochs=9, loss=0.25)


@pytest.mark.parametrize(
    ("last", "left", "expected"),
    [
        (
            RUNNING,
            RunState("a", "done", accuracy=0.5),
            replace(RUNNING, stage="done", accuracy=0.5, ended=9.0),
        ),
        (RUNNING, RunState("a", "waiting"), replace(RUNNING, stage="waiting", ended=9.0)),
        (RunState("a", "waiting"), RunState("a", "waiting"), RunState("a", "waiting")),
        (  # begun and ended since
            RunState("a", "waiting"),
            RunState("a", "done", accuracy=0.5),
            RunState("a", "done", accuracy=0.5),
        ),
        (
            RunState("a", "done before", accuracy=0.5),
            RunState("a", "done", accuracy=0.5),
            RunState("a", "done before", accuracy=0.5),
        ),
        (
            replace(RUNNING, stage="done", accuracy=0.5, ended=7.0),
            RunState("a", "done", accuracy=0.5),
            replace(RUNNING, stage="done", accuracy=0.5, ended=7.0),
        ),
    ],
)
def test_what_is_known_of_a_run_is_kept_at_the_end(
    last: RunState, left: RunState, expected: RunState
) -> None:
    assert settled(last, left, 9.0) == expected


@given(st.builds(RunState, name=st.just("b_seed-1"), stage=st.sampled_from(["running", "done"])))
def test_states_come_back_as_they_were(tmp_path_factory: Any, state: RunState) -> None:
    folder = tmp_path_factory.mktemp("states")
    with going_on(folder, NAMES):
        write_state(folder, state)
        assert read_states(folder)[0] == state
