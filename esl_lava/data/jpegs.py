"""CIFAR-10 as a tree of JPEG files: `train/<class>/NNNN.jpg`, `test/<class>/NNNN.jpg`.

JPEG is lossy, so this is not CIFAR-10 itself: accuracies on it are reported under the name `NAME`.
Two decoders may differ by one grey level in some pixels.

The files are sorted by class. They are shuffled into one fixed order, the same on every machine, so
that the first n samples are a fair draw. The decoded images are stored in the user's cache, under
the SHA-256 of their files, and are mapped into memory from there.
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
from esl_lava.data.folders import cache_folder, read_error
from esl_lava.errors import DataError, FileError
from esl_lava.files import open_regular, replace_file

NAME = "CIFAR-10 (JPEG)"
"""Name under which accuracies on these images are reported."""

SIDE = 32
"""Rows and columns of an image; it has three channels."""

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
"""Names of the classes 0..9 in their published order, which is alphabetical."""

PER_SPLIT = {"train": 50_000, "test": 10_000}
"""Split -> number of images in the whole data set."""

FILE_LIMIT = 16 << 10
"""Largest size of a file in bytes; the largest of the 60,000 files has 1,124."""

TOTAL_LIMIT = 256 << 20
"""Largest size of all files together in bytes; the 60,000 files have 55,250,913."""

_ORDER_SEED = 10
_LOG_INTERVAL = 10_000  # decoded images
_FILE = re.compile(rf"(?:\./)?(train|test)/({'|'.join(CLASSES)})/([0-9]{{1,9}}\.jpg)")

_logger = logging.getLogger(__name__)


def read_split(place: Path, split: str) -> tuple[Bytes, Ints]:
    """Return images and labels of a split, in the shuffled order.

    Args:
        place: a .tar.gz of the tree, or the folder that holds the tree.
        split: "train" or "test".

    Returns:
        Images, (samples, 3072) uint8, with channels, rows and columns in one axis; and labels,
        (samples,) int64. The images may be mapped into memory, and are read-only then.

    Raises:
        DataError: the split has no file.
        FileError: a file is damaged, too large, or not such an image.
        ModuleNotFoundError: Pillow is not installed, and the images were not decoded before.
    """
    is_archive = place.is_file()
    files = {} if is_archive else _sort_files(place, _in_folder(place, split), split)
    cached = cache_folder() / "cifar10-jpeg" / f"{_sha256(place, files)}-{split}.npy"
    rows = _read_cached(cached)
    if rows is None:
        files = _sort_files(place, _in_archive(place, split), split) if is_archive else files
        if len(files) != PER_SPLIT[split]:
            _logger.warning(
                "%s: %s images of the split %s, but %s has %s",
                *(place, f"{len(files):,}", split, NAME, f"{PER_SPLIT[split]:,}"),
            )
        rows = _write_cached(_decode(place, files), cached)
    return rows[:, 1:], np.array(rows[:, 0], np.int64)


def shuffled_order(samples: int) -> Ints:
    """Return (samples,) a fixed random order of files that are sorted by class and name."""
    return np.random.default_rng(_ORDER_SEED).permutation(samples)


def _sort_files(
    place: Path, contents: Iterator[tuple[str, bytes]], split: str
) -> Mapping[tuple[int, str], bytes]:
    """Return (class, name) -> content of a split's files, ordered by class and name."""
    files: dict[tuple[int, str], bytes] = {}
    for path, content in contents:
        label, name = path.split("/")[-2:]
        key = CLASSES.index(label), name
        if key in files:
            sentence = f"{place}: it holds {path} twice"
            raise FileError(sentence, "conflict", value=path, file=place)
        files[key] = content
    if not files:
        sentence = f"{place}: it holds no file {split}/<class>/NNNN.jpg"
        raise DataError(sentence, "not-found", file=place)
    return dict(sorted(files.items()))


