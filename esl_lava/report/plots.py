"""Pictures of a run, as PNG; the same run gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.models.history import kept_epoch
from esl_lava.report import canvas


def plot_training(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Validation accuracy, and the densities of all layers, over epochs.

    Args:
        history: one entry per epoch as `Trainer` records them.
        path: PNG to write.

    Raises:
        FileError: when it cannot be written.
    """
    epochs = [entry["epoch"] for entry in history]
    figure, (top, bottom) = canvas.figure(7, 5, nrows=2, sharex=True, height_ratios=[3, 2])
    if history[-1]["validation_accuracy"] is None:
        top.plot(epochs, [entry["loss"] for entry in history], color=canvas.BLUE, marker=".")
        top.set_ylabel("TET loss")
    else:
        accuracy = [100 * entry["validation_accuracy"] for entry in history]
        top.plot(epochs, accuracy, color=canvas.BLUE, marker=".")
        best = kept_epoch(history)
        top.plot(
            epochs[best], accuracy[best], "o", color=canvas.ORANGE, markersize=8, fillstyle="none"
        )
        top.annotate(
            f"kept: epoch {epochs[best]}, {accuracy[best]:.2f} %",
            (epochs[best], accuracy[best]),
            xytext=(0.98, 0.08),
            textcoords="axes fraction",
            ha="right",
            color=canvas.ORANGE,
            fontsize=9,
        )
        top.set_ylabel("validation accuracy (%)")
    shades = (canvas.GREY, canvas.BLUE, canvas.ORANGE)
    for index, name in enumerate(history[-1]["densities"]):
        bottom.plot(
            epochs,
            [100 * entry["densities"][name] for entry in history],
            color=shades[index % len(shades)],
            label=f"density of {name}",
        )
    bottom.plot(
        epochs,
        [100 * entry["density"] for entry in history],
        "--",
        color=canvas.INK,
        label="density, all layers",
    )
    bottom.plot(
        epochs,
        [100 * entry["exploration"] for entry in history],
        ":",
        color=canvas.INK,
        label="explored (R_s, sparse layers)",
    )
    bottom.set_ylim(0, 105)
    bottom.set_ylabel("share of positions (%)")
    bottom.set_xlabel("epoch")
    bottom.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
    canvas.save(figure, path)


def plot_raster(
    inputs: npt.NDArray[np.uint8],
    spikes: Mapping[str, npt.NDArray[np.uint8]],
    readout: npt.NDArray[np.int32],
    image: npt.NDArray[np.uint8],
    label: int,
    path: Path,
) -> None:
    """One sample: the image, the spikes of input and layers, the readout's running sums.

    Args:
        inputs: (T, inputs); spikes: layer name -> (T, neurons).
        readout: (T, classes) v of the integrator.
        image: (height, width) the sample, shown beside.
        label: its true class.
        path: PNG to write.

    Raises:
        FileError: when it cannot be written.
    """
    trains = {"input": inputs, **spikes}
    ratios = [1 + 0.4 * np.log2(train.shape[1] / 64 + 1) for train in trains.values()]
    figure, grid = canvas.figure(
        8,
        2 + 1.5 * (len(trains) + 1),
        nrows=len(trains) + 1,
        ncols=2,
        width_ratios=[1, 4],
        height_ratios=[*ratios, 2],
        sharex="col",
    )
    for axis in grid[:, 0]:
        axis.set_axis_off()
    picture = grid[0, 0]
    picture.imshow(image, cmap="Greys", extent=(0, 1, 0, 1), aspect="equal")
    picture.set_title(f"a {label}", fontsize=10, color=canvas.INK)
    steps = np.arange(1, inputs.shape[0] + 1)
    for axis, (name, train) in zip(grid[:, 1], trains.items()):
        # One cell per neuron and step: with few steps, marks would run into bars.
        axis.imshow(
            train.T,
            cmap="Blues" if name == "input" else "Greys",
            vmin=0,
            vmax=1,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0.5, train.shape[0] + 0.5, 0, train.shape[1]),
        )
        axis.set_ylabel(f"{name}\n({train.shape[1]})", fontsize=8)
        axis.set_title(f"{int(train.sum())} spikes", fontsize=8, loc="right", color=canvas.INK)
    bottom = grid[-1, 1]
    decision = int(readout[-1].argmax())
    for number in range(readout.shape[1]):
        chosen = number == decision
        sums = readout[:, number] / 64 / 64  # v carries 6 bits below weights, those 6 below 1
        bottom.plot(
            steps,
            sums,
            color=canvas.ORANGE if chosen else canvas.GREY,
            linewidth=2 if chosen else 1,
            zorder=2 if chosen else 1,
        )
    bottom.annotate(
        f" {decision}",
        (steps[-1], readout[-1, decision] / 64 / 64),
        color=canvas.ORANGE,
        va="center",
    )
    bottom.set_ylabel("readout\n(running sum)", fontsize=8)
    bottom.set_xlabel("step")
    bottom.set_title(
        f"decides {decision}: {'right' if decision == label else 'wrong'}",
        fontsize=8,
        loc="right",
        color=canvas.INK,
    )
    canvas.save(figure, path)
