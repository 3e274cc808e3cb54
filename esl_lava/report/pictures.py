"""Pictures of a report's page, each an `<svg>` element; the same values give the same text.

They are about a phone wide, so that their text can be read there; a page on a wide screen
puts two beside one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.connections import Connections
from esl_lava.models.history import kept_epoch
from esl_lava.report import canvas

WIDTH = 4.4
"""Inches of a picture; at 72 units an inch it is shown at about its size on a phone."""

FIELDS = 15
"""Neurons whose receptive fields are shown."""

RASTER_ROWS = 80
"""Most rows of spikes that are shown one by one; more would vanish between pixels."""

MATRIX_SIDE = 400
"""Most rows and columns of a matrix that are shown one by one; more are pooled."""

SHADES = (canvas.BLUE, canvas.ORANGE, canvas.GREEN, canvas.GREY)

# Of images, which a style sheet cannot recolour: to be seen on white and on black.
POSITIVE = (0.22, 0.56, 0.83)
NEGATIVE = (0.90, 0.45, 0.20)


@dataclass(frozen=True)
class Point:
    """A network among others.

    Attributes:
        label: its name, or empty.
        x, accuracy: where it lies; accuracy 0..1.
        front: whether nothing is better in both.
    """

    label: str
    x: float
    accuracy: float
    front: bool = True


@dataclass(frozen=True, eq=False)
class Shown:
    """One sample, as a network sees it.

    Attributes:
        inputs: (T, inputs) spikes.
        spikes: layer name -> (T, neurons).
        readout: (T, classes) v of the integrator, or None where the last layer fires.
        image: (rows, columns) uint8, or None where the sample is no image.
        label, decision: the true class and the network's; the decision may be negative:
            none.
    """

    inputs: npt.NDArray[Any]
    spikes: Mapping[str, npt.NDArray[np.uint8]]
    readout: npt.NDArray[np.int32] | None
    image: npt.NDArray[np.uint8] | None
    label: int
    decision: int


def plain(text: str) -> str:
    """Text that matplotlib is not to read as mathematics."""
    return text.replace("$", r"\$")


def tick(value: float) -> str:
    """A number of an axis, exact to three digits: 2e-07, 1.25e-06, 0.5, 12."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.3g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{exponent}"


def training(history: Sequence[Mapping[str, Any]], name: str) -> str:
    """Validation accuracy (else the loss) over epochs, with the epoch that was kept.

    Args:
        history: an entry per epoch as `Trainer` records them.
        name: unique within the page.
    """
    picture, axis = _figure(2.6)
    epochs = [entry["epoch"] for entry in history]
    known = history[-1]["validation_accuracy"] is not None
    values = [100 * e["validation_accuracy"] if known else e["loss"] for e in history]
    axis.plot(epochs, values, color=canvas.BLUE, marker=".", markersize=4, linewidth=1.2)
    if known:
        kept = kept_epoch(history)
        axis.plot(epochs[kept], values[kept], "o", color=canvas.ORANGE, fillstyle="none")
        _note(axis, f"kept: epoch {epochs[kept]}, {values[kept]:.2f} %", canvas.ORANGE)
    axis.set_ylabel("validation accuracy (%)" if known else "loss")
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(_whole_numbers())
    return canvas.svg(picture, name)


def densities(history: Sequence[Mapping[str, Any]], name: str) -> str:
    """Density of every layer, and R_s of the sparse ones, over epochs.

    Args:
        history: as `training`.
        name: unique within the page.
    """
    picture, axis = _figure(2.9)
    epochs = [entry["epoch"] for entry in history]
    for index, layer in enumerate(history[-1]["densities"]):
        shares = [100 * entry["densities"][layer] for entry in history]
        shade = SHADES[index % len(SHADES)]
        axis.plot(epochs, shares, color=shade, linewidth=1.4, label=plain(layer))
    overall = [100 * entry["density"] for entry in history]
    axis.plot(epochs, overall, "--", color=canvas.INK, linewidth=1, label="all layers")
    explored = [100 * entry["exploration"] for entry in history]
    axis.plot(epochs, explored, ":", color=canvas.INK, linewidth=1.2, label="explored (R_s)")
    axis.set_ylim(0, 105)
    axis.set_ylabel("share of positions (%)")
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(_whole_numbers())
    _legend(axis, 3)
    return canvas.svg(picture, name)


def rewiring(updates: Sequence[Mapping[str, Any]], name: str) -> str:
    """Connections each update of the masks grew, by layer.

    Args:
        updates: as `updates.json` has them, at least one.
        name: unique within the page.
    """
    picture, axis = _figure(2.9)
    iterations = [update["iteration"] for update in updates]
    for index, layer in enumerate(updates[-1]["layers"]):
        grown = [update["layers"][layer]["grown"] for update in updates]
        shade = SHADES[index % len(SHADES)]
        axis.plot(
            iterations,
            grown,
            color=shade,
            marker=".",
            markersize=4,
            linewidth=1.2,
            label=plain(layer),
        )
    axis.set_ylim(0, None)
    axis.set_ylabel("connections moved")
    axis.set_xlabel("iteration")
    _legend(axis, 3)
    return canvas.svg(picture, name)


