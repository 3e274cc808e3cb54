import subprocess
import sys
from pathlib import Path

import pytest

from esl_lava.errors import FileError
from esl_lava.experiments.rundir import (
    RunDirectory,
    create,
    next_free,
    read_updates,
    refuse_overwrite,
)


def test_a_new_or_an_empty_directory_is_taken(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b"
    assert create(new) == RunDirectory(new)
    assert new.is_dir()
    assert create(new) == RunDirectory(new)


def test_a_write_that_was_killed_does_not_spoil_the_directory(tmp_path: Path) -> None:
    """Then nothing but the unfinished file may be there."""
    script = f"""
import os
from pathlib import Path
from esl_lava import files
os.fsync = lambda number: os.kill(os.getpid(), 9)
files.replace_file(Path({str(tmp_path)!r}) / "checkpoint.pt", b"half")
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    assert create(tmp_path) == RunDirectory(tmp_path)


def test_what_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("mine")
    with pytest.raises(FileError, match=f"{tmp_path}: already holds something"):
        create(tmp_path)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(FileError, match="file: already holds something"):
        create(file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["file/below", "x" * 300])
def test_an_impossible_directory_is_a_users_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        create(tmp_path / name)


def test_next_free(tmp_path: Path) -> None:
    assert next_free(tmp_path / "demo") == tmp_path / "demo"
    for name in ("demo", "demo-2", "demo-4"):
        (tmp_path / name).mkdir()
    assert next_free(tmp_path / "demo") == tmp_path / "demo-3"


def test_refuse_overwrite(tmp_path: Path) -> None:
    file = tmp_path / "net.h5"
    refuse_overwrite(file, overwrite=False)
    file.write_text("old")
    with pytest.raises(FileError, match=r"net\.h5: exists; use --overwrite"):
        refuse_overwrite(file, overwrite=False)
    refuse_overwrite(file, overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(FileError, match="is a directory"):
            refuse_overwrite(tmp_path, overwrite)
        with pytest.raises(FileError, match="missing: no such directory"):
            refuse_overwrite(tmp_path / "missing" / "net.h5", overwrite)
        with pytest.raises(FileError, match="File name too long"):
            refuse_overwrite(tmp_path / ("x" * 300), overwrite)


def test_every_file_has_its_own_place(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    places = [
        *(run.config, run.model, run.checkpoint, run.net),
        *(run.report, run.page, run.training_plot, run.raster_plot, run.updates),
    ]
    assert [place.name for place in places] == [
        *("config.toml", "model.pt", "checkpoint.pt", "net.h5"),
        *("report.json", "report.html", "training.png", "raster.png", "updates.json"),
    ]
    assert {place.parent for place in places} == {tmp_path}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '[{"layers": {}}]',
        "[" * 100_000,
        '[{"iteration": 1e999}]',
        f"[{'9' * 6000}]",
    ],
)
def test_a_damaged_record_of_updates_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "updates.json"
    path.write_text(content)
    with pytest.raises(FileError, match="not a record of updates"):
        read_updates(path)
