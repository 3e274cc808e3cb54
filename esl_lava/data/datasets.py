"""Data sets of labelled 8-bit images, by name.

`digits` comes with this package. `mnist` is read from the folder `$ESL_LAVA_DATA/mnist`; if the
folder does not exist, MNIST is downloaded once into the user's cache. `cifar10`, `cifar10_subset`
and `cifar100` are read from `$ESL_LAVA_DATA` only. A split is the same on every machine.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import math
import os
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from esl_lava.arrays import Array, Bytes, Ints
from esl_lava.data import cifar
from esl_lava.data.config import Encoding
from esl_lava.data.encoders import encode, first_steps, graded
from esl_lava.data.folders import DATA_VARIABLE, cache_folder, own_folder
from esl_lava.data.idx import read_idx
from esl_lava.data.moves import mirror, shift
from esl_lava.data.samples import Samples, Selection, check_labels, check_number, digest
from esl_lava.errors import DataError, FileError
from esl_lava.files import replace_file

SPLITS = ("train", "test")

_logger = logging.getLogger(__name__)

_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST_ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""Address from which MNIST is downloaded: the mirror of torchvision 0.18 (`datasets/mnist.py`)."""

_MNIST_LIMIT = 16 << 20  # bytes; the largest archive has 9,912,422
# SHA-256 of the archives whose MD5s torchvision 0.18 publishes, and of their contents.
_MNIST_ARCHIVES = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_MNIST_DIGESTS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True, eq=False)
class Images:
    """A data set of labelled images.

    Attributes:
        name: name under which accuracies on the images are reported: the data set's key in
            `LOADERS`, or another name if the accuracies must not be mistaken for those on the data
            set itself.
        images: (samples, features) uint8, 0..255.
        labels: (samples,) int64, 0..classes-1.
        classes: number of classes.
        image_shape: shape of an image before it was flattened into a row of `images`: (features,),
            (rows, columns) or (channels, rows, columns).
        split: "train" or "test"; None if it is not known.

    Raises:
        DataError: an array has another type or shape, or values out of range.
    """

    name: str
    images: Bytes
    labels: Ints
    classes: int
    image_shape: tuple[int, ...]
    split: str | None = None

    def __post_init__(self) -> None:
        for key, array, dtype in (
            ("images", self.images, "uint8"),
            ("labels", self.labels, "int64"),
        ):
            if array.dtype != dtype:
                raise DataError(
                    f"{key} of {self.name} need type {dtype}, not {array.dtype}",
                    "type",
                    key=key,
                    value=str(array.dtype),
                    limit=dtype,
                )
        features = math.prod(self.image_shape)
        if self.images.ndim != 2 or self.images.shape[1] != features:
            raise DataError(
                f"images of {self.name} need shape (samples, {features}), not {self.images.shape}",
                "shape",
                key="images",
                value=self.images.shape,
                limit=features,
            )
        check_labels(self.name, self.labels, len(self.images), self.classes)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of images, labels and their shapes, hexadecimal.

        The digest tells apart different data of the same name. The 60,000 images of MNIST take a
        tenth of a second.
        """
        return digest(self.image_shape, self.images, self.labels.astype("<i8", copy=False))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image, (channels, rows, columns); flat images have (1, 1, features)."""
        channels, rows, columns = (1, 1, *self.image_shape)[-3:]
        return channels, rows, columns

    @property
    def steps(self) -> None:
        """None, because the encoding sets the number of steps of an image."""

    def take(self, n: int) -> Images:
        """Return the first `n` samples, which share memory with these; see `Samples`."""
        check_number(self.name, n, len(self))
        return self.choose(slice(n))

    def choose(self, selection: Selection) -> Images:
        """Return the selected samples. Samples of a slice share memory with these."""
        return replace(self, images=self.images[selection], labels=self.labels[selection])

    def spikes(self, encoding: Encoding | None) -> Array:
        """Return (samples, T, inputs) uint8 of 0 and 1, see `encode`.

        Direct coding gives int8, see `graded`.

        Raises:
            DataError: `encoding` is None, or of a kind that does not encode images.
        """
        if encoding is None:
            raise DataError(
                f"{self.name}: images need an encoding to become spikes, but none is given",
                "missing",
                key="encoding",
            )
        if encoding.bits is not None:
            return graded(self.images, encoding.steps, encoding.bits)
        return encode(encoding.kind, self.images, encoding.steps)

    def first_steps(self, encoding: Encoding) -> Ints:
        """Return (samples, inputs) the step of each pixel's first spike; T if it has no spike.

        Raises:
            DataError: the encoding is direct coding, which gives pixels and no spikes, or of a
                kind that does not encode images.
        """
        if encoding.bits is not None:
            raise DataError(
                f"{self.name}: encoding.kind {encoding.kind!r} gives pixels at every step, "
                "which have no first spike",
                "unsupported",
                key="encoding.kind",
                value=encoding.kind,
            )
        return first_steps(encoding.kind, encoding.steps)[self.images]

    def shifted(self, pixels: int, generator: np.random.Generator) -> Images:
        """Return the images, each shifted by its own random whole numbers of pixels.

        The numbers are uniform in -pixels..pixels. Pixels that leave the image are lost, and pixels
        that enter it are 0. All channels are shifted together. This equals a random crop of the
        image after padding with `pixels` zeros.

        Args:
            pixels: largest shift, vertically and horizontally; 0 shifts nothing.
            generator: draws (samples, 2) integers.

        Raises:
            DataError: the images have no rows and columns.
        """
        images = shift(self._planes("shifted"), pixels, generator)
        return replace(self, images=images.reshape(self.images.shape))

    def flipped(self, generator: np.random.Generator) -> Images:
        """Return the images, each mirrored left to right with a probability of one half.

        Args:
            generator: draws (samples,) integers; 1 mirrors the image.

        Raises:
            DataError: the images have no rows and columns.
        """
        images = mirror(self._planes("mirrored"), generator)
        return replace(self, images=images.reshape(self.images.shape))

    def _planes(self, change: str) -> Bytes:
        """Return the images as (samples, channels, rows, columns); errors name `change`."""
        if len(self.image_shape) not in (2, 3):
            raise DataError(
                f"images of shape {self.image_shape} cannot be {change}: rows and columns are "
                "needed, with or without channels",
                "shape",
                key="images",
                value=self.image_shape,
            )
        return self.images.reshape(len(self), *self.shape)

    def picture(self, index: int) -> Bytes | None:
        """Return an image for a person: (rows, columns), or (rows, columns, 3) in colour.

        Three channels are red, green and blue. An image with another number of channels, or without
        rows, has no picture: None.
        """
        channels, rows, columns = self.shape
        if channels not in (1, 3) or len(self.image_shape) == 1:
            return None
        planes = self.images[index].reshape(channels, rows, columns)
        return planes[0] if channels == 1 else planes.transpose(1, 2, 0)


