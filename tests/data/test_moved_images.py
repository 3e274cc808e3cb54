import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data.datasets import Images
from esl_lava.errors import DataError


def shifted(
    images: np.ndarray, shape: tuple[int, ...], pixels: int, generator: np.random.Generator
) -> np.ndarray:
    labels = np.zeros(len(images), np.int64)
    return Images("drawn", images, labels, 1, shape).shifted(pixels, generator).images


class Fixed:
    """A generator that says what the test wants, and checks what it is asked."""

    def __init__(self, *corners: tuple[int, int]) -> None:
        self.corners = np.array(corners)

    def integers(self, low: int, high: int, shape: tuple[int, int]) -> np.ndarray:
        assert (low, high, shape) == (0, 3, self.corners.shape)
        return self.corners


def test_shifts_by_hand() -> None:
    image = np.array([[1, 2, 3, 4, 5, 6]], np.uint8)  # rows 1 2 3 and 4 5 6
    corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2), (2, 2)]
    moved = shifted(np.repeat(image, 6, 0), (2, 3), 1, Fixed(*corners))  # type: ignore[arg-type]
    assert moved.dtype == np.uint8
    assert moved.tolist() == [
        [1, 2, 3, 4, 5, 6],
        [0, 0, 0, 1, 2, 3],
        [4, 5, 6, 0, 0, 0],
        [0, 1, 2, 0, 4, 5],
        [2, 3, 0, 5, 6, 0],
        [5, 6, 0, 0, 0, 0],
    ]


@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 7))
def test_shape_values_and_seed(batch: int, height: int, width: int, pixels: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (batch, height * width)).astype(np.uint8)
    moved, again = (
        shifted(images, (height, width), pixels, np.random.default_rng(7)) for _ in range(2)
    )
    assert moved.shape == images.shape
    assert (moved == again).all()
    for before, after in zip(images, moved):
        assert set(after.tolist()) <= {*before.tolist(), 0}
    if pixels == 0:
        assert (moved == images).all()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"images of shape \(6,\) cannot be moved"):
        shifted(np.zeros((1, 6), np.uint8), (6,), 1, np.random.default_rng(1))
