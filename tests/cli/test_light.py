"""What runs where torch, Lava, matplotlib and what comes with them are not installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from esl_lava.packages import EXTRAS
from tests.conftest import Outcome, TinyRun, run_program

NOT_INSTALLED = (*EXTRAS, "cv2", "sklearn", "torchvision")

# A module that is None cannot be imported, and `find_spec` does not find it.
PROGRAM = """\
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
from esl_lava.cli.app import main
main()
"""


def esl(*args: object) -> Outcome:
    """A command line where the packages of `NOT_INSTALLED` are not."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(NOT_INSTALLED), *map(str, args)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def lasting(printed: str) -> object:
    """What a command's JSON says, but for the seconds that it took."""
    values = json.loads(printed)
    if isinstance(values, dict):
        values.pop("seconds", None)
    return values


@pytest.mark.parametrize(
    "command",
    [
        "run NET --json",
        "energy NET --json",
        "energy NET --map loihi1 --training MODEL --json",
        "map NET --chip loihi1 --json",
        "devices --json",
        "devices loihi1 --json",
        "reproduce table1 --counts-only --json",
    ],
)
def test_commands_that_say_the_same(tiny: TinyRun, command: str) -> None:
    args = [{"NET": tiny.net, "MODEL": tiny.model}.get(word, word) for word in command.split()]
    light, full = esl(*args), run_program("esl", *args)
    assert (light.code, full.code) == (0, 0), light.err
    assert lasting(light.out) == lasting(full.out)


def test_export_writes_the_same_file(tiny: TinyRun, tmp_path: Path) -> None:
    done = esl("export", tiny.model, tmp_path / "net.h5")
    assert done.code == 0, done.err
    assert (tmp_path / "net.h5").read_bytes() == tiny.net.read_bytes()


def test_a_report_says_what_it_could_not_do(tiny: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny.path, tmp_path / "run")
    light, full = (
        esl("report", tmp_path / "run"),
        run_program("esl", "report", tiny.path, "-o", tmp_path / "full.html"),
    )
    assert (light.code, full.code) == (0, 0), light.err
    assert "not verified" in light.out
    assert "not verified, as the package lava is not installed" in light.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "There are no pictures, as matplotlib was not installed." in page
    assert "<svg" not in page
    assert "Lava and SLAYER were not installed where this report was made" in page
    ours, whole = (
        json.loads(path.read_text())
        for path in (tmp_path / "run" / "report.json", tmp_path / "full.json")
    )
    verified = {
        "samples_verified",
        "spikes_compared",
        "positions_compared",
        "differences",
        "verification",
    }
    assert {key for key in ours if ours[key] is None} >= verified
    assert all(whole[key] is not None for key in verified)  # where Lava is, it verifies unasked
    assert whole["differences"] == 0
    assert {k: v for k, v in ours.items() if k not in verified} == {
        k: v for k, v in whole.items() if k not in verified
    }


def test_runs_are_compared_without_pictures(
    tiny: TinyRun, tiny_once: TinyRun, tmp_path: Path
) -> None:
    for name, run in (("a", tiny), ("b", tiny_once)):
        shutil.copytree(run.path, tmp_path / name)
    done = esl("report", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "both.html")
    assert done.code == 0, done.err
    page = (tmp_path / "both.html").read_text()
    assert page.count("not verified") == 2
    assert "<figure" not in page
    assert "There are no pictures" in page


@pytest.mark.parametrize(
    "command",
    [
        "train --preset digits",
        "demo",
        "verify MODEL NET",
        "baselines --preset digits",
        "reproduce fig2",
        "reproduce fig4",
        "run NET --backend lava",
        "run NET --backend lava-models",
        "run NET --backend loihi2",
        "report RUN --lava",
        "report RUN --samples 5",
    ],
)
def test_what_a_command_lacks_is_named(tiny: TinyRun, tmp_path: Path, command: str) -> None:
    places = {"NET": tiny.net, "MODEL": tiny.model, "RUN": tiny.path}
    args = [places.get(word, word) for word in command.split()]
    if args[0] in ("train", "demo", "baselines", "reproduce"):
        args += ["-o", tmp_path / "out"]
    if args[0] == "report":
        args += ["-o", tmp_path / "page.html"]
    done = esl(*args)
    assert done.code == 2
    assert done.out == ""
    (said,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.err
    assert "is not installed: pip install 'esl-lava[" in said
    assert list(tmp_path.iterdir()) == []
