from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.mapping.destinations import Destinations
from esl_lava.mapping.packing import PACKINGS
from esl_lava.mapping.regions import Grid, Region, maps, partitions
from esl_lava.mapping.synapse_lists import index_regions
from esl_lava.network import INPUT, Convolution, Injection, Matrix
from tests.simulate.networks import Case, cases


def brute(shape: Any, behind: Any, grid: Grid, chips: Any, rule: Any) -> list[int]:
    """Count the entries of each core from the connections of every neuron to every core."""
    found = []
    for region, chip in zip(grid.regions(), chips.flat):
        members = region.members(shape)
        entries = 0
        for part, to, cores in behind:
            there = part.unrolled().dense() != 0
            for where, target in cores:
                crossing = there[target.members(to)].any(axis=0)[members]
                each, remote = 1, rule.remote_axons * (where != chip)
                if isinstance(part, Convolution) and maps(to) == part.out_shape:
                    each = rule.population_axons
                    if part.in_shape == maps(shape):
                        crossing = crossing.reshape(region.shape).any(axis=0)
                    else:  # of neurons that are no maps each is a population
                        remote *= rule.population_axons
                entries += int(np.count_nonzero(crossing)) * (each + remote)
        found.append(entries)
    return found


@pytest.mark.slow
@given(cases(), st.sampled_from(list(PACKINGS.values())), st.data())
@settings(max_examples=25, deadline=None)
def test_entries_are_those_of_all_neurons_of_any_network(
    case: Case, rule: Any, data: st.DataObject
) -> None:
    shapes = {INPUT: case.network.input_shape, **{at.name: at.shape for at in case.network.layers}}
    for source, shape in shapes.items():
        goes, behind = Destinations(shape, rule), []
        for layer in case.network.layers:
            regions = next(partitions(layer, min(3, layer.neurons), layer.neurons)).regions()
            for one in layer.inputs:
                if one.source != source or isinstance(one.connections, Injection):
                    continue
                cores = [(data.draw(st.integers(0, 2)), region) for region in regions]
                goes.add(index_regions(one.connections, layer.shape), cores)
                behind.append((one.connections, layer.shape, cores))
        lengths = maps(shape)
        channels, rows, columns = (data.draw(st.integers(1, min(n, 3))) for n in lengths)
        grid = Grid(lengths, (channels, rows, columns))
        chips = np.array(
            data.draw(st.lists(st.integers(0, 2), min_size=len(grid), max_size=len(grid)))
        )
        totals = goes.copy().totals()
        entries = totals.entries(grid, chips.reshape(grid.shares))
        assert (totals.entries(grid, chips.reshape(grid.shares), at_most=True) >= entries).all()
        assert entries.ravel().tolist() == brute(shape, behind, grid, chips, rule)
        assert totals.least <= entries.sum()
        alone = Grid(lengths, lengths)
        apart = np.full(lengths, 9)
        assert goes.most_entries_of_neuron() == totals.entries(alone, apart).max()


def test_places_and_neurons_by_hand() -> None:
    rule = PACKINGS["nxtf"]
    goes = Destinations((2, 1, 3), rule)
    kernel = Convolution(np.array([[[[2]], [[0]]]]), (2, 1, 3))  # of the first channel alone
    cores = [(0, Region((0, 1), (0, 1), (0, 2))), (1, Region((0, 1), (0, 1), (2, 3)))]
    goes.add(index_regions(kernel, (1, 1, 3)), cores)
    matrix = Matrix.from_dense(
        np.array([[2, 0, 0, 0, 0, 2]]), np.eye(6, dtype=bool)[[0]] | np.eye(6, dtype=bool)[[5]]
    )
    goes.add(index_regions(matrix, (1,)), [(0, Region((0, 1)))])
    totals = goes.totals()
    whole = Grid((2, 1, 3), (1, 1, 1))
    # Two places go to a core on this chip, one to one far away; two neurons to one here.
    assert totals.entries(whole, np.zeros((1, 1, 1), int)).tolist() == [[[2 * 2 + 3 + 2]]]
    split = Grid((2, 1, 3), (2, 1, 1))
    # The second channel is in no list of the kernel's.
    assert totals.entries(split, np.zeros((2, 1, 1), int)).ravel().tolist() == [2 * 2 + 3 + 1, 1]
    assert totals.least == 3 * 2 + 2
