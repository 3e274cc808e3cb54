from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esl_lava.data import frames as module
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import Images, split_validation
from esl_lava.data.frames import Frames
from esl_lava.data.samples import TrainingSamples
from esl_lava.errors import DataError
from tests.faults import refused

BINARY, COUNTED = Encoding(kind="frames", steps=2), Encoding(kind="frames", steps=2, bits=3)
# Two samples of two frames, one channel, two rows and three columns.
SOME = np.array(
    [
        [[[[1, 0, 0], [0, 2, 0]]], [[[0, 3, 0], [0, 0, 0]]]],
        [[[[0, 0, 0], [0, 0, 0]]], [[[0, 0, 7], [0, 0, 0]]]],
    ]
)


def some(stored: npt.NDArray = SOME) -> Frames:
    return Frames("some", stored, np.arange(len(stored)) % 2, 2, "train")


def test_what_they_say_of_themselves() -> None:
    samples: TrainingSamples = some()
    assert (samples.name, samples.split, len(samples), samples.classes) == ("some", "train", 2, 2)
    assert (samples.shape, samples.steps) == ((1, 2, 3), 2)
    assert some().largest == 7


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i4", "<i8"])
def test_a_network_is_given_them_as_they_are(dtype: str) -> None:
    spikes = some(SOME.astype(dtype)).spikes(COUNTED)
    assert spikes.dtype == np.uint8
    assert spikes.tolist() == SOME.reshape(2, 2, 6).tolist()
    assert (
        some(SOME > 0).spikes(BINARY).tolist() == (SOME > 0).astype(int).reshape(2, 2, 6).tolist()
    )


def test_the_first_frame_of_each_input() -> None:
    assert some().first_steps(COUNTED).tolist() == [[0, 1, 2, 2, 0, 2], [2, 2, 1, 2, 2, 2]]


def test_a_picture_is_the_sum_of_frames_and_channels() -> None:
    assert some().picture(0).tolist() == [[85, 255, 0], [0, 170, 0]]
    assert some().choose(slice(1, 2)).picture(0).tolist() == [[0, 0, 255], [0, 0, 0]]
    assert some(np.zeros_like(SOME)).picture(1).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert some(np.ones((1, 2, 6, 1, 1), int)).picture(0) is None


@pytest.mark.parametrize(
    ("encoding", "code", "key", "value", "limit"),
    [
        (Encoding(kind="rate", steps=2), "conflict", "encoding.kind", "rate", "frames"),
        (Encoding(kind="frames", steps=3), "mismatch", "encoding.steps", 3, 2),
        (BINARY, "range", "encoding.bits", 7, 1),
        (Encoding(kind="frames", steps=2, bits=2), "range", "encoding.bits", 7, 3),
    ],
)
def test_an_encoding_has_to_say_what_they_are(
    encoding: Encoding, code: str, key: str, value: object, limit: object
) -> None:
    for ask in (some().spikes, some().first_steps, some().refuse_other):
        with refused(DataError, code, key=key, value=value, limit=limit) as caught:
            ask(encoding)
        assert key != "encoding.bits" or "encoding.bits 3" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "key", "code", "value"),
    [
        ({"stored": SOME[:, :, 0]}, "frames", "shape", (2, 2, 2, 3)),
        ({"stored": SOME * 1.0}, "frames", "type", "float64"),
        ({"stored": SOME[:, :, :, :0]}, "frames", "shape", (2, 2, 1, 0, 3)),
        ({"stored": SOME - 1}, "frames", "range", -1),
        ({"stored": SOME * 37}, "frames", "range", 259),
        ({"labels": np.arange(3)}, "labels", "shape", (3,)),
        ({"labels": np.array([0, 2])}, "labels", "range", 2),
        ({"labels": np.array([0, -1])}, "labels", "range", -1),
    ],
)
def test_other_arrays_are_refused(changes: dict, key: str, code: str, value: object) -> None:
    with refused(DataError, code, key=key, value=value):
        replace(some(), **{"largest": None, **changes})


def test_all_values_are_looked_at_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 12)
    for place in range(5):
        stored = np.zeros((5, 2, 1, 2, 3), int)
        stored[place, 1, 0, 1, 2] = 9
        assert some(stored).largest == 9


def test_parts_are_not_read_until_they_are_needed() -> None:
    stored = np.arange(10 * 12).reshape(10, 2, 1, 2, 3)
    whole = some(stored)
    part = whole.choose(np.array([4, 2])).choose(np.array([True, False])).take(1)
    assert part.stored is stored
    assert part.spikes(None).tolist() == stored[[4]].reshape(1, 2, 6).tolist()
    assert part.labels.tolist() == [0]
    train, validation = split_validation(whole, 0.3, 1)
    assert (len(train), len(validation)) == (7, 3)
    together = np.concatenate([train.frames, validation.frames])
    assert sorted(together[:, 0, 0, 0, 0]) == stored[:, 0, 0, 0, 0].tolist()
    for n in (0, 11):
        with refused(DataError, "range", key="samples", value=n, limit=10):
            whole.take(n)


def test_a_digest_tells_frames_labels_and_shapes_apart() -> None:
    other = SOME.copy()
    other[1, 1, 0, 1, 2] += 1
    several = [
        some(),
        some(other),
        replace(some(), labels=np.array([1, 0])),
        some(SOME.reshape(2, 2, 1, 3, 2)),
        some().take(1),
        some().choose(np.array([1, 0])),
    ]
    assert len({one.digest for one in several}) == len(several)
    assert some().digest == some(SOME.copy()).digest


@pytest.mark.slow
@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 3)] * 5)), st.integers(0, 3), st.integers(0, 9)
)
def test_frames_move_and_turn_as_pictures_of_as_many_channels(
    stored: npt.NDArray, pixels: int, seed: int
) -> None:
    samples, steps, channels, rows, columns = stored.shape
    labels = np.zeros(samples, int)
    ours = Frames("some", stored, labels, 1)
    flat = stored.reshape(samples, -1)
    pictures = Images("some", flat, labels, 1, (steps * channels, rows, columns))
    for change in ("shifted", "flipped"):
        given = (pixels,) if change == "shifted" else ()
        mine, theirs = (
            getattr(one, change)(*given, np.random.default_rng(seed)) for one in (ours, pictures)
        )
        assert mine.frames.reshape(samples, -1).tolist() == theirs.images.tolist()
        assert mine.shape == ours.shape
