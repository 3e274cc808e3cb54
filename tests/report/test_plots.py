from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esl_lava.errors import FileError
from esl_lava.report.plots import plot_raster, plot_training

PNG = b"\x89PNG\r\n\x1a\n"


def history(accuracies: list[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "loss": 2.0 / epoch,
            "validation_accuracy": accuracy,
            "density": 0.2,
            "densities": {"hidden1": 0.1, "hidden2": 0.3, "hidden3": 0.2, "readout": 1.0},
            "exploration": 0.1 + 0.02 * epoch,
        }
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


def training(path: Path) -> None:
    plot_training(history([0.5, 0.9, 0.9, 0.7]), path)


def raster(path: Path, readout_last: int = 7) -> None:
    draw = np.random.default_rng(1)
    readout = np.zeros((6, 10), np.int32)
    readout[-1, readout_last] = 5000
    plot_raster(
        inputs=draw.integers(0, 2, (6, 64)).astype(np.uint8),
        spikes={
            "hidden1": draw.integers(0, 2, (6, 20)).astype(np.uint8),
            "hidden2": np.zeros((6, 5), np.uint8),  # a silent layer
        },
        readout=readout,
        image=draw.integers(0, 256, (8, 8)).astype(np.uint8),
        label=7,
        path=path,
    )


@pytest.mark.parametrize("plot", [training, raster])
def test_the_same_run_gives_the_same_png(plot: Callable[[Path], None], tmp_path: Path) -> None:
    # Under another name: nothing of it enters the file.
    first, second = tmp_path / "a.png", tmp_path / "another"
    plot(first)
    plot(second)
    content = first.read_bytes()
    assert content.startswith(PNG)
    assert content == second.read_bytes()
    assert len(content) > 10_000  # axes, not an empty page
    assert b"Software" not in content
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_what_is_plotted_matters(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abcdef"]
    plot_training(history([0.5, 0.9]), paths[0])
    plot_training(history([0.5, 0.8]), paths[1])
    plot_training(history([None, None]), paths[2])
    plot_training(history([0.5]), paths[3])
    raster(paths[4])
    raster(paths[5], readout_last=3)
    assert len({path.read_bytes() for path in paths}) == len(paths)


def test_the_kept_epoch_is_marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.axes import Axes

    notes: list[str] = []
    annotate = Axes.annotate

    def noted(self: Axes, text: str, *arguments: Any, **options: Any) -> Any:
        notes.append(text)
        return annotate(self, text, *arguments, **options)

    monkeypatch.setattr(Axes, "annotate", noted)
    training(tmp_path / "a.png")  # epochs 2 and 3 are equal: the latest, as the trainer keeps it
    raster(tmp_path / "b.png")
    assert notes == ["kept: epoch 3, 90.00 %", " 7"]


def test_a_file_that_cannot_be_written_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        training(tmp_path / "missing" / "a.png")
