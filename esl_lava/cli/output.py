"""Where things go: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from esl_lava.errors import UserError
from esl_lava.files import as_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from esl_lava.training.trainer import Progress

INTERRUPTED = 130
"""The exit code of a command stopped by Ctrl-C, as shells have it; typer returns it."""


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Send what libraries print to standard error while a command works."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def tell(line: str) -> None:
    """A line about what happens, on standard error."""
    print(line, file=sys.stderr, flush=True)


def complain(error: UserError) -> None:
    """What a user did wrong, on standard error: a sentence a line."""
    for line in str(error).splitlines():
        tell(f"error: {line}")


def print_json(values: dict[str, Any]) -> None:
    """Exactly one JSON object on standard output.

    Raises:
        DataError: where a number is not finite: JSON has none, and nothing is printed.
    """
    print(as_json(values), flush=True)


def print_tables(*tables: RenderableType) -> None:
    """Tables on standard output, as wide as the terminal, or 100 columns in a file."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    # What a path or a device file holds is text, not markup.
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    for table in tables:
        console.print(table, crop=False)


class ProgressLine:
    """Shows a training's progress on standard error: live on a terminal, else by epoch."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._start = time.monotonic()
        self._shown = 0.0
        self._before: int | None = None  # steps an earlier, resumed run has done

    def __call__(self, progress: Progress) -> None:
        """Show where the training stands, at most ten times a second."""
        now = time.monotonic()
        if self._before is None:
            self._before = progress.iteration - 1
        last_of_epoch = progress.iteration * progress.epochs % progress.iterations == 0
        if not last_of_epoch and (not self._live or now - self._shown < 0.1):
            return
        self._shown = now
        elapsed = now - self._start
        pace = elapsed / (progress.iteration - self._before)
        remaining = pace * (progress.iterations - progress.iteration)
        line = (
            f"     epoch {progress.epoch}/{progress.epochs}  step {progress.iteration}/"
            f"{progress.iterations}  loss {progress.loss:.4f}  {remaining:.0f} s left"
        )
        if self._live:
            end = "\n" if progress.iteration == progress.iterations else ""
            print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)
        else:
            tell(line)


class SamplesLine:
    """Shows on standard error how many samples are done: live, or every tenth without one.

    Nothing is shown of what is finished within a second.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._start = time.monotonic()
        self._shown = (0, 0)

    def __call__(self, done: int, samples: int, what: str = "") -> None:
        """Show `done` of `samples`, and of what where there are several."""
        elapsed = time.monotonic() - self._start
        shown = (done, int(10 * elapsed)) if self._live else (10 * done // samples, 0)
        finished = done == samples
        if elapsed < 1 or not done or shown == self._shown or (finished and not self._live):
            return
        self._shown = shown
        remaining = elapsed / done * (samples - done)
        line = f"     {what}{done}/{samples} samples  {remaining:.0f} s left"
        if self._live:
            print(f"\r\x1b[K{line}", end="\n" if finished else "", file=sys.stderr, flush=True)
        else:
            tell(line)


def progress_line() -> Callable[[Progress], None]:
    """A fresh `ProgressLine`."""
    return ProgressLine()
