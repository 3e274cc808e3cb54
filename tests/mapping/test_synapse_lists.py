from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.mapping.packing import Lists
from esl_lava.mapping.regions import Grid, Region, partitions, running_totals
from esl_lava.mapping.synapse_lists import KernelIndex, RegionIndex, distinct_lists, index_regions
from esl_lava.network import Convolution, Injection, Matrix
from tests.simulate.networks import Case, cases


def unrolled(part: Any) -> np.ndarray[Any, Any]:
    if isinstance(part, Injection):
        return np.zeros((part.n_post, part.n_pre), bool)
    return part.unrolled().dense() != 0


@pytest.mark.slow
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
                if isinstance(laid_out, KernelIndex):
                    joined = laid_out.populations(region)
                    reached = mine.any(axis=0).reshape(part.in_shape)
                    for channels in (slice(None), slice(0, 1), slice(1, 3)):
                        through = joined.synapses[channels].any(axis=0)
                        expected = reached[channels].any(axis=0)
                        assert joined.reached(through).tolist() == expected.tolist()
            check_kinds(laid_out, regions)
        values = np.arange(layer.neurons)
        sums = [int(values[region.members(layer.shape)].sum()) for region in regions]
        assert grid.sums(running_totals(values, layer.shape)).ravel().tolist() == sums


def check_kinds(laid_out: RegionIndex, regions: list[Region]) -> None:
    """Assert that regions of a kind have the same lists and axons."""
    known: dict[Any, Any] = {}
    for region in regions:
        lists, axons = laid_out.reach(region)
        found = [column.tolist() for column in vars(lists).values()], axons
        assert known.setdefault(laid_out.kind(region), found) == found


def check_lists(lists: Lists, axons: int, mine: Any, part: Any) -> None:
    """Assert that every list belongs to some inputs and holds their targets."""
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


