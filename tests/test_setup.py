"""`tools/setup.sh`: which Python it takes, and what it has installed, with Pythons of paper."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Outcome

SETUP = Path(__file__).resolve().parents[1] / "tools" / "setup.sh"

# Answers the questions of setup.sh, and writes down what pip is to install.
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


class Ground:
    """A folder with a path of its own, on which are the Pythons that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)

    def put(self, version: str, path: str | None = None, build: str = "%2Bcpu") -> Path:
        program = self.folder / (path or f"bin/python{version}")
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(PYTHON.format(version=version, build=build))
        program.chmod(0o755)
        return program

    def setup(self, **variables: str) -> Outcome:
        done = subprocess.run(
            [self.bin / "sh", SETUP],
            cwd=self.folder,
            env={"PATH": str(self.bin), "HOME": str(self.folder), **variables},
            capture_output=True,
            text=True,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    @property
    def version(self) -> str:
        """Of the Python in .venv."""
        return (self.folder / ".venv/bin/python").read_text().splitlines()[1].split()[-1]

    @property
    def installed(self) -> list[str]:
        return (self.folder / "installed").read_text().splitlines()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_the_newest_python_is_taken_and_said(ground: Ground) -> None:
    for version in ("3.9", "3.10", "3.12", "3.11"):
        ground.put(version)
    done = ground.setup()
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "setup: .venv with Python 3.12.0, torch 2.13.0+cpu (about 2 GB); some minutes\n"
    )
    assert ground.version == "3.12"


def test_a_build_with_cuda_is_said(ground: Ground) -> None:
    ground.put("3.13", build="")
    assert "torch 2.13.0 (about 6 GB on Linux: this build brings CUDA)" in ground.setup().out


def test_lava_is_installed_past_its_pins(ground: Ground) -> None:
    ground.put("3.11")
    ground.setup()
    project, lava = ground.installed
    assert project.endswith("--constraint constraints.txt --editable .[dev]")
    assert lava.endswith("--no-deps --ignore-requires-python lava-nc==0.10.0 lava-dl==0.6.0")


def test_on_python_310_lava_comes_with_its_own_pins(ground: Ground) -> None:
    ground.put("3.10")
    ground.setup()
    assert len(ground.installed) == 1


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_lavas_own_tests_go_and_their_networks_stay(ground: Ground, version: str) -> None:
    ground.put(version)
    for _ in range(2):  # again with nothing left to do
        ground.setup()
        assert (ground.folder / ".venv/site").is_dir()
        assert not (ground.folder / ".venv/site/tests").exists()
        assert (ground.folder / ".venv/share/lava-dl/netx/networks").is_dir()


def test_a_version_or_a_program_can_be_wanted(ground: Ground) -> None:
    for version in ("3.11", "3.13"):
        ground.put(version)
    other = ground.put("3.12", path="elsewhere/some-python")
    for wanted, found in (("3.11", "3.11"), (str(other), "3.12"), ("", "3.12"), ("3.13", "3.13")):
        done = ground.setup(PYTHON=wanted)  # what is there serves where nothing is wanted
        assert (done.code, done.err) == (0, "")
        assert ground.version == found


def test_an_environment_stays_where_the_wanted_python_is_not_found(ground: Ground) -> None:
    ground.put("3.11")
    ground.setup()
    done = ground.setup(PYTHON="3.12")
    assert done.code == 1
    assert ground.version == "3.11"


def test_an_environment_without_pip_is_made_anew(ground: Ground) -> None:
    ground.put("3.11")
    ground.setup()
    (ground.folder / ".venv/broken").touch()
    assert ground.setup().code == 0
    assert not (ground.folder / ".venv/broken").exists()


def test_of_an_unknown_build_nothing_is_said(ground: Ground) -> None:
    ground.put("3.11").write_text(PYTHON.format(version="3.11", build="").replace("url", "none"))
    done = ground.setup()
    assert done.out == "setup: .venv with Python 3.11.0, torch of constraints.txt; some minutes\n"


def test_pyenvs_pythons_are_found(ground: Ground) -> None:
    ground.put("3.10")
    ground.put("3.12", path=".pyenv/versions/3.12.1/bin/python")
    ground.setup()
    assert ground.version == "3.12"


def test_uv_is_asked_for_one_where_there_is_none(ground: Ground) -> None:
    paper = ground.put("3.13", path="fetched")
    uv = ground.bin / "uv"
    uv.write_text(f'#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\n{paper} -m venv --clear "$1"\n')
    uv.chmod(0o755)
    assert ground.setup().code == 0
    assert ground.version == "3.13"


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("", "setup: found none of Python 3.13 3.12 3.11 3.10: put one on the path"),
        ("3.12", "setup: found none of Python 3.12: put one on the path"),
        ("3.9", "setup: PYTHON=3.9 is not one of Python 3.13 3.12 3.11 3.10"),
        ("no-such-program", "setup: PYTHON=no-such-program is not one of Python 3.13"),
    ],
)
def test_what_cannot_be_had_is_said(ground: Ground, wanted: str, sentence: str) -> None:
    ground.put("3.9")
    done = ground.setup(PYTHON=wanted)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(sentence)
    assert not (ground.folder / ".venv").exists()


def test_why_pip_fails_is_shown(ground: Ground) -> None:
    ground.put("3.12")
    (ground.folder / "offline").touch()
    done = ground.setup()
    assert (done.code, done.err) == (1, "pip speaks\n")


def test_a_folder_that_is_no_environment_is_left_alone(ground: Ground) -> None:
    ground.put("3.12")
    precious = ground.folder / "mine" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("all of it")
    done = ground.setup(VENV="mine")
    assert done.code == 1
    assert done.err == "setup: mine is there, and no environment of Python: choose another VENV\n"
    assert precious.read_text() == "all of it"
