"""From the integer network and spikes to spikes, decisions and counts."""

from __future__ import annotations

import numpy.typing as npt

from esl_lava.errors import BackendError
from esl_lava.network import Network
from esl_lava.simulate.result import Result, checked_input, recorded_layers, traced_layers

__all__ = ["BACKENDS", "Result", "simulate"]

BACKENDS = ("exact", "lava")


def simulate(
    network: Network,
    spikes: npt.ArrayLike,
    backend: str = "exact",
    record: tuple[str, ...] | str | None = None,
    states: tuple[str, ...] | str | None = None,
) -> Result:
    """Run samples through a network, each from rest.

    Args:
        network: what to run.
        spikes: (samples, T, inputs) integers 0 or 1, or graded spikes where the network
            takes them; further axes are flattened in C order.
        backend: "exact" (our simulator) or "lava" (Lava's CPU simulator, fixed point).
        record: firing layers whose spikes to keep: names, "all" or None.
        states: layers whose u and v after each step to keep: names, "all" or None.

    Raises:
        DataError: when the spikes or names do not fit the network.
        BackendError: for an unknown backend, or when Lava fails or exceeds its deadline.
    """
    inputs = checked_input(network, spikes)
    names = recorded_layers(network, record)
    traced = traced_layers(network, states)
    if backend == "exact":
        from esl_lava.simulate import exact

        return exact.run(network, inputs, names, traced)
    if backend == "lava":
        from esl_lava.simulate import lava_cpu

        return lava_cpu.run(network, inputs, names, traced)
    raise BackendError(f"unknown backend {backend!r}; there are {', '.join(BACKENDS)}")
