"""The worked examples of CONTRIBUTING.md apply to the tree, and their tests pass.

`make test` checks that every diff of the page applies. `make test-docs` applies each diff in a
copy of the tracked tree and runs the command that follows it on the page.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import test_pages
from tests.documentation.pages import ROOT, Block, blocks

PAGE = ROOT / "CONTRIBUTING.md"
BLOCKS = blocks(PAGE.read_text())
DIFFS = [block for block in BLOCKS if block.language == "diff"]
EXAMPLES = [
    pytest.param(block, following, id=f"line {block.line}")
    for block, following in itertools.pairwise(BLOCKS)
    if block.language == "diff"
]

needs_repository = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="git cannot tell which files are tracked"
)


def git_apply(diff: Block, folder: Path, *options: str) -> None:
    """Apply a diff to a folder; git must accept every hunk."""
    done = subprocess.run(
        ["git", "apply", *options, "-"], cwd=folder, input=diff.code, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{PAGE.name}:{diff.line}: the diff does not apply\n{done.stderr}"


def test_the_page_has_examples() -> None:
    assert len(DIFFS) >= 5
    assert len(EXAMPLES) == len(DIFFS)
    for example in EXAMPLES:
        _, command = example.values
        assert isinstance(command, Block)
        assert command.language == "bash"
        assert command.code.startswith("pytest tests/")


@needs_repository
@pytest.mark.parametrize("diff", DIFFS, ids=lambda diff: f"line {diff.line}")
def test_every_diff_applies(diff: Block) -> None:
    git_apply(diff, ROOT, "--check")


def test_commands_and_links_of_the_page() -> None:
    test_pages.test_every_command_and_option_exists(PAGE)
    test_pages.test_every_python_block_can_be_compiled(PAGE)
    test_pages.test_every_link_within_the_repository_leads_somewhere(PAGE)


@needs_repository
@pytest.mark.docs
@pytest.mark.parametrize(("diff", "command"), EXAMPLES)
def test_every_example_passes_its_tests(diff: Block, command: Block, tmp_path: Path) -> None:
    prefix = f"--prefix={tmp_path}/"
    subprocess.run(["git", "checkout-index", "--all", prefix], cwd=ROOT, check=True)
    git_apply(diff, tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{PAGE.name}:{command.line}\n{done.stdout}\n{done.stderr}"
