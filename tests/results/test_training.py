"""The epochs of a training are stored, read and compared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.errors import DataError
from esl_lava.results.training import Epoch, kept_epoch, read_history
from esl_lava.values import as_values
from tests.faults import refused

STORED: dict[str, Any] = {
    "epoch": 3,
    "loss": 0.5,
    "validation_accuracy": None,
    "density": 0.2,
    "densities": {"hidden1": 0.1, "readout": 1.0},
    "exploration": 0.3,
    "silent": {"hidden1": 2},
    "saturated": {"hidden1": 1},
    "rates": {"hidden1": 0.25},
    "beyond_range": {"hidden1": 0.0, "readout": 0.25},
}


def history(accuracies: list[float | None], densities: list[float] | None = None) -> list[Epoch]:
    return [
        Epoch(number, 1.0, accuracy, density, {}, 0.1)
        for number, (accuracy, density) in enumerate(
            zip(accuracies, densities or [0.1] * len(accuracies)), 1
        )
    ]


def test_a_stored_epoch_is_read_unchanged() -> None:
    (epoch,) = read_history([STORED])
    assert (epoch.epoch, epoch.densities["readout"], epoch.silent) == (3, 1.0, {"hidden1": 2})
    assert list(as_values(epoch).items()) == list(STORED.items())  # in this order, too


def test_older_records_stay_as_they_are() -> None:
    """They lack the counts of weights out of range and of silent or saturated neurons."""
    for unknown in (("saturated", "rates"), ("saturated", "rates", "silent", "beyond_range")):
        older = {k: v for k, v in STORED.items() if k not in unknown}
        (epoch,) = read_history([older])
        assert epoch.saturated is epoch.rates is None
        assert (epoch.silent is None) == ("silent" in unknown)
        assert as_values(epoch) == older


@pytest.mark.parametrize("entry", [{}, {"epoch": 1, "loss": 2.0}])
def test_an_incomplete_epoch_is_refused(entry: dict[str, Any]) -> None:
    with refused(DataError, "damaged", key="history") as caught:
        read_history([STORED, entry])
    assert "epoch 2" in str(caught.value)
    assert "density" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("densities", 5),
        ("densities", {"hidden1": "a"}),
        ("loss", "x"),
        ("validation_accuracy", "0.5"),
        ("exploration", None),
        ("silent", 3),
        ("saturated", {"hidden1": 0.5}),
        ("rates", {"hidden1": "a"}),
        ("density", "q"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(field: str, value: object) -> None:
    with refused(DataError, "damaged", key=f"history.{field}"):
        read_history([STORED, {**STORED, field: value}])


@pytest.mark.slow
@given(st.lists(st.none() | st.floats(0, 1), min_size=1))
def test_the_kept_epoch_is_the_latest_best(accuracies: list[float | None]) -> None:
    kept = kept_epoch(history(accuracies))
    reached = [accuracy or 0.0 for accuracy in accuracies]
    assert reached[kept] == max(reached)
    assert all(later < reached[kept] for later in reached[kept + 1 :])


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.2], 0),
        ([0.1, 0.5, 0.3], 1),
        ([0.5, 0.5, 0.3], 1),  # the latest of equals
        ([0.0, 0.0], 1),
        ([None, None, None], 2),  # no validation split: the last
    ],
)
def test_by_hand(accuracies: list[float | None], kept: int) -> None:
    assert kept_epoch(history(accuracies)) == kept


def test_an_epoch_of_another_density_is_not_kept() -> None:
    assert kept_epoch(history([0.9, 0.95, 0.4, 0.6, 0.5], [1, 1, 0.1, 0.1, 0.1])) == 3


def test_during_the_dense_phase_the_best_epoch_is_kept() -> None:
    assert kept_epoch(history([0.9, 0.95, 0.94], [1, 1, 1])) == 1
