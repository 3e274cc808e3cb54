import dataclasses
import math

import pytest

from esl_lava.errors import ConfigError
from esl_lava.sparsity.schedule import SCHEDULES, Schedule, constant, cosine
from tests.faults import refused


def test_fraction_by_hand():
    decay = Schedule(cosine, alpha=0.3, t_iter=10, t_end=300)
    assert decay.fraction(0) == 0.3
    assert decay.fraction(100) == 0.15 * (1 + math.cos(math.pi * 100 / 300))
    assert decay.fraction(100) == pytest.approx(0.225)  # cos(pi/3) is 1/2 up to rounding
    assert decay.fraction(150) == pytest.approx(0.15)  # cos(pi/2) is 0 up to rounding
    assert decay.fraction(300) == 0
    assert decay.fraction(301) == 0
    assert decay.fraction(600) == 0


def test_constant_until_the_end():
    steady = Schedule(constant, alpha=0.3, t_iter=10, t_end=300)
    assert [steady.fraction(step) for step in (0, 10, 299, 300, 301)] == [0.3] * 4 + [0]
    assert steady.due(300)
    assert not steady.due(310)


def test_the_table():
    assert dict(SCHEDULES) == {"cosine": cosine, "constant": constant}


def test_due():
    decay = Schedule(cosine, alpha=0.3, t_iter=10, t_end=35)
    assert [step for step in range(60) if decay.due(step)] == [10, 20, 30]
    assert Schedule(cosine, alpha=0.3, t_iter=5, t_end=10).due(10)
    never = Schedule(cosine, alpha=0.3, t_iter=11, t_end=10)
    assert not any(never.due(step) for step in range(40))


@pytest.mark.parametrize(
    ("key", "value"), [("alpha", -0.1), ("alpha", 1.1), ("t_iter", 0), ("t_end", 0)]
)
def test_out_of_range(key, value):
    with refused(ConfigError, "range", key=key, value=value, limit=1):
        Schedule(cosine, **({"alpha": 0.3, "t_iter": 10, "t_end": 100} | {key: value}))


def test_alpha_is_a_number():
    with refused(ConfigError, "range", key="alpha", limit=1):
        Schedule(cosine, math.nan, 10, 100)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Schedule(cosine, 0.3, 10, 100).alpha = 0.5
