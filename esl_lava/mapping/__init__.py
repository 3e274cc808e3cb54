"""Map a network to the cores of a chip, and count the traffic between the cores."""

from esl_lava.mapping.floorline import LayerBound, layer_bounds, step_nanoseconds
from esl_lava.mapping.partition import map_network
from esl_lava.mapping.placement import CoreMap, LayerMap, Spread
from esl_lava.mapping.traffic import Traffic, traffic

__all__ = [
    "CoreMap",
    "LayerBound",
    "LayerMap",
    "Spread",
    "Traffic",
    "layer_bounds",
    "map_network",
    "step_nanoseconds",
    "traffic",
]
