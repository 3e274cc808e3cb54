"""Pictures of runs: matplotlib figures, which `canvas` saves as PNG or for a page.

A picture is about as wide as a phone, so that its text can be read there. On a wide screen a page
shows two pictures side by side.
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
"""Width of a picture in inches. At 72 units per inch this is about the width of a phone."""

RATES_SHOWN = 200
"""Largest number of neurons of a layer whose rates are drawn one by one."""

FIELDS = 15
"""Largest number of neurons whose receptive fields are drawn."""

RASTER_ROWS = 80
"""Largest number of rows of a raster. More rows are pooled, as they would not be visible."""

MATRIX_SIDE = 400
"""Largest number of rows and of columns of a drawn matrix. More are pooled."""

KERNEL_COLUMNS = 3
"""Number of layers whose kernels are drawn side by side."""

KERNEL_SIDE = 128
"""Largest number of rows and of columns of drawn kernels. More are pooled."""

SHADES = (canvas.BLUE, canvas.ORANGE, canvas.GREEN, canvas.GREY)

# Colours of images. A style sheet cannot change them, so they suit white and black pages.
POSITIVE = (0.22, 0.56, 0.83)
NEGATIVE = (0.90, 0.45, 0.20)


def plain(text: str) -> str:
    """Return a text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def draw_training(history: Sequence[Epoch]) -> Figure:
    """Draw validation accuracy over epochs, and below it the density of each layer and R_s.

    R_s is the share of positions of the sparse layers that were a connection at some time. The
    kept epoch is marked, and the title names the layers that are silent or saturated in it.
    Without validation the loss is drawn, and no epoch is marked.

    Args:
        history: the epochs, at least one.
    """
    picture, ((top,), (bottom,)) = canvas.panels(WIDTH, 5, rows=2)
    epochs = [epoch.epoch for epoch in history]
    validated = history[-1].validation_accuracy is not None
    values = [100 * (e.validation_accuracy or 0) if validated else e.loss for e in history]
    top.plot(epochs, values, color=canvas.BLUE, marker=".", markersize=4, linewidth=1.2)
    if validated:
        kept = kept_epoch(history)
        top.plot(epochs[kept], values[kept], "o", color=canvas.ORANGE, fillstyle="none")
        _note(top, f"kept: epoch {epochs[kept]}, {values[kept]:.2f} %")
    if remarks := _spoilt_layers(history[kept_epoch(history)]):
        top.set_title("\n".join(map(plain, remarks)), fontsize=8, loc="left", color=canvas.ORANGE)
    top.set_ylabel("validation accuracy (%)" if validated else "loss")
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


def _spoilt_layers(epoch: Epoch) -> list[str]:
    """List the layers without information: all neurons are silent, or fire at every step."""
    rates, saturated = epoch.rates or {}, epoch.saturated or {}
    return [f"{layer}: all neurons silent" for layer, rate in rates.items() if rate == 0] + [
        f"{layer}: all neurons fire at every step" for layer in saturated if rates.get(layer) == 1
    ]


def draw_rates(rates: Mapping[str, Floats]) -> Figure:
    """Draw the firing rates of the neurons of each layer, the most active neuron at the left.

    Args:
        rates: layer name -> (neurons,) spikes per step, 0..1; at least one layer.
    """
    picture, axis = canvas.figure(WIDTH, 2.9)
    for (layer, layer_rates), shade in zip(rates.items(), shades(len(rates))):
        ordered = np.sort(layer_rates)[::-1]
        # Each neuron is a section of the axis. Of many neurons an even selection is drawn, with
        # the first and the last neuron.
        shown = np.unique(np.linspace(0, len(ordered) - 1, RATES_SHOWN).astype(int))
        left = 100 * shown / len(ordered)
        axis.step(
            [*left, 100],
            [*ordered[shown], ordered[-1]],
            where="post",
            color=shade,
            linewidth=1.4,
            label=plain(layer),
        )
    axis.set(xlim=(0, 100), ylim=(0, None), xlabel="neurons (%)", ylabel="spikes per step")
    legend(axis)
    return picture


