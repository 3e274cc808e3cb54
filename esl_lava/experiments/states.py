"""The states of the runs of a sweep, in small files that other processes can read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from esl_lava.errors import Code, FileError
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.files import is_process, open_regular, replace_json
from esl_lava.results.sweep import Outcome, RunState, Stage
from esl_lava.values import as_values

CELLS = "cells.json"
"""The file with the names of all runs of the latest sweep in a directory."""

STATES = ".states"
"""The folder with a file for each run that has begun, and one for each sweep that is running."""

_CELLS = TypeAdapter(list[str])
_STATE = TypeAdapter(RunState)
_OUTCOME = TypeAdapter(Outcome)
_MARKER = ".sweep"


def write_state(directory: Path, state: RunState) -> None:
    """Write the state file of a run while `mark_running` is open. A failed write is no error."""
    with contextlib.suppress(FileError):
        replace_json(_state_file(directory, state.name), as_values(state))


def read_states(directory: Path) -> list[RunState]:
    """Read the states of all runs of the latest sweep in a directory, in the order of the sweep.

    Raises:
        FileError: if the directory holds no sweep, or its list of runs cannot be read.
    """
    path = directory / CELLS
    try:
        with open_regular(path) as file:
            names = _CELLS.validate_json(file.read())
    except OSError as error:
        code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FileError(
            f"{path}: cannot be read ({error.strerror}); a sweep writes this file when it begins",
            code,
            file=path,
        ) from None
    except ValidationError:
        raise FileError(
            f"{path}: is not the list of runs of a sweep", "damaged", file=path
        ) from None
    running = is_running(directory)
    return [_state(directory, name, running) for name in names]


def is_running(directory: Path) -> bool:
    """Return whether a sweep is running in a directory.

    A sweep of another machine counts as running even if it was killed.
    """
    return bool(_running_markers(directory))


def _state(directory: Path, name: str, sweep_runs: bool) -> RunState:
    """Return the state of a run. Files that are incomplete or damaged are ignored.

    Args:
        directory: the directory of the sweep.
        name: name of the run.
        sweep_runs: whether the sweep is running.
    """
    state = None
    unreadable = (OSError, ValidationError, FileError)
    with contextlib.suppress(*unreadable), open_regular(_state_file(directory, name)) as file:
        state = _STATE.validate_json(file.read())
    if sweep_runs and state is not None:
        return state
    with contextlib.suppress(*unreadable):
        with open_regular(RunDirectory(directory / name).outcome) as file:
            outcome = _OUTCOME.validate_json(file.read())
        stage: Stage = "done before" if sweep_runs else "done"
        return RunState(name, stage, accuracy=outcome.accuracy)
    return state if state is not None and state.stage == "failed" else RunState(name, "waiting")


def final_state(last: RunState, left: RunState, now: float) -> RunState:
    """Return the final state of a run after its sweep has ended.

    Args:
        last: the state that was read last while the sweep was running.
        left: the state that is read afterwards; it lacks the times.
        now: seconds since 1970.
    """
    if last.stage != "running":
        return left if last.stage == "waiting" else last
    return replace(last, stage=left.stage, accuracy=left.accuracy, reason=left.reason, ended=now)


@contextlib.contextmanager
def mark_running(directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """Mark a sweep as running in a directory while the context is open.

    The context yields a marker file that exists as long as the sweep is running.

    Args:
        directory: the existing directory of the sweep.
        names: names of all runs.

    Raises:
        FileError: if the directory cannot be written.
    """
    replace_json(directory / CELLS, list(names))
    states = directory / STATES
    marker = states / f"{socket.gethostname()}-{os.getpid()}{_MARKER}"
    try:
        states.mkdir(exist_ok=True)
        _running_markers(directory)  # removes those of killed sweeps
        for name in names:
            _state_file(directory, name).unlink(missing_ok=True)
        marker.touch()  # last: if the marker exists, all states belong to this sweep
    except OSError as error:
        raise FileError(
            f"{states}: cannot be written: {error.strerror}", "unwritable", file=states
        ) from None
    try:
        yield marker
    finally:
        with contextlib.suppress(OSError):
            marker.unlink()  # first: as long as the marker exists, so do all states
            for name in names:
                if _state(directory, name, sweep_runs=True).stage != "failed":
                    _state_file(directory, name).unlink(missing_ok=True)
            states.rmdir()  # succeeds only if no run failed


def _running_markers(directory: Path) -> list[Path]:
    """Return the markers of running sweeps; remove those of ended sweeps of this machine."""
    here, markers = socket.gethostname(), []
    for path in (directory / STATES).glob(f"*{_MARKER}"):
        host, _, process = path.stem.rpartition("-")
        if host == here and not is_process(int(process)):
            path.unlink(missing_ok=True)
        else:
            markers.append(path)
    return markers


def _state_file(directory: Path, name: str) -> Path:
    return directory / STATES / f"{name}.json"
