"""Tests of the commands without torch, Lava, matplotlib and the packages that come with them.

Each test runs twice: in this environment, where these packages cannot be imported, and in a new
environment outside the repository, which holds only the wheel and the packages that it requires.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esl_lava.packages import EXTRAS
from tests.cli.refusals import refused
from tests.conftest import COMPILING, Outcome, TinyRun, run_program

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NOT_INSTALLED = (*EXTRAS, "cv2", "sklearn", "torchvision")

# A module that is None cannot be imported, and `find_spec` does not find it.
PROGRAM = """\
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
from esl_lava.cli.app import main
main()
"""

Esl = Callable[..., Outcome]


def outcome(command: list[object], **options: Any) -> Outcome:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def alone() -> dict[str, str]:
    """Return environment variables without a path to this repository."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def blocked(*args: object) -> Outcome:
    """Run `esl` in a process that cannot import the packages of `NOT_INSTALLED`."""
    return outcome([sys.executable, "-c", PROGRAM, ",".join(NOT_INSTALLED), *args])


def test_a_function_names_the_package_that_it_lacks() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))\n"
        "import esl_lava\n"
        "try:\n    esl_lava.train(esl_lava.load_experiment('digits'), 'run')\n"
        "except esl_lava.errors.UserError as error:\n    print(error)"
    )
    done = outcome([sys.executable, "-c", code, ",".join(NOT_INSTALLED)])
    assert "is not installed; install it with pip install 'esl-lava[" in done.out, done.err


def sources(folder: Path) -> Path:
    """Copy the sources of the wheel, without files of an earlier build."""
    copy = folder / "sources"
    copy.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for name in ("esl_lava", "export", "hw_configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Make an environment with the wheel and its requirements, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    python = shared / "wheel" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with (shared / "wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker makes it, the others wait
        if not python.exists():
            built = outcome(
                [*pip, "wheel", "--no-deps", "--wheel-dir", shared / "built", sources(shared)]
            )
            assert built.code == 0, built.err
            made = outcome([sys.executable, "-m", "venv", "--without-pip", python.parents[1]])
            assert made.code == 0, made.err
            (archive,) = (shared / "built").glob("esl_lava-*.whl")
            constraints = ROOT / "constraints.txt"
            installed = outcome(
                [*pip, "--python", python, "install", "--constraint", constraints, archive]
            )
            assert installed.code == 0, installed.err
    return python


@pytest.fixture(params=["blocked", "wheel"])
def esl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Esl:
    """Return a function that runs `esl` without the optional packages."""
    if request.param == "blocked":
        return blocked
    script = request.getfixturevalue("wheel").with_name("esl")
    environment = alone()
    return lambda *args: outcome(
        [script, *args], cwd=tmp_path_factory.getbasetemp(), env=environment
    )


def lasting(printed: str) -> object:
    """Return the JSON of a command without its duration."""
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
def test_commands_that_say_the_same(esl: Esl, tiny: TinyRun, command: str) -> None:
    args = [{"NET": tiny.net, "MODEL": tiny.model}.get(word, word) for word in command.split()]
    light, full = esl(*args), run_program("esl", *args)
    assert (light.code, full.code) == (0, 0), light.err
    assert lasting(light.out) == lasting(full.out)


def test_export_writes_the_same_file(esl: Esl, tiny: TinyRun, tmp_path: Path) -> None:
    done = esl("export", tiny.model, tmp_path / "net.h5")
    assert done.code == 0, done.err
    assert (tmp_path / "net.h5").read_bytes() == tiny.net.read_bytes()


def test_a_report_says_what_it_could_not_do(esl: Esl, tiny: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny.path, tmp_path / "run")
    light, full = (
        esl("report", tmp_path / "run"),
        run_program("esl", "report", tiny.path, "-o", tmp_path / "full.html"),
    )
    assert (light.code, full.code) == (0, 0), light.err
    assert "not verified" in light.out
    assert "lava" in light.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The page has no pictures, because matplotlib was not installed." in page
    assert "<svg" not in page
    assert "This network was not verified, because Lava and SLAYER were not installed." in page
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
    assert ours.pop("versions").items() <= whole.pop("versions").items()
    assert {k: v for k, v in ours.items() if k not in verified} == {
        k: v for k, v in whole.items() if k not in verified
    }


def test_runs_are_compared_without_pictures(
    esl: Esl, tiny: TinyRun, tiny_once: TinyRun, tmp_path: Path
) -> None:
    for name, run in (("a", tiny), ("b", tiny_once)):
        shutil.copytree(run.path, tmp_path / name)
    done = esl("report", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "both.html")
    assert done.code == 0, done.err
    page = (tmp_path / "both.html").read_text()
    assert page.count(">not verified<") == 2
    assert "<figure" not in page
    assert "The page has no pictures" in page


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
def test_what_a_command_lacks_is_named(
    esl: Esl, tiny: TinyRun, tmp_path: Path, command: str
) -> None:
    places = {"NET": tiny.net, "MODEL": tiny.model, "RUN": tiny.path}
    args = [places.get(word, word) for word in command.split()]
    if args[0] in ("train", "demo", "baselines", "reproduce"):
        args += ["-o", tmp_path / "out"]
    if args[0] == "report":
        args += ["-o", tmp_path / "page.html"]
    done = esl(*args)
    assert done.out == ""
    refused(done, "package", "pip install 'esl-lava[", alone=False)
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_brings_no_more_than_it_requires(wheel: Path) -> None:
    names = ", ".join(map(repr, NOT_INSTALLED))
    program = f"""
from importlib.util import find_spec
import esl_lava, pathlib
print([name for name in ({names}) if find_spec(name)], pathlib.Path(esl_lava.__file__).parent)
"""
    done = outcome([wheel, "-c", program], cwd=wheel.parent, env=alone())
    assert done.code == 0, done.err
    assert done.out.startswith(f"[] {wheel.parents[1]}")


def test_compiling_kernels_is_told_once(tiny: TinyRun, tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "esl_lava", "run", tiny.net]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, env=environment) for _ in range(2)
    )
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stderr.count(COMPILING) == 1
    assert COMPILING not in second.stderr
