"""From the integer network and spikes to spikes, decisions and counts.

A backend is a module with `run(network, inputs, record, states, *, ...) -> Result`. Inputs are
(samples, T, inputs) integers of `result.checked_input`; `record` and `states` name the firing
layers whose spikes, and the layers whose u and v after each step, are to be kept. What may be
given by name alone are options of the backend's own.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from types import ModuleType
from typing import Any

import numpy.typing as npt

from esl_lava.errors import BackendError
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
"""Our simulator; Lava's CPU simulator; Lava's process models without its runtime; a chip."""


def simulate(
    network: Network,
    spikes: npt.ArrayLike,
    backend: str = "exact",
    record: Names = None,
    states: Names = None,
    **options: Any,
) -> Result:
    """Run samples through a network, each from rest.

    Args:
        network: what to run.
        spikes: (samples, T, inputs) integers 0 or 1, or graded spikes where the network
            takes them; or with further axes for the inputs, whose shape has to be that of
            the network (`result.misplaced`).
        backend: one of `BACKENDS`.
        record: firing layers whose spikes to keep: names, "all" or None.
        states: layers whose u and v after each step to keep: names, "all" or None.
        options: of the backend's own `run`, such as `workers` and `sparse` of "lava".

    Raises:
        DataError: when the spikes or names do not fit the network.
        BackendError: for an unknown backend or an option it does not have, or when it fails
            or exceeds its deadline.
        PackageError: where the backend is Lava's and Lava is not installed.
    """
    inputs = checked_input(network, spikes)
    names = chosen_layers(network, record, firing=True)
    traced = chosen_layers(network, states)
    known = backend_options(backend)
    if unknown := [name for name in options if name not in known]:
        raise BackendError(
            f"backend {backend} has no option {unknown[0]!r}; "
            f"it has {', '.join(known) if known else 'none'}"
        )
    if backend != "exact" and not is_installed(LAVA):
        raise needed("lava")
    result: Result = _backend(backend).run(network, inputs, names, traced, **options)
    return result


@cache
def backend_options(backend: str) -> tuple[str, ...]:
    """Names of the options of a backend's own.

    Raises:
        BackendError: for an unknown backend.
    """
    parameters = inspect.signature(_backend(backend).run).parameters.values()
    return tuple(p.name for p in parameters if p.kind == p.KEYWORD_ONLY)


@cache
def _backend(name: str) -> ModuleType:
    """A backend's module; what it needs is imported with it, and only then."""
    if name not in _MODULES:
        raise BackendError(f"unknown backend {name!r}; there are {', '.join(BACKENDS)}")
    return importlib.import_module(f"esl_lava.simulate.{_MODULES[name]}")
