"""Seconds that it takes to place convolutional networks of the paper on chips."""

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


def seconds() -> Iterator[tuple[str, list[float]]]:
    """VGGSNN over 48 x 48 x 2 and ResNet-19 over 32 x 32 x 3, a tenth of their weights."""
    for name, make in NETWORKS.items():
        network = make()
        for chip in ("loihi1", "loihi2"):
            yield f"map.{name}_d010.{chip}", [_placed(network, chip) for _ in range(ROUNDS)]


def _placed(network: Network, chip: str) -> float:
    start = time.perf_counter()
    map_network(network, load_device(chip))
    return time.perf_counter() - start
