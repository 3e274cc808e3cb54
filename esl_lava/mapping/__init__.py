"""Network times device: cores, and what they do."""

from esl_lava.mapping.floorline import LayerBound, layer_bounds, step_nanoseconds
from esl_lava.mapping.partition import CoreMap, LayerMap, map_network
from esl_lava.mapping.traffic import Traffic, traffic

__all__ = [
    "CoreMap",
    "LayerBound",
    "LayerMap",
    "Traffic",
    "layer_bounds",
    "map_network",
    "step_nanoseconds",
    "traffic",
]
