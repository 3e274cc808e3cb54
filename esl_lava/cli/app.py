"""The program `esl` and its subcommands.

Heavy packages are imported only when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Annotated

import typer

from esl_lava.cli import accounting, environment, networks, recordings, sweeps, training
from esl_lava.cli.manners import polite, set_up_logging
from esl_lava.cli.output import (
    INTERRUPTED,
    TERMINATED,
    checked_output,
    complain,
    unfailing_errors,
)
from esl_lava.cli.progress import show_samples
from esl_lava.errors import Code, UserError
from esl_lava.interrupts import Termination, raise_on_sigterm, reraise_dropped_interrupts
from esl_lava.packages import explain_missing
from esl_lava.progress import show_progress_with


def _command_line(purpose: str | None = None, completion: bool = False) -> typer.Typer:
    """Return a typer program without commands, whose help and tracebacks are plain text.

    Args:
        purpose: what the program does, for its help.
        completion: whether the program has options that install completion for shells.
    """
    return typer.Typer(
        help=purpose,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _command_line(
    "Train sparse spiking networks, export them to Lava, simulate them and compute their energy.",
    completion=True,
)
reproduce = _command_line("Reproduce tables and figures of the ESL-SNNs paper.")
reproduce.command("table1", short_help="Reproduce Table 1: networks that fire once.")(
    polite(sweeps.reproduce_table1)
)
reproduce.command("table2", short_help="Reproduce Table 2: convolutional networks.")(
    polite(sweeps.reproduce_table2)
)
reproduce.command("fig2", short_help="Reproduce Figure 2: accuracy against eps.")(
    polite(sweeps.reproduce_fig2)
)
reproduce.command("fig3", short_help="Reproduce Figure 3: accuracy against density.")(
    polite(sweeps.reproduce_fig3)
)
reproduce.command("fig4", short_help="Reproduce Figure 4: prune and growth rules.")(
    polite(sweeps.reproduce_fig4)
)
app.command(short_help="Train, verify and report a demo network.")(polite(training.demo))
app.command(short_help="Train a sparse network from scratch.")(polite(training.train))
app.command(short_help="Export a trained model as netx HDF5.")(polite(training.export))
app.command(short_help="Simulate an exported network.")(polite(networks.run))
app.command(short_help="Compare an exported network with its model.")(polite(networks.verify))
app.command(short_help="Compute the energy of a network on devices.")(polite(accounting.energy))
app.command(short_help="Show devices with constants and sources.")(polite(accounting.devices))
app.command("map", short_help="Map a network to the cores of a chip.")(
    polite(accounting.map_to_chip)
)
app.command(short_help="Write a report on runs, or a comparison.")(polite(networks.report))
app.command(short_help="Describe a recording of an event camera.")(polite(recordings.events))
app.command(short_help="Train an experiment by several methods.")(polite(sweeps.baselines))
app.command(short_help="Show the states of the runs of a sweep.")(polite(sweeps.sweep))
app.command(short_help="Check this machine: packages, Lava, GPU, data.")(polite(environment.doctor))
app.command(short_help="List the data sets and where they are.")(polite(environment.data))
app.add_typer(reproduce, name="reproduce")


@app.callback(invoke_without_command=True)
def _show_overview(
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
    """Print the help and fail if no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@unfailing_errors()
def _run_program(program: Callable[..., int | None]) -> None:
    """Run a command line and exit with its code.

    An error of the user is reported without a traceback, and the exit code is 2. After Ctrl-C the
    exit code is 130, after SIGTERM 143.
    """
    try:
        with (
            checked_output(),
            reraise_dropped_interrupts(),
            raise_on_sigterm(),
            show_samples("recordings") as show,
            show_progress_with(show),
            explain_missing(),
        ):
            set_up_logging()
            status = program(standalone_mode=False)
    except Termination:
        print("terminated", file=sys.stderr)
        sys.exit(TERMINATED)
    except UserError as error:
        complain(error)
        sys.exit(2)
    except typer.TyperException as error:
        complain(_usage_error(error))
        sys.exit(2)
    if status == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    sys.exit(status)


def _usage_error(error: typer.TyperException) -> UserError:
    """Return the `UserError` for a wrong command line, which typer has refused with `error`."""
    sentence = error.format_message().removesuffix(".")
    parameter = getattr(error, "param", None)
    if parameter is None:
        # A command, an option or an argument does not exist, or a command or a value is missing.
        missing_part = sentence.startswith("Missing") or "requires an argument" in sentence
        option = getattr(error, "option_name", None)
        return UserError(sentence, "missing" if missing_part else "unknown", key=option)
    key = max(parameter.opts, key=len)
    if sentence.startswith("Missing"):
        return UserError(f"{key} is missing: the argument is required", "missing", key=key)
    value = _last_value(parameter.opts)
    if value is None:
        return UserError(f"{key}: a value is needed", "missing", key=key)
    message = error.message[:1].lower() + error.message[1:].removesuffix(".")
    code: Code = "not-finite" if "finite" in message else "type"
    if any(words in message for words in ("greater than", "less than", "not in the range")):
        code = "range"
    return UserError(f"{key} {value}: {message}", code, key=key, value=value)


def _last_value(options: Sequence[str]) -> str | None:
    """Return the last value of an option on the command line; None if it has no value.

    typer's errors do not tell the value.

    Args:
        options: the names of the option, for example -o and --output.
    """
    value = None
    for word, following in zip_longest(sys.argv[1:], sys.argv[2:]):
        name, equals, text = word.partition("=")
        if name in options:
            value = text if equals else following
    return value


def _single_program(command: Callable[..., None]) -> Callable[[], None]:
    """Return a program that consists of one command."""

    def program() -> None:
        command_line = _command_line()
        command_line.command()(polite(command))
        _run_program(command_line)

    return program


def main() -> None:
    """Run the program `esl`."""
    _run_program(app)


train_main = _single_program(training.train)
export_main = _single_program(training.export)
run_main = _single_program(networks.run)
energy_main = _single_program(accounting.energy)
