import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data.events.camera import DARK, STEP, UNIT, record, saccades
from esl_lava.data.events.recording import Events


def silent(image: np.ndarray, path: list[tuple[int, int]], threshold: float = 0.5) -> Events:
    """Return events without noise, with 1,000 microseconds between positions."""
    generator = np.random.default_rng(0)
    return record(image, path, 1_000, threshold=threshold, noise=0.0, generator=generator)


def test_a_pixel_that_leaves_sends_off_events_and_the_next_on_events() -> None:
    """The brightness falls from 92 + 8 to 8: log(12.5) = 2.52, five thresholds of 0.5."""
    image = np.zeros((1, 3), np.uint8)
    image[0, 1] = 92
    found = silent(image, [(0, 0), (0, STEP)])
    assert [(c, on) for c, on in zip(found.columns.tolist(), found.on.tolist())].count((1, 0)) == 5
    assert np.bincount(found.columns[found.on], minlength=3).tolist() == [0, 0, 5]
    assert np.bincount(found.columns[~found.on], minlength=3).tolist() == [0, 5, 0]
    # By linear interpolation of the logarithm, event k comes at k * 0.5 / 2.5257 of the interval.
    length = math.log((92 + DARK) / DARK)
    expected = [int(1_000 * 0.5 * k / length) for k in range(1, 6)]
    assert np.abs(found.times[found.on] - expected).max() <= 1  # of rounded logarithms


def test_changes_below_the_threshold_are_remembered() -> None:
    """Two changes below the threshold add up to one event, in the second move."""
    image = np.full((3, 3), 200, np.uint8)
    bright = math.log((200 + DARK) / (100 + DARK))
    assert bright > 0.6
    found = silent(image, [(0, 0), (0, STEP // 4), (0, STEP // 2)], threshold=0.6)
    edge = found.columns == 0  # black comes in from the left
    assert edge.all()
    assert found.times.min() >= 1_000
    assert not found.on.any()


def test_what_does_not_move_sends_nothing() -> None:
    image = np.random.default_rng(1).integers(0, 256, (5, 5)).astype(np.uint8)
    assert len(silent(image, [(0, 0)] * 4)) == 0


@pytest.mark.slow
@given(st.integers(0, 1 << 32), st.integers(1, 4), st.floats(0.05, 2.0))
def test_events_follow_the_logarithm_within_a_threshold(
    seed: int, reach: int, threshold: float
) -> None:
    """ON minus OFF events of a pixel are the change of its logarithm, rounded towards 0."""
    rng = np.random.default_rng(seed)
    image = np.pad(rng.integers(0, 256, (4, 4)).astype(np.uint8), reach + 1)
    path = saccades(reach, rng)
    found = silent(image, path, threshold)
    assert (np.diff(found.times) >= 0).all()
    assert found.times.min(initial=0) >= 0
    assert found.times.max(initial=0) <= (len(path) - 1) * 1_000
    balance = np.zeros(image.shape, np.int64)
    np.add.at(balance, (found.rows, found.columns), np.where(found.on, 1, -1))
    # The path returns: the last reference is less than one threshold from the first.
    assert not balance.any() or np.abs(balance).max() * threshold <= threshold + 2 / UNIT


def test_noise_is_of_its_seed() -> None:
    image = np.zeros((4, 4), np.uint8)
    path = [(0, 0), (0, 0)]
    found = [
        record(
            image,
            path,
            500_000,
            threshold=1.0,
            noise=25.0,
            generator=np.random.default_rng(seed),
        )
        for seed in (3, 3, 4)
    ]
    assert [len(one) for one in found] == [200, 200, 200]
    assert found[0].times.tolist() == found[1].times.tolist()
    assert found[0].times.tolist() != found[2].times.tolist()
    assert 0.3 < found[0].on.mean() < 0.7
    assert len({*zip(found[0].rows.tolist(), found[0].columns.tolist())}) == 16


def test_paths_return_and_turn() -> None:
    found = {tuple(saccades(3, np.random.default_rng(seed))) for seed in range(100)}
    assert len(found) == 8
    for path in found:
        assert (path[0], path[-1]) == ((0, 0), (0, 0))
        assert len(path) == 3 * STEP + 1
        assert max(abs(place) for step in path for place in step) == 3 * STEP


@pytest.mark.parametrize("place", [(16, 0), (-32, 16), (5, -7)])
def test_an_image_is_seen_between_pixels(place: tuple[int, int]) -> None:
    from esl_lava.data.events.camera import _view

    image = np.zeros((9, 9), np.uint8)
    image[4, 4] = 255
    found = _view(image, place)
    down, right = place
    for row in range(9):
        for column in range(9):
            near = max(0, STEP - abs((row - 4) * STEP - down))
            beside = max(0, STEP - abs((column - 4) * STEP - right))
            value = 255 * near * beside // STEP**2
            assert found[row, column] == round(UNIT * math.log(value + DARK))
