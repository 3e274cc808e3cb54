"""`esl` and its subcommands: parse, call, print.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import typer

from esl_lava.cli import commands, recordings, sweeps
from esl_lava.cli.output import INTERRUPTED, complain
from esl_lava.cli.progress import show_samples
from esl_lava.errors import UserError
from esl_lava.interrupts import heeded
from esl_lava.packages import missing
from esl_lava.progress import shown_by


def _typer(purpose: str | None = None) -> typer.Typer:
    """A command line without decoration: plain help, plain tracebacks for bugs of ours."""
    return typer.Typer(
        help=purpose,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _typer("Train sparse spiking networks, export them to Lava, run and price them.")
reproduce = _typer("Recompute results of the ESL-SNNs paper.")
reproduce.command("table1")(sweeps.reproduce_table1)
reproduce.command("table2")(sweeps.reproduce_table2)
reproduce.command("fig2")(sweeps.reproduce_fig2)
reproduce.command("fig3")(sweeps.reproduce_fig3)
reproduce.command("fig4")(sweeps.reproduce_fig4)
app.command()(commands.demo)
app.command()(commands.train)
app.command()(commands.export)
app.command()(commands.run)
app.command()(commands.verify)
app.command()(commands.energy)
app.command()(commands.devices)
app.command("map")(commands.map_to_chip)
app.command()(commands.report)
app.command()(recordings.events)
app.command()(sweeps.baselines)
app.command()(sweeps.sweep)
app.add_typer(reproduce, name="reproduce")


@app.callback(invoke_without_command=True)
def _overview(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _guarded(program: Callable[..., int | None]) -> None:
    """Run a command line; a user's error becomes one sentence a line and exit code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # What `auto` chose; compilation; pictures being decoded.
    for told in ("esl_lava.engines.choice", "esl_lava.kernels", "esl_lava.data.jpegs"):
        logging.getLogger(told).setLevel(logging.INFO)
    try:
        with heeded(), show_samples("recordings") as show, shown_by(show):
            status = program(standalone_mode=False)
    except UserError as error:
        complain(error)
        sys.exit(2)
    except ModuleNotFoundError as error:
        unmet = missing(error)
        if unmet is None:
            raise
        complain(unmet)
        sys.exit(2)
    except typer.TyperException as error:  # unknown options, missing arguments
        print(f"error: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    if status == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    sys.exit(status)


def _single(command: Callable[..., None]) -> Callable[[], None]:
    """A program of its own out of one command."""

    def program() -> None:
        single = _typer()
        single.command()(command)
        _guarded(single)

    return program


def main() -> None:
    """`esl`."""
    _guarded(app)


train_main = _single(commands.train)
export_main = _single(commands.export)
run_main = _single(commands.run)
energy_main = _single(commands.energy)
