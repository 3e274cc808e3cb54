"""Attacks by what is no regular file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tests.attacks.attack import attack

FILES = (
    *("model.pt", "checkpoint.pt", "net.h5", "spikes.npy", "samples.npz", "images-idx3-ubyte"),
    *("a.aedat", "a.aedat4", "a.bin", "config.toml", "device.toml"),
)


def _each(files: tuple[str, ...], doc: str, make: Callable[[Path], object], name: str) -> None:
    """Add an attack for each reader."""
    for file in files:

        def write(path: Path) -> None:
            make(path)

        write.__name__ = name
        write.__doc__ = f"Where {file} should be is {doc}."
        attack(file, "unreadable", "not-found")(write)


def _listen(path: Path) -> None:
    """Make a socket. Its path may have 107 characters."""
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            made.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


_each(FILES, "a pipe into which nobody writes", os.mkfifo, "a_pipe")
_each(FILES, "a device that never ends", lambda path: path.symlink_to("/dev/zero"), "a_device")
_each(("model.pt", "net.h5", "config.toml"), "a socket", _listen, "a_socket")
_each(("model.pt", "net.h5", "spikes.npy", "a.bin"), "a folder", Path.mkdir, "a_folder")
_each(
    ("model.pt", "net.h5"),
    "a link to itself",
    lambda path: path.symlink_to(path.name),
    "a_link_to_itself",
)
