"""`make bench`: run the benchmarks, print their ratios, write build/bench.json.

A benchmark is a function that yields `(name, ratios)`: one ratio per round, the compared
variants measured in turn within the round. `ONLY=prefix` picks by the start of a name.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.evolve import update_costs
from tests.benchmarks.map import placements as mapping
from tests.benchmarks.netfile import file_sizes
from tests.benchmarks.neurobench import agreement
from tests.benchmarks.sim import speedups as simulation
from tests.benchmarks.train import speedups as training
from tests.benchmarks.train_conv import speedups as convolutions

Benchmark = Callable[[], Iterator[tuple[str, list[float]]]]

BENCHMARKS: dict[str, Benchmark] = {
    "evolve": update_costs,
    "map": mapping,
    "netfile": file_sizes,
    "neurobench": agreement,
    "sim": simulation,
    "train": training,
    "train.conv": convolutions,
}
"""First part of its names -> benchmark."""


def main(prefix: str) -> int:
    """Run the benchmarks whose names start with `prefix`; 2 when there is none."""
    measured = {}
    parts = [part for part in BENCHMARKS if part.startswith(prefix)]
    if not parts:  # the longest that the names begin with
        parts = sorted(filter(prefix.startswith, BENCHMARKS), key=len)[-1:]
    for part in parts:
        for name, ratios in BENCHMARKS[part]():
            if not name.startswith(prefix):
                continue
            measured[name] = {
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "rounds": len(ratios),
            }
            figures = measured[name]
            print(
                f"{name}: {figures['ratio']:.2f} "
                f"({figures['low']:.2f} to {figures['high']:.2f}, {len(ratios)} rounds)",
                flush=True,
            )
    if not measured:
        print(f"no benchmark starts with {prefix!r}: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    path = Path("build/bench.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(measured, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
