"""Write docs/reference/: the pages that are made from the package itself.

`make docs` calls this before it builds the site. The pages are not tracked: they cannot be out of
date. Run it as `python tools/reference.py`, in the environment that `make setup` makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from esl_lava import config
from esl_lava.cli.app import app
from esl_lava.devices import device_names, load_device
from esl_lava.errors import CODES
from esl_lava.results import price

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"


def commands_page() -> Iterator[str]:
    """Every command with its help, its arguments and its options."""
    yield "# Commands\n"
    yield "Each section is what the command prints with `--help`. `esl-train`, `esl-export`,"
    yield "`esl-run` and `esl-energy` are the commands `esl train`, `esl export`, `esl run` and"
    yield "`esl energy` under names of their own.\n"
    yield "Exit codes: 0 for success, 1 if a comparison found a difference or `esl doctor` a"
    yield "fault, 2 for bad input, 130 after Ctrl-C. With `--json` a command prints exactly one"
    yield "JSON object on standard output; progress, warnings and errors go to standard error.\n"
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            for inner, subcommand in command.commands.items():
                yield from _command(f"esl {name} {inner}", subcommand)
        else:
            yield from _command(f"esl {name}", command)


def _command(words: str, command: Any) -> Iterator[str]:
    """One command: an object of click, or of typer's own copy of it."""
    context = command.context_class(command, info_name=words)
    yield f"## {words}\n"
    yield f"{_paragraphs(command.help or '')}\n"
    yield "```text"
    yield " ".join([words, *command.collect_usage_pieces(context)])
    yield "```\n"
    yield "| argument or option | meaning |"
    yield "| --- | --- |"
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        record = parameter.get_help_record(context)
        names, text = record or (
            parameter.human_readable_name,
            getattr(parameter, "help", "") or "",
        )
        yield f"| `{_cell(names)}` | {_cell(text)} |"
    yield ""


def configuration_page() -> Iterator[str]:
    """Every field of a configuration, by section."""
    yield "# Configuration\n"
    yield "A configuration is a TOML file, such as a preset or the `config.toml` of a run."
    yield "`esl train --set KEY=VALUE` changes one field. A field without a default is unset."
    yield "`esl train --help-config` prints the same list.\n"
    section = None
    for key, default, description in config.documentation():
        table = key.rpartition(".")[0] or "top level"
        if table != section:
            section = table
            yield f"\n## {section}\n"
            yield "| key | default | meaning |"
            yield "| --- | --- | --- |"
        shown = f"`{_cell(default)}`" if default else ""
        yield f"| `{key}` | {shown} | {_cell(description)} |"


def devices_page() -> Iterator[str]:
    """Every device file, with the kind and the source of each number."""
    yield "# Devices\n"
    yield "A device is a TOML file with constants, limits and their sources. `esl devices` prints"
    yield "the same. `--device my_chip.toml` takes a file of your own in the same format. The files"
    yield "of this page lie in the folder `hw_configs` of the repository and serve as examples.\n"
    for name in device_names():
        device = load_device(name)
        yield f"\n## {name}\n"
        yield f"{device.title}. Made by {device.maker}.\n"
        if device.notes:
            yield f"{' '.join(device.notes)}\n"
        yield "| number | value | kind | operating point | source |"
        yield "| --- | --- | --- | --- | --- |"
        for fact in price.device_numbers(device):
            cells = (fact.value, fact.kind, fact.operating_point, fact.source)
            yield f"| `{fact.key}` | " + " | ".join(_cell(cell or "") for cell in cells) + " |"


def errors_page() -> Iterator[str]:
    """Every code of an error."""
    yield "# Errors\n"
    yield "A command that refuses its input prints one line for each fault on standard error,"
    yield "`error: SENTENCE [code]`, and ends with exit code 2. With `--json` it also prints"
    yield '`{"error": [...]}` on standard output: the fields of each fault. In Python every such'
    yield "error is a [`UserError`](python.md) with the same faults. Programs can rely on codes and"
    yield "fields. The sentences are for people and may change.\n"
    yield "| code | meaning |"
    yield "| --- | --- |"
    for code, meaning in CODES.items():
        yield f"| `{code}` | {meaning} |"
    yield "\n| field | meaning |"
    yield "| --- | --- |"
    yield "| `sentence` | the fault as one sentence |"
    yield "| `code` | the kind of fault |"
    yield "| `key` | the option, configuration key, argument or array at fault |"
    yield "| `value` | the value at fault |"
    yield "| `limit` | the limit that the value breaks, or the values that are allowed |"
    yield "| `file` | the file at fault |"
    yield "| `layer` | the layer at fault |"


def python_page() -> Iterator[str]:
    """The public interface, which mkdocstrings fills in."""
    import esl_lava

    yield "# Python\n"
    yield "The public names of `import esl_lava`. [Use Python](../python.md) shows them in use.\n"
    functions = [name for name in esl_lava.__all__ if name[0].islower()]
    types = [name for name in esl_lava.__all__ if name[0].isupper() and name != "INPUT"]
    for name in [*functions, *types]:
        if name in ("errors", "__version__"):
            continue
        yield f"::: esl_lava.{name}\n"
    yield "::: esl_lava.errors\n"


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _cell(text: str) -> str:
    """A text in a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


PAGES = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "devices.md": devices_page,
    "errors.md": errors_page,
    "python.md": python_page,
}


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text("\n".join(page()) + "\n")


if __name__ == "__main__":
    main()
