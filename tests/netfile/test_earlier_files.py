"""Files of format 2 that an earlier revision wrote load, and give the spikes that it saw.

`fixtures/*.h5` were written by revision 496c1a4 (an MLP and a network of neurons that fire once,
both trained and exported, and a network with convolutions, recurrence, delays and skips);
`fixtures/*.npz` hold inputs, and what Lava's process models made of them at that revision.
"""

from pathlib import Path

import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.simulate import simulate

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("name", ["mlp", "once", "graph"])
def test_spikes_potentials_and_decisions_are_what_they_were(name: str) -> None:
    network = netfile.read(FIXTURES / f"{name}.h5")
    with np.load(FIXTURES / f"{name}.npz") as stored:
        expected = dict(stored)
    shape = expected["shape"]
    inputs = np.unpackbits(expected["inputs"], count=int(shape.prod())).reshape(shape)
    found = simulate(network, inputs, record="all", states="all")
    assert found.decisions.tolist() == expected["decisions"].tolist()
    for layer in network.layers:
        assert np.array_equal(found.v[layer.name], expected[f"v_{layer.name}"]), layer.name
        if layer.neuron.fires:
            spikes = expected[f"spikes_{layer.name}"]
            assert spikes.any()
            assert np.array_equal(found.spikes[layer.name], spikes), layer.name


def test_the_graph_has_what_it_is_to_show() -> None:
    network = netfile.read(FIXTURES / "graph.h5")
    conv1, conv2, maps, dense, readout = network.layers
    assert [one.source for one in maps.inputs] == ["conv2", "conv1", "input", "maps"]
    assert [one.source for one in dense.inputs] == ["maps", "conv2", "dense"]
    assert conv1.inputs[0].connections.shares
    assert maps.recurrent is not None
    assert conv2.inputs[0].delays is not None
    assert dense.neuron.refractory == 2
    assert network.readout is readout


@pytest.mark.parametrize("name", ["mlp", "once", "graph"])
def test_what_is_read_is_written_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    netfile.write(netfile.read(FIXTURES / f"{name}.h5"), tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == (FIXTURES / f"{name}.h5").read_bytes()