def load(name: str, split: str) -> Images:
    """Return a split of a data set of images.

    `digits`: 1,797 handwritten digits of 8 x 8 pixels, the same as in scikit-learn. Pixels of 0..16
    become `round(pixel * 255 / 16)`. The split is fixed: of the blocks of ten consecutive samples,
    every fifth block is test (357 samples), the others are train (1,440). The samples are ordered
    by writer, in cycles: the form of each writer repeats almost the same sequence of about 130
    labels. Therefore both splits have samples of every writer and class, and the test accuracy is
    that on known writers, not on new ones.

    `mnist`: MNIST, or any data set in IDX files with the names of MNIST's files,
    `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each with or without `.gz`, in
    `$ESL_LAVA_DATA/mnist`. If the folder does not exist, MNIST is downloaded into the user's cache.
    All four files must exist, because the labels of both splits together determine the classes:
    0..n, each with a sample. Files of `split` that are not those of MNIST are accepted with a
    warning in the log.

    `cifar10`: colour images of shape (3, 32, 32), red, green and blue; ten classes in alphabetical
    order, airplane 0 to truck 9. The loader looks in `$ESL_LAVA_DATA/cifar10` for the published
    "python version" (`cifar-10-batches-py/`, or `cifar-10-python.tar.gz`), then for a tree of JPEG
    files (`cifar10_jpeg_train_test.tar.gz`, or `train/<class>/NNNN.jpg` and `test/` unpacked), and
    takes the first that exists. JPEG is lossy, so accuracies on it are reported under the name
    "CIFAR-10 (JPEG)"; see `jpegs`.

    `cifar10_subset`: some images of CIFAR-10, unchanged, from `cifar10_lossless_subset.npz` in the
    same folder.

    `cifar100`: like `cifar10`, with the 100 fine classes of CIFAR-100, from `cifar-100-python/` or
    `cifar-100-python.tar.gz` in `$ESL_LAVA_DATA/cifar100`.

    Args:
        name: a key of `LOADERS`.
        split: "train" or "test".

    Raises:
        DataError: the name or the split is unknown, a file is missing, the download of MNIST fails,
            or images and labels do not fit together.
        FileError: a file is malformed or too large.
        ModuleNotFoundError: as in `jpegs.read_split`.

    Sources: the test set of the UCI data set "Optical Recognition of Handwritten Digits"
    (E. Alpaydin, C. Kaynak, 1998; `digits-licence.txt`); Y. LeCun, C. Cortes, C. J. C. Burges,
    "The MNIST database of handwritten digits".
    """
    if name not in LOADERS:
        raise DataError(
            f"unknown data set of images {name!r}: the data sets are {', '.join(LOADERS)}",
            "unknown",
            key="data set",
            value=name,
            limit=tuple(LOADERS),
        )
    if split not in SPLITS:
        raise unknown_split(name, split)
    return replace(LOADERS[name](split), split=split)


