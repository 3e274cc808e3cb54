"""Marks that skip tests without the real CIFAR-10."""

import os
from pathlib import Path

import pytest

DATA = os.environ.get("ESL_LAVA_DATA")


def _skip_without(file: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not DATA or not (Path(DATA) / "cifar10" / file).is_file(),
        reason=f"ESL_LAVA_DATA names no folder that contains cifar10/{file}",
    )


needs_jpegs = _skip_without("cifar10_jpeg_train_test.tar.gz")
needs_subset = _skip_without("cifar10_lossless_subset.npz")
