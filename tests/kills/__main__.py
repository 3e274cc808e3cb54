"""Kill commands at random places: `python -m tests.kills --kills 100 --seed 0`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.kills.campaign import COMMANDS, Campaign


def main() -> int:
    """Run a campaign, print each kill, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="Number of kills.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument("--only", choices=COMMANDS, help="The command to kill. Default: all.")
    options = parser.parse_args()
    if options.kills < 1:
        parser.error("--kills must be at least 1")
    names = [options.only] if options.only else list(COMMANDS)
    random = np.random.default_rng(options.seed)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        campaign = Campaign(Path(root))
        for name in names:
            campaign.prepare(name)
        kills = cases = 0
        while kills < options.kills:
            name = names[cases % len(names)]
            death = campaign.draw(name, random)
            has_died, faults = campaign.kill(name, death, f"{name}{cases}")
            kills, cases, wrong = kills + has_died, cases + 1, wrong + bool(faults)
            result = "; ".join(faults) or ("ok" if has_died else "ended before")
            print(f"{kills:4} {name:12} {death}: {result}", flush=True)
    print(f"{kills} kills in {cases} cases, {wrong} with a fault")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
