import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.sparsity.arrays import find_smallest
from esl_lava.sparsity.prune import (
    PRUNE,
    count_globally,
    count_per_layer,
    pick_smallest,
    pick_tails,
)

# A coarse grid, so that zeros and ties are common.
values_lists = st.lists(st.integers(-3, 3).map(lambda i: i / 4), min_size=0, max_size=40)


def picked(values, n):
    return pick_tails(torch.tensor(values, dtype=torch.float32), n).tolist()


def test_set_counts_each_tail_on_its_own():
    # Six positives and three negatives: each tail loses a third, although every negative value
    # is closer to 0 than every positive value.
    values = [0.9, -0.01, 0.5, 0.6, -0.03, 0.7, 0.8, -0.02, 1.0]
    assert picked(values, 3) == [1, 2, 3]
    assert picked(values, 6) == [1, 2, 3, 5, 6, 7]


def test_set_splits_by_largest_remainder():
    # 4 of 6 positives and 3 negatives: 2.67 and 1.33 become 3 and 1.
    assert picked([1, 2, 3, 4, 5, 6, -1, -2, -3], 4) == [0, 1, 2, 6]
    # 5: 3.33 and 1.67 become 3 and 2.
    assert picked([1, 2, 3, 4, 5, 6, -1, -2, -3], 5) == [0, 1, 2, 6, 7]
    # Equal remainders go to the positive tail.
    assert picked([-1, -2, 1, 2], 1) == [2]


def test_set_takes_zeros_first_and_within_the_number():
    values = [0.5, 0.0, -0.5, -0.0, 0.1, -0.1]
    assert picked(values, 1) == [1]
    assert picked(values, 2) == [1, 3]
    assert picked(values, 4) == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("values", "n", "expected"),
    [
        ([3, 1, 2], 2, [1, 2]),
        ([-3, -1, -2], 2, [1, 2]),
        ([2, 2, 2, 2], 2, [0, 1]),
        ([-2, -2, -2, -2], 3, [0, 1, 2]),
        ([0, 0, 0], 2, [0, 1]),
        ([5], 1, [0]),
        ([5], 0, []),
        ([], 0, []),
    ],
)
def test_set_on_one_sided_layers(values, n, expected):
    assert picked(values, n) == expected


@pytest.mark.slow
@settings(deadline=None)
@given(values_lists, st.data())
def test_set_properties(values, data):
    n = data.draw(st.integers(0, len(values)))
    chosen = picked(values, n)
    assert len(chosen) == n
    assert chosen == sorted(set(chosen))
    zeros = [i for i, v in enumerate(values) if v == 0]
    assert [i for i in chosen if values[i] == 0] == zeros[:n]
    dropped_tails = []
    for sign in (1, -1):
        tail = [i for i, v in enumerate(values) if sign * v > 0]
        dropped = [i for i in chosen if sign * values[i] > 0]
        order = sorted(tail, key=lambda i: (abs(values[i]), i))
        assert sorted(order[: len(dropped)]) == dropped
        dropped_tails.append((len(dropped), len(tail)))
    rest = n - len([i for i in chosen if values[i] == 0])
    nonzero = len(values) - len(zeros)
    for dropped_count, size in dropped_tails:
        # Within one connection of the proportional share, in integers.
        assert abs(dropped_count * nonzero - rest * size) < max(nonzero, 1)


@pytest.mark.slow
@settings(deadline=None)
@given(values_lists, st.data())
def test_smallest_is_the_stable_sort(values, data):
    magnitudes = torch.tensor(values, dtype=torch.float32).abs()
    n = data.draw(st.integers(0, len(values)))
    expected = magnitudes.sort(stable=True).indices[:n].sort().values
    assert torch.equal(find_smallest(magnitudes, n), expected)


def alike(layers, fraction):
    sizes = [layer.numel() for layer in layers]
    return count_per_layer(layers, fraction, sizes, sum(sizes))


def test_numbers_round_half_up_on_each_layer():
    layers = [torch.ones(k) for k in (0, 1, 2, 5, 10, 11)]
    assert alike(layers, 0.5) == [0, 1, 1, 3, 5, 6]
    assert alike(layers, 0.25) == [0, 0, 1, 1, 3, 3]
    assert alike(layers, 0.0) == [0, 0, 0, 0, 0, 0]
    assert alike(layers, 1.0) == [0, 1, 2, 5, 10, 11]


def test_numbers_keep_to_caps_and_limit():
    layers = [torch.ones(k) for k in (10, 20, 30)]
    assert count_per_layer(layers, 0.5, [10, 3, 30], 100) == [5, 3, 15]
    # 5, 10 and 15 of a limit of 10: 1.67, 3.33 and 5.
    assert count_per_layer(layers, 0.5, [10, 20, 30], 10) == [2, 3, 5]
    assert count_per_layer(layers, 0.5, [10, 20, 30], 0) == [0, 0, 0]


@pytest.mark.parametrize(
    ("values", "n", "expected"),
    [
        ([0.9, -0.01, 0.5, 0.6, -0.03], 2, [1, 4]),
        ([0.5, -0.5, 0.5], 2, [0, 1]),
        ([1, 0, -0.0, 0], 2, [1, 2]),
        ([], 0, []),
    ],
)
def test_magnitude(values, n, expected):
    chosen = pick_smallest(torch.tensor(values, dtype=torch.float32), n)
    assert chosen.tolist() == expected


def together(layers, fraction, caps=None, limit=10**9):
    values = [torch.tensor(layer, dtype=torch.float32) for layer in layers]
    return count_globally(values, fraction, caps or [len(v) for v in layers], limit)


def test_global_magnitude_ranks_all_layers():
    layers = [[0.1, -0.2, 5], [1, -2, 3, -4, 6, 7, 8]]
    assert together(layers, 0.2) == [2, 0]
    # The first layer keeps its last connection, so the second layer loses one more.
    assert together(layers, 0.6) == [2, 4]
    assert together(layers, 1.0) == [2, 6]
    assert together(layers, 0.6, caps=[1, 10]) == [1, 5]
    assert together(layers, 0.6, limit=3) == [2, 1]
    assert together(layers, 0.0) == [0, 0]
    # Ties go to the lower layer.
    assert together([[1, 1], [1, 1], [1, 1]], 0.5) == [1, 1, 1]
    assert together([[1, 1, 1], [1, 1, 1]], 0.5) == [2, 1]
    assert together([[7]], 1.0) == [0]


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(values_lists, st.integers(0, 40)), min_size=1, max_size=4),
    st.floats(0, 1),
    st.integers(0, 60),
)
def test_global_magnitude_walks_one_ranking(layers, fraction, limit):
    caps = [min(cap, len(values)) for values, cap in layers]
    numbers = together([values for values, _ in layers], fraction, caps, limit)
    active = sum(len(values) for values, _ in layers)
    left = min(int(fraction * active + 0.5), limit)
    expected = [0] * len(layers)
    for _, i in sorted((abs(w), i) for i, (values, _) in enumerate(layers) for w in values):
        if left and expected[i] < min(caps[i], len(layers[i][0]) - 1):
            expected[i] += 1
            left -= 1
    assert numbers == expected


def test_the_table():
    rules = {name: (rule.count, rule.pick) for name, rule in PRUNE.items()}
    assert rules == {
        "set": (count_per_layer, pick_tails),
        "magnitude": (count_per_layer, pick_smallest),
        "global_magnitude": (count_globally, pick_smallest),
    }
