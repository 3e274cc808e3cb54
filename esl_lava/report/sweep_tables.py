"""Tables of sweeps for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from esl_lava.report.tables import hundredths, percent, render_table
from esl_lava.results.sweep import RunState, Stage, SweepRow


def render_rows(rows: Sequence[SweepRow], title: str) -> RenderableType:
    """Render one line for each setting: means over its seeds, and the standard deviation.

    "+-" is the sample standard deviation of the test accuracy. "sparse" is the actual density of
    the sparse layers.
    """
    varied = [name for name in rows[0].settings if name != "density"]
    measured = ("sparse %", "test %", "+-", "valid. %", "R_s %", "connections", "SOPs")
    cells = (
        (
            *(_setting(row.settings[name]) for name in varied),
            hundredths(row.sparse_density),
            hundredths(row.accuracy),
            hundredths(row.spread),
            hundredths(row.validation_accuracy),
            hundredths(row.exploration),
            f"{row.connections:,}",
            f"{row.sops:,.0f}",
        )
        for row in rows
    )
    table = render_table("", ", ".join([*varied, *measured]), cells, narrow=True)
    return Group(Text(title), table)  # the title of a table is wrapped at its width


def _setting(value: str | float) -> str:
    """Format the value of a setting."""
    return value if isinstance(value, str) else f"{value:g}"


def list_preferred(rows: Sequence[SweepRow]) -> list[str]:
    """List the rules with the best validation accuracy at each density, as sentences.

    Args:
        rows: rows with the setting "density". A density is left out if it has only one row, or
            a row without validation.
    """
    sentences = []
    for density in dict.fromkeys(row.settings["density"] for row in rows):
        group = [row for row in rows if row.settings["density"] == density]
        accuracies = [row.validation_accuracy for row in group]
        if len(group) < 2 or None in accuracies:
            continue
        best = [
            f"{', '.join(f'{k} {v}' for k, v in row.settings.items() if k != 'density')} "
            f"({hundredths(row.accuracy)} % on the test split)"
            for row, value in zip(group, accuracies)
            if value == max(known for known in accuracies if known is not None)
        ]
        sentences.append(f"at density {density:g} validation prefers {' and '.join(best)}")
    return sentences


STAGE_PRIORITY: tuple[Stage, ...] = ("running", "failed", "waiting", "done", "done before")
"""Stages of runs by priority: a table that cannot show all runs shows the first stages."""


def render_states(
    states: Sequence[RunState], now: float, title: str = "", most: int | None = None
) -> RenderableType:
    """Render the number of runs in each stage, and the state of each run of a sweep.

    Args:
        states: states of the runs, in the order of the runs.
        now: current time in seconds since 1970.
        title: text above the table, or "".
        most: largest number of runs that are shown; None shows all.
    """
    counts = Counter(state.stage for state in states)
    stages = ", ".join(f"{counts[stage]} {stage}" for stage in STAGE_PRIORITY if counts[stage])
    places = sorted(range(len(states)), key=lambda n: STAGE_PRIORITY.index(states[n].stage))
    shown = [states[place] for place in sorted(places[:most])]
    cells = (
        (state.name, state.stage, _progress(state), _elapsed(state, now), state.host or "")
        for state in shown
    )
    headings = "run, state, progress, elapsed, machine"
    table = render_table("", headings, cells, slice(3, 4), narrow=True)
    hidden = len(states) - len(shown)
    more = [Text(f"and {hidden} more")] if hidden else []
    head = Text(f"{title}: {stages}" if title else stages, no_wrap=True, overflow="ignore")
    return Group(head, table, *more)


def _progress(state: RunState) -> str:
    """Describe the progress of a run, its accuracy, or the reason for its failure."""
    if state.reason is not None:
        return state.reason
    if state.accuracy is not None:
        return f"{percent(state.accuracy)} on the test split"
    if state.epoch is None:
        return ""
    loss = "" if state.loss is None else f", loss {state.loss:.4f}"
    return f"epoch {state.epoch}/{state.epochs}{loss}"


def _elapsed(state: RunState, now: float) -> str:
    """Format the duration of a run as hours, minutes and seconds, until now or until its end."""
    if state.began is None:
        return ""
    # The clock of another machine may be ahead, so that the difference is negative.
    seconds = max(0, round((now if state.ended is None else state.ended) - state.began))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
