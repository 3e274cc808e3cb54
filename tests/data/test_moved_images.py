import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data.datasets import Images
from esl_lava.errors import DataError
from tests.faults import refused


def shifted(
    images: np.ndarray, shape: tuple[int, ...], pixels: int, generator: np.random.Generator
) -> np.ndarray:
    labels = np.zeros(len(images), np.int64)
    return Images("drawn", images, labels, 1, shape).shifted(pixels, generator).images


class Fixed:
    """A generator that returns fixed corners, and checks its arguments."""

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


@pytest.mark.slow
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


SHAPES = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
)


@pytest.mark.slow
@given(st.integers(0, 5), SHAPES, st.integers(0, 7), st.integers(0, 9))
def test_a_shift_is_a_crop_of_an_image_with_zeros_around(
    batch: int, shape: tuple[int, ...], pixels: int, seed: int
) -> None:
    """Loops with the same draws give the same images. An axis of length 1 is not shifted along."""
    images = np.random.default_rng(1).integers(0, 256, (batch, *shape)).astype(np.uint8)
    corners = np.random.default_rng(seed).integers(0, 2 * pixels + 1, (batch, 2))
    expected = np.zeros_like(images)
    height, width = shape[-2:]
    for sample, (top, left) in enumerate(corners):
        down = top - pixels if height > 1 else 0
        right = left - pixels if width > 1 else 0
        for row in range(height):
            for column in range(width):
                from_row, from_column = row + down, column + right
                if 0 <= from_row < height and 0 <= from_column < width:
                    here = images[sample, ..., from_row, from_column]
                    expected[sample, ..., row, column] = here
    flat = images.reshape(batch, int(np.prod(shape)))
    found = shifted(flat, shape, pixels, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, expected.reshape(flat.shape))


def drawn(images: np.ndarray, shape: tuple[int, ...]) -> Images:
    return Images("drawn", images, np.arange(len(images)), max(1, len(images)), shape)


class Coins:
    """A generator that returns which images are mirrored, and checks its arguments."""

    def __init__(self, *turned: int) -> None:
        self.turned = np.array(turned)

    def integers(self, low: int, high: int, samples: int) -> np.ndarray:
        assert (low, high, samples) == (0, 2, len(self.turned))
        return self.turned


def test_mirror_images_by_hand() -> None:
    images = drawn(np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]], np.uint8), (2, 3))
    turned = images.flipped(Coins(1, 0))  # type: ignore[arg-type]
    assert turned.images.dtype == np.uint8
    assert turned.images.tolist() == [[3, 2, 1, 6, 5, 4], [7, 8, 9, 10, 11, 12]]
    assert turned.labels.tolist() == [0, 1]


@pytest.mark.slow
@given(st.integers(0, 6), SHAPES, st.integers(0, 9))
def test_every_image_is_itself_or_its_mirror_image(
    batch: int, shape: tuple[int, ...], seed: int
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (batch, *shape)).astype(np.uint8)
    given = drawn(images.reshape(batch, int(np.prod(shape))), shape)
    turned = given.flipped(np.random.default_rng(seed)).images
    coins = np.random.default_rng(seed).integers(0, 2, batch)
    for sample, coin, found in zip(images, coins, turned.reshape(images.shape)):
        np.testing.assert_array_equal(found, np.flip(sample, -1) if coin else sample)


def test_about_half_of_many_images_are_turned() -> None:
    images = np.tile(np.array([[1, 2]], np.uint8), (10_000, 1))
    turned = drawn(images, (1, 2)).flipped(np.random.default_rng(3)).images
    assert 0.48 < (turned[:, 0] == 2).mean() < 0.52


@pytest.mark.parametrize("shape", [(6,), (1, 1, 2, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    images = drawn(np.zeros((1, 6), np.uint8), shape)
    generator = np.random.default_rng(1)
    with refused(DataError, "shape", key="images", value=shape):
        images.shifted(1, generator)
    with refused(DataError, "shape", key="images", value=shape):
        images.flipped(generator)
