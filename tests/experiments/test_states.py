"""The states of the runs of a sweep, read from files."""

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
from esl_lava.experiments.states import (
    final_state,
    is_running,
    mark_running,
    read_states,
    write_state,
)
from esl_lava.results.sweep import Outcome, RunState
from esl_lava.values import as_values
from tests.faults import refused

OUTCOME = Outcome(0.75, None, 10, 0.5, 0.4, 0.6, 123.0)
NAMES = ["b_seed-1", "a_seed-1", "c_seed-1"]


def finish(directory: Path, name: str) -> None:
    (directory / name).mkdir(exist_ok=True)
    (directory / name / "outcome.json").write_text(json.dumps(as_values(OUTCOME)))


def test_states_of_a_sweep_from_start_to_end(tmp_path: Path) -> None:
    finish(tmp_path, "a_seed-1")
    waiting = [RunState(name, "waiting") for name in NAMES]
    before = RunState("a_seed-1", "done before", accuracy=0.75)
    with mark_running(tmp_path, NAMES) as marker:
        assert marker.exists()
        assert is_running(tmp_path)
        assert read_states(tmp_path) == [waiting[0], before, waiting[2]]
        running = RunState("b_seed-1", "running", "here", 5.0, epoch=2, epochs=9, loss=0.25)
        write_state(tmp_path, running)
        failed = RunState("c_seed-1", "failed", "there", 5.0, 7.5, reason="it is so")
        write_state(tmp_path, failed)
        assert read_states(tmp_path) == [running, before, failed]
        finish(tmp_path, "b_seed-1")  # its state file follows a moment later
        assert read_states(tmp_path) == [running, before, failed]
        done = replace(running, stage="done", accuracy=0.75, ended=9.0)
        write_state(tmp_path, done)
        assert read_states(tmp_path) == [done, before, failed]
    assert not marker.exists()
    assert not is_running(tmp_path)
    assert read_states(tmp_path) == [
        RunState("b_seed-1", "done", accuracy=0.75),
        RunState("a_seed-1", "done", accuracy=0.75),
        failed,
    ]
    with mark_running(tmp_path, NAMES[2:]):  # a failed run is tried again
        assert read_states(tmp_path) == waiting[2:]
    left = ["a_seed-1", "b_seed-1", "cells.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize("error", [KeyboardInterrupt, FileError])
def test_the_files_of_an_interrupted_sweep(tmp_path: Path, error: type[BaseException]) -> None:

    def interrupted() -> None:
        with mark_running(tmp_path, NAMES):
            write_state(tmp_path, RunState("b_seed-1", "running"))
            raise error("interrupted")

    with pytest.raises(error):
        interrupted()
    assert not is_running(tmp_path)
    assert read_states(tmp_path) == [RunState(name, "waiting") for name in NAMES]
    assert [path.name for path in tmp_path.iterdir()] == ["cells.json"]


def test_a_killed_sweep_is_not_running(tmp_path: Path) -> None:
    """A machine checks its own processes. It cannot check those of another machine."""
    child = os.fork()
    if child == 0:
        with mark_running(tmp_path, NAMES):
            write_state(tmp_path, RunState("b_seed-1", "running"))
            os._exit(0)
    os.waitpid(child, 0)
    marker = tmp_path / ".states" / f"{socket.gethostname()}-{child}.sweep"
    assert marker.exists()
    other = marker.with_name(f"another-machine-{child}.sweep")
    other.touch()
    assert is_running(tmp_path)
    assert not marker.exists()
    assert read_states(tmp_path)[0].stage == "running"
    other.unlink()
    assert read_states(tmp_path)[0].stage == "waiting"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "b_seed-1"}'])
def test_a_damaged_state_is_ignored(tmp_path: Path, content: str) -> None:
    with mark_running(tmp_path, NAMES):
        (tmp_path / ".states" / "b_seed-1.json").write_text(content)
        assert read_states(tmp_path)[0] == RunState("b_seed-1", "waiting")


def test_a_state_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    write_state(tmp_path / "nowhere", RunState("b_seed-1", "running"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "code"), [(None, "not-found"), ("{}", "damaged"), ("[1]", "damaged")]
)
def test_a_directory_without_a_sweep(tmp_path: Path, content: str | None, code: str) -> None:
    path = tmp_path / "cells.json"
    if content is not None:
        path.write_text(content)
    with refused(FileError, code, file=path):
        read_states(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    states = tmp_path / ".states"
    states.touch()
    with refused(FileError, "unwritable", file=states), mark_running(tmp_path, NAMES):
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
        (  # the run began and ended between the two reads
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
def test_the_final_state_keeps_what_is_known(
    last: RunState, left: RunState, expected: RunState
) -> None:
    assert final_state(last, left, 9.0) == expected


@given(st.builds(RunState, name=st.just("b_seed-1"), stage=st.sampled_from(["running", "done"])))
def test_states_are_read_as_written(tmp_path_factory: Any, state: RunState) -> None:
    folder = tmp_path_factory.mktemp("states")
    with mark_running(folder, NAMES):
        write_state(folder, state)
        assert read_states(folder)[0] == state
