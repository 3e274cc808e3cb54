from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.data.arrays import SpikesFile
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import Images
from esl_lava.data.encoders import ENCODERS, encode, graded
from esl_lava.data.samples import Samples, TrainingSamples
from esl_lava.errors import DataError
from tests.faults import refused

PIXELS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(6)))
ENCODINGS = st.builds(Encoding, kind=st.sampled_from(list(ENCODERS)), steps=st.integers(1, 40))


def images_of(pixels: npt.NDArray[np.uint8]) -> TrainingSamples:
    """Return images of two rows by the protocol that other rooms use."""
    return Images("few", pixels, np.arange(len(pixels)) % 2, 2, (2, 3), "test")


def file_of(array: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64] | None = None) -> Samples:
    """Return spikes of a file by the protocol that other rooms use."""
    return SpikesFile(Path("some/spikes.npy"), array, (2, 1, 3), 4, labels)


def test_what_images_say_of_themselves() -> None:
    images = images_of(np.arange(18, dtype=np.uint8).reshape(3, 6))
    assert (images.name, images.split, len(images), images.classes) == ("few", "test", 3, 2)
    assert (images.shape, images.steps) == ((1, 2, 3), None)
    picture = images.picture(1)
    assert picture is not None
    assert picture.tolist() == [[6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize(
    ("image_shape", "shape"), [((6,), (1, 1, 6)), ((2, 3), (1, 2, 3)), ((3, 2, 1), (3, 2, 1))]
)
def test_a_shape_has_channels_rows_and_columns(
    image_shape: tuple[int, ...], shape: tuple[int, int, int]
) -> None:
    images = Images("one", np.zeros((1, 6), np.uint8), np.array([0]), 2, image_shape)
    assert images.shape == shape
    assert (images.picture(0) is None) == (len(image_shape) == 1)


def test_a_picture_is_what_a_person_sees() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 12)

    def picture(*image_shape: int) -> npt.NDArray[np.uint8] | None:
        return Images("two", pixels, np.array([0, 1]), 2, image_shape).picture(1)

    grey, one, colour = picture(3, 4), picture(1, 3, 4), picture(3, 2, 2)
    assert grey is not None
    assert one is not None
    assert colour is not None
    assert grey.tolist() == one.tolist() == pixels[1].reshape(3, 4).tolist()
    assert colour.shape == (2, 2, 3)
    assert colour[0, 1].tolist() == [13, 17, 21]  # red, green and blue of the second pixel
    assert picture(2, 3, 2) is None  # two channels
    assert picture(12) is None


@pytest.mark.slow
@given(PIXELS, ENCODINGS, st.data())
def test_images_become_spikes_sample_by_sample(
    pixels: npt.NDArray[np.uint8], encoding: Encoding, data: st.DataObject
) -> None:
    images = images_of(pixels)
    spikes = images.spikes(encoding)
    assert spikes.shape == (len(pixels), encoding.steps, 6)
    np.testing.assert_array_equal(spikes, encode(encoding.kind, pixels, encoding.steps))
    chosen = data.draw(st.lists(st.integers(0, len(pixels) - 1), min_size=1))
    some = images.choose(np.array(chosen))
    np.testing.assert_array_equal(some.spikes(encoding), spikes[chosen])
    assert some.labels.tolist() == images.labels[chosen].tolist()


@pytest.mark.slow
@given(PIXELS, ENCODINGS)
def test_first_steps_are_those_of_the_first_spikes(
    pixels: npt.NDArray[np.uint8], encoding: Encoding
) -> None:
    spikes = images_of(pixels).spikes(encoding)
    first = np.where(spikes.any(axis=1), spikes.argmax(axis=1), encoding.steps)
    np.testing.assert_array_equal(images_of(pixels).first_steps(encoding), first)


@pytest.mark.slow
@given(PIXELS, st.integers(1, 40), st.integers(2, 8))
def test_direct_coding_gives_the_pixels_at_every_step(
    pixels: npt.NDArray[np.uint8], steps: int, bits: int
) -> None:
    encoding = Encoding(kind="direct", steps=steps, bits=bits)
    spikes = images_of(pixels).spikes(encoding)
    assert spikes.dtype == np.int8
    np.testing.assert_array_equal(spikes, graded(pixels, steps, bits))
    assert -(2 ** (bits - 1)) <= spikes.min()
    assert spikes.max() < 2 ** (bits - 1)


@pytest.mark.parametrize(
    "encoding",
    [
        *(Encoding(kind=kind, steps=9) for kind in ENCODERS),
        *(Encoding(kind="direct", bits=b) for b in range(2, 9)),
    ],
)
def test_an_encoding_says_the_range_of_what_it_makes(encoding: Encoding) -> None:
    every = images_of(np.arange(256, dtype=np.uint8)[:, None].repeat(6, axis=1))
    spikes = every.spikes(encoding)
    assert (spikes.min(), spikes.max()) == encoding.input_range


def test_direct_coding_has_no_first_spikes() -> None:
    images = images_of(np.zeros((1, 6), np.uint8))
    with refused(DataError, "unsupported", key="encoding.kind", value="direct"):
        images.first_steps(Encoding(kind="direct"))


def test_images_need_an_encoding() -> None:
    with refused(DataError, "missing", key="encoding"):
        images_of(np.zeros((1, 6), np.uint8)).spikes(None)


def test_images_are_moved_with_their_labels() -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    moved = images_of(pixels).shifted(1, np.random.default_rng(4))
    assert isinstance(moved, Images)
    assert moved.labels.tolist() == images_of(pixels).labels.tolist()
    assert moved.images.tolist() != pixels.tolist()
    for index, image in enumerate(moved.images):
        picture = moved.picture(index)
        assert picture is not None
        np.testing.assert_array_equal(picture, image.reshape(2, 3))


def test_what_a_file_says_of_itself() -> None:
    array = np.random.default_rng(0).integers(0, 2, (5, 4, 2, 1, 3), np.uint8)
    labels = np.array([0, 1, 2, 3, 0])
    file = file_of(array, labels)
    assert (file.name, file.split, len(file), file.classes) == ("spikes.npy", None, 5, 4)
    assert (file.shape, file.steps, file.picture(0)) == ((2, 1, 3), 4, None)
    np.testing.assert_array_equal(file.spikes(None), array.reshape(5, 4, 6))
    some = file.choose(np.array([4, 1]))
    np.testing.assert_array_equal(some.spikes(Encoding()), array[[4, 1]].reshape(2, 4, 6))
    assert some.labels is not None
    assert some.labels.tolist() == [0, 1]
    assert file_of(array).take(2).labels is None


def test_the_digest_of_a_file_is_that_of_all_it_holds() -> None:
    array = np.zeros((2, 3, 6), np.uint8)
    labels = np.array([0, 1])
    alike = file_of(array.copy(), labels.copy())
    assert file_of(array, labels).digest == alike.digest
    changed = array.copy()
    changed[1, 2, 5] = 1
    others = [file_of(array), file_of(changed, labels), file_of(array, labels[::-1]), alike.take(1)]
    assert len({alike.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("n", [-1, 0, 3])
def test_a_file_gives_as_many_as_it_has(n: int) -> None:
    file = file_of(np.zeros((2, 3, 6), np.uint8))
    path = Path("some/spikes.npy")
    with refused(DataError, "range", key="samples", value=n, limit=2, file=path):
        file.take(n)
