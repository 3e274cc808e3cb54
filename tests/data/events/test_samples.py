from typing import Any

import numpy as np
import pytest

from esl_lava.data.config import Encoding
from esl_lava.data.events.samples import EventFrames
from esl_lava.errors import DataError
from tests.faults import refused

ENCODING = Encoding(kind="frames", steps=3)


def some(samples: int = 4, side: int = 5, seed: int = 0) -> EventFrames:
    frames = np.random.default_rng(seed).integers(0, 2, (samples, 3, 2, side, side), np.uint8)
    return EventFrames("set", frames, np.arange(samples) % 2, 2, ENCODING, "test")


def test_spikes_are_the_frames() -> None:
    data = some()
    spikes = data.spikes(ENCODING)
    assert spikes.shape == (4, 3, 50)
    assert (data.shape, len(data), data.steps) == ((2, 5, 5), 4, None)
    assert spikes[1, 2].tolist() == data.frames[1, 2].ravel().tolist()
    with refused(DataError, "mismatch", key="encoding"):
        data.spikes(Encoding(kind="frames", steps=3, crop=1))
    with refused(DataError, "mismatch", key="encoding"):
        data.spikes(None)


def test_some_of_them() -> None:
    data = some()
    assert data.take(2).frames.tolist() == data.frames[:2].tolist()
    assert data.choose(np.arange(4) > 1).take(1).labels.tolist() == [0]
    assert data.choose(slice(1, None)).choose(np.array([2, 0])).labels.tolist() == [1, 1]
    assert data.choose(slice(1, None)).picture(1).tolist() == data.picture(2).tolist()
    assert data.choose(slice(0, 4)).digest == data.digest
    assert data.choose(np.array([3, 0])).labels.tolist() == [1, 0]
    assert data.choose(np.array([3, 0])).frames.tolist() == data.frames[[3, 0]].tolist()
    for number in (0, 5):
        with refused(DataError, "range", key="samples", value=number, limit=4):
            data.take(number)
    assert data.digest == some().digest
    assert data.digest != some(seed=1).digest


def test_first_steps() -> None:
    frames = np.zeros((1, 3, 2, 1, 2), np.uint8)
    frames[0, 1, 0, 0, 0], frames[0, 2, 0, 0, 0], frames[0, 0, 1, 0, 1] = 1, 1, 3
    data = EventFrames("set", frames, np.zeros(1, np.int64), 1, ENCODING)
    assert data.first_steps(ENCODING).tolist() == [[1, 3, 3, 0]]


def test_all_frames_of_a_recording_move_together() -> None:
    data = some(side=6)
    moved = data.shifted(2, np.random.default_rng(7))
    places = np.random.default_rng(7).integers(0, 5, (4, 2))
    framed = np.pad(data.frames, ((0, 0), (0, 0), (0, 0), (2, 2), (2, 2)))
    for index, (top, left) in enumerate(places):
        expected = framed[index, :, :, top : top + 6, left : left + 6]
        assert moved.frames[index].tolist() == expected.tolist()
    assert data.shifted(0, np.random.default_rng(7)).frames.tolist() == data.frames.tolist()


def test_recordings_are_mirrored_or_not() -> None:
    data = some(samples=8)
    mirrored = data.flipped(np.random.default_rng(3))
    turned = np.random.default_rng(3).integers(0, 2, 8)
    assert 0 < turned.sum() < 8
    for before, after, flip in zip(data.frames, mirrored.frames, turned):
        assert after.tolist() == (before[..., ::-1] if flip else before).tolist()


def test_a_picture_is_brighter_where_events_are_on() -> None:
    frames = np.zeros((1, 3, 2, 1, 3), np.uint8)
    frames[0, :, 1, 0, 0] = 1
    frames[0, 0, 0, 0, 1] = 1
    data = EventFrames("set", frames, np.zeros(1, np.int64), 1, ENCODING)
    assert data.picture(0).tolist() == [[255, 85, 128]]


@pytest.mark.parametrize(
    ("change", "key", "code", "value"),
    [
        ({"stored": np.zeros((2, 3, 2, 4), np.uint8)}, "frames", "shape", (2, 3, 2, 4)),
        ({"stored": np.zeros((2, 4, 2, 4, 4), np.uint8)}, "frames", "shape", (2, 4, 2, 4, 4)),
        ({"stored": np.zeros((2, 3, 2, 4, 4), np.int8)}, "frames", "type", "int8"),
        ({"labels": np.zeros(3, np.int64)}, "labels", "shape", (3,)),
        ({"labels": np.array([0, 2])}, "labels", "range", 2),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], key: str, code: str, value: object
) -> None:
    given: dict[str, Any] = {
        "stored": np.zeros((2, 3, 2, 4, 4), np.uint8),
        "labels": np.zeros(2, np.int64),
    }
    with refused(DataError, code, key=key, value=value):
        EventFrames("set", classes=2, encoding=ENCODING, **(given | change))


def test_no_frame_is_read_before_it_is_needed() -> None:
    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, key: Any) -> Any:
            Counting.read += 1
            return super().__getitem__(key)

    stored = np.zeros((9, 3, 2, 4, 4), np.uint8).view(Counting)
    data = EventFrames("set", stored, np.zeros(9, np.int64), 1, ENCODING)
    some = data.choose(np.arange(9) % 2 == 0).take(3)
    assert (Counting.read, len(some)) == (0, 3)
    assert some.spikes(ENCODING).shape == (3, 3, 32)
    assert Counting.read == 1
