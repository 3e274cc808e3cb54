"""The page of a report: plain values and pictures into one file of HTML.

The page needs no network and no script. Whatever comes from a file is escaped; only the
pictures of `esl_lava.report.pictures` go in as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from esl_lava.connections import Connections
from esl_lava.report import pictures
from esl_lava.report.pictures import Point, Shown
from esl_lava.report.tables import joules, percent


def drawings(
    run: Mapping[str, Any],
    prefix: str,
    sparse: tuple[str, int, Connections] | None,
    image_shape: tuple[int, int] | None,
    shown: Shown,
) -> dict[str, Markup]:
    """The pictures of a run: name -> its `<svg>` element.

    Args:
        run: as `report.json` has it.
        prefix: unique within the page.
        sparse: name, place in the network and connections of the layer to show.
        image_shape: (rows, columns) of a sample, where it is an image.
        shown: a sample, run.
    """
    history = run["history"]
    found = {
        "training": pictures.training(history, f"{prefix}-training"),
        "densities": pictures.densities(history, f"{prefix}-densities"),
        "raster": pictures.raster(shown, f"{prefix}-raster"),
    }
    if history[-1]["validation_accuracy"] is not None:
        found["by_density"] = pictures.epochs_by_density(history, f"{prefix}-density")
    if run["updates"]:
        found["rewiring"] = pictures.rewiring(run["updates"], f"{prefix}-rewiring")
    if shown.image is not None:
        found["sample"] = pictures.sample(shown.image, f"{prefix}-sample")
    if sparse is not None:
        _, place, connections = sparse
        if place == 0 and image_shape is not None:
            found["incoming"] = pictures.incoming(connections, image_shape, f"{prefix}-incoming")
            found["fields"] = pictures.fields(connections, image_shape, f"{prefix}-fields")
        else:
            found["matrix"] = pictures.matrix(connections, f"{prefix}-matrix")
    return {name: Markup(text) for name, text in found.items()}


def page(
    runs: Sequence[Mapping[str, Any]],
    comparison: Mapping[str, Any] | None,
    versions: Mapping[str, str],
    drawn: Sequence[Mapping[str, Markup]],
) -> str:
    """The page.

    Args:
        runs: each as `report.json` has it.
        comparison: of them, where there are several.
        versions: package -> version.
        drawn: the pictures of each run.
    """
    environment = Environment(
        loader=PackageLoader("esl_lava.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "joules": joules, "words": _words}
    notes = footnotes(runs)
    return environment.get_template("report.html.j2").render(
        runs=runs,
        comparison=comparison,
        versions=versions,
        drawn=drawn,
        notes=notes,
        note_numbers=_numbers(notes),
        compared={} if comparison is None else _compared(runs, comparison),
    )


def footnotes(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every constant of every device, once: device, key, value, kind, point, source."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for run in runs:
        for name, device in run["devices"].items():
            for constant in device["constants"]:
                key = (name, constant["key"], constant["value"], constant["source"])
                found.setdefault(key, {"device": name, **constant})
    return list(found.values())


def _numbers(notes: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Device -> the numbers of its footnotes, from 1."""
    numbers: dict[str, list[int]] = {}
    for number, note in enumerate(notes, 1):
        numbers.setdefault(note["device"], []).append(number)
    return numbers


def _compared(
    runs: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]
) -> dict[str, Markup]:
    """Pictures across runs: accuracy against density, and against joules on each device."""
    density = [
        Point(f"{n}", run["density"] * 100, run["accuracy"]) for n, run in enumerate(runs, 1)
    ]
    found = {"density": pictures.scatter(density, "density, all layers (%)", "c-density")}
    for index, (device, places) in enumerate(comparison["devices"].items(), 1):
        points = [
            Point(f"{n}", place["joules_per_sample"], place["accuracy"], place["pareto"])
            for n, place in enumerate(places, 1)
        ]
        label = f"joules per sample, {pictures.plain(device)}"
        joined = len(comparison["datasets"]) == 1
        found[device] = pictures.scatter(points, label, f"c-{index}", front=True, joined=joined)
    return {name: Markup(text) for name, text in found.items()}


def _words(name: str) -> str:
    """A key as people read it."""
    return name.replace("_", " ")
