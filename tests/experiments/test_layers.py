"""Layers that do not fit a data set are refused before any slow work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from esl_lava.config import from_mapping
from esl_lava.data.datasets import SHAPES, load
from esl_lava.errors import ConfigError
from esl_lava.experiments.layers import check_layers

NETWORK = {"model": {"kind": "convolutional"}, "sparsity": {"density": 0.5}}


def test_the_shape_of_the_digits_is_known_without_reading() -> None:
    digits = load("digits", "train")
    assert SHAPES["digits"] == (digits.shape, digits.classes)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ("8C3-AP2-8C3-AP2-AP2-8C3", None),
        ("8C3-AP3-8C3", "AP3 on maps of 8 x 8 leaves out rows or columns, which 8C3 behind it"),
        ("AP16-8C3", "AP16 on maps of 8 x 8: the side 16 of a pool must be from 2 to 8"),
    ],
)
def test_layers_are_compared_with_the_data(layers: str, sentence: str | None) -> None:
    experiment = from_mapping({**NETWORK, "model": {"kind": "convolutional", "layers": layers}})
    if sentence is None:
        check_layers(experiment)
        return
    with pytest.raises(ConfigError, match=sentence):
        check_layers(experiment)


UNEVEN = ("--set", "model.kind=convolutional", "--set", "model.layers=8C3-AP3-8C3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (("train", "--preset", "digits", *UNEVEN, "-o", "run"), "leaves out rows or columns"),
        (("train", "--preset", "digits", "-o", "full"), "full: already exists"),
        (("train", "--preset", "digits", "-o", "full", "--dry-run"), "full: already exists"),
        (("demo", "-o", "full"), "full: already exists"),
    ],
)
def test_a_training_is_refused_without_importing_torch(
    tmp_path: Path, command: tuple[str, ...], fault: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    program = (
        "import sys\n"
        "from esl_lava.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["2", "False"]
    assert fault in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["full"]
