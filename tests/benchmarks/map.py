"""Seconds that it takes to place convolutional networks of the paper on chips, and cores."""

import time
from collections.abc import Iterator

from esl_lava.devices import load_device
from esl_lava.mapping import map_network
from esl_lava.network import Network
from tests.convnets import resnet19, vggsnn

ROUNDS = 2
NETWORKS = {
    "vggsnn": lambda: vggsnn(0.1),
    "resnet19_half": lambda: resnet19(0.1, width=0.5),
    "resnet19": lambda: resnet19(0.1),
}


def placements() -> Iterator[tuple[str, list[float]]]:
    """VGGSNN over 48 x 48 x 2 and ResNet-19 over 32 x 32 x 3, a tenth of their weights."""
    for name, make in NETWORKS.items():
        network = make()
        for chip in ("loihi1", "loihi2"):
            placed = [_place(network, chip) for _ in range(ROUNDS)]
            seconds, cores = (list(part) for part in zip(*placed))
            yield f"map.{name}_d010.{chip}.seconds", seconds
            yield f"map.{name}_d010.{chip}.cores", cores


def _place(network: Network, chip: str) -> tuple[float, float]:
    """(seconds, cores)."""
    start = time.perf_counter()
    found = map_network(network, load_device(chip))
    return time.perf_counter() - start, float(found.cores)
