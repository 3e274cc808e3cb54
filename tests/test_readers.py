"""Readers of files: for any content, a reader returns or raises a UserError."""

from __future__ import annotations

import gzip
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from esl_lava import netfile
from esl_lava.config import read_toml
from esl_lava.data.archives import read_members
from esl_lava.data.arrays import read_array
from esl_lava.data.idx import read_idx
from esl_lava.data.npz import read_member
from esl_lava.devices import load_device
from esl_lava.errors import UserError
from esl_lava.experiments.rundir import read_updates
from esl_lava.models.stored import load_model

READERS: dict[str, Callable[[Path], Any]] = {
    "spikes.npy": lambda path: read_array(path, "spikes"),
    "samples.npz": lambda path: read_member(path, "arr_0", 1 << 20),
    "images-idx3-ubyte.gz": read_idx,
    "model.pt": load_model,
    "net.h5": netfile.read,
    "config.toml": read_toml,
    "device.toml": load_device,
    "updates.json": read_updates,
    "files.tar.gz": lambda path: list(read_members(path, lambda name: 1 << 10, 1 << 20)),
}


def whole_files() -> dict[str, bytes]:
    """Make small files of all formats that the libraries behind the readers know."""
    files = {name: io.BytesIO() for name in ("npy", "npz", "objects", "pt", "legacy", "h5")}
    np.save(files["npy"], np.zeros((2, 3, 4), np.uint8))
    np.savez(files["npz"], np.zeros(3))
    np.save(files["objects"], np.array([None]), allow_pickle=True)
    torch.save({"a": torch.zeros(2)}, files["pt"])
    torch.save({"a": torch.zeros(2)}, files["legacy"], _use_new_zipfile_serialization=False)
    with h5py.File(files["h5"], "w") as file:
        file["layer/0/type"] = b"dense"
    idx = b"\0\0\x08\1\0\0\0\3abc"
    texts = ["[1]", "[" * 2000, "a = " + "[" * 2000, "seed = 1\n", f"{'9' * 5000}", "\ufeff{}"]
    return {
        **{name: file.getvalue() for name, file in files.items()},
        **{"idx": idx, "gzip": gzip.compress(idx, mtime=0), "pickle": pickle.dumps([idx] * 3)},
        **{f"text {number}": text.encode() for number, text in enumerate(texts)},
    }


WHOLE = whole_files()


def read_or_refuse(reader: Callable[[Path], Any], path: Path) -> None:
    """Read a file. A UserError must name the file."""
    try:
        reader(path)
    except UserError as error:
        assert path.name in str(error)  # noqa: PT017 - both outcomes are allowed


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@given(
    whole=st.sampled_from(sorted(WHOLE)),
    end=st.none() | st.integers(0, 300),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    more=st.binary(max_size=20),
)
def test_every_reader_returns_or_refuses(
    name: str,
    tmp_path: Path,
    whole: str,
    end: int | None,
    changes: list[tuple[int, int]],
    more: bytes,
) -> None:
    content = bytearray(WHOLE[whole][:end])
    for place, byte in changes:
        if place < len(content):
            content[place] = byte
    path = tmp_path / name
    path.write_bytes(content + more)
    read_or_refuse(READERS[name], path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_every_reader_refuses_what_is_no_regular_file(name: str, kind: str, tmp_path: Path) -> None:
    """A reader would wait for ever for a pipe that nobody writes to, and a device never ends."""
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError) as caught:
        READERS[name](path)
    (fault,) = caught.value.faults
    assert fault.code == ("not-found" if name == "device.toml" else "unreadable")
    assert str(fault.file) == str(path)
    assert str(path) in fault.sentence


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("whole", sorted(WHOLE))
def test_every_reader_takes_any_format(name: str, whole: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WHOLE[whole])
    read_or_refuse(READERS[name], path)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@given(content=st.binary(max_size=100))
def test_every_reader_takes_any_bytes(name: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    read_or_refuse(READERS[name], path)
