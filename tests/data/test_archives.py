import contextlib
import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.data import archives
from esl_lava.data.archives import read_members
from esl_lava.errors import FileError
from tests.faults import refused

FILES = {"a/1.txt": b"one", "a/2.txt": b"", "a/3.bin": bytes(range(256)) * 3, "a/4.txt": b"x" * 512}


def tar_bytes(
    files: Mapping[str, bytes], edit: Callable[[tarfile.TarInfo], None] = lambda m: None, **how: Any
) -> bytes:
    """Return an uncompressed tar of files in folders."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", **{"format": tarfile.USTAR_FORMAT, **how}) as tar:
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in files):
            member = tarfile.TarInfo(folder or ".")
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            edit(member)
            tar.addfile(member, io.BytesIO(raw))
    return content.getvalue()


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "x.tar.gz"
    path.write_bytes(gzip.compress(raw, compresslevel=1))
    return path


def read(path: Path, limit: int = 1000, total: int = 5000) -> dict[str, bytes]:
    return dict(read_members(path, lambda name: limit if name.startswith("a/") else None, total))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_read_in_their_order(tmp_path: Path, form: int) -> None:
    found = read(write(tmp_path, tar_bytes(FILES, format=form)))
    assert list(found.items()) == list(FILES.items())


def test_what_is_left_out_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, tar_bytes(FILES))
    found = dict(read_members(path, lambda name: 10 if name == "a/1.txt" else 0, 5000))
    assert found == {"a/1.txt": b"one"}


def test_remarks_of_posix_tars_are_passed_over(tmp_path: Path) -> None:
    def edit(member: tarfile.TarInfo) -> None:
        member.mtime = 1.5  # which only a remark can hold

    raw = tar_bytes(FILES, edit, format=tarfile.PAX_FORMAT, pax_headers={"comment": "of a commit"})
    assert raw.count(b"PaxHeader") >= len(FILES)
    assert read(write(tmp_path, raw)) == FILES


@pytest.mark.parametrize(
    ("files", "limits", "code", "expected"),
    [
        ({"b.txt": b""}, {}, "unknown", {"value": "b.txt"}),
        ({"../a/1": b""}, {}, "unknown", {"value": "../a/1"}),
        (FILES, {"limit": 767}, "too-large", {"value": 768, "limit": 767}),
        (FILES, {"total": 1282}, "too-large", {"limit": 1282}),
    ],
)
def test_what_is_foreign_or_large_is_refused(
    tmp_path: Path,
    files: dict[str, bytes],
    limits: dict[str, int],
    code: str,
    expected: dict[str, object],
) -> None:
    path = write(tmp_path, tar_bytes(files))
    with refused(FileError, code, file=path, **expected):
        read(path, **limits)
    assert read(write(tmp_path, tar_bytes(FILES)), limit=768, total=1283) == FILES


@pytest.mark.parametrize(
    "kind",
    [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE),
        *(tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, b"Q"),
    ],
)
def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path, kind: bytes) -> None:
    def edit(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    path = write(tmp_path, tar_bytes({"a/odd": b""}, edit))
    with refused(FileError, "unsupported", value="a/odd", file=path):
        read(path)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, tar_bytes(FILES))
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)  # with their folder
    assert read(path) == FILES
    monkeypatch.setattr(archives, "MOST_MEMBERS", 4)
    with refused(FileError, "too-large", limit=4, file=path):
        read(path)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    raw = bytearray(tar_bytes(FILES))
    raw[raw.index(b"a/3.bin")] ^= 1
    path = write(tmp_path, bytes(raw))
    with refused(FileError, "damaged", file=path):
        read(path)


@pytest.mark.slow
@given(st.data())
def test_a_tar_that_was_cut_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    raw = tar_bytes(FILES)
    end = raw.rindex(b"x") + 1  # zeros alone follow
    path = write(tmp_path, raw[: data.draw(st.integers(0, end - 1))])
    with refused(FileError, "damaged", file=path):
        read(path)


@pytest.mark.slow
@given(st.data())
def test_a_damaged_archive_is_refused_or_what_it_was(tmp_path: Path, data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(tar_bytes(FILES)))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "x.tar.gz"
    path.write_bytes(packed)
    with contextlib.suppress(FileError):
        assert read(path) == FILES
    path.write_bytes(packed[:place])
    with pytest.raises(FileError):
        read(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "kind", "code", "limit"),
    [
        (64 << 20, tarfile.REGTYPE, "too-large", 5000),
        (64 << 20, tarfile.XHDTYPE, "too-large", 65536),
        (64 << 20, tarfile.XGLTYPE, "too-large", 65536),
        (0, tarfile.REGTYPE, "damaged", None),
    ],
)
def test_a_bomb_takes_no_memory(
    tmp_path: Path, size: int, kind: bytes, code: str, limit: int | None
) -> None:
    member = tarfile.TarInfo("a/1")
    member.size, member.type = size, kind
    path = write(tmp_path, member.tobuf(tarfile.USTAR_FORMAT) + bytes(64 << 20))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with refused(FileError, code, limit=limit, file=path):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with refused(FileError, "not-found", file=tmp_path / "absent"):
        read(tmp_path / "absent")
    with refused(FileError, "unreadable", file=tmp_path):
        read(tmp_path)
    (tmp_path / "text").write_text("text")
    with refused(FileError, "damaged", file=tmp_path / "text"):
        read(tmp_path / "text")
