import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.sparsity.sets import Mask, draw, sample_free
from esl_lava.sparsity.update import move

NOWHERE = torch.tensor([], dtype=torch.int64)


class Wiring:
    """The smallest layer that `move` accepts."""

    def __init__(self, mask: torch.Tensor) -> None:
        self.active = Mask(mask)

    def rewire(self, drop: torch.Tensor, grow: torch.Tensor) -> None:
        self.active.remove(drop)
        self.active.add(grow)


def moved(masks, drops, grows):
    move([Wiring(mask) for mask in masks], drops, grows)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_sampling_is_exact(size, data):
    taken = torch.zeros(size, dtype=torch.bool)
    taken[draw(data.draw(st.integers(0, size)), size, generator(1))] = True
    before = taken.clone()
    free = int((~taken).sum())
    n = data.draw(st.integers(0, free))
    seed = data.draw(st.integers(0, 2**32))
    positions = sample_free(Mask(taken), n, generator(seed))
    assert positions.dtype == torch.int64
    assert positions.shape == (n,)
    assert bool((positions[1:] > positions[:-1]).all())
    assert not taken[positions].any()
    assert torch.equal(taken, before)
    assert torch.equal(positions, sample_free(Mask(taken), n, generator(seed)))


def test_more_than_free_is_refused():
    with pytest.raises(ValueError, match="cannot draw 4 positions: 3 of 3 are free"):
        draw(4, 3, generator())


@pytest.mark.slow
def test_nearly_full_and_nearly_empty_layers_are_fast():
    size = 2_000_000
    taken = torch.ones(size, dtype=torch.bool)
    taken[[5, 77, size - 1]] = False
    assert sample_free(Mask(taken), 3, generator()).tolist() == [5, 77, size - 1]
    assert sample_free(Mask(taken), 1, generator()).item() in (5, 77, size - 1)
    assert draw(size, size, generator()).numel() == size
    assert draw(1, size, generator()).numel() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "filled", "n"),
    [
        (60, 20, 7),  # drawn
        (60, 20, 30),  # listed: most of the free slots
        (60, 50, 3),  # listed: few free slots
    ],
)
def test_sampling_is_uniform(size, filled, n):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[draw(filled, size, generator(9))] = True
    gen = generator(3)
    rounds = 2000
    hits = torch.zeros(size)
    for _ in range(rounds):
        hits[sample_free(Mask(mask), n, gen)] += 1
    free = size - filled
    assert hits[mask].sum() == 0
    p = n / free
    observed = hits[~mask]
    chi2 = float(((observed - rounds * p) ** 2 / (rounds * p * (1 - p))).sum())
    # About chi-squared with free - 1 degrees of freedom (at most 39): mean 39, deviation 9.
    assert chi2 < free + 6 * (2 * free) ** 0.5
    # ... and not more regular than chance allows.
    assert chi2 > 0.1 * free


@pytest.mark.slow
def test_pairs_are_uniform():
    # Every pair of 6 positions is equally likely, which single frequencies do not show.
    gen = generator(4)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        pair = tuple(draw(2, 6, gen).tolist())
        counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 15
    # 14 degrees of freedom: mean 14, deviation 5.3.
    assert sum((c - 200) ** 2 / 200 for c in counts.values()) < 46


def test_move():
    mask = torch.tensor([[True, False, True], [False, True, False]])
    moved([mask], [torch.tensor([0, 4])], [torch.tensor([1, 5])])
    assert mask.tolist() == [[False, True, True], [False, False, True]]
    moved([mask], [NOWHERE], [NOWHERE])
    assert mask.sum() == 3


def test_move_between_layers():
    masks = [torch.tensor([True, True, False]), torch.tensor([[True], [False]])]
    moved(masks, [torch.tensor([0, 1]), NOWHERE], [torch.tensor([2]), torch.tensor([1])])
    assert [mask.tolist() for mask in masks] == [[False, False, True], [[True], [True]]]
    before = [mask.clone() for mask in masks]
    # The totals over the layers differ by one.
    with pytest.raises(AssertionError, match="1 connections are dropped, but 2 are grown"):
        moved(masks, [torch.tensor([2]), NOWHERE], [torch.tensor([0, 1]), NOWHERE])
    # The first layer is valid, the second is not: no layer changes.
    with pytest.raises(AssertionError, match="a grown position was a connection"):
        moved(masks, [torch.tensor([2]), NOWHERE], [NOWHERE, torch.tensor([0])])
    assert all(torch.equal(mask, old) for mask, old in zip(masks, before))


@pytest.mark.parametrize(
    ("drop", "grow", "message"),
    [
        ([1], [3], "dropped position was not a connection"),
        ([0], [2], "grown position was a connection"),
        ([0], [0], "grown position was a connection"),
        ([0, 2], [1], "2 connections are dropped, but 1 are grown"),
        ([0, 0], [1, 3], "dropped positions are not strictly ascending"),
        ([0, 2], [3, 1], "grown positions are not strictly ascending"),
        ([0], [6], "grown positions are not strictly ascending within 0..5"),
        ([-2], [1], "dropped positions are not strictly ascending within 0..5"),
    ],
)
def test_move_refuses(drop, grow, message):
    mask = torch.tensor([[True, False, True], [False, True, False]])
    before = mask.clone()
    with pytest.raises(AssertionError, match=message):
        moved([mask], [torch.tensor(drop)], [torch.tensor(grow)])
    assert torch.equal(mask, before)
