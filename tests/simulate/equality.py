"""Compare random networks in esl-lava and in Lava: `python -m tests.simulate.equality 300`.

By default Lava's own process models run step by step in this process. With `--runtime netx` Lava
itself runs netx files. With `--runtime ours` Lava runs networks that netx refuses and esl-lava
builds. Dense and sparse synapses alternate. Every spike, u and v of every layer is compared with
the exact simulator and with the reference in plain numpy. If Lava's models refuse a network, for
example for a delay of injected input or a weight of 20 bits, the exact simulator is compared with
the reference alone. The command prints totals, and exits with 1 if any value differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase

from esl_lava import netfile
from esl_lava.errors import BackendError
from esl_lava.simulate import exact, lava_cpu, lava_models
from esl_lava.simulate.result import Result
from tests.simulate import networks, reference
from tests.simulate.networks import Case, cases

Run = Callable[[Case, int], Result | None]
"""Run Lava on a case with its number. The result is None if Lava refuses the network."""


@dataclass
class Totals:
    """The totals of all comparisons.

    Attributes:
        cases: number of networks.
        refused: number of networks that Lava refuses, so that only the exact simulator and the
            reference ran.
        compared: "spikes", "u" and "v" -> number of compared values. A value of Lava is compared
            twice. If Lava refuses, a value of the exact simulator is compared with the reference.
        differences: number of differences.
        first: a sentence on the first difference.
        silent, layers: numbers of firing layers that never fired, and of all firing layers.
        features: name of a feature -> number of networks with it.
    """

    cases: int = 0
    refused: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    differences: int = 0
    first: str | None = None
    silent: int = 0
    layers: int = 0
    features: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        values = ", ".join(f"{count} {name}" for name, count in self.compared.items())
        lines = [f"{self.cases} networks; {values} compared; {self.differences} differences"]
        if self.first is not None:
            lines.append(f"first difference: {self.first}")
        lines.append(
            f"{self.refused} networks that Lava refuses: exact simulator and reference only"
        )
        lines.append(f"{self.silent} of {self.layers} firing layers never fired")
        lines += [f"{count:6} with {name}" for name, count in self.features.most_common()]
        return "\n".join(lines)


def by_models(case: Case, number: int) -> Result | None:
    """Run Lava's process models in this process. Return None if they refuse the network."""
    try:
        return lava_models.run(case.network, case.inputs, *_all(case), sparse=number % 2 == 1)
    except BackendError:
        return None


def by_runtime(case: Case, number: int) -> Result:
    """Run Lava's runtime, every third time with two workers."""
    return lava_cpu.run(
        case.network,
        case.inputs,
        *_all(case),
        sparse=number % 2 == 1,
        workers=2 if number % 3 == 2 else 1,
    )


def by_builder(case: Case, number: int) -> Result:
    """Run Lava's runtime on networks that netx refuses. Other networks are not counted."""
    hypothesis.assume(netfile.netx_refusals(case.network))
    hypothesis.assume(not [*lava_models.model_faults(case.network)])
    hypothesis.assume(not [*lava_models.range_faults(case.network, case.inputs)])
    return by_runtime(case, number)


def _all(case: Case) -> tuple[tuple[str, ...], tuple[str, ...]]:
    layers = case.network.layers
    firing = tuple(layer.name for layer in layers if layer.neuron.fires)
    return firing, tuple(layer.name for layer in layers)


def compare(case: Case, lava: Result | None, totals: Totals) -> None:
    """Compare the results of a case, and add them to the totals."""
    totals.cases += 1
    totals.features.update(networks.features(case.network))
    slow = reference.simulate(case.network, case.inputs)
    ours = exact.run(case.network, case.inputs, *_all(case))
    tested, name = (ours, "exact") if lava is None else (lava, "Lava")
    totals.refused += lava is None
    for values in tested.spikes.values():
        totals.layers += 1
        totals.silent += not values.any()
    for quantity in ("spikes", "u", "v"):
        by_layer = getattr(tested, quantity)
        totals.compared[quantity] += sum(values.size for values in by_layer.values())
        _add_differences(
            case, totals, quantity, (name, by_layer), ("reference", getattr(slow, quantity))
        )
        if lava is not None:
            _add_differences(
                case, totals, quantity, (name, by_layer), ("exact", getattr(ours, quantity))
            )
    if lava is None:
        return
    if lava.readout is not None:
        last = case.network.layers[-1].name
        assert ours.readout is not None
        _add_differences(
            case, totals, "v", ("Lava", {last: lava.readout}), ("exact", {last: ours.readout})
        )
    assert lava.counts == ours.counts
    assert list(lava.fired) == list(ours.fired)
    for name, fired in ours.fired.items():
        np.testing.assert_array_equal(lava.fired[name], fired)
    np.testing.assert_array_equal(lava.decisions, ours.decisions)


def _add_differences(
    case: Case,
    totals: Totals,
    quantity: str,
    tested: tuple[str, Mapping[str, Any]],
    expected: tuple[str, Mapping[str, Any]],
) -> None:
    """Count the values of a simulator that differ from those of another, by layer."""
    for layer, values in tested[1].items():
        expected_values = expected[1][layer]
        wrong = np.argwhere(values != expected_values)
        totals.differences += len(wrong)
        if len(wrong) and totals.first is None:
            where = tuple(wrong[0])
            totals.first = (
                f"{quantity} of {layer}, sample {where[0]}, step {where[1]}, neuron {where[2]}: "
                f"{tested[0]} {values[where]}, {expected[0]} {expected_values[where]} in {case}"
            )


def check(count: int, run: Run, netx: bool, seed: int = 0) -> Totals:
    """Compare `count` random cases. With `netx` all of them can be expressed by netx."""
    totals = Totals()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(cases(netx=netx))
    def one(case: Case) -> None:
        compare(case, run(case, totals.cases), totals)

    one()
    return totals


RUNTIME: dict[str, Run] = {"netx": by_runtime, "ours": by_builder}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="number of random networks")
    parser.add_argument(
        "--runtime",
        choices=RUNTIME,
        help="run Lava's runtime, with networks built by netx or by esl-lava",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    chosen = parser.parse_args()
    run = RUNTIME[chosen.runtime] if chosen.runtime else by_models
    totals = check(chosen.count, run, run is by_runtime, chosen.seed)
    print(totals)
    return int(totals.differences > 0 or totals.cases < chosen.count)


if __name__ == "__main__":
    sys.exit(main())
