import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.errors import ConfigError, UserError
from esl_lava.sparsity import growth, sets
from esl_lava.sparsity.growth import GROW, Site, draw_random, draw_unfired
from esl_lava.sparsity.sets import Mask
from tests.faults import refused


def site(mask, ever=None, *, seed=0, gradient=None, momentum=None):
    def scores(values):
        def give():
            if values is None:
                raise ConfigError("there are no scores", "missing")
            return lambda where: torch.tensor(values, dtype=torch.float32)[where]

        return give

    mask = torch.tensor(mask, dtype=torch.bool)
    return Site(
        name="layer",
        mask=Mask(mask),
        ever=Mask(mask if ever is None else torch.tensor(ever, dtype=torch.bool)),
        generator=torch.Generator().manual_seed(seed),
        gradient=scores(gradient),
        momentum=scores(momentum),
    )


def test_the_table():
    assert list(GROW) == ["random", "random_unfired", "gradient", "momentum"]
    assert (GROW["random"], GROW["random_unfired"]) == (draw_random, draw_unfired)


def test_random_takes_any_free_slot():
    seen = set()
    for seed in range(40):
        grown = draw_random(site([1, 0, 0, 1, 0], seed=seed), 2).tolist()
        assert len(grown) == 2
        seen |= {tuple(grown)}
    assert seen == {(1, 2), (1, 4), (2, 4)}


def test_unfired_by_hand():
    mask, ever = [1, 0, 0, 1, 0, 0], [1, 0, 1, 1, 0, 1]
    # Never active: 1 and 4. Free and once active: 2 and 5.
    assert draw_unfired(site(mask, ever), 0).tolist() == []
    assert draw_unfired(site(mask, ever), 2).tolist() == [1, 4]
    assert {tuple(draw_unfired(site(mask, ever, seed=s), 1).tolist()) for s in range(20)} == {
        (1,),
        (4,),
    }
    assert {tuple(draw_unfired(site(mask, ever, seed=s), 3).tolist()) for s in range(20)} == {
        (1, 2, 4),
        (1, 4, 5),
    }
    assert draw_unfired(site(mask, ever), 4).tolist() == [1, 2, 4, 5]


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.data())
def test_unfired_properties(slots, data):
    mask = [active for active, _ in slots]
    ever = [active or once for active, once in slots]
    n = data.draw(st.integers(0, mask.count(False)))
    grown = draw_unfired(site(mask, ever), n).tolist()
    assert grown == sorted(set(grown))
    assert len(grown) == n
    assert not any(mask[i] for i in grown)
    assert sum(not ever[i] for i in grown) == min(n, ever.count(False))


@pytest.mark.parametrize("name", ["gradient", "momentum"])
def test_largest_magnitudes_by_hand(name):
    def grown(mask, scores, n):
        return GROW[name](site(mask, **{name: scores}), n).tolist()

    # The largest score, 9, belongs to a connection; the sign does not count.
    assert grown([0, 1, 0, 0, 0], [1, 9, -3, 2, 0], 2) == [2, 3]
    # Ties go to the lower position.
    assert grown([0, 1, 0, 0, 0], [1, 1, -1, 1, 1], 3) == [0, 2, 3]
    assert grown([0, 1, 0, 0, 0], [0, 0, 0, 0, 0], 2) == [0, 2]
    assert grown([0, 1, 0], [1, 2, 3], 0) == []
    assert grown([0, 1, 0], [1, 2, 3], 2) == [0, 2]


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=70),
    st.integers(1, 80),
    st.data(),
)
def test_streaming_is_the_stable_sort(slots, block, data):
    free = [i for i, (active, _) in enumerate(slots) if not active]
    n = data.draw(st.integers(0, len(free)))
    expected = sorted(sorted(free, key=lambda i: (-abs(slots[i][1]), i))[:n])
    place = site([active for active, _ in slots], gradient=[score for _, score in slots])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "BLOCK", block)
        assert GROW["gradient"](place, n).tolist() == expected


def test_scratch_space_is_bounded():
    # Growth never requests more than a block.
    asked = []
    size, block = 5000, 512

    def scores(where):
        asked.append(where)
        return torch.arange(size, dtype=torch.float32)[where]

    place = site([0] * size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "BLOCK", block)
        assert growth.find_top(place, scores, 3).tolist() == [4997, 4998, 4999]
    assert asked == [slice(i, i + block) for i in range(0, size, block)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_scores_name_the_layer(value):
    place = site([0, 1, 0, 0], gradient=[1, 2, value, value])
    with refused(UserError, "not-finite", layer="layer", value=2):
        GROW["gradient"](place, 1)
    # The score of a connection does not matter.
    assert GROW["gradient"](site([0, 1, 0], gradient=[1, value, 2]), 1).tolist() == [2]


@pytest.mark.parametrize("name", ["gradient", "momentum"])
@pytest.mark.parametrize("n", [0, 1])
def test_missing_scores_are_refused(name, n):
    with refused(ConfigError, "missing"):
        GROW[name](site([0, 1]), n)
