import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.sparsity import sets
from esl_lava.sparsity.arrays import find_above, find_smallest
from esl_lava.sparsity.growth import Site, draw_unfired
from esl_lava.sparsity.sets import (
    Bitmap,
    ExclusionSet,
    Mask,
    PositionList,
    PositionSet,
    make_record,
    read,
    sample_free,
    unite,
)
from esl_lava.sparsity.weights import SparseWeight


def where(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kinds(held: list[int], n_pre: int, n_post: int) -> dict[str, PositionSet]:
    """Return the same set in four forms."""
    size = n_pre * n_post
    mask = torch.zeros(n_post, n_pre, dtype=torch.bool)
    mask.view(-1)[held] = True
    weight = SparseWeight(n_pre, n_post, lambda at: torch.ones(at.numel()))
    weight.begin(where(held))
    bits = np.packbits(mask.view(-1).numpy(), bitorder="little")
    return {
        "mask": Mask(mask),
        "connections": PositionList(weight.positions(), size),
        "list": PositionList(where(held), size),
        "bitmap": Bitmap(torch.from_numpy(bits), size),
    }


held_sets = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda sides: st.tuples(
        st.just(sides), st.sets(st.integers(0, sides[0] * sides[1] - 1)).map(sorted)
    )
)


@pytest.mark.slow
@settings(deadline=None)
@given(held_sets, st.integers(1, 30), st.data())
def test_all_kinds_answer_alike(given_set, block, data):
    (n_pre, n_post), held = given_set
    size = n_pre * n_post
    asked = data.draw(st.lists(st.integers(0, size - 1)).map(sorted))
    more = data.draw(st.sets(st.integers(0, size - 1)).map(sorted))
    bools = [i in held for i in range(size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "BLOCK", block)
        for taken in kinds(held, n_pre, n_post).values():
            assert (taken.size, taken.count) == (size, len(held))
            assert taken.contains(where(asked)).tolist() == [bools[i] for i in asked]
            parts = list(taken.blocks())
            assert [b for part in parts for b in taken.block(part).tolist()] == bools
            assert taken.free().tolist() == [i for i in range(size) if not bools[i]]
            if isinstance(taken, Mask | PositionList | Bitmap):
                wider = taken.add(where(more))
                assert wider.count == len({*held, *more})
                assert wider.free().tolist() == sorted({*range(size)} - {*held, *more})


@pytest.mark.slow
@settings(deadline=None)
@given(held_sets, st.data())
def test_excluded(given_set, data):
    (n_pre, n_post), ever = given_set
    size = n_pre * n_post
    held = data.draw(st.sets(st.sampled_from(ever)).map(sorted)) if ever else []
    free = sorted({*ever} - {*held})
    for taken, past in zip(
        kinds(held, n_pre, n_post).values(), kinds(ever, n_pre, n_post).values()
    ):
        both = ExclusionSet(taken, past)
        assert both.count == size - len(free)
        assert both.free().tolist() == free
        asked = torch.arange(size)
        assert both.contains(asked).tolist() == [i not in free for i in range(size)]


@pytest.mark.slow
@settings(deadline=None)
@given(held_sets, st.integers(0, 2**32), st.data())
def test_draws_do_not_depend_on_the_kind(given_set, seed, data):
    """Compare with the draws of a dense mask, made one by one."""
    (n_pre, n_post), held = given_set
    size = n_pre * n_post
    free = size - len(held)
    n = data.draw(st.integers(0, free))
    expected, after = dense_draws(held, size, n, seed)
    for taken in kinds(held, n_pre, n_post).values():
        gen = generator(seed)
        assert sample_free(taken, n, gen).tolist() == expected
        assert torch.equal(gen.get_state(), after)


@pytest.mark.parametrize(("filled", "n"), [(20, 7), (20, 30), (50, 3), (46, 2)])
def test_drawn_and_listed_slots_do_not_depend_on_the_kind(filled, n):
    for seed in range(5):
        held = sorted(torch.randperm(60, generator=generator(seed))[:filled].tolist())
        expected, after = dense_draws(held, 60, n, seed)
        for taken in kinds(held, 10, 6).values():
            gen = generator(seed)
            assert sample_free(taken, n, gen).tolist() == expected
            assert torch.equal(gen.get_state(), after)


def dense_draws(held: list[int], size: int, n: int, seed: int) -> tuple[list[int], torch.Tensor]:
    """Draw with Python sets; return the positions and the state of the generator."""
    gen = generator(seed)
    slots = [i for i in range(size) if i not in held]
    if 4 * len(slots) < size or 2 * n > len(slots):
        chosen = torch.randperm(len(slots), generator=gen)[:n].tolist()
        return sorted(slots[i] for i in chosen), gen.get_state()
    seen: set[int] = set()
    while len(seen) < n:
        seen |= {*torch.randint(size, (n - len(seen),), generator=gen).tolist()} - {*held}
    return sorted(seen), gen.get_state()


@pytest.mark.slow
@settings(deadline=None)
@given(held_sets, st.integers(0, 2**32), st.data())
def test_unfired_growth_does_not_depend_on_the_kind(given_set, seed, data):
    (n_pre, n_post), ever = given_set
    held = data.draw(st.sets(st.sampled_from(ever)).map(sorted)) if ever else []
    n = data.draw(st.integers(0, n_pre * n_post - len(held)))
    masks, past = kinds(held, n_pre, n_post), kinds(ever, n_pre, n_post)
    grown = []
    for mask, record in (("mask", "mask"), ("connections", "list"), ("connections", "bitmap")):
        site = Site("a", masks[mask], past[record], generator(seed), lambda: None, lambda: None)
        grown.append(draw_unfired(site, n).tolist())
    assert grown[0] == grown[1] == grown[2]


def test_draws_of_a_layer_too_large_for_32_bits():
    size = 2**33 + 7
    taken = PositionList(where([0, 5, size - 1]), size)
    drawn = sample_free(taken, 1000, generator(0))
    assert drawn.numel() == 1000
    assert (drawn[1:] > drawn[:-1]).all()
    assert int(drawn[-1]) > 2**32
    assert not taken.contains(drawn).any()


def test_a_record_is_the_smaller_of_list_and_bitmap():
    # A bitmap of 128 positions has 16 bytes, as many as a list of two positions.
    record = make_record(where([3]), 128)
    assert isinstance(record, PositionList)
    record = record.add(where([100]))
    assert isinstance(record, PositionList)
    assert record.tensor.tolist() == [3, 100]
    assert record.add(where([3, 100])).tensor.tolist() == [3, 100]
    record = record.add(where([8, 100]))
    assert isinstance(record, Bitmap)
    assert record.tensor.tolist() == [8, 1, *[0] * 10, 16, 0, 0, 0]
    assert record.count == 3
    assert record.add(where([0, 1])).count == 5
    # A list as large as the bitmap stays a list.
    assert isinstance(make_record(where([0, 1]), 121), PositionList)
    assert isinstance(make_record(where([0, 1]), 120), Bitmap)


def test_records_are_read_back():
    for record in (make_record(where([3, 100]), 128), make_record(where([3, 8, 100]), 128)):
        again = read(record.tensor.clone(), 128)
        assert type(again) is type(record)
        assert again.free().tolist() == record.free().tolist()
    # A list larger than the bitmap becomes a bitmap.
    assert isinstance(read(where([0, 1, 2]), 128), Bitmap)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.zeros(2, dtype=torch.uint8),
            "has the shape (2,) of torch.uint8; it must be a bitmap (3,)",
        ),
        (torch.zeros(3, dtype=torch.bool), "has the shape (3,) of torch.bool"),
        (torch.zeros(1, 1, dtype=torch.int64), "has the shape (1, 1) of torch.int64"),
        (
            torch.tensor([0, 0, 16], dtype=torch.uint8),
            "is a bitmap that sets bits beyond the last of 20",
        ),
        (where([1, 1]), "positions that do not strictly ascend within 0..19"),
        (where([4, 1]), "positions that do not strictly ascend within 0..19"),
        (where([-1]), "positions that do not strictly ascend within 0..19"),
        (where([20]), "positions that do not strictly ascend within 0..19"),
    ],
)
def test_what_is_no_record_is_refused(tensor, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tensor, 20)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.integers(0, 2**34 - 1)), st.lists(st.integers(0, 2**34 - 1)))
def test_merging(first, second):
    assert unite(where(first), where(second)).tolist() == sorted({*first, *second})


