"""Try mutants of files with every reader, and print what became of them."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
import warnings
from pathlib import Path

from tests.fuzz.formats import FORMATS
from tests.fuzz.runner import GOOD, OUTCOMES, Tally, Trial

FOLDER = Path("build/fuzz")


def main(arguments: list[str]) -> int:
    """Run the program; 1 if a mutant was not refused and not read as what it is."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--mutants", type=int, default=1000, help="of each format (1000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each format")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same mutants (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant (0)")
    parser.add_argument("--only", type=int, help="try this mutant alone")
    options = parser.parse_args(arguments)
    if unknown := set(options.formats) - set(FORMATS):
        parser.error(f"unknown: {', '.join(unknown)}; the formats are {', '.join(FORMATS)}")
    if options.mutants < 1 or not options.seconds > 0:
        parser.error("--mutants must be at least 1, and --seconds above 0")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    tallies = {}
    for name in options.formats or FORMATS:
        begin = time.monotonic()
        trial = Trial(name, FORMATS[name], options.seed, folder=FOLDER)
        print(f"{name}: sound files after {time.monotonic() - begin:.0f} s", file=sys.stderr)
        gc.collect()
        gc.freeze()  # or the collector of every process would write to all objects
        numbers = range(options.first, options.first + options.mutants)
        if options.only is not None:
            numbers = range(options.only, options.only + 1)
        tallies[name] = try_all(trial, numbers, options.seconds)
    print(table(tallies))
    return 1 if any(tally.failures for tally in tallies.values()) else 0


def try_all(trial: Trial, numbers: range, seconds: float) -> Tally:
    """Try mutants of one format and tell of failures at once."""
    tally, begin = Tally(), time.monotonic()
    for outcome in trial.run(numbers, begin + seconds):
        tally.add(outcome)
        if outcome.outcome not in GOOD or len(numbers) == 1:
            print(f"{trial.name} {outcome.number}: {outcome.outcome}: {outcome.change}")
            print(outcome.note, flush=True)
        done = sum(tally.counts.values())
        if done % 1000 == 0:
            print(f"{trial.name}: {done} in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return tally


def table(tallies: dict[str, Tally]) -> str:
    """Return a line for each format with the numbers of its outcomes."""
    heads = ["format", "mutants", *OUTCOMES, "slowest"]
    rows = [heads]
    for name, tally in tallies.items():
        numbers = [sum(tally.counts.values()), *(tally.counts[key] for key in OUTCOMES)]
        rows.append([name, *map(str, numbers), f"{tally.slowest:.2f} s"])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
