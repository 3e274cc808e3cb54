"""The HTML page of a report, made from the accounts of runs and their pictures.

The page loads nothing from the internet and has no script. All texts from files are escaped. Only
the pictures that `esl_lava.report` draws are inserted unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from esl_lava.report import canvas, pictures
from esl_lava.report.scatter import draw_scatter
from esl_lava.report.tables import joules, percent
from esl_lava.results.account import Account, Comparison
from esl_lava.results.price import DeviceNumber, energies
from esl_lava.values import Values

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(
    runs: Sequence[Values],
    comparison: Comparison | None,
    versions: Mapping[str, str],
    notes: Sequence[tuple[str, DeviceNumber]],
    drawn: Sequence[Mapping[str, Markup]],
    compared: Mapping[str, Markup],
) -> str:
    """Return the page as HTML.

    Args:
        runs: the values of each run as in `report.json`, with a `label` if there are several.
        comparison: the comparison of the runs if there are several.
        versions: package -> version.
        notes: pairs of device and constant from `footnotes`.
        drawn: the pictures of each run.
        compared: the pictures of the comparison if there are several runs.
    """
    environment = Environment(
        loader=PackageLoader("esl_lava.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "joules": joules}
    numbers: dict[str, list[int]] = {}
    for number, (device, _) in enumerate(notes, 1):
        numbers.setdefault(device, []).append(number)
    return environment.get_template("report.html.j2").render(
        runs=runs,
        comparison=comparison,
        versions=versions,
        drawn=drawn,
        notes=notes,
        note_numbers=numbers,
        compared=compared,
    )


def draw_run(run: Account, prefix: str) -> dict[str, Markup]:
    """Return the pictures of a run: name -> `<svg>` element.

    Args:
        run: the account of the run.
        prefix: beginning of all ids in the elements, unique in the page.
    """
    figures = {
        "training": pictures.draw_training(run.history),
        "raster": pictures.draw_raster(run.sample),
    }
    rates = {one.layer: run.evaluation.rates(one) for one in run.evaluation.firing}
    if any(layer.min() < layer.max() for layer in rates.values()):
        figures["rates"] = pictures.draw_rates(rates)
    if run.history[-1].validation_accuracy is not None:
        figures["by_density"] = pictures.draw_epochs_by_density(run.history)
    if run.updates:
        figures["rewiring"] = pictures.draw_rewiring(run.updates)
    image = run.sample.image
    if image is not None:
        figures["sample"] = pictures.draw_sample(image)
    if run.kernels:
        figures["kernels"] = pictures.draw_kernels(run.kernels)
    elif run.layer is not None:
        connections = run.layer.connections
        if run.layer.place == 0 and image is not None and image.ndim == 2:
            figures["incoming"] = pictures.draw_incoming(connections, image.shape)
            figures["fields"] = pictures.draw_fields(connections, image.shape)
        else:
            figures["matrix"] = pictures.draw_matrix(connections)
    return _elements(figures, prefix)


def footnotes(accounts: Sequence[Account]) -> list[tuple[str, DeviceNumber]]:
    """Return (device, constant) of every energy constant of every device, each once."""
    constants = (
        (name, constant)
        for run in accounts
        for name, price in run.prices.items()
        for constant in energies(price.device)
    )
    return list(dict.fromkeys(constants))


def draw_comparison(accounts: Sequence[Account], comparison: Comparison) -> dict[str, Markup]:
    """Draw the accuracy of several runs against density, and against joules on each device."""
    density = [100 * run.network.density for run in accounts]
    accuracies = [run.evaluation.accuracy or 0.0 for run in accounts]
    figures = {"density": draw_scatter(density, accuracies, "density, all layers (%)")}
    for device, places in comparison.devices.items():
        figures[device] = draw_scatter(
            [place.joules_per_sample for place in places],
            accuracies,
            f"joules per sample, {pictures.plain(device)}",
            front=[place.pareto for place in places],
            joined=len(comparison.datasets) == 1,
        )
    return _elements(figures, "c")


def _elements(drawn: Mapping[str, Figure], prefix: str) -> dict[str, Markup]:
    """Return every picture as an `<svg>` element of the page."""
    return {
        name: Markup(canvas.svg(picture, f"{prefix}-{number}"))
        for number, (name, picture) in enumerate(drawn.items())
    }
