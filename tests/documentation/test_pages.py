"""Every command and snippet of README and docs does what the page says: it runs.

`make test` checks that the commands and options of all blocks exist. `make test-docs` runs the
blocks, page by page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.pages import (
    ROOT,
    all_pages,
    blocks,
    command_line,
    commands,
    unknown_words,
)

PAGES = all_pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
DATA = {
    "mnist": "mnist",
    "nmnist": "nmnist_small.tar.gz",
    "cifar10": "cifar10",
    "dvs128": "dvs128_objects",
}
"""Name of a data set in a directive -> its place in ESL_LAVA_DATA."""


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_exists(page: Path) -> None:
    app = command_line()
    faults = [
        f"{page.name}:{block.line}: {' '.join(words)}: {', '.join(unknown)}"
        for block in blocks(page.read_text())
        if block.language == "bash"
        for words in commands(block.code)
        if (unknown := unknown_words(words, app))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_python_block_can_be_compiled(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "python":
            compile(block.code, f"{page.name}:{block.line}", "exec")


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_runs(page: Path, tmp_path: Path) -> None:
    found = blocks(page.read_text())
    for block in found:
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.title:
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.title).write_text(block.code)
        if not block.is_run:
            continue
        missing = [name for name in block.needs if not is_there(name)]
        assert not missing, f"{where} needs {missing} in ESL_LAVA_DATA"
        for command in block.first:
            run(["bash", "-euo", "pipefail", "-c", command], tmp_path, f"{where}, before")
        if block.language == "bash":
            run(["bash", "-euo", "pipefail", "-c", block.code], tmp_path, where)
        else:
            run([sys.executable, "-c", block.code], tmp_path, where)


def is_there(name: str) -> bool:
    """Whether a data set lies in ESL_LAVA_DATA."""
    folder = os.environ.get("ESL_LAVA_DATA")
    return folder is not None and (Path(folder) / DATA[name]).exists()


def run(words: list[str], folder: Path, where: str) -> None:
    """Run a program with this environment's commands on the path; it must end with 0."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    said = f"{where} ended with {done.returncode}\n{words[-1]}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said


# --- the reader of pages itself ---------------------------------------------------------

PAGE = """
Text.

<!-- test: not run: needs a cluster -->
```bash
esl reproduce fig2 --cluster tcp://HOST:8786 \\
    -o runs/x    # a comment
```

<!-- test: run first: esl train -o runs/a -->
<!-- test: needs mnist -->

```bash
X=1 esl-train --preset digits && esl nothing --bad
```

```toml title="mine.toml"
a = 1
```

- a list

    <!-- test: not run -->
    ```python
    print(1)
    ```

```text
output
```
"""


def test_blocks_of_a_page() -> None:
    cluster, train, file, python, text = blocks(PAGE)
    assert (cluster.not_run, cluster.is_run) == ("needs a cluster", False)
    assert (train.first, train.needs) == (("esl train -o runs/a",), ("mnist",))
    assert train.is_run
    assert (file.title, file.code, file.is_run) == ("mine.toml", "a = 1\n", False)
    assert (python.code.strip(), python.not_run) == ("print(1)", "no reason")
    assert (text.language, text.is_run) == ("text", False)
    assert [block.line for block in (cluster, file)] == [5, 17]


def test_commands_and_options_that_do_not_exist_are_found() -> None:
    cluster, train, *_ = blocks(PAGE)
    app = command_line()
    (words,) = commands(cluster.code)
    assert words == ["esl", "reproduce", "fig2", "--cluster", "tcp://HOST:8786", "-o", "runs/x"]
    assert unknown_words(words, app) == []
    good, bad = commands(train.code)
    assert unknown_words(good, app) == []
    assert unknown_words(bad, app) == ["nothing"]
    assert unknown_words(["esl", "run", "net.h5", "--smaples", "5"], app) == ["--smaples"]


def test_a_block_that_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page ended with 3"):
        run(["bash", "-c", "exit 3"], tmp_path, "page")


# --- links ------------------------------------------------------------------------------

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and GitHub write them."""
    titles = re.findall(r"^#+ +(.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    faults = []
    for link in _LINK.findall(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        file = page if not target else (page.parent / target).resolve()
        if "docs/reference/" in str(file):  # made by `make docs`, which checks these
            continue
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            faults.append(link)
    assert not faults, f"{page.name}: {faults}"
