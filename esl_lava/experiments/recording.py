"""A look into a recording of an event camera."""

from __future__ import annotations

from pathlib import Path

from esl_lava.data.events.files import open_recording
from esl_lava.data.events.frames import Framing, make_frames
from esl_lava.data.events.recording import survey
from esl_lava.errors import FileError
from esl_lava.experiments.rundir import refuse_overwrite
from esl_lava.report.recordings import save_animation, save_sheet
from esl_lava.results.recording import Recorded


def inspect(
    path: Path,
    framing: Framing,
    *,
    sheet: Path | None = None,
    animation: Path | None = None,
    overwrite: bool = False,
) -> Recorded:
    """Count the events of a recording and draw its frames.

    Args:
        path: of the file.
        framing: how it becomes frames.
        sheet: PNG of all frames, to be written.
        animation: GIF of them, to be written.
        overwrite: whether these may replace files.

    Raises:
        FileError: where the recording is damaged, or a picture exists or cannot be written.
        DataError: as `make_frames`.
    """
    for picture in (sheet, animation):
        if picture is not None:
            refuse_overwrite(picture, overwrite)
    if sheet is not None and sheet == animation:
        raise FileError(f"{sheet}: is to be written twice, as PNG and as GIF")
    recording = open_recording(path)
    found = Recorded(survey(recording), make_frames(recording, framing))
    if sheet is not None:
        save_sheet(found.frames, sheet)
    if animation is not None:
        save_animation(found.frames, animation)
    return found
