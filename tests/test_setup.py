"""`tools/setup.sh`: which Python it chooses and what it installs, tested with fake Pythons."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Outcome

pytestmark = pytest.mark.slow

SETUP = Path(__file__).resolve().parents[1] / "tools" / "setup.sh"

# A fake Python that answers the calls of setup.sh and records the arguments of pip.
PYTHON = """\
#!/bin/sh
# Python {version}
case "$*" in
    *ensurepip*|*print*sys.version*) echo {version};;
    -V) echo "Python {version}.0";;
    *"< (3, 11)"*) [ {version} != 3.10 ];;
    *sysconfig*) echo "$(dirname "$0")/../site";;
    "-m venv --clear"*)
        rm -rf "$4"
        mkdir -p "$4/bin" "$4/site/tests/lava/lib/dl/netx/networks"
        cp "$0" "$4/bin/python"
        : > "$4/pyvenv.cfg";;
    *"pip --version") [ ! -e "$(dirname "$0")/../broken" ];;
    *--dry-run*) echo '    "url": "file:///torch-2.13.0{build}-cp311-cp311-linux_x86_64.whl",';;
    "-m pip"*)
        echo "pip speaks" >&2
        [ ! -e offline ] || exit 1
        echo "$@" >> installed;;
esac
"""
TOOLS = ("sh", "sed", "head", "rm", "mkdir", "cp", "mv", "dirname")


class Sandbox:
    """A folder with a search path of its own, on which a test puts fake Pythons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            program = shutil.which(tool)
            assert program is not None
            (self.bin / tool).symlink_to(program)

    def put(self, version: str, path: str | None = None, build: str = "%2Bcpu") -> Path:
        program = self.folder / (path or f"bin/python{version}")
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(PYTHON.format(version=version, build=build))
        program.chmod(0o755)
        return program

    def setup(self, **variables: str) -> Outcome:
        result = subprocess.run(
            [self.bin / "sh", SETUP],
            cwd=self.folder,
            env={"PATH": str(self.bin), "HOME": str(self.folder), **variables},
            capture_output=True,
            text=True,
        )
        return Outcome(result.returncode, result.stdout, result.stderr)

    @property
    def version(self) -> str:
        """The version of the Python in .venv."""
        return (self.folder / ".venv/bin/python").read_text().splitlines()[1].split()[-1]

    @property
    def installed(self) -> list[str]:
        return (self.folder / "installed").read_text().splitlines()


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def test_the_newest_python_is_taken_and_said(sandbox: Sandbox) -> None:
    for version in ("3.9", "3.10", "3.12", "3.11"):
        sandbox.put(version)
    result = sandbox.setup()
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "setup: .venv with Python 3.12.0, torch 2.13.0+cpu (about 2 GB); some minutes\n"
    )
    assert sandbox.version == "3.12"


def test_a_build_with_cuda_is_said(sandbox: Sandbox) -> None:
    sandbox.put("3.13", build="")
    assert "torch 2.13.0 (about 6 GB on Linux: this build brings CUDA)" in sandbox.setup().out


def test_lava_is_installed_past_its_pins(sandbox: Sandbox) -> None:
    sandbox.put("3.11")
    sandbox.setup()
    project, lava = sandbox.installed
    assert project.endswith("--constraint constraints.txt --editable .[dev]")
    assert lava.endswith("--no-deps --ignore-requires-python lava-nc==0.10.0 lava-dl==0.6.0")


def test_on_python_310_lava_comes_with_its_own_pins(sandbox: Sandbox) -> None:
    sandbox.put("3.10")
    sandbox.setup()
    assert len(sandbox.installed) == 1


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_lavas_own_tests_go_and_their_networks_stay(sandbox: Sandbox, version: str) -> None:
    sandbox.put(version)
    for _ in range(2):  # the second run has nothing to do
        sandbox.setup()
        assert (sandbox.folder / ".venv/site").is_dir()
        assert not (sandbox.folder / ".venv/site/tests").exists()
        assert (sandbox.folder / ".venv/share/lava-dl/netx/networks").is_dir()


def test_a_version_or_a_program_can_be_chosen(sandbox: Sandbox) -> None:
    for version in ("3.11", "3.13"):
        sandbox.put(version)
    other = sandbox.put("3.12", path="elsewhere/some-python")
    cases = (("3.11", "3.11"), (str(other), "3.12"), ("", "3.12"), ("3.13", "3.13"))
    for choice, version in cases:
        result = sandbox.setup(PYTHON=choice)  # without a choice the existing .venv stays
        assert (result.code, result.err) == (0, "")
        assert sandbox.version == version


def test_an_environment_stays_if_the_chosen_python_is_not_found(sandbox: Sandbox) -> None:
    sandbox.put("3.11")
    sandbox.setup()
    result = sandbox.setup(PYTHON="3.12")
    assert result.code == 1
    assert sandbox.version == "3.11"


def test_an_environment_without_pip_is_made_anew(sandbox: Sandbox) -> None:
    sandbox.put("3.11")
    sandbox.setup()
    (sandbox.folder / ".venv/broken").touch()
    assert sandbox.setup().code == 0
    assert not (sandbox.folder / ".venv/broken").exists()


def test_the_size_of_an_unknown_build_is_not_stated(sandbox: Sandbox) -> None:
    sandbox.put("3.11").write_text(PYTHON.format(version="3.11", build="").replace("url", "none"))
    result = sandbox.setup()
    assert result.out == "setup: .venv with Python 3.11.0, torch of constraints.txt; some minutes\n"


def test_pyenvs_pythons_are_found(sandbox: Sandbox) -> None:
    sandbox.put("3.10")
    sandbox.put("3.12", path=".pyenv/versions/3.12.1/bin/python")
    sandbox.setup()
    assert sandbox.version == "3.12"


def test_uv_installs_a_python_if_there_is_none(sandbox: Sandbox) -> None:
    fake = sandbox.put("3.13", path="fetched")
    uv = sandbox.bin / "uv"
    uv.write_text(f'#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\n{fake} -m venv --clear "$1"\n')
    uv.chmod(0o755)
    assert sandbox.setup().code == 0
    assert sandbox.version == "3.13"


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ("", "setup: found none of Python 3.13 3.12 3.11 3.10: put one on the path"),
        ("3.12", "setup: found none of Python 3.12: put one on the path"),
        ("3.9", "setup: PYTHON=3.9 is not one of Python 3.13 3.12 3.11 3.10"),
        ("no-such-program", "setup: PYTHON=no-such-program is not one of Python 3.13"),
    ],
)
def test_an_unavailable_python_is_refused(sandbox: Sandbox, choice: str, sentence: str) -> None:
    sandbox.put("3.9")
    result = sandbox.setup(PYTHON=choice)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(sentence)
    assert not (sandbox.folder / ".venv").exists()


def test_the_output_of_a_failed_pip_is_shown(sandbox: Sandbox) -> None:
    sandbox.put("3.12")
    (sandbox.folder / "offline").touch()
    result = sandbox.setup()
    assert (result.code, result.err) == (1, "pip speaks\n")


def test_a_folder_that_is_not_an_environment_stays_as_it_is(sandbox: Sandbox) -> None:
    sandbox.put("3.12")
    precious = sandbox.folder / "mine" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("all of it")
    result = sandbox.setup(VENV="mine")
    assert result.code == 1
    assert result.err == "setup: mine is there, and no environment of Python: choose another VENV\n"
    assert precious.read_text() == "all of it"