floats = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3.0, float("inf"), -float("inf")])


@pytest.mark.slow
@given(st.lists(floats | st.floats(width=32, allow_nan=False), max_size=50), st.data())
def test_smallest_of_any_numbers_and_precision(numbers, data):
    n = data.draw(st.integers(0, len(numbers)))
    expected = sorted(sorted(range(len(numbers)), key=lambda i: (numbers[i], i))[:n])
    for dtype in (torch.float32, torch.float64):
        assert find_smallest(torch.tensor(numbers, dtype=dtype), n).tolist() == expected


@pytest.mark.slow
@given(st.lists(st.tuples(floats | st.just(float("nan")), st.booleans())), floats)
def test_above_in_any_precision(slots, least):
    scores, taken = [score for score, _ in slots], [held for _, held in slots]
    expected = [i for i, (score, held) in enumerate(slots) if not held and abs(score) > least]
    broken = sum(not held and not abs(score) < float("inf") for score, held in slots)
    for dtype in (torch.float32, torch.float64):
        given_scores = torch.tensor(scores, dtype=torch.float32).to(dtype)
        bound = float(torch.tensor(least, dtype=torch.float32))
        found, magnitudes, wrong = find_above(
            given_scores, torch.tensor(taken, dtype=torch.bool), bound
        )
        assert found.tolist() == expected
        assert torch.equal(magnitudes, given_scores.abs()[found])
        assert wrong == broken
