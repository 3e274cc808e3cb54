"""Pictures of a run as PNG; tests/report/test_html.py has them as parts of a page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from esl_lava.errors import FileError
from esl_lava.report import canvas
from esl_lava.report.pictures import draw_raster, draw_training
from esl_lava.results.account import Sample
from esl_lava.results.evaluation import Recording
from esl_lava.results.training import Epoch

PNG = b"\x89PNG\r\n\x1a\n"


def history(accuracies: list[float | None]) -> list[Epoch]:
    densities = {"hidden1": 0.1, "hidden2": 0.3, "hidden3": 0.2, "readout": 1.0}
    return [
        Epoch(epoch, 2.0 / epoch, accuracy, 0.2, densities, 0.1 + 0.02 * epoch)
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


def training() -> Figure:
    return draw_training(history([0.5, 0.9, 0.9, 0.7]))


def raster(decision: int = 7) -> Figure:
    draw = np.random.default_rng(1)
    readout = np.zeros((6, 10), np.int32)
    readout[-1, decision] = 5000
    spikes = {
        "hidden1": draw.integers(0, 2, (6, 20)).astype(np.uint8),
        "hidden2": np.zeros((6, 5), np.uint8),  # a silent layer
    }
    inputs = draw.integers(0, 2, (6, 64)).astype(np.uint8)
    return draw_raster(Sample(Recording(inputs, spikes, readout, decision), None, 7))


@pytest.mark.parametrize("draw", [training, raster])
def test_the_same_run_gives_the_same_png(draw: Callable[[], Figure], tmp_path: Path) -> None:
    # Under another name: nothing of it enters the file.
    first, second = tmp_path / "a.png", tmp_path / "another"
    canvas.save_png(draw(), first)
    canvas.save_png(draw(), second)
    content = first.read_bytes()
    assert content.startswith(PNG)
    assert content == second.read_bytes()
    assert len(content) > 10_000  # axes, not an empty page
    assert b"Software" not in content
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_what_is_drawn_matters(tmp_path: Path) -> None:
    accuracies: list[list[float | None]] = [[0.5, 0.9], [0.5, 0.8], [None, None], [0.5]]
    pictures = [
        *(draw_training(history(values)) for values in accuracies),
        raster(),
        raster(decision=3),
    ]
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for picture, path in zip(pictures, paths):
        canvas.save_png(picture, path)
    assert len({path.read_bytes() for path in paths}) == len(paths)


def test_the_kept_epoch_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    notes: list[str] = []
    annotate = Axes.annotate

    def noted(self: Axes, text: str, *arguments: Any, **options: Any) -> Any:
        notes.append(text)
        return annotate(self, text, *arguments, **options)

    monkeypatch.setattr(Axes, "annotate", noted)
    training()  # epochs 2 and 3 are equal: the latest, as the trainer keeps it
    raster()
    assert notes == ["kept: epoch 3, 90.00 %", "7"]


def test_a_file_that_cannot_be_written_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        canvas.save_png(training(), tmp_path / "missing" / "a.png")
