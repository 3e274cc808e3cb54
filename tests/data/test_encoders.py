from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.data.encoders import ENCODERS, encode, first_steps, graded
from esl_lava.errors import DataError
from tests.faults import refused

ALL_PIXELS = np.arange(256, dtype=np.uint8)[None]

images = hnp.arrays(np.uint8, st.tuples(st.integers(0, 3), st.integers(0, 6)))
step_counts = st.integers(1, 300)


@pytest.mark.parametrize(
    ("kind", "pixel", "expected"),
    [
        ("rate", 0, "0000"),
        ("rate", 31, "0000"),  # 127 + 4 * 31 = 251
        ("rate", 32, "0001"),  # 255
        ("rate", 64, "0100"),  # 191, 255 -> 0, 64, 128
        ("rate", 85, "0100"),  # 212, 297 -> 42, 127, 212
        ("rate", 127, "0101"),  # 254, 381 -> 126, 253, 380
        ("rate", 128, "1010"),  # 255 -> 0, 128, 256 -> 1, 129
        ("rate", 191, "1011"),  # 318 -> 63, 254, 445 -> 190, 381
        ("rate", 255, "1111"),
        ("latency", 0, "0000"),
        ("latency", 1, "0001"),  # 254 * 3 / 255 = 2.99
        ("latency", 42, "0001"),  # 213 * 3 / 255 = 2.506
        ("latency", 43, "0010"),  # 212 * 3 / 255 = 2.494
        ("latency", 128, "0100"),  # 127 * 3 / 255 = 1.494
        ("latency", 127, "0010"),  # 128 * 3 / 255 = 1.506
        ("latency", 212, "0100"),  # 43 * 3 / 255 = 0.506
        ("latency", 213, "1000"),  # 42 * 3 / 255 = 0.494
        ("latency", 255, "1000"),
        ("constant", 0, "0000"),
        ("constant", 127, "0000"),
        ("constant", 128, "1111"),
        ("constant", 255, "1111"),
        ("two_times", 0, "0010"),  # 2 * 4 // 3
        ("two_times", 127, "0010"),
        ("two_times", 128, "1000"),
        ("two_times", 255, "1000"),
    ],
)
def test_trains_by_hand(kind: str, pixel: int, expected: str) -> None:
    spikes = encode(kind, np.array([[pixel]], np.uint8), 4)
    assert "".join(map(str, spikes[0, :, 0])) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
