"""Contents of a folder."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Return the relative path of every file below a folder -> its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"(directory)"
        for path in sorted(folder.rglob("*"))
    }
