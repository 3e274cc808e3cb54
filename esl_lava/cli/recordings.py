"""The command about recordings of event cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esl_lava.cli import options
from esl_lava.cli.output import answer, results_only


def events(
    file: Annotated[
        Path,
        typer.Argument(help="A recording: .aedat (AEDAT 2.0, DVS128), .bin or .bs2 (N-MNIST)."),
    ],
    frames: Annotated[int, typer.Option(help="T, the number of frames.", min=1, max=4096)] = 16,
    split: Annotated[
        str, typer.Option(help="Frames of one duration (time) or of one number of events (number).")
    ] = "time",
    crop: Annotated[
        int, typer.Option(help="Pixels that are left out along each border.", min=0)
    ] = 0,
    side: Annotated[
        int | None, typer.Option(help="Rows and columns of a frame; default the sensor's.", min=1)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write all frames as one PNG.")
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="Write the frames as a GIF that moves.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace pictures that exist.")] = False,
    as_json: options.Json = False,
) -> None:
    """Say what a recording of an event camera holds, and draw it."""
    with results_only():
        from esl_lava.data.events.frames import SPLITS, Framing
        from esl_lava.errors import ConfigError
        from esl_lava.experiments.recording import inspect
        from esl_lava.report import tables

        if split not in SPLITS:
            raise ConfigError(f"--split {split!r}: there are {', '.join(SPLITS)}")
        framing = Framing(frames, split, crop, side, most=255)
        found = inspect(file, framing, sheet=output, animation=gif, overwrite=overwrite)
    answer(as_json, found, tables.recorded(found, str(file)))
