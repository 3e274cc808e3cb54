from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.mapping.packing import Lists
from esl_lava.mapping.regions import (
    Grid,
    Region,
    RegionIndex,
    index_regions,
    maps,
    partitions,
    running_totals,
    splits,
)
from esl_lava.network import Convolution, Cuba, Injection, Matrix
from tests.graphs import a_layer
from tests.simulate.networks import Case, cases


def unrolled(part: Any) -> np.ndarray[Any, Any]:
    if isinstance(part, Injection):
        return np.zeros((part.n_post, part.n_pre), bool)
    return part.unrolled().dense() != 0


@given(cases(), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_regions_share_out_every_synapse_of_any_layer(case: Case, cores: int) -> None:
    for layer in case.network.layers:
        grid = next(partitions(layer, min(cores, layer.neurons), layer.neurons))
        regions = grid.regions()
        assert max(region.neurons for region in regions) == grid.largest
        assert len(regions) >= min(cores, layer.neurons)
        members = np.concatenate([region.members(layer.shape) for region in regions])
        assert sorted(members) == list(range(layer.neurons))
        for part in layer.wiring:
            there, laid_out = unrolled(part), index_regions(part, layer.shape)
            for region in regions:
                mine = there[region.members(layer.shape)]
                assert laid_out.fan_out(region).tolist() == mine.sum(axis=0).tolist()
                check_lists(*laid_out.reach(region), mine, part)
                check_marks(laid_out, region, mine)
            check_kinds(laid_out, regions)
        values = np.arange(layer.neurons)
        sums = [int(values[region.members(layer.shape)].sum()) for region in regions]
        assert grid.sums(running_totals(values, layer.shape)).ravel().tolist() == sums


def check_marks(laid_out: RegionIndex, region: Region, mine: Any) -> None:
    """Inputs with a synapse are counted once more."""
    cores = np.arange(mine.shape[1])
    laid_out.mark(cores, region)
    assert (cores - np.arange(mine.shape[1])).tolist() == mine.any(axis=0).tolist()


def check_kinds(laid_out: RegionIndex, regions: list[Region]) -> None:
    """Regions of a kind have the same lists and axons."""
    known: dict[Any, Any] = {}
    for region in regions:
        lists, axons = laid_out.reach(region)
        found = [column.tolist() for column in vars(lists).values()], axons
        assert known.setdefault(laid_out.kind(region), found) == found


def check_lists(lists: Lists, axons: int, mine: Any, part: Any) -> None:
    """Every list is that of some inputs, and holds their targets."""
    assert (np.diff(lists.owner) >= 0).all()
    assert ((np.diff(lists.target) > 0) | (np.diff(lists.owner) > 0)).all()
    stored = {
        tuple(lists.target[lists.owner == number] - lists.target[lists.owner == number][0])
        for number in range(len(lists.groups))
    }
    if isinstance(part, Matrix):
        assert axons == np.count_nonzero(mine.any(axis=0)) == len(lists.groups)
        needed = {tuple(np.flatnonzero(column)) for column in mine.T if column.any()}
        assert stored == {tuple(t - some[0] for t in some) for some in needed}
    elif isinstance(part, Convolution) and axons:
        assert len(lists.groups) <= np.count_nonzero(mine.any(axis=0))
        places = mine.any(axis=0).reshape(part.in_shape).any(axis=0)
        assert axons <= np.count_nonzero(places) or part.out_shape[1:] == (1, 1)


def test_inputs_inside_share_lists_and_those_at_borders_have_their_own() -> None:
    kernel = np.ones((2, 3, 3, 3), np.int32)
    part = Convolution(kernel, (3, 8, 8), padding=(1, 1))
    laid_out, region = index_regions(part, part.out_shape), Region((0, 2), (0, 8), (0, 8))
    lists, axons = laid_out.reach(region)
    # Three kinds along an axis: first, middle and last inputs; three channels of each.
    assert len(lists.groups) == 3 * 3 * 3
    assert axons == 64
    assert len(lists.owner) == 3 * 2 * (2 + 3 + 2) ** 2
    assert laid_out.fan_out(region).reshape(3, 8, 8)[0, 0].tolist() == [
        8,
        12,
        12,
        12,
        12,
        12,
        12,
        8,
    ]


def test_a_stride_makes_kinds_of_its_own() -> None:
    part = Convolution(np.ones((1, 1, 2, 2), np.int32), (1, 8, 8), stride=(2, 2))
    lists, _ = index_regions(part, part.out_shape).reach(Region((0, 1), (0, 4), (0, 4)))
    assert len(lists.groups) == 4
    assert len(lists.owner) == 4


def test_least_stored_is_what_lists_hold() -> None:
    rng = np.random.default_rng(1)
    kernel = np.where(rng.random((4, 2, 3, 3)) < 0.5, 2, 0)
    part = Convolution(kernel, (2, 7, 9), (2, 1), (1, 0))
    laid_out = index_regions(part, part.out_shape)
    for shares in ((1, 1, 1), (2, 2, 3)):
        grid = Grid(part.out_shape, shares)
        synapses = laid_out.least_stored(grid, every_position=False)
        positions = laid_out.least_stored(grid, every_position=True)
        assert synapses.shape == positions.shape == shares
        for number, region in enumerate(grid.regions()):
            lists, _ = laid_out.reach(region)
            assert synapses.flat[number] == len(lists.owner)
            # Lists without a synapse are not laid out.
            assert positions.flat[number] >= lists.widths.sum()
    full = index_regions(Matrix.from_dense(np.ones((3, 3), np.int32)), (3,))
    assert full.least_stored(Grid((3, 1, 1), (1, 1, 1)), every_position=True).tolist() == [[[0]]]


def test_places_inside_a_map_are_of_one_kind() -> None:
    part = Convolution(np.ones((2, 3, 3, 3), np.int32), (3, 12, 12), padding=(1, 1))
    laid_out, grid = index_regions(part, part.out_shape), Grid(part.out_shape, (1, 6, 6))
    assert len({laid_out.kind(region) for region in grid.regions()}) == 3 * 3


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
