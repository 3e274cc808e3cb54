"""The readers of event files, by the ending of the file name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from esl_lava.data.events.aedat import open_aedat
from esl_lava.data.events.aedat4 import open_aedat4
from esl_lava.data.events.atis import open_atis
from esl_lava.data.events.recording import EventFile, EventRecording
from esl_lava.errors import FileError

READERS: Mapping[str, Callable[[EventFile], EventRecording]] = MappingProxyType(
    {".aedat": open_aedat, ".aedat4": open_aedat4, ".bin": open_atis, ".bs2": open_atis}
)
"""Ending of the file name -> function that opens the file."""


def open_recording(path: Path) -> EventRecording:
    """Return the recording in a file.

    Raises:
        FileError: the file cannot be read, is damaged, or of a format that no reader knows.
    """
    ending = path.suffix.lower()
    if ending not in READERS:
        raise FileError(
            f"{path}: the name of a file of events has to end with one of {', '.join(READERS)}",
            "unknown",
            value=ending,
            limit=tuple(READERS),
            file=path,
        )
    return READERS[ending](EventFile.of_path(path))
