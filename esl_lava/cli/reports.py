"""The command that reports on finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esl_lava.cli.options import Json
from esl_lava.cli.output import print_json, print_tables, results_only, tell


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories; several are compared.", metavar="RUN...")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The page; its numbers go beside it as .json. Default: report.html in the "
            "run's directory.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the files if they exist.")] = False,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="A device's name or TOML file; may be repeated."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="The first N test samples are verified; default 20, or all where there are fewer.",
            min=1,
        ),
    ] = None,
    lava: Annotated[
        bool, typer.Option("--lava", help="Verify on Lava itself too, which takes longer.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a report on one run, or a comparison of several, as one page of HTML and JSON."""
    with results_only():
        from esl_lava.experiments import report as reports
        from esl_lava.experiments.price import DEFAULT_DEVICES
        from esl_lava.report import tables

        terms = reports.ReportTerms(tuple(device or DEFAULT_DEVICES), samples, lava)
        written = reports.write(runs, output, overwrite, terms, tell)
    if as_json:
        print_json(written.values)
    else:
        rows = [
            (
                name if len(runs) > 1 else found.title,
                f"{tables.percent(found.evaluation.accuracy or 0.0)} right",
            )
            for name, found in written.accounts.items()
        ]
        rows.append(("differences", f"{written.differences:,}"))
        print_tables(tables.facts(rows, f"written: {written.page}, {written.document}"))
    if written.differences:
        tell("a verification found differences: the page names the first")
        raise typer.Exit(1)