def draw_rewiring(updates: Sequence[MaskUpdate]) -> Figure:
    """Draw the number of connections that each update of the masks grew, by layer.

    Args:
        updates: the updates, at least one.
    """
    picture, axis = canvas.figure(WIDTH, 2.9)
    iterations = [update.iteration for update in updates]
    for layer, shade in zip(updates[-1].layers, shades(len(updates[-1].layers))):
        grown = [update.layers[layer].grown for update in updates]
        line = axis.plot(iterations, grown, color=shade, linewidth=1.2, label=plain(layer))
        line[0].set(marker=".", markersize=4)
    axis.set(ylim=(0, None), ylabel="connections moved", xlabel="iteration")
    legend(axis)
    return picture


def draw_epochs_by_density(history: Sequence[Epoch]) -> Figure:
    """Draw the validation accuracy of each epoch against the density of all layers.

    Args:
        history: the epochs, at least one.
    """
    picture, axis = canvas.figure(WIDTH, 2.9)
    last = max(1, len(history) - 1)
    shares = [(100 * e.density, 100 * (e.validation_accuracy or 0)) for e in history]
    for index, at in enumerate(shares):
        axis.plot(*at, "o", color=canvas.BLUE, alpha=0.4 + 0.5 * index / last, markersize=4)
    at = shares[kept_epoch(history)]
    axis.plot(*at, "o", color=canvas.ORANGE, fillstyle="none", markersize=8)
    _note(axis, f"kept: density {at[0]:.2f} %, accuracy {at[1]:.2f} %")
    axis.set(xlim=(0, 105), xlabel="density, all layers (%)", ylabel="validation accuracy (%)")
    return picture


def draw_incoming(connections: Matrix, shape: tuple[int, ...]) -> Figure:
    """Draw the number of connections of each input pixel; `shape` is (rows, columns)."""
    picture, axis = canvas.figure(WIDTH, 3.2)
    counts = np.bincount(connections.indices, minlength=connections.n_pre).reshape(shape)
    _image(axis, _tinted(counts / max(1, int(counts.max())), POSITIVE))
    title = f"connections of a pixel: {counts.min():,} to {counts.max():,}"
    axis.set_title(title, fontsize=8, color=INK)
    return picture


