"""The command `esl events`, which describes recordings of event cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esl_lava.cli import options
from esl_lava.cli.output import answer, results_only


def events(
    file: Annotated[
        Path,
        typer.Argument(
            help="File of the recording: .aedat (AEDAT 2.0), .aedat4 (AEDAT 4), or .bin or .bs2 "
            "(N-MNIST)."
        ),
    ],
    frames: Annotated[
        int, typer.Option(help="Number of frames T, 1 to 4096.", min=1, max=4096)
    ] = 16,
    split: Annotated[
        str,
        typer.Option(
            help="How the recording is split into frames: time (frames of equal duration) or "
            "number (frames of equally many events)."
        ),
    ] = "time",
    crop: Annotated[
        int, typer.Option(help="Number of pixels to remove along each border.", min=0)
    ] = 0,
    side: Annotated[
        int | None,
        typer.Option(
            help="Side of a square frame in pixels. The pixels of the sensor that --crop leaves "
            "are merged into it. By default a frame has all these pixels. A sensor of a single row "
            "stays a single row.",
            min=1,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="PNG file to write, which shows all frames."),
    ] = None,
    gif: Annotated[
        Path | None, typer.Option(help="GIF file to write, which plays the frames.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace the PNG and the GIF file if they exist.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Read a recording of an event camera, print its properties and write pictures of it."""
    with results_only():
        from esl_lava.data.events.frames import SPLITS, Framing
        from esl_lava.errors import ConfigError
        from esl_lava.experiments.recording import inspect
        from esl_lava.report import tables

        if split not in SPLITS:
            names = ", ".join(SPLITS)
            raise ConfigError(
                f"--split {split!r}: the name is unknown; choose one of {names}",
                "unknown",
                key="--split",
                value=split,
                limit=names,
            )
        framing = Framing(frames, split, crop, side, most=255)
        recording = inspect(file, framing, sheet=output, animation=gif, overwrite=overwrite)
    answer(as_json, recording, tables.render_recording(recording, str(file)))
