from pathlib import Path

import pytest

from esl_lava.data.events.files import open_recording
from esl_lava.data.events.recording import survey
from esl_lava.errors import FileError
from tests.data.events.files import aedat4

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
    ("content", "sentence"),
    [
        (b"#!AER-DAT2.0\r\n", "is no AEDAT 4 file, or damaged: "),
        (aedat4(PACKETS)[:300], "is no AEDAT 4 file, or damaged: "),
        (aedat4(PACKETS, kind="FRME"), "holds no stream of events"),
        (aedat4(PACKETS, side=5000), "is of a sensor of 5000 x 5000 pixels; 1 to 4,096 rows"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        open_recording(path)
    assert str(caught.value).startswith(f"{path} {sentence}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (aedat4([[(9, 0, 0, 1)], [(5, 0, 0, 1)]]), "event 2 is 4 microseconds before the one"),
        (aedat4([[(9, 0, 0, 1), (9, 4, 0, 1)]], side=4), "event 2 is in row 0, column 4 of a"),
        (aedat4(PACKETS)[:-20], ""),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        survey(open_recording(path))
    assert str(caught.value).startswith(f"{path} is damaged: {sentence}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a\.aedat4 cannot be read: No such file"):
        open_recording(tmp_path / "a.aedat4")
