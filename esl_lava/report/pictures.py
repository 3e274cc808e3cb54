"""Pictures of runs: matplotlib figures, saved in a page or as PNG by `canvas`.

They are about a phone wide, so that their text can be read there; a page on a wide screen puts
two beside one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from esl_lava.arrays import Bytes, Floats, Int32s
from esl_lava.chip import STATE_SHIFT, WEIGHT_SCALE
from esl_lava.connections import Matrix
from esl_lava.report import canvas
from esl_lava.report.canvas import INK
from esl_lava.results.account import Sample
from esl_lava.results.training import Epoch, MaskUpdate, kept_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

WIDTH = 4.4
"""Inches of a picture; at 72 units an inch it is shown at about its size on a phone."""

RATES_SHOWN = 200
"""Most neurons of a layer whose rates are shown one by one."""

FIELDS = 15
"""Neurons whose receptive fields are shown."""

RASTER_ROWS = 80
"""Most rows of spikes that are shown one by one; more would vanish between pixels."""

MATRIX_SIDE = 400
"""Most rows and columns of a matrix that are shown one by one; more are pooled."""

KERNEL_COLUMNS = 3
"""Layers whose kernels are shown beside one another."""

KERNEL_SIDE = 128
"""Most rows and columns of kernels that are shown one by one; more are pooled."""

SHADES = (canvas.BLUE, canvas.ORANGE, canvas.GREEN, canvas.GREY)

# Of images, which a style sheet cannot recolour: to be seen on white and on black.
POSITIVE = (0.22, 0.56, 0.83)
NEGATIVE = (0.90, 0.45, 0.20)


def plain(text: str) -> str:
    """Text that matplotlib is not to read as mathematics."""
    return text.replace("$", r"\$")


def tick(value: float) -> str:
    """A number of an axis, exact to three digits: 2e-07, 1.25e-06, 0.5, 12."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.3g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{exponent}"


def draw_training(history: Sequence[Epoch]) -> Figure:
    """Validation accuracy (else the loss) over epochs (at least one), and which was kept.

    Below, the density of every layer, and R_s of the sparse ones. Above stand layers whose
    neurons all say the same in that epoch, if any do.
    """
    picture, ((top,), (bottom,)) = canvas.panels(WIDTH, 5, rows=2)
    epochs = [epoch.epoch for epoch in history]
    known = history[-1].validation_accuracy is not None
    values = [100 * (e.validation_accuracy or 0) if known else e.loss for e in history]
    top.plot(epochs, values, color=canvas.BLUE, marker=".", markersize=4, linewidth=1.2)
    if known:
        kept = kept_epoch(history)
        top.plot(epochs[kept], values[kept], "o", color=canvas.ORANGE, fillstyle="none")
        _note(top, f"kept: epoch {epochs[kept]}, {values[kept]:.2f} %")
    if lost := _lost(history[kept_epoch(history)]):
        top.set_title("\n".join(map(plain, lost)), fontsize=8, loc="left", color=canvas.ORANGE)
    top.set_ylabel("validation accuracy (%)" if known else "loss")
    for layer, shade in zip(history[-1].densities, shades(len(history[-1].densities))):
        shares = [100 * epoch.densities[layer] for epoch in history]
        bottom.plot(epochs, shares, color=shade, linewidth=1.4, label=plain(layer))
    overall = [100 * epoch.density for epoch in history]
    bottom.plot(epochs, overall, "--", color=INK, linewidth=1, label="all layers")
    explored = [100 * epoch.exploration for epoch in history]
    bottom.plot(epochs, explored, ":", color=INK, linewidth=1.2, label="explored (R_s)")
    bottom.set(ylim=(0, 105), ylabel="share of positions (%)", xlabel="epoch")
    bottom.xaxis.set_major_locator(whole_numbers())
    legend(bottom)
    return picture


def _lost(epoch: Epoch) -> list[str]:
    """Which layers told nothing, as none of their neurons fired or all did at every step."""
    rates, steady = epoch.rates or {}, epoch.saturated or {}
    return [f"{layer}: all neurons silent" for layer, rate in rates.items() if rate == 0] + [
        f"{layer}: all neurons fire at every step" for layer in steady if rates.get(layer) == 1
    ]


