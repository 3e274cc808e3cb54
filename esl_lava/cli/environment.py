"""The commands about this machine: `esl doctor`, `esl data` and `esl --version`."""

from __future__ import annotations

import platform

import typer

from esl_lava.cli import options
from esl_lava.cli.output import answer, results_only


def doctor(as_json: options.Json = False) -> None:
    """Check Python, packages, Lava, GPU, data sets and caches, and say what is missing.

    The exit code is 1 if something is broken. A package that only some commands need is
    not a fault.
    """
    with results_only():
        from esl_lava.experiments.doctor import examine
        from esl_lava.report.environment import show_environment

        environment = examine()
    answer(as_json, environment, show_environment(environment))
    if environment.broken:
        raise typer.Exit(1)


def data(as_json: options.Json = False) -> None:
    """List the data sets: what they hold, whether they are found, and how to get them."""
    with results_only():
        from esl_lava.data.inventory import data_folder, list_data_sets
        from esl_lava.report.environment import show_data_sets
        from esl_lava.values import as_values

        listings = list_data_sets()
    found = {listing.name: as_values(listing) for listing in listings}
    answer(as_json, found, show_data_sets(listings, data_folder()))


def print_version(asked: bool) -> None:
    """Print the versions of esl-lava, Python and the packages on which results depend."""
    if not asked:
        return
    from importlib.metadata import version

    from esl_lava.experiments.stack import STACK, installed_version

    typer.echo(f"esl-lava {version('esl-lava')}")
    typer.echo(f"Python {platform.python_version()}")
    for package in STACK:
        typer.echo(f"{package} {installed_version(package) or 'not installed'}")
    raise typer.Exit