def scatter(
    points: Sequence[Point],
    axis_label: str,
    name: str,
    *,
    front: bool = False,
    joined: bool = False,
) -> str:
    """Accuracy over something that costs, on a logarithmic axis.

    Args:
        points: at least one; x positive.
        axis_label: what x is.
        name: unique within the page.
        front: mark the points that nothing beats in both.
        joined: and join them.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    picture, axis = _figure(2.9)
    best = sorted((point for point in points if point.front), key=lambda p: (p.x, p.accuracy))
    if joined and len(best) > 1:
        axis.step(
            [point.x for point in best],
            [100 * point.accuracy for point in best],
            where="post",
            color=canvas.GREY,
            linewidth=1,
        )
    for point in points:
        shade = canvas.ORANGE if front and point.front else canvas.BLUE
        axis.plot(point.x, 100 * point.accuracy, "o", color=shade, markersize=5)
        axis.annotate(
            plain(point.label),
            (point.x, 100 * point.accuracy),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize=8,
            color=canvas.INK,
        )
    xs = [point.x for point in points]
    if max(xs) > 3 * min(xs):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
    axis.margins(x=0.2, y=0.25)
    axis.set_xlabel(axis_label)
    axis.set_ylabel("accuracy (%)")
    return canvas.svg(picture, name)


def epochs_by_density(history: Sequence[Mapping[str, Any]], name: str) -> str:
    """Every epoch by the density of all layers and its validation accuracy.

    Args:
        history: as `training`, with validation accuracies.
        name: unique within the page.
    """
    picture, axis = _figure(2.9)
    last = max(1, len(history) - 1)
    for index, entry in enumerate(history):
        axis.plot(
            100 * entry["density"],
            100 * entry["validation_accuracy"],
            "o",
            color=canvas.BLUE,
            alpha=0.4 + 0.5 * index / last,
            markersize=4,
        )
    kept = history[kept_epoch(history)]
    at = 100 * kept["density"], 100 * kept["validation_accuracy"]
    axis.plot(*at, "o", color=canvas.ORANGE, fillstyle="none", markersize=8)
    _note(axis, f"kept: {at[0]:.2f} % dense, {at[1]:.2f} % right", canvas.ORANGE)
    axis.set_xlim(0, 105)
    axis.set_xlabel("density, all layers (%)")
    axis.set_ylabel("validation accuracy (%)")
    return canvas.svg(picture, name)


def incoming(connections: Connections, shape: tuple[int, int], name: str) -> str:
    """How many connections every pixel of the input has.

    Args:
        connections: of the layer that the image feeds.
        shape: (rows, columns) of the image.
        name: unique within the page.
    """
    picture, axis = _figure(3.2)
    counts = np.bincount(connections.indices, minlength=connections.n_pre).reshape(shape)
    _image(axis, _tinted(counts / max(1, counts.max()), POSITIVE))
    axis.set_title(
        f"connections of an input: {counts.min():,} to {counts.max():,}", fontsize=8, color=INK
    )
    return canvas.svg(picture, name)


def fields(connections: Connections, shape: tuple[int, int], name: str) -> str:
    """Receptive fields: the weights of some neurons, spread evenly over the layer.

    Args:
        connections: of the layer that the image feeds.
        shape: (rows, columns) of the image.
        name: unique within the page.
    """
    number = min(FIELDS, connections.n_post)
    chosen = [index * connections.n_post // number for index in range(number)]
    rows = -(-number // 5)
    picture, grid = canvas.figure(WIDTH, 0.2 + 0.98 * rows, nrows=rows, ncols=5, squeeze=False)
    most = max(1, int(np.abs(connections.weights).max(initial=0)))
    for axis in grid.flat:
        axis.set_axis_off()
    for axis, neuron in zip(grid.flat, chosen):
        here = slice(connections.indptr[neuron], connections.indptr[neuron + 1])
        weights = connections.weights[here]
        tint = np.zeros((connections.n_pre, 4))
        tint[connections.indices[here], :3] = np.where(weights[:, None] < 0, NEGATIVE, POSITIVE)
        # A connection is seen, however light it is.
        tint[connections.indices[here], 3] = 0.4 + 0.6 * np.abs(weights) / most
        axis.set_axis_on()
        _image(axis, tint.reshape(*shape, 4))
        axis.set_title(f"{neuron}", fontsize=8, color=INK, pad=2)
    return canvas.svg(picture, name)


def matrix(connections: Connections, name: str) -> str:
    """The mask of a layer; where it is large, the density of blocks of it.

    Args:
        connections: of the layer.
        name: unique within the page.
    """
    picture, axis = _figure(3.2)
    sides = connections.n_post, connections.n_pre
    shown = tuple(min(MATRIX_SIDE, side) for side in sides)
    rows = connections.rows() * shown[0] // sides[0]
    columns = connections.indices.astype(np.int64) * shown[1] // sides[1]
    counts = np.bincount(rows * shown[1] + columns, minlength=shown[0] * shown[1])
    share = counts.reshape(shown) / max(1, counts.max())
    _image(axis, _tinted(share, POSITIVE), aspect="auto")
    axis.set_xlabel(f"{sides[1]:,} inputs")
    axis.set_ylabel(f"{sides[0]:,} neurons")
    return canvas.svg(picture, name)


def raster(shown: Shown, name: str) -> str:
    """One sample: the image, the spikes of input and layers, and what decides.

    Args:
        shown: the sample.
        name: unique within the page.
    """
    trains = {"input": shown.inputs, **shown.spikes}
    panels = len(trains) + (shown.readout is not None)
    ratios = [1 + 0.3 * np.log2(train.shape[1] / 16 + 1) for train in trains.values()]
    ratios += [2.2] * (shown.readout is not None)
    picture, axes = canvas.figure(
        WIDTH, 0.6 + 0.95 * panels, nrows=panels, sharex=True, squeeze=False, height_ratios=ratios
    )
    steps = shown.inputs.shape[0]
    for axis, (layer, train) in zip(axes[:, 0], trains.items()):
        tint = POSITIVE if layer == "input" else NEGATIVE
        share = _pooled(np.abs(train.T) / max(1, np.abs(train).max()))
        _image(
            axis,
            _tinted(share, tint),
            aspect="auto",
            origin="lower",
            extent=(0.5, steps + 0.5, -0.5, train.shape[1] - 0.5),
        )
        axis.tick_params(bottom=False, left=False, labelleft=False)
        axis.set_ylabel(f"{plain(layer)}\n({train.shape[1]})", fontsize=8)
        number = int(np.count_nonzero(train))
        axis.set_title(f"{number:,} spikes", fontsize=8, loc="right", color=INK, pad=2)
    if shown.readout is not None:
        _sums(axes[-1, 0], shown.readout, shown.decision)
    last = axes[-1, 0]
    decision = shown.decision if shown.decision >= 0 else "nothing"
    last.set_title(f"decides {decision}", fontsize=8, loc="left", color=INK, pad=2)
    last.xaxis.set_major_locator(_whole_numbers())
    last.tick_params(bottom=True, labelbottom=True)
    last.set_xlabel("step")
    return canvas.svg(picture, name)


def sample(image: npt.NDArray[np.uint8], name: str) -> str:
    """A sample's image, dark where it is bright."""
    picture, axis = canvas.figure(1.2, 1.2)
    _image(axis, _tinted(image / 255, (0.5, 0.5, 0.5)))
    return canvas.svg(picture, name)