def unknown_split(name: str, split: str) -> DataError:
    """Return the error for a split that the data set `name` does not have."""
    return DataError(
        f"unknown split {split!r} of {name}: the splits are {', '.join(SPLITS)}",
        "unknown",
        key="split",
        value=split,
        limit=SPLITS,
    )


S = TypeVar("S", bound=Samples)


def split_validation(samples: S, fraction: float, seed: int) -> tuple[S, S]:
    """Set `round(fraction * len(samples))` samples aside for validation.

    `numpy.random.default_rng(seed)` draws them without replacement, whatever their class. Both
    parts keep the order of `samples`.

    Args:
        samples: the samples to split; they stay unchanged.
        fraction: at least 0 (validation is then empty), below 1.
        seed: random seed of the draw.

    Returns:
        (train, validation).

    Raises:
        DataError: `fraction` is out of range, or so large that no sample is left to train on.
    """
    if not 0 <= fraction < 1:
        raise DataError(
            f"data.validation must be at least 0 and below 1, not {fraction}",
            "range" if math.isfinite(fraction) else "not-finite",
            key="data.validation",
            value=fraction,
            limit=1,
        )
    count = round(fraction * len(samples))
    if 0 < count == len(samples):
        raise DataError(
            f"data.validation {fraction} takes all {count} samples of {samples.name}, and leaves "
            "none to train on",
            "range",
            key="data.validation",
            value=fraction,
        )
    is_validation = np.zeros(len(samples), bool)
    is_validation[np.random.default_rng(seed).choice(len(samples), count, replace=False)] = True
    return samples.choose(~is_validation), samples.choose(is_validation)


