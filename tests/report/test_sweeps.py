import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from esl_lava.report import canvas
from esl_lava.report.paper import render_table2
from esl_lava.report.sweep_tables import list_preferred, render_rows
from esl_lava.report.sweeps import (
    draw_by_density,
    draw_by_eps,
    draw_by_rules,
    draw_methods,
    draw_table1,
    draw_table2,
)
from esl_lava.results.sweep import Sweep, SweepRow
from esl_lava.results.table2 import PUBLISHED, TrainedRow
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
    console.print(render_rows(rows, "a sweep"))
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
    assert list_preferred(rows) == [
        "at density 0.1 validation prefers growth random (90.00 % on the test split)",
        "at density 0.01 validation prefers growth random (80.00 % on the test split) "
        "and growth gradient (81.00 % on the test split)",
    ]


def test_a_setting_and_a_measured_figure_of_one_name_are_two() -> None:
    plain = as_values(RULES[0])
    assert plain["settings"] == dict(RULES[0].settings)
    assert plain["density"] == 0.1622


TRAINED = [
    TrainedRow("small", "cifar10", "8C3-AP2", 2, 5, density, 1234, sum(each) / 2, 0.007, each, loss)
    for density, each, loss in ((1.0, (0.8, 0.81), None), (0.1, (0.78, 0.79), 0.02))
]


def test_table_2_and_its_picture_print_one_loss() -> None:
    """The mean loss of these seeds is half-way between two hundredths."""
    dense, sparse = (0.7573, 0.7541), (0.7086, 0.7139)
    loss = sum(a - b for a, b in zip(dense, sparse)) / 2
    rows = [
        dataclasses.replace(TRAINED[0], accuracies=dense, accuracy=sum(dense) / 2),
        dataclasses.replace(TRAINED[1], accuracies=sparse, accuracy=sum(sparse) / 2, loss=loss),
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(render_table2(rows, (), ""))
    assert isinstance(console.file, io.StringIO)
    assert " 4.44 " in console.file.getvalue()
    picture = draw_table2(Sweep("table2", None, [], [], published=(), trained=rows))
    assert [text.get_text() for text in picture.axes[0].texts] == ["-4.44 at a density of 0.1"]


def test_table2_says_every_figure() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_table2(TRAINED, PUBLISHED, "Table 2"))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert "small 8C3-AP2 2 5 1 1,234 80.50 0.70".split() in lines
    assert "small 8C3-AP2 2 5 0.1 1,234 78.50 0.70 2.00".split() in lines
    assert "DVS-CIFAR10 VGGSNN ESL-SNNs 0.1 78.30 0.28".split() in lines
    for one in PUBLISHED:  # a loss is that of the row above it
        if one.method == "ESL-SNNs":
            whole = PUBLISHED[PUBLISHED.index(one) - 1]
            assert (whole.method, whole.density, whole.dataset) == ("TET", 1.0, one.dataset)
            assert one.loss == pytest.approx(whole.accuracy - one.accuracy, abs=1e-12)  # of floats


@pytest.mark.slow
def test_sweeps_that_tell_more_than_rows_are_drawn(tmp_path: Path) -> None:
    rules = {"growth": "random_unfired", "redistribution": "none"}
    rows = [row({"density": d, **rules}, 0.75, 0.5) for d in (1.0, 0.3)]
    densities = [{"conv1": 1.0, "conv2": 0.1 * n} for n in range(4)]
    fig3 = Sweep("fig3", "", rows, [], densities=densities)
    both = Sweep("table2", None, [], [], published=PUBLISHED, trained=TRAINED)
    drawn = {
        "fig3": draw_by_density(fig3),
        "fig3_failed": draw_by_density(dataclasses.replace(fig3, densities=None)),
        "table2": draw_table2(both),
        "table2_dense_failed": draw_table2(dataclasses.replace(both, trained=TRAINED[1:])),
    }
    for name, picture in drawn.items():
        canvas.save_png(picture, tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in drawn}) == 4
    left, right = drawn["fig3"].axes
    assert left.lines[0].get_xydata().tolist() == [[0.3, 62.5], [1.0, 62.5]]
    assert [line.get_ydata()[-1] for line in right.lines] == [100.0, pytest.approx(30)]
    names = [label.get_text() for label in drawn["table2"].axes[0].get_yticklabels()]
    assert names == ["small", *(f"the paper's {name}" for name in PAPERS)]


PAPERS = ("CIFAR-10", "CIFAR-100", "DVS-CIFAR10")

DRAWN: list[tuple[Callable[[Sequence[SweepRow]], Figure], list[SweepRow]]] = [
    (draw_by_eps, [row({"eps": eps}, 0.97, 0.98) for eps in (90.0, 10.0, 50.0)]),
    (draw_by_eps, [row({"eps": 5.0}, 0.97)]),
    (draw_by_rules, RULES),
    (draw_by_rules, RULES[:1]),
    (
        draw_by_rules,
        [row({"density": 1.0, "prune": "none", "growth": "none"}, 0.97, 0.98), *RULES[:4]],
    ),
    (draw_by_rules, [row({"density": 1.0, "prune": "none", "growth": "none"}, 0.97, 0.98)]),
    (draw_methods, [row({"method": m}, 0.97, 0.98) for m in ("esl", "static", "dense")]),
    (draw_methods, [row({"method": "esl"}, 0.97)]),
    (draw_table1, [row({"method": m}, 0.97, 0.98) for m in ("dense", "esl")]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "rows"), DRAWN)
def test_the_same_rows_give_the_same_png(
    draw: Callable[[Sequence[SweepRow]], Figure], rows: list[SweepRow], tmp_path: Path
) -> None:
    better = [dataclasses.replace(r, accuracies=(0.5,), seeds=(1,)) for r in rows[-1:]]
    for name, drawn in (("a", rows), ("b", rows), ("c", [*rows[:-1], *better])):
        canvas.save_png(draw(drawn), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a").read_bytes()