def draw_fields(connections: Matrix, shape: tuple[int, ...]) -> Figure:
    """Draw the weights of some neurons, which are spread evenly over the layer.

    Args:
        connections: connections of the layer, whose input is an image.
        shape: (rows, columns) of the image.
    """
    number = min(FIELDS, connections.n_post)
    neurons = [index * connections.n_post // number for index in range(number)]
    rows = -(-number // 5)
    picture, grid = canvas.panels(WIDTH, 0.2 + 0.98 * rows, rows, 5)
    most = max(1, int(np.abs(connections.weights).max(initial=0)))
    axes = list(chain(*grid))
    for axis in axes:
        axis.set_axis_off()
    for axis, neuron in zip(axes, neurons):
        inputs = slice(connections.indptr[neuron], connections.indptr[neuron + 1])
        weights = connections.weights[inputs]
        tint = np.zeros((connections.n_pre, 4))
        tint[connections.indices[inputs], :3] = np.where(weights[:, None] < 0, NEGATIVE, POSITIVE)
        # The smallest weight is still visible.
        tint[connections.indices[inputs], 3] = 0.4 + 0.6 * np.abs(weights) / most
        axis.set_axis_on()
        _image(axis, tint.reshape(*shape, 4))
        axis.set_title(f"{neuron}", fontsize=8, color=INK, pad=2)
    return picture


def draw_kernels(kernels: Mapping[str, Floats]) -> Figure:
    """Draw the density of every kernel, by layer.

    Args:
        kernels: name of a layer or shortcut -> (kernels, channels) densities 0..1; at least one.
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
    """Pool shares to at most `KERNEL_SIDE` rows and columns, by the means of blocks."""
    for axis in (0, 1):
        size = shares.shape[axis]
        if size > KERNEL_SIDE:
            starts = np.arange(KERNEL_SIDE) * size // KERNEL_SIDE
            sizes = np.diff(np.append(starts, size))
            sums = np.add.reduceat(shares, starts, axis=axis)
            shares = sums / (sizes[:, None] if axis == 0 else sizes)
    return shares


def draw_matrix(connections: Matrix) -> Figure:
    """Draw the mask of a layer, or of a large mask the density of its blocks."""
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


def draw_raster(sample: Sample) -> Figure:
    """Draw the spikes of the input and the layers for one sample, and the decision."""
    run = sample.run
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
        _draw_readout(axes[-1], run.readout, sample.decision)
    last = axes[-1]
    decision = "none" if sample.decision is None else sample.decision
    right = "right" if sample.decision == sample.label else "wrong"
    last.set_title(f"decision: {decision} ({right})", fontsize=8, loc="left", color=INK, pad=2)
    last.xaxis.set_major_locator(whole_numbers())
    last.tick_params(bottom=True, labelbottom=True)
    last.set_xlabel("step")
    return picture


def draw_sample(image: Bytes) -> Figure:
    """Draw the image of a sample in its colours; in a grey image brightness becomes opacity."""
    picture, axis = canvas.figure(1.2, 1.2)
    in_colour = image.ndim == 3
    _image(axis, image / 255 if in_colour else _tinted(image / 255, (0.5, 0.5, 0.5)))
    return picture


def _draw_readout(axis: Axes, readout: Int32s, decision: int | None) -> None:
    """Draw the sums of the readout over the steps; the line of the decision stands out."""
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
    """Return a locator that puts ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins="auto", integer=True)


def _image(
    axis: Axes,
    colours: Floats,
    aspect: Literal["auto", "equal"] = "equal",
    origin: Literal["upper", "lower"] = "upper",
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    """Draw an image of colours 0..1 with a thin frame and without ticks."""
    pixels = np.rint(255 * colours).astype(np.uint8)
    axis.imshow(pixels, interpolation="none", aspect=aspect, origin=origin, extent=extent)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=canvas.GREY, linewidth=0.6)


def _pooled(share: Floats) -> Floats:
    """Pool shares to at most `RASTER_ROWS` rows: means of neighbours, scaled to a maximum of 1."""
    if len(share) <= RASTER_ROWS:
        return share
    starts = np.arange(RASTER_ROWS) * len(share) // RASTER_ROWS
    sizes = np.diff(np.append(starts, len(share)))
    means = np.add.reduceat(share, starts, axis=0) / sizes[:, None]
    return np.asarray(means / max(means.max(), 1e-9))


def _tinted(share: Floats, colour: tuple[float, float, float]) -> Floats:
    """Return an image of one colour whose opacity is the shares 0..1."""
    return np.dstack([*(np.full(share.shape, part) for part in colour), share])


def _note(axis: Axes, text: str) -> None:
    """Write a text into the lower right corner of the axes."""
    axis.annotate(
        text, (0.98, 0.06), xycoords="axes fraction", ha="right", color=canvas.ORANGE, fontsize=8
    )


def shades(number: int) -> Iterable[Any]:
    """Return colours for a number of lines. Many lines get a scale of colours in their order."""
    if number <= len(SHADES):
        return SHADES
    from matplotlib import colormaps

    return [colormaps["viridis"](place / number) for place in range(number)]


def legend(axis: Axes) -> None:
    """Draw a legend above the axes."""
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 3}
    style: dict[str, Any] = {"fontsize": 8, "frameon": False, "labelcolor": INK}
    axis.legend(**place, **style, handlelength=1.4, columnspacing=1)
