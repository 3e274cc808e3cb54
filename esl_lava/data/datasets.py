"""Data sets of labelled 8-bit images, by name.

`digits` comes with this package. `mnist` is read from the folder `$ESL_LAVA_DATA/mnist`,
else downloaded once into the user's cache; `cifar10`, `cifar10_subset` and `cifar100` are read
from `$ESL_LAVA_DATA` alone. A split is the same on every machine.
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
from esl_lava.data.moves import mirrored, moved
from esl_lava.data.samples import Chosen, Samples, digest
from esl_lava.errors import DataError, FileError
from esl_lava.files import replace_file

SPLITS = ("train", "test")

_logger = logging.getLogger(__name__)

_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST_ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""Where MNIST is downloaded from: the mirror of torchvision 0.18 (`datasets/mnist.py`)."""

_MNIST_LIMIT = 16 << 20  # bytes; the largest archive has 9,912,422
# SHA-256 of the archives whose MD5s torchvision 0.18 publishes, and of what is in them.
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
        name: what accuracies on it are labelled: the data set's key in `LOADERS`, or another
            name where they are not to be taken for those of the data set itself.
        images: (samples, features) uint8, 0..255.
        labels: (samples,) int64, 0..classes-1.
        classes: number of classes.
        image_shape: the shape whose flattening a row of `images` is: (features,), (rows, columns)
            or (channels, rows, columns).
        split: "train" or "test", of which they are; None where that is not known.

    Raises:
        DataError: when the arrays are not of these types, shapes and ranges.
    """

    name: str
    images: Bytes
    labels: Ints
    classes: int
    image_shape: tuple[int, ...]
    split: str | None = None

    def __post_init__(self) -> None:
        for what, array, dtype in (
            ("images", self.images, "uint8"),
            ("labels", self.labels, "int64"),
        ):
            if array.dtype != dtype:
                raise DataError(f"{what} of {self.name} need type {dtype}, not {array.dtype}")
        features = math.prod(self.image_shape)
        if self.images.ndim != 2 or self.images.shape[1] != features:
            raise DataError(
                f"images of {self.name} need shape (samples, {features}), not {self.images.shape}"
            )
        if self.labels.shape != (len(self.images),):
            raise DataError(
                f"{self.name} has {len(self.images)} images but labels of shape {self.labels.shape}"
            )
        outside = self.labels[(self.labels < 0) | (self.labels >= self.classes)]
        if outside.size:
            raise DataError(f"label {outside[0]} of {self.name} is not in 0..{self.classes - 1}")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of images, labels and their shapes, hexadecimal; it tells data of one name apart.

        60,000 images of MNIST take a tenth of a second.
        """
        return digest(self.image_shape, self.images, self.labels.astype("<i8", copy=False))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns)."""
        channels, rows, columns = (1, 1, *self.image_shape)[-3:]
        return channels, rows, columns

    @property
    def steps(self) -> None:
        """An image has no length of its own."""

    def take(self, n: int) -> Images:
        """The first `n` samples, sharing memory with these; see `Samples`."""
        if not 1 <= n <= len(self):
            raise DataError(
                f"cannot take {n} samples of {self.name}: 1 to {len(self)} can be taken"
            )
        return self.choose(slice(n))

    def choose(self, chosen: Chosen) -> Images:
        """Some of them; those of a slice share memory with these."""
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def spikes(self, encoding: Encoding | None) -> Array:
        """(samples, T, inputs) uint8 of 0 and 1, see `encode`; int8 of direct coding, see `graded`.

        Raises:
            DataError: without an encoding.
        """
        if encoding is None:
            raise DataError(f"{self.name}: images become spikes by an encoding, and none is given")
        if encoding.bits is not None:
            return graded(self.images, encoding.steps, encoding.bits)
        return encode(encoding.kind, self.images, encoding.steps)

    def first_steps(self, encoding: Encoding) -> Ints:
        """(samples, inputs) the step of each pixel's first spike; T where it has none.

        Raises:
            DataError: of direct coding, which gives pixels and no spikes.
        """
        if encoding.bits is not None:
            raise DataError(
                f"{self.name}: encoding.kind {encoding.kind!r} gives pixels at every step, "
                "which have no first spike"
            )
        return first_steps(encoding.kind, encoding.steps)[self.images]

    def shifted(self, pixels: int, generator: np.random.Generator) -> Images:
        """Every image moved by its own whole numbers of pixels, uniform in -pixels..pixels.

        What leaves the frame is lost, what comes in is 0. Channels move together. It is the
        random crop of an image around which `pixels` zeros were put.

        Args:
            pixels: largest distance, vertically and horizontally; 0 moves nothing.
            generator: gives (samples, 2) integers.

        Raises:
            DataError: when the images have no rows and columns.
        """
        images = moved(self._planes("moved"), pixels, generator)
        return replace(self, images=images.reshape(self.images.shape))

    def flipped(self, generator: np.random.Generator) -> Images:
        """Every image as it is or, with a chance of one half, its mirror image, left to right.

        Args:
            generator: gives (samples,) integers, 1 for a mirror image.

        Raises:
            DataError: when the images have no rows and columns.
        """
        images = mirrored(self._planes("mirrored"), generator)
        return replace(self, images=images.reshape(self.images.shape))

    def _planes(self, change: str) -> Bytes:
        """The images as (samples, channels, rows, columns); `change` is wanted of them."""
        if len(self.image_shape) not in (2, 3):
            raise DataError(
                f"images of shape {self.image_shape} cannot be {change}: rows and columns are "
                "needed, with or without channels"
            )
        return self.images.reshape(len(self), *self.shape)

    def picture(self, index: int) -> Bytes | None:
        """What a person sees of an image: (rows, columns), or (rows, columns, 3) in colour.

        Three channels are red, green and blue; with other numbers of channels, and without
        rows, there is no picture: None.
        """
        channels, rows, columns = self.shape
        if channels not in (1, 3) or len(self.image_shape) == 1:
            return None
        planes = self.images[index].reshape(channels, rows, columns)
        return planes[0] if channels == 1 else planes.transpose(1, 2, 0)


def load(name: str, split: str) -> Images:
    """The half `split` of the data set `name`.

    `digits`: 1,797 handwritten digits of 8 x 8 pixels, the same as scikit-learn's;
    pixels of 0..16 become `round(pixel * 255 / 16)`. The split is fixed: in blocks of ten
    consecutive samples, every fifth block is test (357 samples), the rest train (1,440).
    The samples come writer by writer in cycles (much the same sequence of about 130 labels
    recurs, form after form), so blocks keep every writer and class in both halves: the
    test tells how well known writers are read, not new ones.

    `mnist`: MNIST, or any data set in IDX files of the same names, which are
    `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each with or without `.gz`, in
    `$ESL_LAVA_DATA/mnist`. Where there is no such folder, MNIST is downloaded into the user's
    cache. All four files must be there, as the classes are those of both splits
    together: 0..n, each with a sample. Files of `split` that are not MNIST's are accepted
    with a warning in the log.

    `cifar10`: colour images of shape (3, 32, 32), red, green and blue; ten classes by the
    alphabet, airplane 0 to truck 9. In `$ESL_LAVA_DATA/cifar10` it takes the first it finds of
    the published python version (`cifar-10-batches-py/`, or `cifar-10-python.tar.gz`) and a
    tree of JPEG files (`cifar10_jpeg_train_test.tar.gz`, or `train/<class>/NNNN.jpg` and
    `test/` unpacked), which is lossy and therefore named "CIFAR-10 (JPEG)"; see `jpegs`.

    `cifar10_subset`: some of its images as they are, `cifar10_lossless_subset.npz` in that folder.

    `cifar100`: as `cifar10`, with its 100 fine classes, from `cifar-100-python/` or
    `cifar-100-python.tar.gz` in `$ESL_LAVA_DATA/cifar100`.

    Args:
        name: a key of `LOADERS`.
        split: "train" or "test".

    Raises:
        DataError: unknown name or split; a file is missing, the download of mnist fails,
            or its images and labels do not fit.
        FileError: a file is malformed or too large.

    Sources: the test set of the UCI data set "Optical Recognition of Handwritten Digits"
    (E. Alpaydin, C. Kaynak, 1998; `digits-licence.txt`); Y. LeCun, C. Cortes, C. J. C. Burges,
    "The MNIST database of handwritten digits".
    """
    if name not in LOADERS:
        raise DataError(f"unknown data set of images {name!r}: there are {', '.join(LOADERS)}")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of {name}: there are {', '.join(SPLITS)}")
    return replace(LOADERS[name](split), split=split)


S = TypeVar("S", bound=Samples)


def split_validation(samples: S, fraction: float, seed: int) -> tuple[S, S]:
    """Sets `round(fraction * len(samples))` samples aside for validation.

    They are drawn without replacement by `numpy.random.default_rng(seed)`, whatever their
    class. Both parts keep the order of `samples`.

    Args:
        samples: what to split; it is left as it is.
        fraction: at least 0 (validation is then empty), below 1.
        seed: of the draw.

    Returns:
        (train, validation).

    Raises:
        DataError: `fraction` is out of range, or so large that nothing is left to train on.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"a validation fraction must be at least 0 and below 1, not {fraction}")
    count = round(fraction * len(samples))
    if 0 < count == len(samples):
        raise DataError(
            f"a validation fraction of {fraction} takes all {count} samples of {samples.name}"
        )
    drawn = np.zeros(len(samples), bool)
    drawn[np.random.default_rng(seed).choice(len(samples), count, replace=False)] = True
    return samples.choose(~drawn), samples.choose(drawn)


def _digits(split: str) -> Images:
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        pixels, labels = file["pixels"], file["labels"]
    # Half up in integers; the only tie, 8 -> 127.5, goes to 128 by rounding to even as well.
    images = ((pixels.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
    in_test = np.arange(len(labels)) // 10 % 5 == 4
    chosen = in_test if split == "test" else ~in_test
    return Images("digits", images[chosen], labels[chosen].astype(np.int64), 10, (8, 8))


def _mnist(split: str) -> Images:
    folder = _mnist_folder()
    paths = _mnist_paths(folder)
    images_name, labels_name = _MNIST_FILES[split]
    images, images_digest = _read_bytes(paths[images_name], ("samples", "height", "width"))
    if images.size == 0:
        raise DataError(f"{paths[images_name]} is empty: its shape is {images.shape}")
    labels, labels_digest = _read_bytes(paths[labels_name], ("samples",))
    if len(images) != len(labels):
        raise DataError(
            f"{paths[images_name]} has {len(images)} images,"
            f" {paths[labels_name]} has {len(labels)} labels"
        )

    other_split = next(half for half in SPLITS if half != split)
    other_labels, _ = _read_bytes(paths[_MNIST_FILES[other_split][1]], ("samples",))
    counts = np.bincount(np.concatenate([labels, other_labels]))
    if not counts.all():
        raise DataError(
            f"labels in {folder} must be 0..n without a gap:"
            f" {len(counts) - 1} occurs, {counts.argmin()} does not"
        )

    digests = {images_name: images_digest, labels_name: labels_digest}
    foreign = [name for name, digest in digests.items() if digest != _MNIST_DIGESTS[name]]
    if foreign:
        _logger.warning(
            "%s in %s: not the published MNIST, so no result on it is one on MNIST",
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
"""The data sets by name; `load` checks the split it passes on, they do not."""

SHAPES: Mapping[str, tuple[tuple[int, int, int], int]] = MappingProxyType(
    {
        "digits": ((1, 8, 8), 10),
        "mnist": ((1, 28, 28), 10),
        "cifar10": (cifar.SHAPE, 10),
        "cifar10_subset": (cifar.SHAPE, 10),
        "cifar100": (cifar.SHAPE, 100),
    }
)
"""Shape of a sample and number of classes of each, known before anything is read."""


def _mnist_folder() -> Path:
    """The user's folder if there is one, else that of the download, made on first use."""
    own = own_folder("mnist")
    if own is not None:
        return own
    folder = cache_folder() / "MNIST" / "raw"
    missing = [name for name in _MNIST_DIGESTS if not _either(folder, name)]
    if missing:
        _download_mnist(missing, folder)
    return folder


def _download_mnist(names: Iterable[str], folder: Path) -> None:
    """Put the files `names` of the published MNIST, as .gz, into `folder`."""
    _logger.info("downloading MNIST (11 MB) into %s", folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            with urllib.request.urlopen(f"{MNIST_ADDRESS}{name}.gz", timeout=60) as answer:
                content = answer.read(_MNIST_LIMIT)
            if hashlib.sha256(content).hexdigest() != _MNIST_ARCHIVES[name]:
                raise ValueError(f"{MNIST_ADDRESS}{name}.gz is not the published file")
            replace_file(folder / f"{name}.gz", content)
    # What a name, a connection and an answer can be wrong in.
    except (OSError, ValueError, FileError, http.client.HTTPException) as error:
        raise DataError(
            f"MNIST cannot be downloaded into {folder} ({error}): set {DATA_VARIABLE}"
            f" (now {os.environ.get(DATA_VARIABLE)!r}) to a folder with mnist/ in it"
        ) from error


def _mnist_paths(folder: Path) -> dict[str, Path]:
    """The path of each file; the .gz, whose checksum tells damage, where there are both."""
    paths = {}
    for name in _MNIST_DIGESTS:
        path = _either(folder, name)
        if path is None:
            raise DataError(f"{folder} lacks the file {name}.gz (or {name})")
        paths[name] = path
    return paths


def _either(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _read_bytes(path: Path, axes: tuple[str, ...]) -> tuple[Bytes, str]:
    """The array, which must be uint8 with these axes, and the digest of an IDX file."""
    array, digest = read_idx(path)
    if array.dtype != np.uint8 or array.ndim != len(axes):
        raise DataError(
            f"{path} needs unsigned bytes of shape ({', '.join(axes)}),"
            f" not {array.dtype} of shape {array.shape}"
        )
    return array, digest
