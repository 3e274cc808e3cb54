"""The rows of a sweep, one for each setting over all its seeds: as a table and as plain values."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from esl_lava.report.tables import number_table


@dataclass(frozen=True)
class Row:
    """What one setting reached.

    Attributes:
        settings: what was varied, name -> value.
        seeds: of its runs; the tuples below are in their order.
        accuracies: of the exported integer networks on the test split, 0..1.
        validation: accuracy of the kept epochs on what was held back, or None.
        connections: between two neurons of the whole network. The seeds share them, and
        density, sparse_density: weights over positions, of the whole network; of the sparse
            layers alone.
        exploration: R_s, mean over the seeds.
        sops: per sample, mean over the seeds.
        most_sops: of any sample of any seed, where it was counted.
    """

    settings: Mapping[str, str | float]
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    validation: tuple[float | None, ...]
    connections: int
    density: float
    sparse_density: float
    exploration: float
    sops: float
    most_sops: int | None = None

    @property
    def accuracy(self) -> float:
        """Mean test accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the test accuracy; None of a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def validation_accuracy(self) -> float | None:
        """Mean validation accuracy; None where a run held nothing back."""
        known = [value for value in self.validation if value is not None]
        return statistics.fmean(known) if len(known) == len(self.validation) else None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "settings": dict(self.settings),
            "seeds": list(self.seeds),
            "accuracy": self.accuracy,
            "accuracy_spread": self.spread,
            "accuracies": list(self.accuracies),
            "validation_accuracy": self.validation_accuracy,
            "validation_accuracies": list(self.validation),
            "connections": self.connections,
            "density": self.density,
            "sparse_density": self.sparse_density,
            "exploration": self.exploration,
            "sops_per_sample": self.sops,
            "most_sops": self.most_sops,
        }


def preferred(rows: Sequence[Row]) -> list[str]:
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


def sweep_table(rows: Sequence[Row], title: str) -> RenderableType:
    """A line for each setting: means over its seeds, +- the sample standard deviation.

    "sparse" is the density of the sparse layers, as it came out.
    """
    columns: dict[str, Callable[[Row], str]] = {
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


def _setting(name: str, row: Row) -> str:
    value = row.settings[name]
    return value if isinstance(value, str) else f"{value:g}"
