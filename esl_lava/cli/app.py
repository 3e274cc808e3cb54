"""`esl` and its subcommands: parse, call, print.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from esl_lava.cli import commands, environment, recordings, sweeps
from esl_lava.cli.manners import polite, set_up_logging
from esl_lava.cli.output import INTERRUPTED, complain
from esl_lava.cli.progress import show_samples
from esl_lava.errors import UserError
from esl_lava.interrupts import heeded
from esl_lava.packages import missing
from esl_lava.progress import shown_by


def _typer(purpose: str | None = None, completion: bool = False) -> typer.Typer:
    """Make a command line without decoration: plain help, plain tracebacks for bugs of ours."""
    return typer.Typer(
        help=purpose,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _typer("Train sparse spiking networks, export them to Lava, run and price them.", True)
reproduce = _typer("Recompute results of the ESL-SNNs paper.")
reproduce.command("table1")(polite(sweeps.reproduce_table1))
reproduce.command("table2")(polite(sweeps.reproduce_table2))
reproduce.command("fig2")(polite(sweeps.reproduce_fig2))
reproduce.command("fig3")(polite(sweeps.reproduce_fig3))
reproduce.command("fig4")(polite(sweeps.reproduce_fig4))
app.command()(polite(commands.demo))
app.command()(polite(commands.train))
app.command()(polite(commands.export))
app.command()(polite(commands.run))
app.command()(polite(commands.verify))
app.command()(polite(commands.energy))
app.command()(polite(commands.devices))
app.command("map")(polite(commands.map_to_chip))
app.command()(polite(commands.report))
app.command()(polite(recordings.events))
app.command()(polite(sweeps.baselines))
app.command()(polite(sweeps.sweep))
app.command()(polite(environment.doctor))
app.command()(polite(environment.data))
app.add_typer(reproduce, name="reproduce")


@app.callback(invoke_without_command=True)
def _overview(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=environment.print_version,
            is_eager=True,
            help="Print the versions of esl-lava and of the packages on which results depend.",
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _guarded(program: Callable[..., int | None]) -> None:
    """Run a command line; a user's error becomes one sentence a line and exit code 2."""
    set_up_logging()
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
        single.command()(polite(command))
        _guarded(single)

    return program


def main() -> None:
    """`esl`."""
    _guarded(app)


train_main = _single(commands.train)
export_main = _single(commands.export)
run_main = _single(commands.run)
energy_main = _single(commands.energy)
