import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.mapping.regions import Grid, Region, maps, partitions, splits
from esl_lava.network import Convolution, Cuba
from tests.graphs import a_layer


def test_splits_and_their_order() -> None:
    assert splits(10, 3) == ((0, 3), (3, 6), (6, 10))
    assert maps((5,)) == (5, 1, 1)
    conv = Convolution(np.ones((4, 1, 1, 1), np.int32), (1, 4, 2))
    layer = a_layer("conv", conv, Cuba(0, 0, 1))
    shapes = [
        [region.shape for region in found] for found in map(Grid.regions, partitions(layer, 2, 32))
    ]
    assert shapes[0] == [(4, 4, 1)] * 2
    assert shapes[1] == [(4, 2, 2)] * 2
    assert shapes[2] == [(2, 4, 2)] * 2
    assert all(max(np.prod(s) for s in some) <= 6 for some in map(list, shapes[-1:]))
    assert next(partitions(layer, 1, 6)).largest <= 6


@pytest.mark.parametrize("shape", [(6,), (2, 3, 1)])
def test_members_are_places_in_the_layer(shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        assert Region((2, 5)).members(shape).tolist() == [2, 3, 4]
    else:
        assert Region((1, 2), (1, 3), (0, 1)).members(shape).tolist() == [4, 5]


@pytest.mark.slow
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 12), st.integers(1, 20))
def test_no_region_lies_in_two_parts(parts: int, each: int, least: int, largest: int) -> None:
    """A border between two parts of the channels is also a border between regions."""
    conv = Convolution(np.ones((parts * each, 1, 1, 1), np.int32), (1, 2, 3))
    layer = a_layer("conv", conv, Cuba(0, 0, 1))
    for grid in partitions(layer, least, largest, parts):
        assert len(grid) >= least
        assert grid.largest <= largest
        for region in grid.regions():
            first, last = region.channels
            assert first // each == (last - 1) // each
