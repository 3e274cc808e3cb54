"""Tests that need CIFAR-10 itself are skipped where nobody has it at hand."""

import os
from pathlib import Path

import pytest

DATA = os.environ.get("ESL_LAVA_DATA")


def _needs(file: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not DATA or not (Path(DATA) / "cifar10" / file).is_file(),
        reason=f"ESL_LAVA_DATA names no folder with cifar10/{file} in it",
    )


needs_jpegs = _needs("cifar10_jpeg_train_test.tar.gz")
needs_subset = _needs("cifar10_lossless_subset.npz")
