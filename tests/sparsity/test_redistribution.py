import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.sparsity.prune import PRUNE
from esl_lava.sparsity.redistribution import (
    REDISTRIBUTE,
    ActiveWeights,
    share_out,
)


def active(values, momentum=()):
    return ActiveWeights(
        torch.tensor(values), lambda: torch.tensor(momentum), torch.arange(len(values))
    )


def shared(sizes, free, statistics, fraction=0.5, rule="magnitude"):
    """Call `share_out` for layers with these numbers of connections and free positions."""
    values = [torch.arange(1.0, size + 1) for size in sizes]
    named = statistics and {f"layer{i}": share for i, share in enumerate(statistics)}
    return share_out(PRUNE[rule], values, fraction, free, named)


def test_statistics_by_hand():
    layer = active([0.5, -1.5, 0.0, -0.0], [1.0, 2.0, 4.0, 1.0])

    def statistics(active):
        return {name: rule(active) for name, rule in REDISTRIBUTE.items() if rule}

    assert statistics(layer) == {"momentum": 2.0, "magnitude": 0.5, "nonzero": 2.0}
    nothing = statistics(active([]))
    assert math.isnan(nothing["momentum"])
    assert math.isnan(nothing["magnitude"])
    assert nothing["nonzero"] == 0
    assert REDISTRIBUTE["none"] is None


def test_each_layer_regrows_its_own():
    assert shared([10, 20], [90, 80], None) == ([5, 10], [5, 10])
    # A layer moves at most as many connections as it has free positions.
    assert shared([10, 20], [90, 3], None) == ([5, 3], [5, 3])
    assert shared([10, 20], [0, 0], None) == ([0, 0], [0, 0])


def test_shares_by_hand():
    # 15 in proportion 2 : 1.
    assert shared([10, 20], [90, 80], [2.0, 1.0]) == ([5, 10], [10, 5])
    # The first layer takes at most 8, the second gets the rest.
    assert shared([10, 20], [8, 80], [2.0, 1.0]) == ([5, 10], [8, 7])
    # Largest remainder: 15 as 3.75 : 3.75 : 7.5.
    assert shared([10, 10, 10], [90] * 3, [1.0, 1.0, 2.0]) == ([5, 5, 5], [4, 4, 7])
    # Full layers lose connections, but get none.
    assert shared([10, 20], [0, 80], [9.0, 1.0]) == ([5, 10], [0, 15])
    # A layer whose statistic is 0 loses connections, but gets none.
    assert shared([10, 20], [90, 80], [0.0, 1.0]) == ([5, 10], [0, 15])
    # 5 and 10 connections exceed the 6 free positions.
    assert shared([10, 20], [2, 4], [1.0, 1.0]) == ([2, 4], [2, 4])
    assert shared([10, 20], [0, 0], [1.0, 1.0]) == ([0, 0], [0, 0])


@pytest.mark.parametrize("rule", PRUNE)
def test_no_layer_loses_its_last_connection(rule):
    pruned, grown = shared([1, 4], [9, 90], [1e-9, 1.0], fraction=1.0, rule=rule)
    assert pruned == [0, 3]
    assert grown == [0, 3]


def test_global_magnitude_moves_more_than_a_layers_share():
    values = [torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0])]
    # Half of 6 are the 3 connections of the first layer, of which one stays.
    pruned, grown = share_out(PRUNE["global_magnitude"], values, 0.5, [7, 7], {"a": 1.0, "b": 2.0})
    assert (pruned, grown) == ([2, 1], [1, 2])
    # Each layer grows as many as it prunes, at most the number of its free positions.
    pruned, grown = share_out(PRUNE["global_magnitude"], values, 0.5, [1, 7], None)
    assert (pruned, grown) == ([1, 2], [1, 2])


@pytest.mark.parametrize(
    ("statistics", "free"),
    [
        ([math.nan, 1.0], [90, 80]),
        ([1.0, math.inf], [90, 80]),
        ([0.0, 0.0], [90, 80]),
        # The only layer with a statistic has too few free positions.
        ([1.0, 0.0], [3, 80]),
    ],
)
def test_useless_statistics_fall_back_with_a_warning(statistics, free, caplog):
    with caplog.at_level(logging.WARNING):
        assert shared([10, 20], free, statistics) == shared([10, 20], free, None)
    (record,) = caplog.records
    assert record.name == "esl_lava.sparsity.redistribution"
    assert record.getMessage() == (
        f"the statistics of the layers cannot divide 15 connections: layer0 {statistics[0]}, "
        f"layer1 {statistics[1]}; each layer grows as many connections as it prunes"
    )


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 30), st.integers(0, 30), st.sampled_from([0.0, 0.1, 0.3, 1.0, 7e30])
        ),
        min_size=1,
        max_size=5,
    ),
    st.floats(0, 1),
    st.sampled_from(sorted(PRUNE)),
    st.booleans(),
)
def test_budget_properties(layers, fraction, rule, redistribute):
    sizes, free, statistics = zip(*layers)
    values = [torch.arange(1.0, size + 1) * (i + 1) for i, size in enumerate(sizes)]
    named = {f"{i}": share for i, share in enumerate(statistics)} if redistribute else None
    pruned, grown = share_out(PRUNE[rule], values, fraction, free, named)
    assert sum(pruned) == sum(grown)
    assert all(0 <= n <= size for n, size in zip(pruned, sizes))
    assert all(0 <= n <= slots for n, slots in zip(grown, free))
    assert all(size - n + m >= 1 for n, m, size in zip(pruned, grown, sizes))
    wanted = [int(fraction * size + 0.5) for size in sizes]
    if rule == "global_magnitude":
        wanted, least = [int(fraction * sum(sizes) + 0.5)], 1
        caps = [sum(min(size - 1, slots) for size, slots in zip(sizes, free))]
    else:
        caps, least = free, 0
    alone = sum(min(number, cap) for number, cap in zip(wanted, caps))
    if not redistribute:
        assert pruned == grown
        assert sum(pruned) == alone
        return
    bounds = [sum(sizes) - len(sizes)] if least else [size - 1 for size in sizes]
    together = min(sum(min(number, cap) for number, cap in zip(wanted, bounds)), sum(free))
    takers = sum(slots for slots, share in zip(free, statistics) if share)
    assert sum(pruned) == (together if takers >= together else alone)
    if takers >= together:
        assert all(n == 0 for n, share in zip(grown, statistics) if share == 0)
