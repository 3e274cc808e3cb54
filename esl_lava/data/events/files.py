"""Which reader a file of events needs."""

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
"""How a file's name ends -> what opens it."""


def open_recording(path: Path) -> EventRecording:
    """The recording in a file.

    Raises:
        FileError: where the file cannot be read, is damaged, or of a format that no reader knows.
    """
    ending = path.suffix.lower()
    if ending not in READERS:
        raise FileError(
            f"{path}: a file of events is told by the end of its name, which is one of "
            f"{', '.join(READERS)}"
        )
    return READERS[ending](EventFile.of_path(path))
