"""Shifts of samples, computed by hand."""

import numpy as np

from esl_lava.data.moves import shift


def test_a_single_row_moves_along_itself_alone() -> None:
    """A vertical shift would lose the row."""
    planes = np.zeros((200, 1, 1, 7), np.uint8)
    planes[..., 3] = 5
    found = shift(planes, 2, np.random.default_rng(1))
    assert found.sum(axis=(1, 2, 3)).tolist() == [5] * 200
    assert set(np.argwhere(found)[:, 3].tolist()) == {1, 2, 3, 4, 5}


def test_a_sample_of_rows_moves_both_ways_and_loses_what_leaves() -> None:
    planes = np.zeros((400, 1, 2, 3), np.uint8)
    planes[:, 0, 0, 1] = 1
    found = shift(planes, 1, np.random.default_rng(2))
    places = {tuple(place) for place in np.argwhere(found)[:, 2:].tolist()}
    assert places == {(row, column) for row in (0, 1) for column in (0, 1, 2)}
    assert 0.2 < 1 - found.sum() / 400 < 0.5  # a third moves up, out of the plane
