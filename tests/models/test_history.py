from typing import Any

import pytest

from esl_lava.models.history import kept_epoch


def history(accuracies: list[float | None], densities: list[float] | None = None) -> list[Any]:
    return [
        {"validation_accuracy": accuracy, "density": density}
        for accuracy, density in zip(accuracies, densities or [0.1] * len(accuracies))
    ]


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.2], 0),
        ([0.1, 0.5, 0.3], 1),
        ([0.5, 0.5, 0.3], 1),  # the latest of equals
        ([0.0, 0.0], 1),
        ([None, None, None], 2),  # nothing held back: the last
    ],
)
def test_by_hand(accuracies: list[float | None], kept: int) -> None:
    assert kept_epoch(history(accuracies)) == kept


def test_a_dense_epoch_is_no_candidate() -> None:
    assert kept_epoch(history([0.9, 0.95, 0.4, 0.6, 0.5], [1, 1, 0.1, 0.1, 0.1])) == 3


def test_in_the_dense_phase_the_best_of_it() -> None:
    assert kept_epoch(history([0.9, 0.95, 0.94], [1, 1, 1])) == 1