def _in_archive(place: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """Yield path in the tree and content of a split's files. The names of all files are checked."""

    def limit_of(name: str) -> int | None:
        match = _FILE.fullmatch(name)
        if match is None:
            return None
        return FILE_LIMIT if match.group(1) == split else 0

    return read_members(place, limit_of, TOTAL_LIMIT)


def _in_folder(place: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """Yield path in the tree and content of a split's files in a folder."""
    total = 0
    try:
        for folder in sorted((place / split).iterdir()):
            for file in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
                path = file.relative_to(place).as_posix()
                if _FILE.fullmatch(path) is None:
                    raise FileError(f"{file} is not of this data set", "unknown", file=file)
                with open_regular(file) as stream:
                    content = stream.read(FILE_LIMIT + 1)
                total += len(content)
                if len(content) > FILE_LIMIT:
                    sentence = f"{file} has more than the limit of {FILE_LIMIT} bytes"
                    raise FileError(sentence, "too-large", limit=FILE_LIMIT, file=file)
                if total > TOTAL_LIMIT:
                    sentence = f"{place}: its files have more than {TOTAL_LIMIT} bytes together"
                    raise FileError(sentence, "too-large", limit=TOTAL_LIMIT, file=place)
                yield path, content
    except OSError as error:
        raise read_error(str(error.filename), error) from None


def _sha256(place: Path, files: Mapping[tuple[int, str], bytes]) -> str:
    """Return the SHA-256 of an archive or of the files of a folder, hexadecimal."""
    sha = hashlib.sha256()
    for (label, name), content in files.items():
        sha.update(f"{label} {name} {len(content)}\n".encode())
        sha.update(content)
    if not files:
        try:
            with open_regular(place) as stream:
                while chunk := stream.read(1 << 20):
                    sha.update(chunk)
        except OSError as error:
            raise read_error(place, error) from None
    return sha.hexdigest()


def _decode(place: Path, files: Mapping[tuple[int, str], bytes]) -> Bytes:
    """Return (samples, 1 + 3072) uint8 in the shuffled order: the label, then the image."""
    _logger.info("decoding %s images of %s, once on this machine", f"{len(files):,}", place)
    rows = np.empty((len(files), 1 + 3 * SIDE * SIDE), np.uint8)
    ordered = list(files.items())
    for row, index in enumerate(shuffled_order(len(files))):
        (label, name), content = ordered[index]
        rows[row, 0] = label
        rows[row, 1:] = _decode_image(f"{place}: {CLASSES[label]}/{name}", content)
        if (row + 1) % _LOG_INTERVAL == 0 and row + 1 < len(files):
            _logger.info("decoded %s of %s", f"{row + 1:,}", f"{len(files):,}")
    return rows


def _decode_image(where: str, content: bytes) -> Bytes:
    """Return (3072,) the pixels of a JPEG file: red, green and blue, each row by row."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            size = f"{image.width} x {image.height} pixels, {image.mode}"
            if (image.size, image.mode) != ((SIDE, SIDE), "RGB"):
                sentence = f"{where} has {size}; {SIDE} x {SIDE}, RGB, are needed"
                raise FileError(sentence, "shape", value=size, file=where)
            pixels: Bytes = np.asarray(image)
    except FileError:
        raise
    # Pillow raises many types of exceptions for a file that is not a JPEG file.
    except Exception as error:
        reason = " ".join(str(error).split())
        sentence = f"{where} is not a JPEG file, or is damaged: {reason}"
        raise FileError(sentence, "damaged", file=where) from None
    return pixels.transpose(2, 0, 1).reshape(-1)


def _read_cached(cached: Path) -> Array | None:
    """Return the images in the cache, mapped into memory; None if they are missing or damaged."""
    try:
        rows = read_array(cached, "decoded images")
    except FileError:
        return None
    fits = rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == 1 + 3 * SIDE * SIDE
    return rows if fits and len(rows) and int(rows[:, 0].max()) < len(CLASSES) else None


def _write_cached(rows: Bytes, cached: Path) -> Array:
    """Write decoded images into the cache, and return them mapped from there if possible."""
    content = io.BytesIO()
    np.save(content, rows, allow_pickle=False)
    try:
        os.makedirs(cached.parent, exist_ok=True)
        replace_file(cached, content.getbuffer())
    except (OSError, FileError) as error:
        _logger.warning("decoded images cannot be stored, and will be decoded again: %s", error)
        return rows
    mapped = _read_cached(cached)
    return rows if mapped is None else mapped
