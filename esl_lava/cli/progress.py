"""How far work has come, on standard error: a live line on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from esl_lava.cli.output import is_quiet, tell

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from esl_lava.results.sweep import RunState
    from esl_lava.training.trainer import TrainingProgress

SAMPLES_DELAY = 1.0
"""Seconds; nothing is shown of samples that are done within them."""

SWEEP_RATE = 1
"""How often in a second the table of a sweep is drawn anew."""

FRAME_ROWS = 7
"""Rows of a terminal that such a table needs beside those of the runs."""


@contextlib.contextmanager
def show_training() -> Iterator[Callable[[TrainingProgress], None]]:
    """Show a training's progress: live, or a line for each epoch."""
    with contextlib.closing(_Display()) as display:

        def show(now: TrainingProgress) -> None:
            words = [
                f"epoch {now.epoch}/{now.epochs}",
                f"step {now.iteration}/{now.iterations}",
                f"loss {now.loss:.4f}",
            ]
            if now.validation_accuracy is not None:
                words.append(f"validation {now.validation_accuracy:.2%}")
            words.append(f"density {now.density:.2%}")
            line, before = "  ".join(words), now.iteration - 1
            display.show(line, now.iteration, now.iterations, now.epochs, before, now.batch)

        yield show


@contextlib.contextmanager
def show_samples(what: str = "samples") -> Iterator[Callable[[str, int, int], None]]:
    """Show how many samples are done: live, or a line for each tenth without a terminal.

    What is given is a function of what runs (or no name), the samples that are done, and how
    many there are.

    Args:
        what: is counted.
    """
    with contextlib.ExitStack() as stack:
        displays: dict[str, _Display] = {}

        def show(name: str, done: int, samples: int) -> None:
            if name not in displays:
                displays[name] = stack.enter_context(contextlib.closing(_Display(SAMPLES_DELAY)))
            line = f"{name}: " if name else ""
            parts = 10 if done < samples else 0  # the end needs no line
            displays[name].show(f"{line}{done}/{samples} {what}", done, samples, parts)

        yield show


@contextlib.contextmanager
def show_sweep(directory: Path) -> Iterator[bool]:
    """Show where each run of a sweep stands, in a live table; gives whether there is one.

    Without a terminal there is none, and whoever does the runs says lines.

    Args:
        directory: of the sweep that goes on within this.
    """
    console = _terminal()
    if console is None:
        yield False
        return
    from rich.live import Live
    from rich.text import Text

    from esl_lava.experiments.states import is_going, read_states, settled
    from esl_lava.report.tables import run_states

    seen: list[RunState] = []  # of this sweep, not of an earlier one
    most = max(1, console.height - FRAME_ROWS)

    def table() -> RenderableType:
        nonlocal seen
        if is_going(directory):
            states = read_states(directory)
            if is_going(directory):  # still, so that no state was missing
                seen = states
        return run_states(seen, time.time(), most=most) if seen else Text("")

    with Live(console=console, refresh_per_second=SWEEP_RATE, get_renderable=table):
        try:
            yield True
        finally:
            if seen:
                now = time.time()
                ended = zip(seen, read_states(directory), strict=True)
                seen = [settled(last, left, now) for last, left in ended]


class _Display:
    """One piece of work, shown while it goes on.

    Args:
        delay: seconds in which nothing is shown.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self._start = time.monotonic()
        self._before: int | None = None  # what was done when this was made
        self._told = 0
        self._live = _live_line()
        self._ended = False

    def show(
        self, line: str, done: int, total: int, parts: int, before: int = 0, samples: int = 0
    ) -> None:
        """Say where the work stands.

        Args:
            line: in words.
            done, total: of it.
            parts: where no terminal is, a line is told after each of so many equal parts.
            before: what somebody else had done before the first call.
            samples: of a unit of the work; where there are any, their rate is told.
        """
        elapsed = time.monotonic() - self._start
        if self._before is None:
            self._before, self._told = before, before * parts // total
        if is_quiet() or self._ended or elapsed < self._delay or not done:
            return
        if samples and elapsed:
            line += f"  {(done - self._before) * samples / elapsed:,.0f} samples/s"
        if self._live is not None:
            if not self._live.task_ids:
                self._live.add_task("", total=total, completed=self._before)
                self._live.start()
            self._live.update(self._live.task_ids[0], completed=done, description=line)
            if done == total:
                self.close()
        elif done * parts // total > self._told:
            self._told = done * parts // total
            left = elapsed / (done - self._before) * (total - done)
            tell(f"     {line}  {left:.0f} s left")

    def close(self) -> None:
        """Leave the last state on the terminal."""
        self._ended = True
        if self._live is not None:
            self._live.stop()


def _live_line() -> Progress | None:
    """A line that is drawn anew; None where standard error is no terminal that can."""
    console = _terminal()
    if console is None:
        return None
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    return Progress(BarColumn(20), words, TimeRemainingColumn(), console=console)


def _terminal() -> Console | None:
    """Standard error, where it is a terminal on which lines can be drawn anew."""
    if is_quiet() or not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return None if console.is_dumb_terminal else console
