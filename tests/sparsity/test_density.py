import subprocess
import sys
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.errors import ConfigError
from esl_lava.sparsity.density import (
    DISTRIBUTIONS,
    LayerShape,
    allocate,
    allocate_by_density,
    allocate_by_eps,
    allocate_by_layer,
    apportion,
    round_shares,
)
from tests.faults import check, refused

er, erk, uniform = (
    partial(allocate_by_density, distribution=name) for name in ("er", "erk", "uniform")
)


def dense(name: str, n_pre: int, n_post: int) -> LayerShape:
    return LayerShape(name, n_pre, n_post)


NAN = float("nan")
HIDDEN = dense("hidden1", 784, 800)
READOUT = dense("readout", 800, 10)

shapes_lists = st.lists(
    st.builds(
        lambda pre, post, kernel: LayerShape(f"{pre}x{post}", pre, post, kernel),
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from([(), (3, 3), (1, 1), (5,)]),
    ),
    min_size=1,
    max_size=6,
)


def test_eps_60_gives_the_paper_95040_connections():
    assert allocate_by_eps([HIDDEN], 60) == [95_040]


def test_eps_counts_by_hand():
    # 800 x 10 at eps 60 would be 48,600 of 8,000: the cap at probability 1.
    assert allocate_by_eps([HIDDEN, READOUT], 60) == [95_040, 8_000]
    assert allocate_by_eps([dense("a", 3, 2)], 0.3) == [2]  # 1.5 rounds up
    assert allocate_by_eps([dense("a", 3, 2)], 0.29) == [1]  # 1.45
    # 4 x 6 channels, 3 x 3 kernel: p = 10 / 24 of 216 weights.
    assert allocate_by_eps([LayerShape("conv", 4, 6, (3, 3))], 1) == [90]


def test_er_by_hand():
    # Eq. 1 proportions 1584 : 810 of 63,520 connections, 42,028.27 : 21,491.7; the
    # readout is full at 8,000 and the excess goes to the hidden layer.
    assert er([HIDDEN, READOUT], 0.1) == [55_520, 8_000]
    # 6,352 connections: 4,202.83 and 2,149.17.
    assert er([HIDDEN, READOUT], 0.01) == [4_203, 2_149]


def test_er_of_one_layer_is_its_density():
    assert er([HIDDEN], 0.25) == [156_800]
    assert er([dense("a", 5, 1)], 0.3) == [2]  # 1.5 as written, not the float below it


def test_er_keeps_one_connection_in_every_layer():
    assert er([dense("big", 100, 100), dense("tiny", 1, 1)], 0.0002) == [1, 1]
    # Proportions 200 : 2 of 10 give 9.9 and 0.099; the tiny layer keeps one.
    assert er([dense("big", 100, 100), dense("tiny", 1, 1)], 0.001) == [9, 1]


def test_erk_by_hand():
    # Weights in proportion to the sum of dimensions: 8 + 4 : 3 + 2 + 3 + 3 = 12 : 11 of 46.
    shapes = [dense("a", 8, 4), LayerShape("b", 3, 2, (3, 3))]
    assert [shape.size for shape in shapes] == [32, 54]
    assert erk(shapes, 46 / 86) == [24, 22]
    # Without the kernel: 32 * 12 / 32 : 54 * 5 / 6 = 12 : 45.
    assert er(shapes, 38 / 86) == [8, 30]
    # 12 : 11 of 70 would be 36.5 : 33.5. The first layer is full, the second gets the rest.
    assert erk(shapes, 70 / 86) == [32, 38]
    # Without kernels both rules are the same.
    assert erk([HIDDEN, READOUT], 0.1) == er([HIDDEN, READOUT], 0.1)


def rigl(shapes, density):
    """Return the densities of RigL, which removes full layers one by one."""
    full = set()
    while True:
        rest = [s for s in shapes if s.name not in full]
        raw = {s.name: Fraction(s.n_pre + s.n_post + sum(s.kernel), s.size) for s in rest}
        budget = density * sum(s.size for s in shapes) - sum(
            s.size for s in shapes if s.name in full
        )
        if not rest:
            return {s.name: Fraction(1) for s in shapes}
        eps = budget / sum(raw[s.name] * s.size for s in rest)
        most = max(raw.values())
        if eps * most <= 1:
            return {s.name: eps * raw[s.name] if s in rest else Fraction(1) for s in shapes}
        full |= {name for name, value in raw.items() if value == most}


@pytest.mark.slow
@settings(deadline=None)
@given(shapes_lists, st.integers(1, 100))
def test_erk_is_rigls_iteration(shapes, percent):
    shapes = [LayerShape(f"{i}", s.n_pre, s.n_post, s.kernel) for i, s in enumerate(shapes)]
    try:
        counts = erk(shapes, percent / 100)
    except ConfigError:
        return
    possible = sum(s.size for s in shapes)
    total = sum(counts)
    expected = rigl(shapes, Fraction(total, possible))
    if min(expected[s.name] * s.size for s in shapes) < 1:
        return  # RigL may leave a layer without connections, `apportion` does not
    for shape, count in zip(shapes, counts):
        # Largest remainder: the exact share rounded down or up.
        assert abs(count - expected[shape.name] * shape.size) < 1


def test_explicit_densities():
    assert allocate_by_layer([HIDDEN, READOUT], {"readout": 1, "hidden1": 0.05}) == [31_360, 8_000]
    assert allocate_by_layer([dense("a", 5, 1)], {"a": 0.3}) == [2]  # 1.5 as written