@given(images=images, steps=step_counts)
def test_shape_type_and_values(kind: str, images: npt.NDArray[np.uint8], steps: int) -> None:
    spikes = encode(kind, images, steps)
    assert spikes.shape == (len(images), steps, images.shape[1])
    assert spikes.dtype == np.uint8
    assert np.isin(spikes, [0, 1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
@given(images=images, steps=step_counts)
def test_a_pixel_is_encoded_alone(kind: str, images: npt.NDArray[np.uint8], steps: int) -> None:
    trains = encode(kind, ALL_PIXELS, steps)[0]
    for image, spikes in zip(images, encode(kind, images, steps)):
        np.testing.assert_array_equal(spikes, trains[:, image])


@pytest.mark.slow
@given(images=images, steps=step_counts)
def test_rate_counts_follow_the_formula(images: npt.NDArray[np.uint8], steps: int) -> None:
    counts = np.cumsum(encode("rate", images, steps), axis=1, dtype=np.int64)
    t = np.arange(1, steps + 1)[:, None]
    full_scale_times_t = t * images[:, None].astype(np.int64)
    assert (2 * abs(full_scale_times_t - 255 * counts) < 255).all()  # the nearest; no ties


@pytest.mark.parametrize("steps", [1, 2, 8, 255, 600])
def test_rate_is_integrate_and_fire(steps: int) -> None:
    spikes = encode("rate", ALL_PIXELS, steps)[0].T
    v = np.full(256, 127)
    for t in range(steps):
        v += ALL_PIXELS[0]
        fires = v >= 255
        np.testing.assert_array_equal(spikes[:, t], fires)
        v[fires] -= 255


@pytest.mark.slow
@given(steps=step_counts)
def test_latency_is_one_spike_the_brighter_the_earlier(steps: int) -> None:
    spikes = encode("latency", ALL_PIXELS, steps)[0].T
    assert not spikes[0].any()
    np.testing.assert_array_equal(spikes[1:].sum(axis=1), 1)
    step = spikes[1:].argmax(axis=1)
    assert (np.diff(step) <= 0).all()
    assert step[-1] == 0
    exact = (255 - np.arange(1, 256)) * (steps - 1)  # in 255ths of a step
    assert (2 * abs(exact - 255 * step) < 255).all()  # the nearest; there are no ties


@pytest.mark.slow
@given(steps=step_counts)
def test_constant_is_all_or_nothing(steps: int) -> None:
    spikes = encode("constant", ALL_PIXELS, steps)[0].T
    assert not spikes[:128].any()
    assert spikes[128:].all()


@pytest.mark.slow
@given(steps=step_counts)
def test_two_times_spikes_once_whatever_the_pixel(steps: int) -> None:
    spikes = encode("two_times", ALL_PIXELS, steps)[0]
    assert (spikes.sum(axis=0) == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
@given(steps=step_counts)
def test_first_steps_are_those_of_the_first_spikes(kind: str, steps: int) -> None:
    trains = encode(kind, ALL_PIXELS, steps)[0].T
    for train, first in zip(trains, first_steps(kind, steps)):
        assert not train[:first].any()
        assert first == steps or train[first] == 1


@pytest.mark.parametrize(
    ("kind", "nearest"), [("latncy", "latency"), ("Rate", "rate"), ("const", "constant")]
)
def test_unknown_kinds_are_refused_with_the_nearest(kind: str, nearest: str) -> None:
    known = ("rate", "latency", "constant", "two_times")
    with refused(DataError, "unknown", key="encoding.kind", value=kind, limit=known) as caught:
        encode(kind, ALL_PIXELS, 4)
    assert str(caught.value).endswith(f"'{nearest}'")


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(kind: str, steps: int) -> None:
    with refused(DataError, "range", key="encoding.steps", value=steps, limit=1):
        encode(kind, ALL_PIXELS, steps)


@pytest.mark.parametrize(
    ("wrong", "code", "value"),
    [
        (ALL_PIXELS.astype(np.float32), "type", "float32"),
        (ALL_PIXELS.astype(np.int64), "type", "int64"),
        (ALL_PIXELS > 0, "type", "bool"),
        ([[0, 255]], "type", "list"),
        (ALL_PIXELS[0], "shape", (256,)),
        (ALL_PIXELS[None], "shape", (1, 1, 256)),
    ],
)
def test_other_images_are_refused(wrong: Any, code: str, value: object) -> None:
    with refused(DataError, code, key="images", value=value):
        encode("rate", wrong, 4)


# --- direct coding -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "pixels"),
    [
        (5, {0: -16, 7: -16, 8: -15, 127: -1, 128: 0, 135: 0, 136: 1, 247: 14, 248: 15, 255: 15}),
        (8, {0: -128, 1: -127, 127: -1, 128: 0, 255: 127}),
        (2, {0: -2, 63: -2, 64: -1, 128: 0, 191: 0, 192: 1, 255: 1}),
        (1, {0: -1, 127: -1, 128: 0, 255: 0}),
    ],
)
def test_graded_pixels_by_hand(bits: int, pixels: dict[int, int]) -> None:
    found = graded(np.array([list(pixels)], np.uint8), 1, bits)
    assert found.dtype == np.int8
    assert found[0, 0].tolist() == list(pixels.values())


@pytest.mark.slow
@given(images, step_counts, st.integers(1, 8))
def test_graded_pixels_are_the_same_at_every_step(
    pixels: npt.NDArray[np.uint8], steps: int, bits: int
) -> None:
    found = graded(pixels, steps, bits)
    assert found.shape == (len(pixels), steps, pixels.shape[1])
    expected = (pixels.astype(int) >> (8 - bits)) - (1 << (bits - 1))
    assert (found == expected[:, None]).all()
    assert found.strides[1] == 0  # one step's memory
    assert not found.flags.writeable


@pytest.mark.parametrize("bits", [-1, 0, 9])
def test_bits_that_a_pixel_has_not_are_refused(bits: int) -> None:
    with refused(DataError, "range", key="encoding.bits", value=bits, limit=8):
        graded(ALL_PIXELS, 2, bits)


def test_graded_input_needs_steps_and_images() -> None:
    with refused(DataError, "range", key="encoding.steps", value=0):
        graded(ALL_PIXELS, 0, 5)
    with refused(DataError, "type", key="images", value="int64"):
        graded(ALL_PIXELS.astype(np.int64), 2, 5)
