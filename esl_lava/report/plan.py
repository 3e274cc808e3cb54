"""The table of `esl train --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType

from esl_lava.report.tables import percent, render_facts, render_table
from esl_lava.results.plan import TrainingPlan


def show_plan(plan: TrainingPlan) -> RenderableType:
    """Return the layers of a planned training, and the facts about it."""
    layers = render_table(
        "",
        "layer, weight shape, neurons, positions, weights, density",
        [
            (
                layer.name,
                " x ".join(map(str, layer.shape)),
                f"{layer.neurons:,}",
                f"{layer.positions:,}",
                f"{layer.weights:,}",
                percent(layer.density),
            )
            for layer in plan.layers
        ],
    )
    return Group(render_facts(_facts(plan), "dry run: no run was written"), layers)


def _facts(plan: TrainingPlan) -> Iterator[tuple[str, str]]:
    shape = " x ".join(map(str, plan.sample_shape))
    yield "data set", plan.dataset
    yield (
        "samples: training, validation, test",
        f"{plan.train_samples:,}, {plan.validation_samples:,}, {plan.test_samples:,}",
    )
    yield "sample", f"{shape}, {plan.classes} classes, {plan.steps} steps"
    yield "density, all layers", percent(plan.density)
    if plan.connections is not None:
        yield "connections", f"{plan.connections:,}"
    for mapping in plan.mapping:
        if mapping.cores is None:
            yield f"cores on {mapping.chip}", f"none: {mapping.obstacle}"
        else:
            yield (
                f"cores on {mapping.chip}, untrained",
                f"{mapping.cores:,} on {mapping.chips:,} chip{'s' * (mapping.chips != 1)}, "
                f"{mapping.synapse_words:,} words of synapse memory",
            )
    yield "epochs, optimiser steps", f"{plan.epochs:,}, {plan.iterations:,}"
    yield "updates of the masks", f"{plan.mask_updates:,}"
    yield "device", plan.device
    yield (
        f"estimated training time (from {plan.timed_iterations} steps)",
        duration(plan.seconds),
    )
    yield "memory of this process", f"{plan.memory_bytes / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it, such as "2 min 30 s" or "3 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
