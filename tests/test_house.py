"""The architecture: which module may import which, and what a command imports."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKS = {"export": "../export", "hw_configs": "../hw_configs"}

FLOORS = {
    1: "arrays chip folding topology network connections trained arrivals counts devices errors "
    "files interrupts kernels lava_repairs packages pickles printable progress tomlfile values "
    "hw_configs data.config sparsity.config models.config training.config",
    2: "config netfile modelfile sparsity data",
    3: "engines simulate energy mapping",
    4: "models results",
    5: "report training export",
    6: "experiments",
    7: "cli api",
    8: "__main__",
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}


@dataclass(frozen=True)
class Import:
    """An import statement: the importing module, and the full name of the imported object."""

    importer: str
    imported: str


def modules() -> dict[str, Path]:
    """Return full name -> file of every module, including the modules behind the links."""
    files = {}
    for folder in (ROOT / "esl_lava", *(ROOT / "esl_lava" / link for link in LINKS)):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts).removesuffix(".__init__")] = path
    return files


def imports_of(name: str, path: Path, tree: ast.Module) -> Iterator[Import]:
    """Find every import of a module, also in functions and under TYPE_CHECKING."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(name, f"{source}.{alias.name}")


def all_imports() -> list[Import]:
    return [
        one
        for name, path in modules().items()
        for one in imports_of(name, path, ast.parse(path.read_text()))
    ]


def room(name: str) -> str | None:
    """Return the room of a full name: the part after `esl_lava`, None for the package itself.

    A section of the configuration is a room of its own. It stands in the folder of the tables that
    it names, but imports only modules of the lowest floor.
    """
    parts = name.split(".")
    section = ".".join(parts[1:3])
    return section if section in FLOOR else parts[1] if len(parts) > 1 else None


def forbidden(one: Import) -> str | None:
    """Return why an import is forbidden, or None."""
    if not one.imported.startswith("esl_lava."):
        return None
    importer, imported = room(one.importer), room(one.imported) or ""
    if importer == imported:
        return None
    if importer is None:
        # Public names are loaded when they are used (`esl_lava/__init__.py`).
        allowed = ("lava_repairs", "api", "errors")
        return None if imported in allowed else "the package itself imports repairs and names only"
    if importer == "kernels" and imported != "arrays":
        return "kernels hold no policy and import only types of arrays"
    if FLOOR[importer] == FLOOR[imported] == 1:
        return None
    if FLOOR[imported] >= FLOOR[importer]:
        return f"floor {FLOOR[importer]} ({importer}) imports floor {FLOOR[imported]} ({imported})"
    return None


def test_every_module_has_a_room() -> None:
    rooms = {room(name) for name in modules()} - {None}
    assert rooms <= FLOOR.keys()
    assert len(modules()) > 40  # the search finds modules


