import pytest

from esl_lava.data.events.atis import open_atis
from esl_lava.data.events.recording import EventFile, survey
from esl_lava.errors import FileError
from tests.data.events.files import atis
from tests.faults import refused


def read(content: bytes) -> list[tuple[int, int, int, bool]]:
    """Return (time, row, column, ON) of all events."""
    chunks = open_atis(EventFile.of_bytes("some.bin", content)).chunks()
    return [
        row
        for one in chunks
        for row in zip(*(part.tolist() for part in (one.times, one.rows, one.columns, one.on)))
    ]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_events_are_five_bytes(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_lava.data.events.atis.CHUNK", chunk)
    events = [(0, 0, 33, 1), (300, 5, 6, 0), (0x7FFFFF, 33, 0, 1)]
    assert read(atis(events)) == [(t, row, column, on == 1) for t, row, column, on in events]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_row_of_240_adds_to_all_later_times(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_lava.data.events.atis.CHUNK", chunk)
    content = atis([(7, 1, 2, 1), (0, 240, 0, 0), (3, 1, 2, 0), (0, 240, 0, 0), (0, 4, 4, 1)])
    assert read(content) == [(7, 1, 2, True), (8195, 1, 2, False), (16384, 4, 4, True)]


@pytest.mark.parametrize(
    ("content", "value", "limit", "words"),
    [
        (atis([(0, 1, 1, 1)])[:-2], 3, 5, ""),
        (atis([(0, 1, 1, 1), (0, 34, 2, 1)]), (34, 2), (34, 34), "event 2 "),
        (atis([(9, 1, 1, 1), (2, 1, 1, 1)]), 7, None, "event 2 "),
        (atis([(0, 240, 0, 0), (9, 1, 1, 1), (2, 1, 1, 1)]), 7, None, "event 3 "),
    ],
)
def test_what_is_damaged_is_refused(
    content: bytes, value: object, limit: object, words: str
) -> None:
    with refused(FileError, "damaged", value=value, limit=limit, file="some.bin") as caught:
        read(content)
    assert words in str(caught.value)


def test_what_a_recording_holds() -> None:
    content = atis([(1_000, 0, 1, 1), (1_500, 0, 1, 1), (3_000, 33, 2, 0)])
    found = survey(open_atis(EventFile.of_bytes("some.bin", content)))
    assert (found.events, found.first, found.last) == (3, 1_000, 3_000)
    assert (found.seconds, found.rate, found.on_share) == (0.002, 1_500.0, 2 / 3)
    assert found.by_pixel.shape == (2, 34, 34)
    assert (found.by_pixel[1, 0, 1], found.by_pixel[0, 33, 2], found.by_pixel.sum()) == (2, 1, 3)
    alone = survey(open_atis(EventFile.of_bytes("some.bin", content[:5])))
    assert alone.rate is None
