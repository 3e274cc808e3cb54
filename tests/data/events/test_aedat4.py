from pathlib import Path

import pytest

from esl_lava.data.events.files import open_recording
from esl_lava.data.events.recording import survey
from esl_lava.errors import FileError
from tests.data.events.files import aedat4
from tests.faults import refused

PACKETS = [[(100, 1, 2, 1), (150, 127, 0, 0)], [], [(150, 5, 6, 1)]]


def test_events_of_all_packets(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(aedat4(PACKETS))
    recording = open_recording(path)
    assert (recording.rows, recording.columns) == (128, 128)
    found = [
        (events.times.tolist(), events.columns.tolist(), events.rows.tolist(), events.on.tolist())
        for events in recording.chunks()
    ]
    assert found == [([100, 150], [1, 127], [2, 0], [True, False]), ([150], [5], [6], [True])]
    assert survey(recording).events == 3


@pytest.mark.parametrize(
    ("content", "code", "expected"),
    [
        (b"#!AER-DAT2.0\r\n", "damaged", {}),
        (aedat4(PACKETS)[:300], "damaged", {}),
        (aedat4(PACKETS, kind="FRME"), "missing", {}),
        (aedat4(PACKETS, side=5000), "range", {"value": (5000, 5000), "limit": 4096}),
    ],
)
def test_what_is_no_recording_is_refused(
    tmp_path: Path, content: bytes, code: str, expected: dict[str, object]
) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(content)
    with refused(FileError, code, file=str(path), **expected):
        open_recording(path)


@pytest.mark.parametrize(
    ("content", "value", "words"),
    [
        (aedat4([[(9, 0, 0, 1)], [(5, 0, 0, 1)]]), 4, "event 2 "),
        (aedat4([[(9, 0, 0, 1), (9, 4, 0, 1)]], side=4), (0, 4), "event 2 "),
        (aedat4(PACKETS)[:-20], None, ""),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, value: object, words: str) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(content)
    with refused(FileError, "damaged", value=value, file=str(path)) as caught:
        survey(open_recording(path))
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with refused(FileError, "not-found", file=str(tmp_path / "a.aedat4")):
        open_recording(tmp_path / "a.aedat4")
