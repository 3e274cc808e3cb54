from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data.events.atis import open_atis
from esl_lava.data.events.frames import Framing, make_frames
from esl_lava.data.events.recording import EventFile, EventRecording
from esl_lava.errors import DataError
from tests.data.events.files import atis
from tests.faults import refused


def recorded(events: list[tuple[int, int, int, int]]) -> EventRecording:
    return open_atis(EventFile.of_bytes("some.bin", atis(events)))


def active(frames: Any) -> dict[tuple[int, ...], int]:
    """(step, polarity, row, column) -> count."""
    return {tuple(place.tolist()): int(frames[tuple(place)]) for place in np.argwhere(frames)}


def test_portions_of_one_duration() -> None:
    """3 portions of 10..40 have 10 microseconds each; the last event is in the last portion."""
    events = [(10, 0, 0, 1), (19, 0, 0, 1), (20, 1, 2, 0), (29, 1, 2, 0), (30, 3, 3, 1)]
    frames = make_frames(recorded([*events, (40, 33, 33, 1)]), Framing(3, most=255))
    assert frames.shape == (3, 2, 34, 34)
    assert active(frames) == {
        (0, 1, 0, 0): 2,
        (1, 0, 1, 2): 2,
        (2, 1, 3, 3): 1,
        (2, 1, 33, 33): 1,
    }


def test_portions_of_one_number_of_events() -> None:
    """7 events in 3 portions: two, two, and the remaining three."""
    events = [(time, 0, time, 1) for time in range(7)]
    frames = make_frames(recorded(events), Framing(3, "number"))
    assert [np.flatnonzero(frame[1, 0]).tolist() for frame in frames] == [
        [0, 1],
        [2, 3],
        [4, 5, 6],
    ]


def test_counters_stop() -> None:
    events = [(time, 0, 0, 1) for time in range(300)]
    for most in (1, 3, 255):
        assert active(make_frames(recorded(events), Framing(1, most=most))) == {(0, 1, 0, 0): most}


def test_borders_are_left_out_and_pixels_put_together() -> None:
    """Rows 1 to 32 become 16 rows: 1 and 2 the first, 32 in the last; 0 and 33 are left out."""
    events = [(0, row, 1, 1) for row in (0, 1, 2, 3, 32, 33)]
    frames = make_frames(recorded(events), Framing(1, crop=1, side=16, most=255))
    assert frames.shape == (1, 2, 16, 16)
    assert active(frames) == {(0, 1, 0, 0): 2, (0, 1, 1, 0): 1, (0, 1, 15, 0): 1}


def test_any_side_is_reached() -> None:
    """34 rows become 5 rows: row i lies in row i * 5 // 34."""
    events = [(0, row, 0, 1) for row in range(34)]
    frames = make_frames(recorded(events), Framing(1, side=5, most=255))
    assert frames[0, 1, :, 0].tolist() == [7, 7, 7, 7, 6]


@pytest.mark.slow
@given(
    st.lists(st.tuples(*(st.integers(0, 33),) * 3, st.integers(0, 1)), min_size=1, max_size=60),
    st.integers(1, 6),
    st.sampled_from(["time", "number"]),
)
def test_every_event_is_counted_once_however_it_is_read(
    drawn: list[tuple[int, int, int, int]], steps: int, split: str
) -> None:
    events = sorted(drawn)
    if len(events) < steps:
        with refused(DataError, "range", key="frames", value=len(events), limit=steps):
            make_frames(recorded(events), Framing(steps, split))
        return
    found = []
    for chunk in (1, 7, 1 << 18):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("esl_lava.data.events.atis.CHUNK", chunk)
            found.append(make_frames(recorded(events), Framing(steps, split, most=255)))
    assert found[0].sum() == len(events)
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(
    ("framing", "code", "key", "value", "limit", "file"),
    [
        (Framing(1, crop=17), "range", "crop", 17, None, None),
        (Framing(1, crop=1, side=33), "range", "side", 33, 32, None),
        (Framing(2), "range", "frames", 1, 2, "some.bin"),
        (Framing(1 << 15), "too-large", "frames", 75_759_616, 1 << 26, "some.bin"),
    ],
)
def test_frames_that_cannot_be_are_refused(
    framing: Framing, code: str, key: str, value: object, limit: object, file: str | None
) -> None:
    with refused(DataError, code, key=key, value=value, limit=limit, file=file):
        make_frames(recorded([(0, 0, 0, 1)]), framing)
