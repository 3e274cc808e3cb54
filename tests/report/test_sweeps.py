import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from esl_lava.report import canvas
from esl_lava.report.sweeps import draw_by_eps, draw_by_rules, draw_methods, draw_table1
from esl_lava.report.tables import preferred, sweep_table
from esl_lava.results.sweep import SweepRow
from esl_lava.values import as_values


def row(settings: dict[str, str | float], *accuracies: float) -> SweepRow:
    return SweepRow(
        settings=settings,
        seeds=tuple(range(1, len(accuracies) + 1)),
        accuracies=accuracies,
        validation=tuple(value + 0.01 for value in accuracies),
        connections=95_040,
        density=0.1622,
        sparse_density=0.1515,
        exploration=0.31,
        sops=12_345.6,
    )


RULES = [
    row({"density": density, "prune": prune, "growth": growth}, 0.9 + density / 100)
    for density in (0.01, 0.1, 1.0)
    for prune in ("set", "magnitude", "global_magnitude")
    for growth in ("random", "random_unfired")
]


def text_of(rows: Sequence[SweepRow], width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(sweep_table(rows, "a sweep"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_mean_and_sample_deviation_by_hand() -> None:
    seeds = row({"eps": 60.0}, 0.97, 0.98, 0.99)
    assert seeds.accuracy == pytest.approx(0.98, abs=1e-15)  # of a sum of three floats
    assert seeds.spread == pytest.approx(0.01, abs=1e-15)
    assert seeds.validation_accuracy == pytest.approx(0.99, abs=1e-15)
    assert row({"eps": 60.0}, 0.97).spread is None


def test_no_validation_where_one_run_has_none() -> None:
    seeds = dataclasses.replace(row({"eps": 1.0}, 0.9, 0.8), validation=(0.9, None))
    assert seeds.validation_accuracy is None
    assert "97" not in "".join(text_of([seeds])[4:])


def test_the_table_says_every_figure() -> None:
    lines = text_of([row({"eps": 60.0}, 0.97, 0.98)])
    assert lines[0].strip() == "a sweep"
    assert re.split(r"\s{2,}", lines[2].strip()) == (
        "eps,sparse %,test %,+-,valid. %,R_s %,connections,SOPs".split(",")
    )
    assert lines[4].split() == "60 15.15 97.50 0.71 98.50 31.00 95,040 12,346".split()


def test_the_widest_rules_fit_a_hundred_columns() -> None:
    lines = text_of(RULES)
    assert len(lines) == 4 + len(RULES) + 1  # none folded
    assert any("global_magnitude" in line and "random_unfired" in line for line in lines)


def test_validation_chooses_at_each_density_not_the_test_split() -> None:
    rows = [
        dataclasses.replace(row({"density": d, "growth": g}, test), validation=(held_back,))
        for d, g, test, held_back in [
            (0.1, "random", 0.90, 0.95),
            (0.1, "gradient", 0.99, 0.94),
            (0.01, "random", 0.80, 0.85),
            (0.01, "gradient", 0.81, 0.85),
            (0.5, "random", 0.80, None),
            (0.5, "gradient", 0.80, 0.9),
            (0.9, "random", 0.80, 0.9),
        ]
    ]
    assert preferred(rows) == [
        "at density 0.1 validation prefers growth random (90.00 % on the test split)",
        "at density 0.01 validation prefers growth random (80.00 % on the test split) "
        "and growth gradient (81.00 % on the test split)",
    ]


def test_a_setting_and_a_measured_figure_of_one_name_are_two() -> None:
    plain = as_values(RULES[0])
    assert plain["settings"] == dict(RULES[0].settings)
    assert plain["density"] == 0.1622


DRAWN: list[tuple[Callable[[Sequence[SweepRow]], Figure], list[SweepRow]]] = [
    (draw_by_eps, [row({"eps": eps}, 0.97, 0.98) for eps in (90.0, 10.0, 50.0)]),
    (draw_by_eps, [row({"eps": 5.0}, 0.97)]),
    (draw_by_rules, RULES),
    (draw_by_rules, RULES[:1]),
    (draw_methods, [row({"method": m}, 0.97, 0.98) for m in ("esl", "static", "dense")]),
    (draw_methods, [row({"method": "esl"}, 0.97)]),
    (draw_table1, [row({"method": m}, 0.97, 0.98) for m in ("dense", "esl")]),
]


@pytest.mark.parametrize(("draw", "rows"), DRAWN)
def test_the_same_rows_give_the_same_png(
    draw: Callable[[Sequence[SweepRow]], Figure], rows: list[SweepRow], tmp_path: Path
) -> None:
    better = [dataclasses.replace(r, accuracies=(0.5,), seeds=(1,)) for r in rows[-1:]]
    for name, drawn in (("a", rows), ("b", rows), ("c", [*rows[:-1], *better])):
        canvas.save_png(draw(drawn), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a").read_bytes()
