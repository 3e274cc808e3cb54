"""Where the runs of a sweep stand, through small files that everybody who sees them can read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from esl_lava.errors import FileError
from esl_lava.experiments.rundir import RunDirectory
from esl_lava.files import replace_json
from esl_lava.results.sweep import Outcome, RunState
from esl_lava.values import as_values

CELLS = "cells.json"
"""Names the runs of the sweep that was begun last in a directory."""

STATES = ".states"
"""Holds a file for each run that a sweep has begun, and one for each sweep that goes on."""

_CELLS = TypeAdapter(list[str])
_STATE = TypeAdapter(RunState)
_OUTCOME = TypeAdapter(Outcome)
_GOING = ".sweep"


def write_state(directory: Path, state: RunState) -> None:
    """Say where a run stands, within `going_on`; the run goes on where that cannot be written."""
    with contextlib.suppress(FileError):
        replace_json(_place(directory, state.name), as_values(state))


def read_states(directory: Path) -> list[RunState]:
    """Where each run of the sweep that was begun last in a directory stands, in its order.

    Raises:
        FileError: when no sweep was begun there, or its list cannot be read.
    """
    path = directory / CELLS
    try:
        names = _CELLS.validate_json(path.read_bytes())
    except OSError as error:
        raise FileError(
            f"{path}: cannot be read ({error.strerror}): a sweep writes it as it begins"
        ) from None
    except ValidationError:
        raise FileError(f"{path}: is not a list of runs, as a sweep writes it") from None
    going = is_going(directory)
    return [_state(directory, name, going) for name in names]


def is_going(directory: Path) -> bool:
    """Whether a sweep goes on in a directory; of another machine's it may have been killed."""
    return bool(_going(directory))


def _state(directory: Path, name: str, going: bool) -> RunState:
    """Where a run stands; what is half written or damaged says nothing."""
    told = None
    with contextlib.suppress(OSError, ValidationError):
        told = _STATE.validate_json(_place(directory, name).read_bytes())
    if going and told is not None:
        return told
    with contextlib.suppress(OSError, ValidationError):
        outcome = _OUTCOME.validate_json(RunDirectory(directory / name).outcome.read_bytes())
        return RunState(name, "done before" if going else "done", accuracy=outcome.accuracy)
    return told if told is not None and told.stage == "failed" else RunState(name, "waiting")


def settled(last: RunState, left: RunState, now: float) -> RunState:
    """Where a run stands when its sweep has ended.

    Args:
        last: what was read while it went on.
        left: what is read afterwards, which does not say how long it took.
        now: seconds since 1970.
    """
    if last.stage != "running":
        return left if last.stage == "waiting" else last
    return replace(last, stage=left.stage, accuracy=left.accuracy, reason=left.reason, ended=now)


@contextlib.contextmanager
def going_on(directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """Within it a sweep goes on in a directory; gives a file that is there as long.

    Args:
        directory: of the sweep; it is there.
        names: of all its runs.

    Raises:
        FileError: when nothing can be written there.
    """
    replace_json(directory / CELLS, list(names))
    states = directory / STATES
    marker = states / f"{socket.gethostname()}-{os.getpid()}{_GOING}"
    try:
        states.mkdir(exist_ok=True)
        _going(directory)
        for name in names:
            _place(directory, name).unlink(missing_ok=True)
        marker.touch()  # last: where it is, all the rest is this sweep's
    except OSError as error:
        raise FileError(f"{states}: cannot be written: {error.strerror}") from None
    try:
        yield marker
    finally:
        with contextlib.suppress(OSError):
            marker.unlink()  # first: as long as it is there, so is every state
            for name in names:
                if _state(directory, name, going=True).stage != "failed":
                    _place(directory, name).unlink(missing_ok=True)
            states.rmdir()  # only where nothing failed


def _going(directory: Path) -> list[Path]:
    """Files of sweeps that go on; those that this machine knows to have ended are removed."""
    here, found = socket.gethostname(), []
    for path in (directory / STATES).glob(f"*{_GOING}"):
        host, _, process = path.stem.rpartition("-")
        if host == here and not _runs(int(process)):
            path.unlink(missing_ok=True)
        else:
            found.append(path)
    return found


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _place(directory: Path, name: str) -> Path:
    return directory / STATES / f"{name}.json"
