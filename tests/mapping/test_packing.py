from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.errors import ConfigError
from esl_lava.mapping.packing import DENSE, PACKINGS, RUNLENGTH, SPARSE, Lists, packing
from tests.faults import refused

NENGO, NXTF, NETX = (PACKINGS[name] for name in ("nengo-loihi", "nxtf", "netx"))


def lists(targets: list[list[int]], width: int, groups: list[int] | None = None) -> Lists:
    number = len(targets)
    return Lists(
        owner=np.repeat(np.arange(number), [len(some) for some in targets]).astype(np.int64),
        target=np.array([t for some in targets for t in some], np.int64),
        groups=np.array(groups or [0] * number),
        widths=np.full(number, width, np.int64),
        runs=np.ones(number, np.int64),
    )


def words(packed: Any, form: str, targets: list[int], width: int) -> int:
    (found,) = packed.list_words(form, 8, lists([targets], width))
    return int(found)


def test_bits_per_synapse_of_both_code_bases() -> None:
    """Figures computed by hand from the code of nengo-loihi and NxTF, for 8-bit weights."""
    assert NENGO.bits_per_synapse(DENSE, 8, 10) == 9.0  # 64 * 8 + 10 in 9 words
    assert NENGO.bits_per_synapse(SPARSE, 8, 10) == 19.0  # 64 * 18 + 10 in 19 words
    figures = {DENSE: 8.33, SPARSE: 18.17, RUNLENGTH: 13.33}
    for form, bits in figures.items():
        assert round(NXTF.bits_per_synapse(form, 8, 10), 2) == bits
    skips = {4: 12.33, 3: 11.33, 2: 10.33}
    for skip, bits in skips.items():
        assert round(NXTF.bits_per_synapse(RUNLENGTH, 8, 10, skip), 2) == bits


def test_break_even_densities_of_nxtf() -> None:
    assert round(NXTF.break_even(SPARSE, 8, 10), 3) == 0.459
    found = [round(NXTF.break_even(RUNLENGTH, 8, 10, skip), 3) for skip in (5, 4, 3, 2)]
    assert found == [0.625, 0.676, 0.735, 0.806]
    stored = 0.1515 * NXTF.bits_per_synapse(RUNLENGTH, 8, 10)
    assert round(stored, 2) == 2.02
    assert round(NXTF.bits_per_synapse(DENSE, 8, 10) / stored, 1) == 4.1


@pytest.mark.parametrize(
    ("synapses", "taken"), [(6, 1), (7, 2), (64, 9), (65, 10), (128, 18), (142, 20), (143, 21)]
)
def test_nengo_loihi_rounds_every_entry(synapses: int, taken: int) -> None:
    assert words(NENGO, DENSE, [0], synapses) == taken


def test_nengo_loihi_charges_indices_by_the_width_they_need() -> None:
    # 60 synapses of 8 + 6 bits: 850 bits; of 8 + 9 bits: 1030.
    assert words(NENGO, SPARSE, list(range(60)), 1024) == 14
    assert words(NENGO, SPARSE, [*range(59), 300], 1024) == 17
    assert words(NENGO, DENSE, [*range(59), 300], 301) == 9 * 4 + 6


@pytest.mark.parametrize(
    ("form", "targets", "width", "taken"),
    [
        (SPARSE, [0, 1], 8, 1),  # 10 + 2 * 14 = 38 bits
        (DENSE, [0], 5, 1),  # 16 + 40 = 56 bits
        (DENSE, [0], 6, 2),  # 16 + 48 = 64 bits: full, so a word more
        (SPARSE, [0, 1, 2, 3], 8, 2),  # 10 + 56 = 66 bits
        (RUNLENGTH, [0, 1, 2], 8, 1),  # 16 + 3 * 10 = 46 bits
        (RUNLENGTH, [0, 31], 64, 1),  # 16 + 2 * 13 = 42 bits
        (RUNLENGTH, [0, 32], 64, 1),  # two entries of 16 + 10: 52 bits
        (RUNLENGTH, [0, 31, 63], 64, 2),  # an entry of 16 + 26 and one of 16 + 13: 71
    ],
)
def test_nxtf_by_hand(form: str, targets: list[int], width: int, taken: int) -> None:
    assert words(NXTF, form, targets, width) == taken


def test_nxtf_makes_lists_of_a_group_equally_long() -> None:
    given = lists([[0], list(range(20)), [], [0]], 20, groups=[0, 0, 0, 1])
    assert NXTF.list_words(SPARSE, 8, given).tolist() == [5, 5, 0, 1]
    assert NENGO.list_words(SPARSE, 8, given).tolist() == [1, 5, 0, 1]


@pytest.mark.parametrize(("width", "taken"), [(56, 15), (57, 16), (100, 26)])
def test_netx_takes_a_word_more_than_its_weights(width: int, taken: int) -> None:
    assert words(NETX, DENSE, [0], width) == taken


def test_a_stretch_of_a_shared_kernel_is_an_entry_of_its_own() -> None:
    two = Lists(*(np.array(a) for a in ([0, 0], [0, 100], [0], [10], [2])))
    # Two entries of 10 + 7 bits before 5 weights each: 114 bits.
    assert NXTF.list_words(DENSE, 8, two).tolist() == [2]
    # Each of 50 bits in a word of its own.
    assert NENGO.list_words(DENSE, 8, two).tolist() == [2]


def test_indices_have_widths_and_an_end() -> None:
    assert [NXTF.index(n) for n in (0, 63, 64, 1023)] == [6, 6, 7, 10]
    assert NETX.index(5) == 3
    with refused(ConfigError, "limit", value=11, limit=10) as caught:
        NXTF.index(1024)
    assert "target 1024" in str(caught.value)
    with refused(ConfigError, "unknown", key="packing", value="zip"):
        packing("zip")


@pytest.mark.slow
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_list_takes_less_than_its_floor_nor_less_when_it_grows(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(PACKINGS)))
    packed = PACKINGS[name]
    form = data.draw(st.sampled_from(packed.formats))
    width = data.draw(st.integers(1, 400))
    targets = sorted(data.draw(st.sets(st.integers(0, width - 1), min_size=1)))
    bits = data.draw(st.sampled_from((1, 8, 14)))
    given_lists = lists([targets], width)
    taken = int(packed.list_words(form, bits, given_lists)[0])
    stored = width if form == DENSE else len(targets)
    assert taken >= packed.least_words(form, bits, np.array(stored), np.array(1))
    assert taken * packed.word_bits >= stored * bits
    if form == SPARSE and len(targets) > 1:
        fewer = lists([targets[:-1]], width)
        assert int(packed.list_words(form, bits, fewer)[0]) <= taken
