"""The directory of a run: its files, and checks before writing to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from esl_lava.errors import Code, FileError
from esl_lava.files import check_output, is_unfinished, open_regular
from esl_lava.results.training import MaskUpdate

UPDATES_LIMIT = 1 << 28
"""An `updates.json` may have at most this many bytes."""

_UPDATES = TypeAdapter(list[MaskUpdate])


@dataclass(frozen=True)
class _File:
    """A descriptor that gives the path of a file in a run directory."""

    name: str

    def __get__(self, run: RunDirectory, owner: type[RunDirectory]) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDirectory:
    """The paths of the files in a run directory."""

    path: Path

    config = _File("config.toml")
    """The experiment as TOML."""
    model = _File("model.pt")
    """The trained model."""
    checkpoint = _File("checkpoint.pt")
    """The latest saved state of an unfinished training."""
    updates = _File("updates.json")
    """All updates of the masks, as JSON."""
    net = _File("net.h5")
    """The exported network."""
    page = _File("report.html")
    """The report on the run, as HTML."""
    report = _File("report.json")
    """The content of the report, as JSON."""
    outcome = _File("outcome.json")
    """The results of the run in a sweep, as JSON."""
    training_plot = _File("training.png")
    """A plot of accuracy and density over the epochs."""
    raster_plot = _File("raster.png")
    """A plot of the spikes of one sample in all layers."""


def create(path: Path) -> RunDirectory:
    """Create a run directory; it may exist if it is empty or holds only unfinished files.

    Raises:
        FileError: if the path holds other files, or cannot be created.
    """
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{path}: cannot create the directory: {error.strerror}", "unwritable", file=path
        ) from None
    return RunDirectory(path)


def check_free(path: Path) -> None:
    """Check that a run directory can be created at a path: it may hold only unfinished files.

    Raises:
        FileError: if the path holds other files, or cannot be read.
    """
    try:
        free = not path.exists() or (path.is_dir() and all(map(is_unfinished, path.iterdir())))
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}", "unwritable", file=path) from None
    if not free:
        raise FileError(
            f"{path}: already exists and is not empty; choose another directory or remove it",
            "exists",
            file=path,
        )


def next_free(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, ... that does not exist."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], numbered) if not candidate.exists())


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Refuse an existing output file unless the user asked to replace it.

    Raises:
        FileError: if `path` exists and `overwrite` is false, exists and is no regular file, or
            lies in no directory.
    """
    try:
        check_output(path)
        # A symbolic link counts even if the file that it names does not exist.
        if not overwrite and os.path.lexists(path):
            raise FileError(
                f"{path}: already exists; use --overwrite to replace it", "exists", file=path
            )
        if not path.parent.is_dir():
            raise FileError(
                f"{path.parent}: the directory does not exist", "not-found", file=path.parent
            )
    except OSError as error:  # the name is too long, or a directory may not be searched
        raise FileError(f"{path}: {error.strerror}", "unwritable", file=path) from None


def read_updates(path: Path) -> list[MaskUpdate]:
    """Read the updates of the masks from an `updates.json`.

    Raises:
        FileError: if the file cannot be read or is not a list of updates.
    """
    try:
        with open_regular(path) as file:
            content = file.read(UPDATES_LIMIT + 1)
    except OSError as error:
        code: Code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FileError(f"{path}: cannot be read: {error.strerror}", code, file=path) from None
    if len(content) > UPDATES_LIMIT:
        raise FileError(
            f"{path}: the file exceeds the limit of {UPDATES_LIMIT} bytes",
            "too-large",
            limit=UPDATES_LIMIT,
            file=path,
        )
    try:
        return _UPDATES.validate_json(content)
    except (ValidationError, MemoryError):
        raise FileError(f"{path}: is not a list of mask updates", "damaged", file=path) from None