@pytest.mark.slow
@pytest.mark.parametrize("by_tap", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_the_least_that_regions_store_is_what_lists_hold(by_tap: bool, shared: bool) -> None:
    rng = np.random.default_rng(1)
    kernel = np.where(rng.random((9, 2, 3, 3)) < 0.5, 2, 0)
    part = Convolution(kernel, (2, 7, 9), (2, 1), (1, 0))
    laid_out = index_regions(part, part.out_shape, shared, by_tap)
    for shares in ((1, 1, 1), (9, 2, 3)):
        grid = Grid(part.out_shape, shares)
        synapses, number = laid_out.least(grid, every_position=False, some=False)
        positions, _ = laid_out.least(grid, every_position=True, some=False)
        assert synapses.shape == positions.shape == number.shape == shares
        for place, region in enumerate(grid.regions()):
            lists, _ = laid_out.reach(region)
            assert synapses.flat[place] == len(lists.owner)
            assert positions.flat[place] <= lists.widths.sum()
            assert number.flat[place] == len(lists.groups) * by_tap
        some, _ = laid_out.least(grid, every_position=False, some=True)
        assert some.tolist() == synapses[:: max(1, shares[0] // 4)].tolist()


def test_the_least_that_a_matrix_stores_is_nothing_where_axons_are_shared() -> None:
    weights = np.array([[2, 2, 0], [2, 2, 2], [0, 0, 2]], np.int32)
    full = index_regions(Matrix.from_dense(weights), (3,))
    grid = Grid((3, 1, 1), (2, 1, 1))
    synapses, lists = full.least(grid, every_position=True, some=False)
    assert synapses.ravel().tolist() == [2, 4]
    assert lists.ravel().tolist() == [2, 2]
    shared = index_regions(Matrix.from_dense(weights), (3,), shared=True)
    assert not any(part.any() for part in shared.least(grid, every_position=True, some=False))


def test_inputs_with_equal_lists_share_an_axon_in_each_core() -> None:
    weights = np.array([[2, 2, 2, 0, 4], [6, 6, 8, 0, 4]], np.int32)
    laid_out = index_regions(Matrix.from_dense(weights, weights != 0), (2,), shared=True)
    both, first, second = (
        laid_out.reach(Region(channels)) for channels in ((0, 2), (0, 1), (1, 2))
    )
    # The lists of inputs 0 and 1 are equal. In the first neuron alone, those of 0, 1 and 2 are.
    assert [axons for _, axons in (both, first, second)] == [3, 2, 3]
    lists, _ = both
    assert lists.owner.tolist() == [0, 0, 1, 1, 2, 2]
    assert lists.target.tolist() == [0, 1] * 3
    own = index_regions(Matrix.from_dense(weights, weights != 0), (2,))
    assert own.reach(Region((0, 2)))[1] == 4
    assert own.fan_out(Region((0, 2))).tolist() == laid_out.fan_out(Region((0, 2))).tolist()


@pytest.mark.slow
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_distinct_lists_are_those_that_a_dictionary_tells_apart(data: st.DataObject) -> None:
    lists = data.draw(
        st.lists(
            st.lists(st.tuples(st.integers(0, 2), st.integers(-2, 2)), min_size=1, max_size=3),
            max_size=12,
        )
    )
    owner = np.repeat(np.arange(len(lists)), [len(one) for one in lists]).astype(np.int64)
    pairs = np.array([pair for one in lists for pair in one], np.int64).reshape(-1, 2)
    found = distinct_lists(owner, pairs[:, 0], pairs[:, 1])
    known = {tuple(one): number for number, one in reversed(list(enumerate(lists)))}
    assert found.tolist() == [number in known.values() for number in range(len(lists))]


def test_a_folded_pool_stores_each_weight_once_where_lists_are_shared() -> None:
    rng = np.random.default_rng(0)
    small = 2 * rng.integers(1, 127, (4, 3, 3, 3))
    pooled = Convolution(small, (3, 4, 4), padding=(1, 1))
    folded = Convolution(small.repeat(2, axis=2).repeat(2, axis=3), (3, 8, 8), (2, 2), (2, 2))
    region = Region((0, 4), (0, 4), (0, 4))
    expected, places = index_regions(pooled, pooled.out_shape).reach(region)
    own, of_each = index_regions(folded, folded.out_shape).reach(region)
    once, axons = index_regions(folded, folded.out_shape, shared=True).reach(region)
    assert (places, of_each, axons) == (16, 64, 64)  # a place of the maps is an axon
    assert len(own.owner) == 4 * len(expected.owner)
    assert {name: column.tolist() for name, column in vars(once).items()} == {
        name: column.tolist() for name, column in vars(expected).items()
    }
    everywhere = index_regions(folded, folded.out_shape).fan_out(region)
    shared = index_regions(folded, folded.out_shape, shared=True)
    assert shared.fan_out(region).tolist() == everywhere.tolist()


def test_positions_of_a_kernel_have_a_list_each_wherever_it_lies() -> None:
    """PilotNet's last convolution, from 64 to 64 channels, has 576 lists in Lava's log."""
    kernel = np.ones((64, 64, 3, 3), np.int32)
    part = Convolution(kernel, (64, 4, 22))
    laid_out = index_regions(part, part.out_shape, by_tap=True)
    for region in (Region((0, 64), (0, 2), (0, 16)), Region((0, 64), (1, 2), (16, 20))):
        lists, _ = laid_out.reach(region)
        assert len(lists.groups) == 64 * 9
        assert set(lists.widths) == {64}
        assert lists.target.tolist() == list(range(64)) * 576
    # A region at the border meets fewer positions.
    padded = Convolution(kernel[:2, :2], (2, 4, 4), padding=(1, 1))
    corner = index_regions(padded, padded.out_shape, by_tap=True).reach(Region((0, 2)))
    assert len(corner[0].groups) == 2 * 4


def test_places_inside_a_map_are_of_one_kind() -> None:
    part = Convolution(np.ones((2, 3, 3, 3), np.int32), (3, 12, 12), padding=(1, 1))
    laid_out, grid = index_regions(part, part.out_shape), Grid(part.out_shape, (1, 6, 6))
    assert len({laid_out.kind(region) for region in grid.regions()}) == 3 * 3