def _digits(split: str) -> Images:
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        pixels, labels = file["pixels"], file["labels"]
    # Rounded half up in integers. The only tie, 8 -> 127.5, also becomes 128 by rounding to even.
    images = ((pixels.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
    in_test = np.arange(len(labels)) // 10 % 5 == 4
    in_split = in_test if split == "test" else ~in_test
    return Images("digits", images[in_split], labels[in_split].astype(np.int64), 10, (8, 8))


def _mnist(split: str) -> Images:
    folder = _mnist_folder()
    paths = _mnist_paths(folder)
    images_name, labels_name = _MNIST_FILES[split]
    images, images_digest = _read_bytes(paths[images_name], ("samples", "height", "width"))
    if images.size == 0:
        raise DataError(
            f"{paths[images_name]} is empty: its shape is {images.shape}",
            "shape",
            value=images.shape,
            file=paths[images_name],
        )
    labels, labels_digest = _read_bytes(paths[labels_name], ("samples",))
    if len(images) != len(labels):
        raise DataError(
            f"{paths[images_name]} has {len(images)} images,"
            f" {paths[labels_name]} has {len(labels)} labels",
            "mismatch",
            key="labels",
            value=len(labels),
            limit=len(images),
            file=paths[labels_name],
        )

    other_split = next(other for other in SPLITS if other != split)
    other_labels, _ = _read_bytes(paths[_MNIST_FILES[other_split][1]], ("samples",))
    counts = np.bincount(np.concatenate([labels, other_labels]))
    if not counts.all():
        raise DataError(
            f"labels in {folder} must be 0..n without a gap:"
            f" {len(counts) - 1} occurs, {counts.argmin()} does not",
            "missing",
            key="labels",
            value=int(counts.argmin()),
            file=folder,
        )

    digests = {images_name: images_digest, labels_name: labels_digest}
    foreign = [name for name, digest in digests.items() if digest != _MNIST_DIGESTS[name]]
    if foreign:
        _logger.warning(
            "%s in %s: not the published MNIST, so a result on it is not a result on MNIST",
            " and ".join(foreign),
            folder,
        )
    return Images(
        "mnist",
        images.reshape(len(images), -1),
        labels.astype(np.int64),
        len(counts),
        images.shape[1:],
    )


def _cifar10(split: str) -> Images:
    label, images, labels = cifar.cifar10(split)
    return Images(label, images, labels, 10, cifar.SHAPE)


def _cifar10_subset(split: str) -> Images:
    return Images("cifar10_subset", *cifar.cifar10_subset(split), 10, cifar.SHAPE)


def _cifar100(split: str) -> Images:
    return Images("cifar100", *cifar.cifar100(split), 100, cifar.SHAPE)


LOADERS: Mapping[str, Callable[[str], Images]] = MappingProxyType(
    {
        "digits": _digits,
        "mnist": _mnist,
        "cifar10": _cifar10,
        "cifar10_subset": _cifar10_subset,
        "cifar100": _cifar100,
    }
)
"""Data set -> its loader. The loaders do not check the split, `load` does."""

SHAPES: Mapping[str, tuple[tuple[int, int, int], int]] = MappingProxyType(
    {
        "digits": ((1, 8, 8), 10),
        "mnist": ((1, 28, 28), 10),
        "cifar10": (cifar.SHAPE, 10),
        "cifar10_subset": (cifar.SHAPE, 10),
        "cifar100": (cifar.SHAPE, 100),
    }
)
"""Data set -> ((channels, rows, columns) of a sample, number of classes). Nothing is read."""


def _mnist_folder() -> Path:
    """Return the user's folder of MNIST if it exists, else the folder of the download.

    MNIST is downloaded on first use.
    """
    users_folder = own_folder("mnist")
    if users_folder is not None:
        return users_folder
    folder = cache_folder() / "MNIST" / "raw"
    missing = [name for name in _MNIST_DIGESTS if not _find_file(folder, name)]
    if missing:
        _download_mnist(missing, folder)
    return folder


def _download_mnist(names: Iterable[str], folder: Path) -> None:
    """Download the files `names` of the published MNIST, as .gz, into `folder`."""
    _logger.info("downloading MNIST (11 MB) into %s", folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            with urllib.request.urlopen(f"{MNIST_ADDRESS}{name}.gz", timeout=60) as response:
                content = response.read(_MNIST_LIMIT)
            if hashlib.sha256(content).hexdigest() != _MNIST_ARCHIVES[name]:
                raise ValueError(f"{MNIST_ADDRESS}{name}.gz is not the published file")
            replace_file(folder / f"{name}.gz", content)
    # A wrong host name, a lost connection and a malformed response raise these.
    except (OSError, ValueError, FileError, http.client.HTTPException) as error:
        raise DataError(
            f"MNIST cannot be downloaded into {folder} ({error}): set {DATA_VARIABLE}"
            f" (now {os.environ.get(DATA_VARIABLE)!r}) to a folder with mnist/ in it",
            "failed",
            key=DATA_VARIABLE,
            value=os.environ.get(DATA_VARIABLE),
            file=folder,
        ) from error


def _mnist_paths(folder: Path) -> dict[str, Path]:
    """Return the path of each file of MNIST.

    The .gz is preferred where both files exist, because its checksum reveals damage.
    """
    paths = {}
    for name in _MNIST_DIGESTS:
        path = _find_file(folder, name)
        if path is None:
            sentence = f"{folder} lacks the file {name}.gz (or {name})"
            raise DataError(sentence, "not-found", value=name, file=folder)
        paths[name] = path
    return paths


def _find_file(folder: Path, name: str) -> Path | None:
    """Return the path of a compressed or plain file, or None if neither exists."""
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _read_bytes(path: Path, axes: tuple[str, ...]) -> tuple[Bytes, str]:
    """Return the array of an IDX file, which must be uint8 with these axes, and the digest."""
    array, digest = read_idx(path)
    if array.dtype != np.uint8 or array.ndim != len(axes):
        raise DataError(
            f"{path} needs unsigned bytes of shape ({', '.join(axes)}),"
            f" not {array.dtype} of shape {array.shape}",
            "type" if array.dtype != np.uint8 else "shape",
            value=str(array.dtype) if array.dtype != np.uint8 else array.shape,
            file=path,
        )
    return array, digest
