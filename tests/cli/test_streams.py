"""What the commands print, and standard streams that cannot be written."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from esl_lava.cli import manners, output
from esl_lava.devices import device_names
from esl_lava.errors import Fault, UserError
from esl_lava.experiments import sweep, workers
from tests.cli.refusals import refused
from tests.conftest import Outcome

HOSTILE = "conv\x1b[2J\x9b31m\u202e\u2028\udcff"
ESCAPED = r"conv\x1b[2J\x9b31m\u202e\u2028\udcff"
ESL = Path(sys.executable).parent / "esl"


def shell(command: str, *args: object) -> Outcome:
    """Run a shell command, in which "$@" is `esl` with these arguments."""
    process = subprocess.run(
        ["bash", "-c", command, "bash", ESL, *map(str, args)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return Outcome(process.returncode, process.stdout, process.stderr)


@pytest.mark.parametrize("errors", ["2>/dev/full", "2> >(true)"])
def test_a_standard_error_that_cannot_be_written_changes_nothing(errors: str) -> None:
    assert shell(f'"$@" {errors}', "run", "absent.h5").code == 2
    done = shell(f'"$@" {errors}', "run", "absent.h5", "--json")
    assert json.loads(done.out)["error"][0]["code"] == "not-found"


@pytest.mark.slow
def test_a_training_survives_a_log_on_a_full_disk(tmp_path: Path) -> None:
    options = ("--preset", "digits", "--epochs", 1, "--set", "training.batch_size=500")
    done = shell('"$@" 2>/dev/full', "train", *options, "-o", tmp_path / "run", "--verbose")
    assert done.code == 0
    assert "test accuracy" in done.out


def test_lines_and_errors_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    output.tell(HOSTILE)
    output.complain(UserError.of([Fault(f"{HOSTILE}: {end}", "range") for end in "ab"]))
    # The lines of a sentence are joined, so a separator of lines becomes a space.
    shown = ESCAPED.replace(r"\u2028", " ")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [ESCAPED, f"error: {shown}: a [range]", f"error: {shown}: b [range]"]


@pytest.mark.parametrize("in_json", [False, True])
def test_results_are_printable(in_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE.replace("\u2028", "")  # rich breaks the line there
    escaped = ESCAPED.replace(r"\u2028", "")
    table = Table(name, min_width=60)
    table.add_row(f"größe 層 {name}")
    output.answer(in_json, {"layer": HOSTILE}, table, HOSTILE)
    shown = capsys.readouterr().out
    shown.encode()
    assert "\x1b" not in shown
    if in_json:
        assert shown.isascii()
        assert json.loads(shown) == {"layer": HOSTILE}
    else:
        assert shown.count(escaped) == 2
        assert f"größe 層 {escaped}" in shown
        assert "\u2028" not in shown


def test_a_table_keeps_our_colours() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=80)
    table = Table()
    table.add_column("name", style="red")
    table.add_row("a\x1b[2J")
    console.print(output.PrintableTable(table))
    assert "\x1b[31m" in file.getvalue()
    assert r"a\x1b[2J" in file.getvalue()
    assert "\x1b[2J" not in file.getvalue()


def test_the_log_is_printable() -> None:
    # pytest has handlers of its own, so the handler of the program is made in a new process.
    program = (
        "import logging; from esl_lava.cli.manners import set_up_logging; set_up_logging();"
        "log = logging.getLogger('esl_lava');"
        "log.warning('%s', 'a\\x1b\\nERROR: b');"
        "\ntry: raise ValueError('c\\x1b')"
        "\nexcept ValueError: log.exception('d')"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    lines = process.stderr.splitlines()
    assert lines[0] == r"WARNING: a\x1b\x0aERROR: b"
    assert lines[1] == "ERROR: d"
    assert lines[-1] == r"ValueError: c\x1b"
    assert logging.getLogger(manners.__name__).name == "esl_lava.cli.manners"


def test_lines_of_a_sweep_are_printable(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep._print(HOSTILE)
    assert capfd.readouterr().err == f"{ESCAPED}\n"
    monkeypatch.setattr(workers, "_PROGRAM", "import os; os.write(2, b'a\\x1b\\tb\\n')")
    crew = workers.Worker(None)
    crew._process.wait()
    crew._forwarding.join()
    assert capfd.readouterr().err == "a\\x1b\tb\n"


def test_a_hostile_device_file_prints_no_controls(
    tmp_path: Path, invoke: Callable[..., Outcome]
) -> None:
    from importlib import resources

    text = (resources.files("esl_lava.hw_configs") / f"{device_names()[0]}.toml").read_text()
    title = json.dumps(HOSTILE[:-1])  # TOML has no lone surrogates
    lines = [
        f"title = {title}" if line.startswith("title =") else line for line in text.splitlines()
    ]
    path = tmp_path / "own\x1b.toml"
    path.write_text("\n".join(lines))
    done = invoke("devices", path)
    assert done.code == 0, done.err
    assert r"conv\x1b[2J\x9b31m\u202e" in done.out
    assert not {"\x1b", "\x9b", "\u202e", "\u2028"} & set(done.out + done.err)
    path.write_text("name = 'a")
    assert r"own\x1b.toml" in refused(invoke("devices", path), "damaged")


COMMANDS = {
    "a table": ("devices",),
    "JSON": ("devices", "--json"),
    "help": ("devices", "--help"),
    "versions": ("--version",),
}


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_a_full_output_is_one_sentence(args: tuple[str, ...]) -> None:
    sentence = refused(shell('"$@" > /dev/full', *args), "unwritable", "standard output")
    assert "No space left" in sentence


def test_an_error_in_json_on_a_full_output() -> None:
    done = shell('"$@" > /dev/full', "devices", "no_such_device", "--json")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "no_such_device" in done.err


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_a_closed_output_is_one_sentence(args: tuple[str, ...]) -> None:
    refused(shell('"$@" >&-', *args), "unwritable", "standard output")


def test_a_closed_output_spares_files(tiny, tmp_path: Path) -> None:
    """Nothing is computed, and no file gets the descriptor of standard output."""
    refused(shell('"$@" >&-', "export", tiny.model, tmp_path / "net.h5"), "unwritable")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_standard_error_changes_no_result() -> None:
    done, usual = (shell(command, "devices", "--json") for command in ('"$@" 2>&-', '"$@"'))
    assert (done.code, done.out) == (0, usual.out)
    wrong = shell('"$@" 2>&-', "devices", "no_such_device")
    assert (wrong.code, wrong.out, wrong.err) == (2, "", "")


@pytest.mark.parametrize("args", [("devices", "loihi1", "--json"), ("train", "--help-config")])
def test_a_reader_that_ends_early_is_quiet(args: tuple[str, ...]) -> None:
    done = shell('"$@" | head -c 1', *args)
    assert len(done.out) == 1
    assert done.err == ""


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_an_output_that_is_no_regular_file_stays(tiny, tmp_path: Path, invoke, overwrite) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        path = tmp_path / name
        before = os.lstat(path)
        refused(invoke("export", tiny.model, path, *overwrite), "unwritable", path)
        assert os.lstat(path).st_ino == before.st_ino


def test_a_dangling_link_counts_as_an_output_that_exists(tiny, tmp_path: Path, invoke) -> None:
    path = tmp_path / "net.h5"
    path.symlink_to("absent")
    refused(invoke("export", tiny.model, path), "exists", path, "--overwrite")
    assert path.is_symlink()
    assert invoke("export", tiny.model, path, "--overwrite").code == 0
    assert path.is_file()
    assert not path.is_symlink()
