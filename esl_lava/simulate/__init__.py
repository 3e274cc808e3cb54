"""Simulate the integer network: from input spikes to spikes, decisions and counts.

A backend is a module with `run(network, inputs, record, states, *, ...) -> Result`. The inputs are
(samples, T, inputs) integers of `result.checked_input`. `record` names the firing layers whose
spikes are kept. `states` names the layers whose u and v after each step are kept. Keyword-only
parameters are options of the backend.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from types import ModuleType
from typing import Any

import numpy.typing as npt

from esl_lava.errors import BackendError, shorten
from esl_lava.network import Network
from esl_lava.packages import LAVA, is_installed, needed
from esl_lava.simulate.result import Names, Result, checked_input, chosen_layers

__all__ = ["BACKENDS", "Result", "backend_options", "simulate"]

_MODULES = {
    "exact": "exact",
    "lava": "lava_cpu",
    "lava-models": "lava_models",
    "loihi2": "loihi2",
}

BACKENDS = tuple(_MODULES)
"""esl-lava's simulator; Lava's CPU simulator; Lava's process models without runtime; Loihi 2."""


def simulate(
    network: Network,
    spikes: npt.ArrayLike,
    backend: str = "exact",
    record: Names = None,
    states: Names = None,
    **options: Any,
) -> Result:
    """Run samples through a network. Every sample starts from rest: u = v = 0.

    Args:
        network: the network to run.
        spikes: (samples, T, inputs) integers 0 or 1, or graded spikes if the network takes them.
            The inputs may have several axes, whose lengths must be those of the network
            (`result.shape_fault`).
        backend: one of `BACKENDS`.
        record: firing layers whose spikes are kept: names, "all" or None.
        states: layers whose u and v after each step are kept: names, "all" or None.
        options: options of the backend's `run`, for example `workers` and `sparse` of "lava".

    Raises:
        DataError: if the spikes or names do not fit the network.
        BackendError: if the backend or an option is unknown, or the backend fails or exceeds its
            deadline.
        PackageError: if the backend is another than "exact" and Lava is not installed.
    """
    inputs = checked_input(network, spikes)
    names = chosen_layers(network, record, firing=True)
    traced = chosen_layers(network, states)
    known = backend_options(backend)
    if unknown := [name for name in options if name not in known]:
        raise BackendError(
            f"backend {backend} has no option {unknown[0]!r}; its options: "
            f"{', '.join(known) or 'none'}",
            "unknown",
            key=unknown[0],
            limit=", ".join(known),
        )
    if backend != "exact" and not is_installed(LAVA):
        raise needed("lava")
    result: Result = _backend(backend).run(network, inputs, names, traced, **options)
    return result


@cache
def backend_options(backend: str) -> tuple[str, ...]:
    """Return the names of the options of a backend.

    Raises:
        BackendError: if the backend is unknown.
    """
    parameters = inspect.signature(_backend(backend).run).parameters.values()
    return tuple(p.name for p in parameters if p.kind == p.KEYWORD_ONLY)


@cache
def _backend(name: str) -> ModuleType:
    """Import the module of a backend, and with it the packages that only this backend needs."""
    if name not in _MODULES:
        names = ", ".join(BACKENDS)
        raise BackendError(
            f"unknown backend {shorten(name)}; the known backends are {names}",
            "unknown",
            key="backend",
            value=name,
            limit=names,
        )
    return importlib.import_module(f"esl_lava.simulate.{_MODULES[name]}")
