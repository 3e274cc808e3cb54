"""Inspect a recording of an event camera."""

from __future__ import annotations

from pathlib import Path

from esl_lava.data.events.files import open_recording
from esl_lava.data.events.frames import Framing, make_frames
from esl_lava.data.events.recording import survey
from esl_lava.errors import FileError
from esl_lava.experiments.rundir import refuse_overwrite
from esl_lava.report.recordings import save_animation, save_sheet
from esl_lava.results.recording import RecordingSummary


def inspect(
    path: Path,
    framing: Framing,
    *,
    sheet: Path | None = None,
    animation: Path | None = None,
    overwrite: bool = False,
) -> RecordingSummary:
    """Count the events of a recording and draw its frames.

    Args:
        path: file of the recording.
        framing: how events are summed into frames.
        sheet: PNG file to write, with all frames.
        animation: GIF file to write, with all frames.
        overwrite: whether pictures may replace existing files.

    Raises:
        FileError: if the recording is damaged, a picture exists or cannot be written, or both
            pictures are the same file.
        DataError: as `make_frames`.
    """
    for picture in (sheet, animation):
        if picture is not None:
            refuse_overwrite(picture, overwrite)
    if sheet is not None and sheet == animation:
        raise FileError(
            f"{sheet}: the PNG and the GIF would be the same file", "conflict", file=sheet
        )
    recording = open_recording(path)
    summary = RecordingSummary(survey(recording), make_frames(recording, framing))
    if sheet is not None:
        save_sheet(summary.frames, sheet)
    if animation is not None:
        save_animation(summary.frames, animation)
    return summary
