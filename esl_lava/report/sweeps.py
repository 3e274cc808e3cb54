"""The rows of a sweep, one for each setting over all its seeds, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.text import Text

from esl_lava.report.tables import number_table
from esl_lava.results.sweep import SweepRow


def preferred(rows: Sequence[SweepRow]) -> list[str]:
    """What validation prefers at each density, in sentences.

    Args:
        rows: with the setting "density". Where a density has a single row, or a row without
            validation, nothing is said of it.
    """
    sentences = []
    for density in dict.fromkeys(row.settings["density"] for row in rows):
        group = [row for row in rows if row.settings["density"] == density]
        reached = [row.validation_accuracy for row in group]
        if len(group) < 2 or None in reached:
            continue
        best = [
            f"{', '.join(f'{k} {v}' for k, v in row.settings.items() if k != 'density')} "
            f"({_hundredths(row.accuracy)} % on the test split)"
            for row, value in zip(group, reached)
            if value == max(known for known in reached if known is not None)
        ]
        sentences.append(f"at density {density:g} validation prefers {' and '.join(best)}")
    return sentences


def sweep_table(rows: Sequence[SweepRow], title: str) -> RenderableType:
    """A line for each setting: means over its seeds, +- the sample standard deviation.

    "sparse" is the density of the sparse layers, as it came out.
    """
    columns: dict[str, Callable[[SweepRow], str]] = {
        name: partial(_setting, name) for name in rows[0].settings if name != "density"
    }
    columns |= {
        "sparse %": lambda row: _hundredths(row.sparse_density),
        "test %": lambda row: _hundredths(row.accuracy),
        "+-": lambda row: _hundredths(row.spread),
        "valid. %": lambda row: _hundredths(row.validation_accuracy),
        "R_s %": lambda row: _hundredths(row.exploration),
        "connections": lambda row: f"{row.connections:,}",
        "SOPs": lambda row: f"{row.sops:,.0f}",
    }
    table = number_table("", *columns)
    table.padding = (0, 1, 0, 0)  # eight columns in the hundred of a file
    for row in rows:
        table.add_row(*(show(row) for show in columns.values()))
    return Group(Text(title), table)  # as a table's own, it would be broken at its width


def _hundredths(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _setting(name: str, row: SweepRow) -> str:
    value = row.settings[name]
    return value if isinstance(value, str) else f"{value:g}"
