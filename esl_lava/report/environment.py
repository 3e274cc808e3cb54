"""Tables of `esl doctor` and `esl data`."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from esl_lava.data.inventory import Listing
from esl_lava.results.environment import Environment


def show_environment(environment: Environment) -> RenderableType:
    """Return a line about the machine, and tables of its packages and of the checks."""
    packages = Table(box=box.SIMPLE_HEAD, title="Packages", title_justify="left")
    for heading in ("package", "version", "used for", "how to install it"):
        packages.add_column(heading, overflow="fold")
    for package in environment.packages:
        install = "" if package.version else f"pip install 'esl-lava[{package.extra}]'"
        packages.add_row(
            package.name, package.version or "not installed", package.used_for, install
        )
    checks = Table(box=box.SIMPLE_HEAD, title="Checks", title_justify="left")
    for heading in ("checked", "state", "finding"):
        checks.add_column(heading, overflow="fold")
    for check in environment.checks:
        remedy = f"\n-> {check.remedy}" if check.remedy else ""
        checks.add_row(check.subject, check.state, f"{check.finding}{remedy}")
    broken = len(environment.broken)
    verdict = "nothing is broken" if not broken else f"{broken} of the checks found a fault"
    return Group(
        Text(
            f"esl-lava {environment.version}, Python {environment.python}, "
            f"{environment.platform}, {environment.cores} cores"
        ),
        packages,
        checks,
        Text(verdict),
    )


def show_data_sets(listings: Sequence[Listing], folder: str | None) -> RenderableType:
    """Return a table of the data sets: what they hold, where they are, how to get them."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("data.name", "samples", "found", "place, or how to get it"):
        table.add_column(heading, overflow="fold")
    for listing in listings:
        found = "yes" if listing.available else "no"
        table.add_row(listing.name, listing.contents, found, listing.place or listing.how)
    head = f"ESL_LAVA_DATA is {folder}" if folder else "ESL_LAVA_DATA is not set"
    return Group(Text(head), table)