def draw_rates(rates: Mapping[str, Floats]) -> Figure:
    """How often neurons fire: those of every layer in order, the busiest at the left.

    Args:
        rates: layer name, at least one -> (neurons,) spikes at a mean step, 0..1.
    """
    picture, axis = canvas.figure(WIDTH, 2.9)
    for (layer, found), shade in zip(rates.items(), shades(len(rates))):
        falling = np.sort(found)[::-1]
        # Each neuron is a stretch of the axis; of many some, evenly, the ends among them.
        shown = np.unique(np.linspace(0, len(falling) - 1, RATES_SHOWN).astype(int))
        left = 100 * shown / len(falling)
        axis.step(
            [*left, 100],
            [*falling[shown], falling[-1]],
            where="post",
            color=shade,
            linewidth=1.4,
            label=plain(layer),
        )
    axis.set(xlim=(0, 100), ylim=(0, None), xlabel="neurons (%)", ylabel="spikes per step")
    legend(axis)
    return picture


def draw_rewiring(updates: Sequence[MaskUpdate]) -> Figure:
    """Connections each update of the masks (at least one) grew, by layer."""
    picture, axis = canvas.figure(WIDTH, 2.9)
    iterations = [update.iteration for update in updates]
    for layer, shade in zip(updates[-1].layers, shades(len(updates[-1].layers))):
        grown = [update.layers[layer].grown for update in updates]
        line = axis.plot(iterations, grown, color=shade, linewidth=1.2, label=plain(layer))
        line[0].set(marker=".", markersize=4)
    axis.set(ylim=(0, None), ylabel="connections moved", xlabel="iteration")
    legend(axis)
    return picture