INK = canvas.INK


def _sums(axis: Any, readout: npt.NDArray[np.int32], decision: int) -> None:
    steps = np.arange(1, len(readout) + 1)
    sums = readout / 64 / 64  # v carries 6 bits below weights, those 6 below 1
    for number in range(readout.shape[1]):
        chosen = number == decision
        axis.plot(
            steps,
            sums[:, number],
            color=canvas.ORANGE if chosen else canvas.GREY,
            linewidth=2 if chosen else 1,
            zorder=2 if chosen else 1,
        )
    axis.annotate(
        f"{decision}",
        (steps[-1], sums[-1, decision]),
        textcoords="offset points",
        xytext=(4, 0),
        color=canvas.ORANGE,
        va="center",
    )
    axis.set_ylabel("readout\n(running sum)", fontsize=8)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins="auto", integer=True)


def _figure(height: float) -> tuple[Any, Any]:
    return canvas.figure(WIDTH, height)


def _image(axis: Any, colours: npt.NDArray[np.float64], **options: Any) -> None:
    axis.imshow(np.rint(255 * colours).astype(np.uint8), interpolation="none", **options)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=canvas.GREY, linewidth=0.6)


def _pooled(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At most `RASTER_ROWS` rows: means of neighbours, the greatest of them as 1."""
    if len(share) <= RASTER_ROWS:
        return share
    starts = np.arange(RASTER_ROWS) * len(share) // RASTER_ROWS
    sizes = np.diff(np.append(starts, len(share)))
    means = np.add.reduceat(share, starts, axis=0) / sizes[:, None]
    return np.asarray(means / max(means.max(), 1e-9))


def _tinted(
    share: npt.NDArray[np.float64], colour: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """Shares 0..1 as the opacity of one colour."""
    return np.dstack([*(np.full(share.shape, part) for part in colour), share])


def _note(axis: Any, text: str, colour: str) -> None:
    axis.annotate(
        text, (0.98, 0.06), xycoords="axes fraction", ha="right", color=colour, fontsize=8
    )


def _legend(axis: Any, columns: int) -> None:
    axis.legend(
        fontsize=8,
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=columns,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1,
    )
