"""Progress of work on standard error.

A terminal shows a line that changes; elsewhere a line is printed from time to time.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from esl_lava.cli.output import PrintableTable, is_quiet, tell
from esl_lava.printable import make_printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from esl_lava.results.sweep import RunState
    from esl_lava.training.trainer import TrainingProgress

SAMPLES_DELAY = 1.0
"""Seconds before the progress of samples is shown; shorter work shows no progress."""

SWEEP_RATE = 1
"""Updates per second of the table of a sweep."""

FRAME_ROWS = 7
"""Terminal rows that the table of a sweep needs beside the rows of its runs."""


@contextlib.contextmanager
def show_training() -> Iterator[Callable[[TrainingProgress], None]]:
    """Show the progress of a training: a changing line, or a line for each epoch."""
    with contextlib.closing(_Display()) as display:

        def show(now: TrainingProgress) -> None:
            parts = [
                f"epoch {now.epoch}/{now.epochs}",
                f"step {now.iteration}/{now.iterations}",
                f"loss {now.loss:.4f}",
            ]
            if now.validation_accuracy is not None:
                parts.append(f"validation {now.validation_accuracy:.2%}")
            parts.append(f"density {now.density:.2%}")
            line, before = "  ".join(parts), now.iteration - 1
            display.show(line, now.iteration, now.iterations, now.epochs, before, now.batch)

        yield show


@contextlib.contextmanager
def show_samples(unit: str = "samples") -> Iterator[Callable[[str, int, int], None]]:
    """Show how many samples are done: a changing line, or a line for each tenth of them.

    The context gives a function to call with the name of the work (or an empty text), the number
    of samples that are done, and the number of all samples.

    Args:
        unit: what is counted, as the display names it.
    """
    with contextlib.ExitStack() as stack:
        displays: dict[str, _Display] = {}

        def show(name: str, done: int, samples: int) -> None:
            if name not in displays:
                displays[name] = stack.enter_context(contextlib.closing(_Display(SAMPLES_DELAY)))
            line = f"{name}: " if name else ""
            parts = 10 if done < samples else 0  # the result follows the last sample
            displays[name].show(f"{line}{done}/{samples} {unit}", done, samples, parts)

        yield show


@contextlib.contextmanager
def show_sweep(directory: Path) -> Iterator[bool]:
    """Show the state of each run of a sweep in a table that changes.

    The context gives True if the table is shown. Without a terminal there is no table, and the
    caller prints lines.

    Args:
        directory: directory of the sweep that runs within the context.
    """
    console = _terminal()
    if console is None:
        yield False
        return
    from rich.live import Live
    from rich.text import Text

    from esl_lava.experiments.states import final_state, is_running, read_states
    from esl_lava.report.sweep_tables import render_states

    current: list[RunState] = []  # states of this sweep, not of an earlier one
    most = max(1, console.height - FRAME_ROWS)

    def table() -> RenderableType:
        nonlocal current
        if is_running(directory):
            states = read_states(directory)
            if is_running(directory):  # the sweep did not end meanwhile, so no state is missing
                current = states
        if not current:
            return Text("")
        return PrintableTable(render_states(current, time.time(), most=most))

    with Live(console=console, refresh_per_second=SWEEP_RATE, get_renderable=table):
        try:
            yield True
        finally:
            if current:
                now = time.time()
                pairs = zip(current, read_states(directory), strict=True)
                current = [final_state(last, final, now) for last, final in pairs]


class _Display:
    """The progress of one piece of work.

    Args:
        delay: seconds before the progress is shown.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self._start = time.monotonic()
        self._before: int | None = None  # amount of work done before the first call
        self._parts_shown = 0
        self._live = _live_line()
        self._ended = False

    def show(
        self, line: str, done: int, total: int, parts: int, before: int = 0, samples: int = 0
    ) -> None:
        """Show the progress.

        Args:
            line: the progress in words.
            done, total: amount of work that is done, and the whole amount.
            parts: without a terminal, a line is printed after each of this many equal parts.
            before: amount of work that was done before the first call.
            samples: number of samples in one unit of work. Their rate is shown if it is not 0.
        """
        elapsed = time.monotonic() - self._start
        if self._before is None:
            self._before, self._parts_shown = before, before * parts // total
        if is_quiet() or self._ended or elapsed < self._delay or not done:
            return
        if samples and elapsed:
            line += f"  {(done - self._before) * samples / elapsed:,.0f} samples/s"
        if self._live is not None:
            if not self._live.task_ids:
                self._live.add_task("", total=total, completed=self._before)
                self._live.start()
            text = make_printable(line)
            self._live.update(self._live.task_ids[0], completed=done, description=text)
            if done == total:
                self.close()
        elif done * parts // total > self._parts_shown:
            self._parts_shown = done * parts // total
            seconds = elapsed / (done - self._before) * (total - done)
            tell(f"     {line}  {seconds:.0f} s left")

    def close(self) -> None:
        """End the display. The last state stays on the terminal."""
        self._ended = True
        if self._live is not None:
            self._live.stop()


def _live_line() -> Progress | None:
    """Return a line that can change, or None if standard error cannot show one."""
    console = _terminal()
    if console is None:
        return None
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    description = TextColumn("{task.description}", markup=False)
    return Progress(BarColumn(20), description, TimeRemainingColumn(), console=console)


def _terminal() -> Console | None:
    """Return standard error as a console, or None if it is no terminal whose lines can change."""
    if is_quiet() or not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return None if console.is_dumb_terminal else console
