from dataclasses import replace

import numpy as np

from esl_lava.errors import LimitError
from esl_lava.mapping import map_network
from esl_lava.mapping.waiting import waits
from esl_lava.network import Input, Network
from tests.faults import refused
from tests.graphs import a_network
from tests.mapping.test_partition import chip, layer, random


def chain(length: int, skip_from: str) -> Network:
    """Build layers l0, l1, ... of four neurons. The last one also has a skip."""
    layers = [layer(f"l{number}", random((4, 4), 1.0)) for number in range(length)]
    skip = Input(skip_from, random((4, 4), 1.0))
    layers[-1] = layer(f"l{length - 1}", random((4, 4), 1.0), skips=(skip,))
    return a_network(layers)


def test_a_shorter_way_waits_for_the_longest() -> None:
    assert waits(chain(4, "l0")) == {"l0": (0,), "l1": (0,), "l2": (0,), "l3": (0, 2)}
    # Neurons that sum for a layer add a step of latency.
    assert waits(chain(4, "l0"), {"l1"})["l3"] == (0, 3)
    assert waits(chain(4, "l0"), {"l0", "l3"})["l3"] == (0, 2)
    assert waits(chain(3, "input"))["l2"] == (0, 2)


def test_what_waits_takes_bits_of_its_synapses() -> None:
    """A weight takes 8 bits, with a delay 11 bits: a list of six then takes two words of 64."""
    wide, deep = random((6, 4), 1.0), random((6, 6), 1.0)
    straight = a_network((layer("a", wide), layer("b", deep), layer("c", deep)))
    skipping = a_network(
        (layer("a", wide), layer("b", deep), layer("c", deep, skips=(Input("a", deep),)))
    )
    found = [map_network(one, chip()).layers[-1] for one in (straight, skipping)]
    assert [place.waits for place in found] == [0, 1]
    # A list takes 6 x 8 + 10 bits, or 6 x 11 + 10. There are 6 lists, or 12.
    assert [place.words["dense"][0] for place in found] == [6, 12 * 2]


def test_what_waits_too_long_is_refused() -> None:
    with refused(LimitError, "limit", layer="l64", key="delay", value=63, limit=62):
        map_network(chain(65, "l0"), chip(cores=100))


def test_a_delay_is_added_to_the_wait_of_its_own_input() -> None:
    *before, last = chain(7, "l0").layers
    long, skip = last.inputs
    delays = np.full(4, 60)
    fits = replace(last, inputs=(replace(long, delays=delays), skip))
    assert map_network(a_network([*before, fits]), chip()).layers[-1].waits == 5
    exceeds = replace(last, inputs=(long, replace(skip, delays=delays)))
    with refused(LimitError, "limit", layer="l6", key="delay", value=65, limit=62):
        map_network(a_network([*before, exceeds]), chip())
