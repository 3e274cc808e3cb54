"""Random networks in our simulator and in Lava: `python -m tests.simulate.equality 300`.

Lava's own process models, stepped in this process, or with `--runtime` Lava itself, its
compiler, processes and channels, through netx files; both with dense and sparse synapses
in turn. Every spike, u and v of every layer is compared with our exact simulator and with
the reference in plain numpy. Prints totals; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase

from esl_lava.simulate import lava_cpu, lava_models
from esl_lava.simulate.result import Result
from tests.simulate import networks, reference
from tests.simulate.networks import Case, cases

Run = Callable[[Case, int], Result]
"""Lava on a case, given the number of the case."""


@dataclass
class Totals:
    """What was compared and how it came out.

    Attributes:
        cases: networks run.
        compared: "spikes", "u" and "v" -> numbers of values of Lava, each compared twice.
        differences: of all of them.
        first: the first of these in words.
        silent, layers: of all firing layers, how many never fired.
        features: how many networks had which.
    """

    cases: int = 0
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
        lines.append(f"{self.silent} of {self.layers} firing layers never fired")
        lines += [f"{count:6} with {name}" for name, count in self.features.most_common()]
        return "\n".join(lines)


def by_models(case: Case, number: int) -> Result:
    """Lava's process models in this process."""
    return lava_models.run(case.network, case.inputs, *_all(case), sparse=number % 2 == 1)


def by_runtime(case: Case, number: int) -> Result:
    """Lava's runtime; every third time with two workers."""
    return lava_cpu.run(
        case.network,
        case.inputs,
        *_all(case),
        sparse=number % 2 == 1,
        workers=2 if number % 3 == 2 else 1,
    )


def _all(case: Case) -> tuple[tuple[str, ...], tuple[str, ...]]:
    layers = case.network.layers
    firing = tuple(layer.name for layer in layers if layer.neuron.fires)
    return firing, tuple(layer.name for layer in layers)


def _traces(case: Case, lava: Result) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(simulator, quantity, layer -> values) of what is to equal Lava's."""
    from esl_lava.simulate import exact

    slow = reference.simulate(case.network, case.inputs)
    ours = exact.run(case.network, case.inputs, *_all(case))
    for quantity in ("spikes", "u", "v"):
        yield "reference", quantity, getattr(slow, quantity)
        yield "exact", quantity, getattr(ours, quantity)
    last = case.network.layers[-1].name
    if lava.readout is not None:
        yield "exact", "v", {last: ours.readout}
    assert lava.counts == ours.counts
    np.testing.assert_array_equal(lava.decisions, ours.decisions)


def compare(case: Case, lava: Result, totals: Totals) -> None:
    """Add a case to the totals."""
    totals.cases += 1
    totals.features.update(networks.features(case.network))
    for values in lava.spikes.values():
        totals.layers += 1
        totals.silent += not values.any()
    for quantity in ("spikes", "u", "v"):
        totals.compared[quantity] += sum(a.size for a in getattr(lava, quantity).values())
    for simulator, quantity, values in _traces(case, lava):
        for layer, theirs in getattr(lava, quantity).items():
            if layer not in values:
                continue
            wrong = np.argwhere(theirs != values[layer])
            totals.differences += len(wrong)
            if len(wrong) and totals.first is None:
                where = tuple(wrong[0])
                totals.first = (
                    f"{quantity} of {layer}, sample {where[0]}, step {where[1]}, neuron "
                    f"{where[2]}: Lava {theirs[where]}, {simulator} {values[layer][where]} "
                    f"in {case}"
                )


def check(count: int, run: Run, netx: bool, seed: int = 0) -> Totals:
    """Compare `count` random cases, only such as netx can express if `netx`."""
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


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="number of random networks")
    parser.add_argument("--runtime", action="store_true", help="through Lava's own runtime")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    run = by_runtime if chosen.runtime else by_models
    totals = check(chosen.count, run, chosen.runtime, chosen.seed)
    print(totals)
    return int(totals.differences > 0 or totals.cases < chosen.count)


if __name__ == "__main__":
    sys.exit(main())