def draw_scatter(
    costs: Sequence[float],
    accuracies: Sequence[float],
    axis_label: str,
    *,
    front: Sequence[bool] | None = None,
    joined: bool = False,
) -> Figure:
    """Accuracy of numbered runs over something that costs, on a logarithmic axis if need be.

    Args:
        costs: of every run, at least one; positive.
        accuracies: of every run, 0..1.
        axis_label: what the costs are.
        front: which runs nothing beats in both; they are marked.
        joined: and join them.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    picture, axis = canvas.figure(WIDTH, 2.9)
    shares = [100 * accuracy for accuracy in accuracies]
    marked = front if front is not None else [False] * len(costs)
    best = sorted((x, y) for x, y, first in zip(costs, shares, marked) if first)
    if joined and len(best) > 1:
        axis.step(*zip(*best), where="post", color=canvas.GREY, linewidth=1)
    for number, (x, y, first) in enumerate(zip(costs, shares, marked), 1):
        axis.plot(x, y, "o", color=canvas.ORANGE if first else canvas.BLUE, markersize=5)
        axis.annotate(
            f"{number}", (x, y), (0, 6), textcoords="offset points", ha="center", size=8, color=INK
        )
    if max(costs) > 3 * min(costs):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
    axis.margins(x=0.2, y=0.25)
    axis.set(xlabel=axis_label, ylabel="accuracy (%)")
    return picture


def draw_epochs_by_density(history: Sequence[Epoch]) -> Figure:
    """Every epoch (at least one) by the density of all layers and its validation accuracy."""
    picture, axis = canvas.figure(WIDTH, 2.9)
    last = max(1, len(history) - 1)
    shares = [(100 * e.density, 100 * (e.validation_accuracy or 0)) for e in history]
    for index, at in enumerate(shares):
        axis.plot(*at, "o", color=canvas.BLUE, alpha=0.4 + 0.5 * index / last, markersize=4)
    at = shares[kept_epoch(history)]
    axis.plot(*at, "o", color=canvas.ORANGE, fillstyle="none", markersize=8)
    _note(axis, f"kept: {at[0]:.2f} % dense, {at[1]:.2f} % right")
    axis.set(xlim=(0, 105), xlabel="density, all layers (%)", ylabel="validation accuracy (%)")
    return picture


def draw_incoming(connections: Matrix, shape: tuple[int, ...]) -> Figure:
    """How many connections of a layer every pixel of its input has, of `shape` (rows, columns)."""
    picture, axis = canvas.figure(WIDTH, 3.2)
    counts = np.bincount(connections.indices, minlength=connections.n_pre).reshape(shape)
    _image(axis, _tinted(counts / max(1, int(counts.max())), POSITIVE))
    title = f"connections of an input: {counts.min():,} to {counts.max():,}"
    axis.set_title(title, fontsize=8, color=INK)
    return picture


def draw_fields(connections: Matrix, shape: tuple[int, ...]) -> Figure:
    """Receptive fields: the weights of some neurons, spread evenly over the layer.

    Its input is an image of `shape` (rows, columns).
    """
    number = min(FIELDS, connections.n_post)
    chosen = [index * connections.n_post // number for index in range(number)]
    rows = -(-number // 5)
    picture, grid = canvas.panels(WIDTH, 0.2 + 0.98 * rows, rows, 5)
    most = max(1, int(np.abs(connections.weights).max(initial=0)))
    axes = list(chain(*grid))
    for axis in axes:
        axis.set_axis_off()
    for axis, neuron in zip(axes, chosen):
        here = slice(connections.indptr[neuron], connections.indptr[neuron + 1])
        weights = connections.weights[here]
        tint = np.zeros((connections.n_pre, 4))
        tint[connections.indices[here], :3] = np.where(weights[:, None] < 0, NEGATIVE, POSITIVE)
        # A connection is seen, however light it is.
        tint[connections.indices[here], 3] = 0.4 + 0.6 * np.abs(weights) / most
        axis.set_axis_on()
        _image(axis, tint.reshape(*shape, 4))
        axis.set_title(f"{neuron}", fontsize=8, color=INK, pad=2)
    return picture


def draw_kernels(kernels: Mapping[str, Floats]) -> Figure:
    """The share of every kernel that exists, by layer.

    Args:
        kernels: name of a layer or shortcut, at least one -> (kernels, channels) shares 0..1.
    """
    rows = -(-len(kernels) // KERNEL_COLUMNS)
    columns = min(KERNEL_COLUMNS, len(kernels))
    picture, grid = canvas.panels(WIDTH, 0.2 + 1.5 * rows, rows, columns)
    axes = list(chain(*grid))
    for axis in axes[len(kernels) :]:
        axis.set_axis_off()
    for axis, (name, shares) in zip(axes, kernels.items()):
        _image(axis, _tinted(_blocks(shares), POSITIVE), "auto", extent=(0, 1, 0, 1))
        axis.set_title(f"{plain(name)}: {shares.mean():.1%}", fontsize=8, color=INK, pad=2)
        axis.set_ylabel(f"{shares.shape[0]} x {shares.shape[1]}", fontsize=7)
    return picture


def _blocks(shares: Floats) -> Floats:
    """At most `KERNEL_SIDE` rows and columns: means of blocks."""
    for axis in (0, 1):
        size = shares.shape[axis]
        if size > KERNEL_SIDE:
            starts = np.arange(KERNEL_SIDE) * size // KERNEL_SIDE
            sizes = np.diff(np.append(starts, size))
            sums = np.add.reduceat(shares, starts, axis=axis)
            shares = sums / (sizes[:, None] if axis == 0 else sizes)
    return shares


def draw_matrix(connections: Matrix) -> Figure:
    """The mask of a layer; where it is large, the density of blocks of it."""
    picture, axis = canvas.figure(WIDTH, 3.2)
    sides = connections.n_post, connections.n_pre
    shown = tuple(min(MATRIX_SIDE, side) for side in sides)
    rows = connections.rows() * shown[0] // sides[0]
    columns = connections.indices.astype(np.int64) * shown[1] // sides[1]
    counts = np.bincount(rows * shown[1] + columns, minlength=shown[0] * shown[1])
    share = counts.reshape(shown) / max(1, int(counts.max()))
    _image(axis, _tinted(share, POSITIVE), aspect="auto")
    axis.set(xlabel=f"{sides[1]:,} inputs", ylabel=f"{sides[0]:,} neurons")
    return picture


def draw_raster(shown: Sample) -> Figure:
    """One sample: the spikes of input and layers, and what decides."""
    run = shown.run
    trains = {"input": run.inputs, **run.spikes}
    panels = len(trains) + (run.readout is not None)
    ratios = [1 + 0.3 * np.log2(train.shape[1] / 16 + 1) for train in trains.values()]
    ratios += [2.2] * (run.readout is not None)
    picture, grid = canvas.panels(WIDTH, 0.6 + 0.95 * panels, panels, heights=ratios)
    axes = list(chain(*grid))
    steps = run.inputs.shape[0]
    for axis, (layer, train) in zip(axes, trains.items()):
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
    if run.readout is not None:
        _sums(axes[-1], run.readout, shown.decision)
    last = axes[-1]
    decision = "nothing" if shown.decision is None else shown.decision
    right = "right" if shown.decision == shown.label else "wrong"
    last.set_title(f"decides {decision}: {right}", fontsize=8, loc="left", color=INK, pad=2)
    last.xaxis.set_major_locator(whole_numbers())
    last.tick_params(bottom=True, labelbottom=True)
    last.set_xlabel("step")
    return picture


def draw_sample(image: Bytes) -> Figure:
    """A sample's image, dark where it is bright; one in colour as it is."""
    picture, axis = canvas.figure(1.2, 1.2)
    in_colour = image.ndim == 3
    _image(axis, image / 255 if in_colour else _tinted(image / 255, (0.5, 0.5, 0.5)))
    return picture


