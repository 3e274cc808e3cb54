"""Files of format 2 from an earlier revision can be read and give the spikes of that revision.

Revision 496c1a4 wrote `fixtures/*.h5`: a trained and exported MLP, a trained and exported network
of neurons that fire once, and a network with convolutions, recurrence, delays and skips.
`fixtures/*.npz` hold inputs, and the results of Lava's process models at that revision.
"""

from pathlib import Path

import numpy as np
import pytest

from esl_lava import netfile
from esl_lava.netfile import writer
from esl_lava.simulate import simulate

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "once", "graph"])
def test_spikes_potentials_and_decisions_are_what_they_were(name: str) -> None:
    network = netfile.read(FIXTURES / f"{name}.h5")
    with np.load(FIXTURES / f"{name}.npz") as stored:
        expected = dict(stored)
    shape = expected["shape"]
    inputs = np.unpackbits(expected["inputs"], count=int(shape.prod())).reshape(shape)
    result = simulate(network, inputs, record="all", states="all")
    assert result.decisions.tolist() == expected["decisions"].tolist()
    for layer in network.layers:
        assert np.array_equal(result.v[layer.name], expected[f"v_{layer.name}"]), layer.name
        if layer.neuron.fires:
            spikes = expected[f"spikes_{layer.name}"]
            assert spikes.any()
            assert np.array_equal(result.spikes[layer.name], spikes), layer.name


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "once", "graph"])
def test_what_is_read_is_written_to_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since then one attribute was added, which says that the file has our group."""
    monkeypatch.setattr(writer, "_say_that_our_group_exists", lambda file: None)
    netfile.write(netfile.read(FIXTURES / f"{name}.h5"), tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == (FIXTURES / f"{name}.h5").read_bytes()
