"""The page of a report: accounts and their pictures into one file of HTML.

The page needs no network and no script. Whatever comes from a file is escaped; only the
pictures of `esl_lava.report.pictures` go in as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from esl_lava.report import canvas, pictures
from esl_lava.report.tables import joules, percent
from esl_lava.results.account import Account, Comparison
from esl_lava.results.price import Stated, energies
from esl_lava.values import Values

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(
    runs: Sequence[Values],
    comparison: Comparison | None,
    versions: Mapping[str, str],
    notes: Sequence[tuple[str, Stated]],
    drawn: Sequence[Mapping[str, Markup]],
    compared: Mapping[str, Markup],
) -> str:
    """The page.

    Args:
        runs: each as `report.json` has it, with a `label` where there are several.
        comparison: of them, where there are several.
        versions: package -> version.
        notes: device and constant, as `footnotes` finds them.
        drawn: the pictures of each run.
        compared: pictures across runs, where there are several.
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
    """The pictures of a run: name -> its `<svg>` element; `prefix` is unique in the page."""
    found = {
        "training": pictures.draw_training(run.history),
        "raster": pictures.draw_raster(run.sample),
    }
    rates = {one.layer: run.evaluation.rates(one) for one in run.evaluation.firing}
    if any(layer.min() < layer.max() for layer in rates.values()):
        found["rates"] = pictures.draw_rates(rates)
    if run.history[-1].validation_accuracy is not None:
        found["by_density"] = pictures.draw_epochs_by_density(run.history)
    if run.updates:
        found["rewiring"] = pictures.draw_rewiring(run.updates)
    image = run.sample.image
    if image is not None:
        found["sample"] = pictures.draw_sample(image)
    if run.kernels:
        found["kernels"] = pictures.draw_kernels(run.kernels)
    elif run.layer is not None:
        connections = run.layer.connections
        if run.layer.place == 0 and image is not None and image.ndim == 2:
            found["incoming"] = pictures.draw_incoming(connections, image.shape)
            found["fields"] = pictures.draw_fields(connections, image.shape)
        else:
            found["matrix"] = pictures.draw_matrix(connections)
    return _elements(found, prefix)


def footnotes(accounts: Sequence[Account]) -> list[tuple[str, Stated]]:
    """(device, constant) of every energy constant of every device, once each."""
    found = (
        (name, constant)
        for run in accounts
        for name, priced in run.prices.items()
        for constant in energies(priced.device)
    )
    return list(dict.fromkeys(found))


def draw_comparison(accounts: Sequence[Account], comparison: Comparison) -> dict[str, Markup]:
    """Pictures across runs: accuracy against density, and against joules on each device."""
    density = [100 * run.network.density for run in accounts]
    accuracies = [run.evaluation.accuracy or 0.0 for run in accounts]
    found = {"density": pictures.draw_scatter(density, accuracies, "density, all layers (%)")}
    for device, places in comparison.devices.items():
        found[device] = pictures.draw_scatter(
            [place.joules_per_sample for place in places],
            accuracies,
            f"joules per sample, {pictures.plain(device)}",
            front=[place.pareto for place in places],
            joined=len(comparison.datasets) == 1,
        )
    return _elements(found, "c")


def _elements(drawn: Mapping[str, Figure], prefix: str) -> dict[str, Markup]:
    """Every picture as an element of the page."""
    return {
        name: Markup(canvas.svg(picture, f"{prefix}-{number}"))
        for number, (name, picture) in enumerate(drawn.items())
    }
