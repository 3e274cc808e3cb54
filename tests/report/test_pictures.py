"""Tests of the pictures of a run as PNG; tests/report/test_html.py tests them in a page."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from esl_lava.errors import FileError
from esl_lava.report import canvas
from esl_lava.report.pictures import RATES_SHOWN, draw_raster, draw_rates, draw_training
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


def rates() -> Figure:
    draw = np.random.default_rng(1)
    return draw_rates({"conv1": draw.random(5000) ** 3, "$": np.zeros(1)})


@pytest.mark.slow
@pytest.mark.parametrize("draw", [training, raster, rates])
def test_the_same_run_gives_the_same_png(draw: Callable[[], Figure], tmp_path: Path) -> None:
    # The second file has another name, which must not be part of the content.
    first, second = tmp_path / "a.png", tmp_path / "another"
    canvas.save_png(draw(), first)
    canvas.save_png(draw(), second)
    content = first.read_bytes()
    assert content.startswith(PNG)
    assert content == second.read_bytes()
    assert len(content) > 10_000  # axes, not an empty page
    assert b"Software" not in content
    assert sorted(tmp_path.iterdir()) == [first, second]


@pytest.mark.slow
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


def test_rates_fall_from_the_busiest_neuron_to_the_quietest() -> None:
    found = {"few": np.array([0.0, 0.5, 1.0, 0.25]), "many": np.arange(1001) / 1000}
    (axis,) = draw_rates(found).axes
    few, many = axis.lines
    assert few.get_label() == "few"
    assert few.get_xdata(orig=True).tolist() == [0, 25, 50, 75, 100]  # type: ignore[union-attr]
    assert few.get_ydata(orig=True).tolist() == [1, 0.5, 0.25, 0, 0]  # type: ignore[union-attr]
    assert len(np.asarray(many.get_xdata())) == RATES_SHOWN + 1
    assert np.asarray(many.get_ydata())[[0, -1]].tolist() == [1, 0]


def test_layers_that_tell_nothing_are_named_of_the_kept_epoch() -> None:
    def titled(**known: Any) -> str:
        epochs = history([0.5, 0.9, 0.7])
        epochs[1] = replace(epochs[1], **known)
        return draw_training(epochs).axes[0].get_title(loc="left")

    assert titled() == ""  # as older versions recorded it
    steady = {"hidden1": 0, "hidden2": 3}
    assert titled(saturated=steady, rates={"hidden1": 0.1, "hidden2": 0.9}) == ""
    assert titled(saturated=steady, rates={"hidden1": 0.0, "hidden2": 1.0}).split("\n") == [
        "hidden1: all neurons silent",
        "hidden2: all neurons fire at every step",
    ]
    assert titled(saturated={}, rates={"hidden1": 1.0}) == ""  # once, in the only step


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        canvas.save_png(training(), tmp_path / "missing" / "a.png")
