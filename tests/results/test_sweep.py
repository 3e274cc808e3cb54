"""Rows of a sweep, checked by hand."""

from dataclasses import replace

import pytest

from esl_lava.results.sweep import Outcome, Sweep, SweepRow
from esl_lava.values import as_values

OUTCOMES = [
    Outcome(
        0.9, 0.8, 100, 0.5, 0.4, exploration=0.6, sops_per_sample=10.0, weights=60, most_sops=30
    ),
    Outcome(
        0.8, None, 100, 0.5, 0.4, exploration=0.8, sops_per_sample=20.0, weights=60, most_sops=40
    ),
]


def test_a_row_is_over_its_seeds() -> None:
    row = SweepRow.of({"eps": 10.0}, [3, 4], OUTCOMES)
    assert (row.seeds, row.accuracies, row.validation) == ((3, 4), (0.9, 0.8), (0.8, None))
    assert (row.connections, row.weights) == (100, 60)
    assert (row.density, row.sparse_density) == (0.5, 0.4)
    assert row.exploration == pytest.approx(0.7)
    assert (row.sops, row.most_sops) == (15.0, 40)
    assert (
        list(as_values(row))
        == (
            "settings seeds accuracy accuracy_spread accuracies validation_accuracy "
            "validation_accuracies connections weights density sparse_density exploration "
            "sops_per_sample most_sops"
        ).split()
    )


def test_connections_are_a_rounded_mean() -> None:
    counts = (100, 101, 103)
    outcomes = [replace(OUTCOMES[0], connections=count) for count in counts]
    assert SweepRow.of({}, [1, 2, 3], outcomes).connections == 101


def test_the_largest_sops_ignore_runs_without_a_count() -> None:
    uncounted = Outcome(0.9, 0.8, 100, 0.5, 0.4, exploration=0.6, sops_per_sample=10.0)
    assert SweepRow.of({}, [1], [uncounted]).most_sops is None
    assert SweepRow.of({}, [1, 2], [uncounted, OUTCOMES[0]]).most_sops == 30


def test_a_sweep_without_a_table_of_the_paper_has_no_keys_for_it() -> None:
    row = SweepRow.of({"eps": 10.0}, [3, 4], OUTCOMES)
    values = as_values(Sweep("fig2", "seed = 1", [row], []))
    assert values == {
        "figure": "fig2",
        "config": "seed = 1",
        "rows": [as_values(row)],
        "failed": [],
    }
