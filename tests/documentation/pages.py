"""The code blocks of README and docs, and what a test does with each.

A comment before a block changes how the block is tested:

    <!-- test: not run: REASON -->      the block is not run; its commands and options must exist
    <!-- test: run first: COMMAND -->   the command is run before the block
    <!-- test: needs mnist -->          the block needs that data set in ESL_LAVA_DATA

A block with a title (```toml title="mine.toml") is written to the file of that name. Blocks of
shell commands (`bash`) and of Python (`python`) run in the order of the page, in one folder.
Blocks of other languages are only text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^( *)```(\w*)(?: +title=\"([^\"]+)\")?[^\n]*\n(.*?)^\1```$", re.M | re.S)
_DIRECTIVE = re.compile(r"<!-- test: (not run|run first|needs)(?::? ([^>]*?))? -->")
_NAMES = ("esl", "esl-train", "esl-export", "esl-run", "esl-energy")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes:
        language: the word after the fence, such as "bash".
        title: the file that the block is the content of; empty for none.
        code: the text between the fences, without the indentation of the fence.
        line: line of the fence in the page, from 1.
        not_run: the reason why it is not run; empty where it is run.
        first: commands that are run before it.
        needs: data sets that it needs.
    """

    language: str
    title: str
    code: str
    line: int
    not_run: str = ""
    first: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def is_run(self) -> bool:
        return self.language in ("bash", "python") and not self.title and not self.not_run


def all_pages() -> list[Path]:
    """README and every page of the docs, without those that `make docs` makes."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, end = [], 0
    for match in _FENCE.finditer(text):
        indent, language, title, code = match.groups()
        # A directive belongs to the block if only blank lines stand between.
        before = text[end : match.start()].rstrip().split("\n\n")[-1]
        directives = _DIRECTIVE.findall(before)
        plain = "\n".join(line.removeprefix(indent) for line in code.split("\n"))
        found.append(
            Block(
                language,
                title or "",
                plain,
                text.count("\n", 0, match.start()) + 1,
                not_run="; ".join(
                    what or "no reason" for kind, what in directives if kind == "not run"
                ),
                first=tuple(what for kind, what in directives if kind == "run first"),
                needs=tuple(what for kind, what in directives if kind == "needs"),
            )
        )
        end = match.end()
    return found


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command of ours in a block of shell commands."""
    joined = code.replace("\\\n", " ")
    for line in joined.split("\n"):
        if not any(name in line for name in _NAMES) or line.lstrip().startswith("#"):
            continue
        for part in re.split(r"&&|\|\||;|\|", line):
            words = shlex.split(part, comments=True)
            while words and (words[0] in ("time", "!") or re.fullmatch(r"\w+=.*", words[0])):
                words = words[1:]
            if words[:3] == ["python", "-m", "esl_lava"]:
                words = ["esl", *words[3:]]
            if words and Path(words[0]).name in _NAMES:
                yield [Path(words[0]).name, *words[1:]]


def unknown_words(words: list[str], app: Any) -> list[str]:
    """Those words of a command of ours that are no command and no option.

    Args:
        words: a command, as `commands` gives it.
        app: `command_line()`.
    """
    name, rest = words[0], list(words[1:])
    command = app if name == "esl" else app.commands[name.removeprefix("esl-")]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        word = rest.pop(0)
        if word not in command.commands:
            return [word]
        command = command.commands[word]
    known = {"--help"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    given = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return [word for word in given if word not in known]


def command_line() -> Any:
    """`esl` and its commands: objects of click, or of typer's own copy of it."""
    from esl_lava.cli.app import app

    return typer.main.get_command(app)