@pytest.mark.slow
def test_imports_run_downward_only() -> None:
    faults = [
        f"{one.importer} imports {one.imported}: {reason}"
        for one in all_imports()
        if (reason := forbidden(one))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("esl_lava.cli.app", "esl_lava.training.trainer.Trainer", True),
        ("esl_lava.training.trainer", "esl_lava.cli.output.tell", False),
        ("esl_lava.report.pictures", "esl_lava.training.trainer.Trainer", False),
        ("esl_lava.report.pictures", "esl_lava.report.tables.facts", True),
        ("esl_lava.devices", "esl_lava.errors.FileError", True),
        ("esl_lava.devices", "esl_lava.data.datasets.load", False),
        ("esl_lava.kernels.cuba", "esl_lava.network.Network", False),
        ("esl_lava.kernels.cuba", "esl_lava.arrays.Array", True),
        ("esl_lava.sparsity.evolver", "esl_lava.kernels.cuba.run_layer", True),
        ("esl_lava.experiments.train", "numpy", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert (forbidden(Import(importer, imported)) is None) == allowed


def test_imports_are_found_wherever_they_stand() -> None:
    text = """
import esl_lava.a
from esl_lava import b
from . import c
from .d import e
from ..f import g
if TYPE_CHECKING:
    from esl_lava.h import i
def function():
    from esl_lava.j import k
"""
    path = Path("esl_lava/room/module.py")
    names = {i.imported for i in imports_of("esl_lava.room.module", path, ast.parse(text))}
    assert names == {
        "esl_lava.a",
        "esl_lava.b",
        "esl_lava.room.c",
        "esl_lava.room.d.e",
        "esl_lava.f.g",
        "esl_lava.h.i",
        "esl_lava.j.k",
    }


@pytest.mark.slow
def test_linked_folders_are_imported_through_esl_lava_only() -> None:
    trees = {
        str(path.relative_to(ROOT)): path.read_text()
        for folder in ("esl_lava", "export", "hw_configs", "tests", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            if cell["cell_type"] == "code":
                lines = "".join(cell["source"]).splitlines()
                code = "\n".join(line for line in lines if not line.startswith(("%", "!")))
                trees[f"{path.name}, cell {number}"] = code
    faults = [
        f"{where}: {one.imported}"
        for where, text in trees.items()
        for one in imports_of("", Path(where), ast.parse(text))
        if one.imported.split(".")[0] in LINKS
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", LINKS)
def test_links_are_tracked_as_links(name: str) -> None:
    link = ROOT / "esl_lava" / name
    assert os.readlink(link) == LINKS[name]
    assert (link / "__init__.py").samefile(ROOT / name / "__init__.py")
    if (ROOT / ".git").exists():  # not in an unpacked archive
        listed = subprocess.run(
            ["git", "ls-files", "-s", f"esl_lava/{name}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert listed.stdout.startswith("120000 "), listed


@pytest.mark.slow
def test_every_module_has_a_docstring() -> None:
    silent = [
        name
        for name, path in modules().items()
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent
    empty = [name for name, path in modules().items() if not path.stat().st_size]
    assert all(modules()[name].name == "__init__.py" for name in empty)


def test_the_configuration_allows_the_names_of_the_tables() -> None:
    from esl_lava.data.catalogue import NAMES
    from esl_lava.data.config import EVENT_SETS, Data, Encoding
    from esl_lava.data.encoders import ENCODERS
    from esl_lava.data.events.frames import SPLITS
    from esl_lava.data.events.sets import EVENT_LOADERS
    from esl_lava.sparsity.config import Sparsity
    from esl_lava.sparsity.density import DISTRIBUTIONS
    from esl_lava.sparsity.growth import GROW
    from esl_lava.sparsity.prune import PRUNE

    for section, field, table in (
        (Data, "name", NAMES),
        (Encoding, "kind", (*ENCODERS, "direct", "frames")),
        (Encoding, "split", SPLITS),
        (Sparsity, "distribution", DISTRIBUTIONS),
        (Sparsity, "prune", PRUNE),
        (Sparsity, "growth", GROW),
    ):
        literal = section.model_fields[field].annotation
        names = get_args(literal)
        if type(None) in names:
            names = get_args(names[0])
        assert names == tuple(table), field
    assert tuple(EVENT_LOADERS) == EVENT_SETS


# --- imports of commands, observed in new interpreters ----------------------------------

HEAVY = ("torch", "lava", "numpy", "matplotlib", "pydantic", "numba")

WRAPPER = """\
import contextlib, io, sys
from esl_lava.cli import app
sys.argv = ["esl", *sys.argv[1:]]
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    try:
        app.main()
    except SystemExit as ended:
        code = ended.code or 0
print(code, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def modules_after(*args: object, **environment: str) -> set[str]:
    """Run a command, which must succeed, and return the top-level modules that it imported."""
    process = subprocess.run(
        [sys.executable, "-c", WRAPPER, *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.returncode == 0, process.stderr
    code, *names = process.stdout.split()
    assert code == "0", process.stderr
    return set(names)


@pytest.mark.slow
def test_importing_the_commands_is_light() -> None:
    code = "import sys, esl_lava.cli.app; print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in process.stdout.split()}
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.slow
def test_help_is_light() -> None:
    assert not modules_after("--help") & set(HEAVY)
    # typer itself reads the options of a single command with pydantic.
    assert not modules_after("train", "--help") & set(HEAVY) - {"pydantic"}


@pytest.mark.slow
@pytest.mark.parametrize("command", [["run", "--backend", "exact"], ["energy"]])
def test_exact_runs_never_import_torch(tiny, command: list[str]) -> None:
    loaded = modules_after(command[0], tiny.net, "--samples", 5, *command[1:])
    assert "numba" in loaded
    assert not loaded & {"torch", "lava", "matplotlib"}
