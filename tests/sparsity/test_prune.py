import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.sparsity.prune import PRUNE, each_alike, set_tails, smallest

# A coarse grid, so that zeros and ties are common.
values_lists = st.lists(st.integers(-3, 3).map(lambda i: i / 4), min_size=0, max_size=40)


def picked(values, n):
    return set_tails(torch.tensor(values, dtype=torch.float32), n).tolist()


def test_set_counts_each_tail_on_its_own():
    # Six positives, three negatives; a third of each tail goes, though every negative
    # is nearer to 0 than every positive.
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


@settings(deadline=None)
@given(values_lists, st.data())
def test_smallest_is_the_stable_sort(values, data):
    magnitudes = torch.tensor(values, dtype=torch.float32).abs()
    n = data.draw(st.integers(0, len(values)))
    expected = magnitudes.sort(stable=True).indices[:n].sort().values
    assert torch.equal(smallest(magnitudes, n), expected)


def alike(layers, fraction):
    sizes = [layer.numel() for layer in layers]
    return each_alike(layers, fraction, sizes, sum(sizes))


def test_numbers_round_half_up_on_each_layer():
    layers = [torch.ones(k) for k in (0, 1, 2, 5, 10, 11)]
    assert alike(layers, 0.5) == [0, 1, 1, 3, 5, 6]
    assert alike(layers, 0.25) == [0, 0, 1, 1, 3, 3]
    assert alike(layers, 0.0) == [0, 0, 0, 0, 0, 0]
    assert alike(layers, 1.0) == [0, 1, 2, 5, 10, 11]


def test_the_table():
    rule = PRUNE["set"]
    assert rule.numbers is each_alike
    assert rule.pick is set_tails
