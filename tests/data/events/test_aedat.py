from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data.events.aedat import open_aedat
from esl_lava.data.events.recording import EventFile, survey
from esl_lava.errors import DataError, FileError
from tests.data.events.files import HEADER, aedat
from tests.faults import refused
from tests.given import needs, path_of


def read(content: bytes) -> list[tuple[int, int, int, bool]]:
    """Return (time, row, column, ON) of all events."""
    chunks = open_aedat(EventFile.of_bytes("some.aedat", content)).chunks()
    return [
        row
        for one in chunks
        for row in zip(*(part.tolist() for part in (one.times, one.rows, one.columns, one.on)))
    ]


def test_axes_are_a_pictures() -> None:
    """Column 0 is left and row 0 is top; jAER counts from the right and from the bottom."""
    content = aedat([(0, 5), (1, 5), (127 << 1, 6), (127 << 8, 7), (3 << 8 | 10 << 1, 9)])
    assert read(content) == [
        (5, 127, 127, True),
        (5, 127, 127, False),
        (6, 127, 0, True),
        (7, 0, 127, True),
        (9, 124, 117, True),
    ]


def test_special_events_are_no_pixels() -> None:
    assert read(aedat([(1 << 15, 1), (0, 2), (1 << 15 | 7, 3)])) == [(2, 127, 127, True)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_times_have_no_sign_and_begin_again(chunk: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("esl_lava.data.events.aedat.CHUNK", chunk)
    last = (1 << 32) - 1
    content = aedat([(0, 1 << 31), (0, last), (0, 0), (0, 10), (0, last), (0, 3)])
    found = [time - (1 << 31) for time, *_ in read(content)]
    assert found == [
        0,
        (1 << 31) - 1,
        1 << 31,
        (1 << 31) + 10,
        3 * (1 << 31) - 1,
        3 * (1 << 31) + 3,
    ]


@pytest.mark.slow
@given(st.lists(st.integers(0, 1 << 40), max_size=30), st.integers(1, 7))
def test_times_that_never_wait_long_are_found_again(times: list[int], chunk: int) -> None:
    """Times are correct if successive events are less than 2^31 microseconds apart."""
    gaps = [time % (1 << 31) for time in times]
    true = np.cumsum(gaps).tolist()
    content = aedat([(2, time % (1 << 32)) for time in true])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("esl_lava.data.events.aedat.CHUNK", chunk)
        assert [time for time, *_ in read(content)] == true


@pytest.mark.parametrize(
    ("content", "code", "expected", "words"),
    [
        (b"", "damaged", {}, "#!AER-DAT2.0"),
        (b"#!AER-DAT3.1\r\n", "damaged", {}, "#!AER-DAT2.0"),
        (HEADER[:-9], "damaged", {}, "header"),
        (aedat([(0, 1)])[:-3], "damaged", {"value": 5, "limit": 8}, ""),
        (aedat([(0, 1), (1 << 16, 2)]), "damaged", {"value": 1 << 16}, "event 2 "),
        (aedat([(0, 9), (0, 4)]), "damaged", {"value": 5}, "event 2 "),
        (
            HEADER.replace(b"DVS128", b"DAVIS240C"),
            "unsupported",
            {"value": "ch.unizh.ini.jaer.chip.retina.DAVIS240C", "limit": "DVS128"},
            "",
        ),
        (HEADER + b"#" + b"x" * (1 << 20), "too-large", {"limit": 1 << 20}, "header"),
    ],
)
def test_what_is_damaged_or_foreign_is_refused(
    content: bytes, code: str, expected: dict[str, object], words: str
) -> None:
    with refused(FileError, code, file="some.aedat", **expected) as caught:
        read(content)
    assert words in str(caught.value)


def test_a_recording_without_events_is_refused() -> None:
    with refused(DataError, "range", value=0, limit=1, file="some.aedat"):
        survey(open_aedat(EventFile.of_bytes("some.aedat", HEADER)))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with refused(FileError, "unreadable", file=tmp_path):
        EventFile.of_path(tmp_path)
    with refused(FileError, "not-found", file=str(tmp_path / "none.aedat")):
        open_aedat(EventFile.of_path(tmp_path / "none.aedat"))


REAL = {
    "Caixa": (201_523, 18_491_949),
    "Caneca": (351_217, 20_540_076),
    "Celular": (307_531, 17_164_914),
    "Estilete": (314_257, 18_378_445),
    "Lapiseira": (126_164, 18_507_653),
    "Mouse": (293_096, 18_425_300),
    "Tesoura": (143_655, 18_762_697),
}
"""Name -> number of events, and microseconds from the first to the last event."""


@pytest.mark.slow
@needs("dvs128_objects")
@pytest.mark.parametrize("name", REAL)
def test_real_recordings(name: str) -> None:
    path = path_of("dvs128_objects") / f"{name}.aedat"
    found = survey(open_aedat(EventFile.of_path(path)))
    assert (found.events, found.last - found.first) == REAL[name]
    assert found.events == found.by_pixel.sum()


@needs("dvs128_objects")
def test_a_real_recording_that_is_cut_off_is_refused() -> None:
    content = (path_of("dvs128_objects") / "Mouse.aedat").read_bytes()
    sizes = np.random.default_rng(1).integers(0, len(content), 40)
    for size in sizes[(len(content) - sizes) % 8 > 0].tolist():
        with pytest.raises(FileError) as caught:
            survey(open_aedat(EventFile.of_bytes("Mouse.aedat", content[:size])))
        assert str(caught.value).count("Mouse.aedat") == 1
        assert "\n" not in str(caught.value)


@needs("dvs128_objects")
def test_a_real_recording_that_is_cut_behind_an_event_is_a_shorter_one() -> None:
    """The format does not record the number of events."""
    content = (path_of("dvs128_objects") / "Mouse.aedat").read_bytes()
    for missing in (1, 1000, 293_095):
        file = EventFile.of_bytes("Mouse.aedat", content[: len(content) - 8 * missing])
        assert survey(open_aedat(file)).events == 293_096 - missing