def _sums(axis: Axes, readout: Int32s, decision: int | None) -> None:
    steps = np.arange(1, len(readout) + 1)
    sums = readout / (1 << STATE_SHIFT) / WEIGHT_SCALE
    for number in range(readout.shape[1]):
        colour, weight = (canvas.ORANGE, 2) if number == decision else (canvas.GREY, 1)
        axis.plot(steps, sums[:, number], color=colour, linewidth=weight, zorder=weight)
    if decision is not None:
        last = steps[-1], sums[-1, decision]
        axis.annotate(
            f"{decision}",
            last,
            (4, 0),
            textcoords="offset points",
            color=canvas.ORANGE,
            va="center",
        )
    axis.set_ylabel("readout\n(running sum)", fontsize=8)


def whole_numbers() -> MaxNLocator:
    """Ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins="auto", integer=True)


def _image(
    axis: Axes,
    colours: Floats,
    aspect: Literal["auto", "equal"] = "equal",
    origin: Literal["upper", "lower"] = "upper",
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    pixels = np.rint(255 * colours).astype(np.uint8)
    axis.imshow(pixels, interpolation="none", aspect=aspect, origin=origin, extent=extent)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=canvas.GREY, linewidth=0.6)


def _pooled(share: Floats) -> Floats:
    """At most `RASTER_ROWS` rows: means of neighbours, the greatest of them as 1."""
    if len(share) <= RASTER_ROWS:
        return share
    starts = np.arange(RASTER_ROWS) * len(share) // RASTER_ROWS
    sizes = np.diff(np.append(starts, len(share)))
    means = np.add.reduceat(share, starts, axis=0) / sizes[:, None]
    return np.asarray(means / max(means.max(), 1e-9))


def _tinted(share: Floats, colour: tuple[float, float, float]) -> Floats:
    """Shares 0..1 as the opacity of one colour."""
    return np.dstack([*(np.full(share.shape, part) for part in colour), share])


def _note(axis: Axes, text: str) -> None:
    axis.annotate(
        text, (0.98, 0.06), xycoords="axes fraction", ha="right", color=canvas.ORANGE, fontsize=8
    )


def shades(number: int) -> Iterable[Any]:
    """Colours of so many lines, each with its own; of many in the order of the layers."""
    if number <= len(SHADES):
        return SHADES
    from matplotlib import colormaps

    return [colormaps["viridis"](place / number) for place in range(number)]


def legend(axis: Axes) -> None:
    """A legend above the axes."""
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 3}
    style: dict[str, Any] = {"fontsize": 8, "frameon": False, "labelcolor": INK}
    axis.legend(**place, **style, handlelength=1.4, columnspacing=1)