@pytest.mark.parametrize(
    ("densities", "code", "fields"),
    [
        ({}, "missing", {"layer": "hidden1", "limit": ("hidden1",)}),
        (
            {"hidden1": 0.1, "hidden2": 0.1},
            "unknown",
            {"value": "hidden2", "limit": ("hidden1",)},
        ),
        ({"hidden1": 0.0}, "range", {"layer": "hidden1", "value": 0.0, "limit": 1}),
        ({"hidden1": NAN}, "range", {"layer": "hidden1", "limit": 1}),
        ({"hidden1": 1e-7}, "range", {"layer": "hidden1", "value": 1e-7}),
    ],
)
def test_impossible_explicit_densities(densities, code, fields):
    with refused(ConfigError, code, key="densities", **fields):
        allocate_by_layer([HIDDEN], densities)


def test_uniform_ties_go_to_the_lower_layer():
    assert uniform([dense("a", 3, 1), dense("b", 1, 3)], 0.5) == [2, 1]
    assert uniform([HIDDEN, READOUT], 0.25) == [156_800, 2_000]


def test_largest_remainder_by_hand():
    third = Fraction(1, 3)
    assert round_shares([third, third, third]) == [1, 0, 0]
    assert round_shares([Fraction(5, 4), Fraction(7, 4), Fraction(2)]) == [1, 2, 2]
    assert apportion(7, [Fraction(1), Fraction(1), Fraction(8)], [9, 9, 3]) == [2, 2, 3]
    # The rest of 8 is shared 2.5 : 2.5.
    assert apportion(8, [Fraction(1), Fraction(1), Fraction(8)], [9, 9, 3]) == [3, 2, 3]
    # Full layers and layers of weight 0 get nothing.
    assert apportion(5, [Fraction(1), Fraction(0), Fraction(3)], [9, 9, 0], least=0) == [5, 0, 0]
    assert apportion(4, [Fraction(1), Fraction(0), Fraction(3)], [9, 9, 9], least=0) == [1, 0, 3]
    assert apportion(0, [Fraction(1), Fraction(1)], [9, 0], least=0) == [0, 0]


@pytest.mark.slow
@settings(deadline=None)
@given(shapes_lists, st.floats(0.001, 1), st.sampled_from(sorted(DISTRIBUTIONS)))
def test_a_density_is_met_exactly(shapes, density, name):
    possible = sum(shape.size for shape in shapes)
    total = int(Fraction(repr(density)) * possible + Fraction(1, 2))
    if total < len(shapes):
        with refused(ConfigError, "range", key="density", value=density):
            allocate_by_density(shapes, density, name)
        return
    counts = allocate_by_density(shapes, density, name)
    assert sum(counts) == total
    assert all(1 <= count <= shape.size for count, shape in zip(counts, shapes))


@pytest.mark.slow
@settings(deadline=None)
@given(shapes_lists, st.floats(0.01, 1))
def test_er_proportions_hold_between_the_bounds(shapes, density):
    try:
        counts = er(shapes, density)
    except ConfigError:
        return
    scales = []
    for count, shape in zip(counts, shapes):
        weight = Fraction((shape.n_pre + shape.n_post) * shape.size, shape.n_pre * shape.n_post)
        low = Fraction(0) if count == 1 else (count - 1) / weight
        high = (count + 1) / weight if count < shape.size else None
        scales.append((low, high))
    # One scale explains every layer within the rounding of less than one connection.
    assert max(low for low, _ in scales) <= min(
        (high for _, high in scales if high is not None), default=Fraction(10**9)
    )


@pytest.mark.slow
@settings(deadline=None)
@given(shapes_lists, st.sampled_from(sorted(DISTRIBUTIONS)))
def test_density_1_is_the_dense_net(shapes, name):
    assert allocate_by_density(shapes, 1.0, name) == [shape.size for shape in shapes]


@pytest.mark.parametrize("density", [0, -0.1, 1.5, NAN, float("inf")])
@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_impossible_density(name, density):
    value = pytest.approx(density, nan_ok=True)
    with refused(ConfigError, "range", key="density", value=value, limit=1):
        allocate_by_density([HIDDEN], density, name)


@pytest.mark.parametrize("eps", [0, -3, NAN, float("inf")])
def test_impossible_eps(eps):
    with refused(ConfigError, "range", key="eps", value=pytest.approx(eps, nan_ok=True)):
        allocate_by_eps([HIDDEN], eps)


def test_too_few_connections_name_the_values():
    with refused(ConfigError, "range", key="eps", value=0.0001, layer="hidden1") as caught:
        allocate_by_eps([HIDDEN], 0.0001)
    assert "627200" in str(caught.value)
    with refused(ConfigError, "range", key="density", value=1e-6) as caught:
        er([HIDDEN, READOUT], 1e-6)
    assert "635200 positions is 1 connections for 2 layers" in str(caught.value)
    with refused(ConfigError, "shape", layer="a", value=(0, 3), limit=1):
        LayerShape("a", 0, 3)


def test_keys_carry_the_section_that_they_stand_in():
    cases = (
        ("density", (2.0, None, None, "er")),
        ("eps", (None, -1.0, None, "er")),
        ("densities", (None, None, {"hidden1": 3.0}, "er")),
        ("distribution", (0.5, None, None, "magic")),
    )
    for key, arguments in cases:
        with pytest.raises(ConfigError) as caught:
            allocate([HIDDEN], *arguments, section="sparsity.")
        (fault,) = caught.value.faults
        check(fault, fault.code, key=f"sparsity.{key}")


@pytest.mark.slow
def test_density_and_schedule_import_without_torch():
    code = (
        "import sys, esl_lava.sparsity.density, esl_lava.sparsity.schedule;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
