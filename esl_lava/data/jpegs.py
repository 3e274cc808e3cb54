"""CIFAR-10 as a tree of JPEG files: `train/<class>/NNNN.jpg`, `test/<class>/NNNN.jpg`.

JPEG is lossy, so this is not CIFAR-10 itself: accuracies on it are labelled `NAME`. Decoders may
also differ from one another by a grey level here and there.

The files lie class by class. They are put into one mixed order, the same on every machine, so that
the first n samples are a fair draw. What was decoded is kept in the user's cache, by the SHA-256 of
what it was decoded from, and mapped into memory afterwards.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data.archives import read_members
from esl_lava.data.arrays import read_array
from esl_lava.data.folders import cache_folder
from esl_lava.errors import DataError, FileError
from esl_lava.files import replace_file

NAME = "CIFAR-10 (JPEG)"
"""What accuracies on these images are labelled."""

SIDE = 32
"""Rows and columns of an image; it has three channels."""

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
"""Names of the classes in their published order, which is that of the alphabet: 0..9."""

PER_SPLIT = {"train": 50_000, "test": 10_000}
"""Images of the whole set."""

FILE_LIMIT = 16 << 10
"""Most bytes of a file; of 60,000 the largest has 1,124."""

TOTAL_LIMIT = 256 << 20
"""Most bytes of all files together; they have 55,250,913."""

_ORDER_SEED = 10
_TOLD_EVERY = 10_000  # decoded images
_FILE = re.compile(rf"(?:\./)?(train|test)/({'|'.join(CLASSES)})/([0-9]{{1,9}}\.jpg)")

_logger = logging.getLogger(__name__)


def read_split(place: Path, split: str) -> tuple[Bytes, Ints]:
    """Images and labels of a split, in the mixed order.

    Args:
        place: a .tar.gz of the tree, or the folder that holds it.
        split: "train" or "test".

    Returns:
        (samples, 3072) uint8, channels, rows and columns of an image in one axis, and (samples,)
        int64. They can be mapped into memory, and cannot be written to then.

    Raises:
        DataError: when there is no file of the split.
        FileError: naming a file that is damaged, too large, or no such image.
        ModuleNotFoundError: without Pillow, where the images were not decoded before.
    """
    packed = place.is_file()
    files = {} if packed else _files(place, _in_folder(place, split), split)
    cached = cache_folder() / "cifar10-jpeg" / f"{_sha256(place, files)}-{split}.npy"
    rows = _kept(cached)
    if rows is None:
        files = _files(place, _in_archive(place, split), split) if packed else files
        if len(files) != PER_SPLIT[split]:
            _logger.warning(
                "%s: %s images to %s, of the %s in %s",
                *(place, f"{len(files):,}", split, f"{PER_SPLIT[split]:,}", NAME),
            )
        rows = _keep(_decoded(place, files), cached)
    return rows[:, 1:], np.array(rows[:, 0], np.int64)


def mixed(samples: int) -> Ints:
    """(samples,) the order in which so many files are shown, counted by class and name."""
    return np.random.default_rng(_ORDER_SEED).permutation(samples)


def _files(
    place: Path, found: Iterator[tuple[str, bytes]], split: str
) -> Mapping[tuple[int, str], bytes]:
    """(class, name) -> content of a split's files, ordered by class and name."""
    files: dict[tuple[int, str], bytes] = {}
    for path, content in found:
        label, name = path.split("/")[-2:]
        key = CLASSES.index(label), name
        if key in files:
            raise FileError(f"{place}: it holds {path} twice")
        files[key] = content
    if not files:
        raise DataError(f"{place}: no file {split}/<class>/NNNN.jpg is in it")
    return dict(sorted(files.items()))


def _in_archive(place: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """Path in the tree and content of a split's files; every name is looked at."""

    def limit_of(name: str) -> int | None:
        match = _FILE.fullmatch(name)
        if match is None:
            return None
        return FILE_LIMIT if match.group(1) == split else 0

    return read_members(place, limit_of, TOTAL_LIMIT)


def _in_folder(place: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """The same of a folder."""
    held = 0
    try:
        for folder in sorted((place / split).iterdir()):
            for file in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
                path = file.relative_to(place).as_posix()
                if _FILE.fullmatch(path) is None:
                    raise FileError(f"{file} is not of this data set")
                with file.open("rb") as stream:
                    content = stream.read(FILE_LIMIT + 1)
                held += len(content)
                if len(content) > FILE_LIMIT:
                    raise FileError(f"{file} has more than the limit of {FILE_LIMIT} bytes")
                if held > TOTAL_LIMIT:
                    raise FileError(f"{place}: files with more than {TOTAL_LIMIT} bytes together")
                yield path, content
    except OSError as error:
        raise FileError(f"{error.filename} cannot be read: {error.strerror or error}") from None


def _sha256(place: Path, files: Mapping[tuple[int, str], bytes]) -> str:
    """SHA-256 of an archive or of the files of a folder, hexadecimal."""
    sha = hashlib.sha256()
    for (label, name), content in files.items():
        sha.update(f"{label} {name} {len(content)}\n".encode())
        sha.update(content)
    if not files:
        try:
            with place.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    sha.update(chunk)
        except OSError as error:
            raise FileError(f"{place} cannot be read: {error.strerror or error}") from None
    return sha.hexdigest()


def _decoded(place: Path, files: Mapping[tuple[int, str], bytes]) -> Bytes:
    """(samples, 1 + 3072) uint8 in the mixed order: the label, then the image."""
    _logger.info("decoding %s images of %s, once for this machine", f"{len(files):,}", place)
    rows = np.empty((len(files), 1 + 3 * SIDE * SIDE), np.uint8)
    ordered = list(files.items())
    for row, index in enumerate(mixed(len(files))):
        (label, name), content = ordered[index]
        rows[row, 0] = label
        rows[row, 1:] = _image(f"{place}: {CLASSES[label]}/{name}", content)
        if (row + 1) % _TOLD_EVERY == 0 and row + 1 < len(files):
            _logger.info("decoded %s of %s", f"{row + 1:,}", f"{len(files):,}")
    return rows


def _image(where: str, content: bytes) -> Bytes:
    """(3072,) the pixels of a JPEG file: red, green and blue, each row by row."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            found = f"{image.width} x {image.height} pixels, {image.mode}"
            if (image.size, image.mode) != ((SIDE, SIDE), "RGB"):
                raise FileError(f"{where} has {found}; {SIDE} x {SIDE}, RGB, are needed")
            pixels: Bytes = np.asarray(image)
    except FileError:
        raise
    # Pillow interprets what is no JPEG in many ways, each of which has errors of its own.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{where} is no JPEG file, or a damaged one: {reason}") from None
    return pixels.transpose(2, 0, 1).reshape(-1)


def _kept(cached: Path) -> Array | None:
    """What was decoded before, mapped into memory; None where it is not there, or damaged."""
    try:
        rows = read_array(cached, "decoded images")
    except FileError:
        return None
    fits = rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == 1 + 3 * SIDE * SIDE
    return rows if fits and len(rows) and int(rows[:, 0].max()) < len(CLASSES) else None


def _keep(rows: Bytes, cached: Path) -> Array:
    """Put what was decoded into the cache; where that cannot be, it serves this once."""
    content = io.BytesIO()
    np.save(content, rows, allow_pickle=False)
    try:
        os.makedirs(cached.parent, exist_ok=True)
        replace_file(cached, content.getbuffer())
    except (OSError, FileError) as error:
        _logger.warning("decoded images cannot be kept, and will be decoded again: %s", error)
        return rows
    kept = _kept(cached)
    return rows if kept is None else kept
