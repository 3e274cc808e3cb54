"""The directory of a run: what lies in it, and when it may be written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from esl_lava.errors import FileError
from esl_lava.files import is_unfinished
from esl_lava.results.training import MaskUpdate

UPDATES_LIMIT = 1 << 28
"""Most bytes of an updates.json that is read."""

_UPDATES = TypeAdapter(list[MaskUpdate])


@dataclass(frozen=True)
class _File:
    """A file in a run's directory, by its name there."""

    name: str

    def __get__(self, run: RunDirectory, owner: type[RunDirectory]) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run's directory."""

    path: Path

    config = _File("config.toml")
    """The experiment as TOML."""
    model = _File("model.pt")
    """The trained model."""
    checkpoint = _File("checkpoint.pt")
    """The training's latest saved state, while it is not finished."""
    updates = _File("updates.json")
    """What every update of the masks did, as JSON."""
    net = _File("net.h5")
    """The exported network."""
    page = _File("report.html")
    """The report on the run."""
    report = _File("report.json")
    """Everything the report says, as JSON."""
    outcome = _File("outcome.json")
    """What a sweep says of the run, as JSON."""
    training_plot = _File("training.png")
    """Accuracy and density over training."""
    raster_plot = _File("raster.png")
    """One sample's spikes, and what the network made of them."""


def create(path: Path) -> RunDirectory:
    """A new directory, or one that exists and holds nothing but unfinished files.

    Raises:
        FileError: when something is there already, or it cannot be made.
    """
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be made: {error.strerror}") from None
    return RunDirectory(path)


def check_free(path: Path) -> None:
    """Refuse a directory that holds something else than unfinished files.

    Raises:
        FileError: when something is there already, or it cannot be read.
    """
    try:
        free = not path.exists() or (path.is_dir() and all(map(is_unfinished, path.iterdir())))
    except OSError as error:
        raise FileError(f"{path}: cannot be made: {error.strerror}") from None
    if not free:
        raise FileError(f"{path}: already holds something; choose another directory or remove it")


def next_free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(place for place in chain([path], numbered) if not place.exists())


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Refuse an existing output file unless the user asked to replace it.

    Raises:
        FileError: when `path` exists and `overwrite` is false, or is no file's place.
    """
    try:
        if path.is_dir():
            raise FileError(f"{path}: is a directory")
        if path.exists() and not overwrite:
            raise FileError(f"{path}: exists; use --overwrite to replace it")
        if not path.parent.is_dir():
            raise FileError(f"{path.parent}: no such directory")
    except OSError as error:  # a name too long, a folder that may not be searched
        raise FileError(f"{path}: {error.strerror}") from None


def read_updates(path: Path) -> list[MaskUpdate]:
    """What every update of the masks moved, of an `updates.json`.

    Raises:
        FileError: when it cannot be read, or is no such record.
    """
    try:
        with path.open("rb") as file:
            content = file.read(UPDATES_LIMIT + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > UPDATES_LIMIT:
        raise FileError(f"{path}: larger than the {UPDATES_LIMIT} bytes that are read")
    try:
        return _UPDATES.validate_json(content)
    except (ValidationError, MemoryError):
        raise FileError(f"{path}: is not a record of updates of masks") from None
