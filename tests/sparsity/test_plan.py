"""Number of connections of layers, computed from their shapes alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esl_lava.config import from_mapping
from esl_lava.errors import ConfigError
from esl_lava.models.build import build
from esl_lava.sparsity import MaskEvolver
from esl_lava.sparsity.config import Sparsity
from esl_lava.sparsity.plan import choose_sparse, count_connections
from esl_lava.topology import describe
from tests.faults import refused


def test_a_count_by_hand() -> None:
    topology = describe("8-4", (10,), 2)
    uniform = Sparsity(density=0.25, distribution="uniform")
    assert count_connections(topology, uniform) == {"hidden1": 20, "hidden2": 8, "readout": 8}
    by_layer = Sparsity(densities={"hidden1": 0.1, "readout": 0.5}, keep_dense=("hidden2",))
    assert count_connections(topology, by_layer) == {"hidden1": 8, "hidden2": 32, "readout": 4}
    # Eq. 1: 0.5 * (10 + 8) and 0.5 * (8 + 4) connections.
    assert count_connections(topology, Sparsity(eps=0.5)) == {
        "hidden1": 9,
        "hidden2": 6,
        "readout": 8,
    }


@pytest.mark.slow
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.sampled_from(["er", "erk", "uniform"]),
    st.floats(0.3, 1),
    st.sampled_from([("readout",), (), ("hidden1",)]),
)
@settings(max_examples=30, deadline=None)
def test_counts_are_the_evolvers(
    hidden: list[int], distribution: str, density: float, keep_dense: tuple[str, ...]
) -> None:
    config = from_mapping(
        {
            "sparsity": {
                "density": density,
                "distribution": distribution,
                "keep_dense": list(keep_dense),
            }
        }
    )
    topology = describe("-".join(map(str, hidden)), (12,), 3)
    model = build(config.model, topology)
    evolver = MaskEvolver(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        density=density,
        distribution=distribution,
        keep_dense=keep_dense,
        t_end=1,
    )
    assert count_connections(topology, config.sparsity) == evolver.connections()


def test_layers_that_there_are_not() -> None:
    topology = describe("8-4", (10,), 2)
    names = ("hidden1", "hidden2", "readout")
    with refused(ConfigError, "unknown", key="sparsity.keep_dense", value="x", limit=names):
        choose_sparse(topology, ["x", "readout"])
    with refused(ConfigError, "conflict", key="sparsity.keep_dense", value=names):
        choose_sparse(topology, topology.names)
    with refused(ConfigError, "missing", key="sparsity.densities", layer="hidden2"):
        count_connections(topology, Sparsity(densities={"hidden1": 0.5}))


@pytest.mark.parametrize("layers", ["2C3-R3S2-GAP", "4C3-8C1-AP2", "2C3-AP2-7"])
@pytest.mark.parametrize("distribution", ["er", "erk", "uniform"])
@pytest.mark.parametrize("stored", [False, True])
def test_counts_of_kernels_are_the_evolvers(layers: str, distribution: str, stored: bool) -> None:
    """A shortcut has a kernel of 1 x 1, which counts as none."""
    model = {"kind": "convolutional", "layers": layers}
    sparsity = {"density": 0.2, "distribution": distribution, "keep_dense": []}
    config = from_mapping({"model": model, "sparsity": sparsity})
    topology = config.model.describe((1, 8, 8), 10)
    names = [layer.name for layer in topology.weighted] if stored else []
    network = build(config.model, topology, names, encoding=config.encoding)
    evolver = MaskEvolver(
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        density=0.2,
        distribution=distribution,
        t_end=1,
    )
    assert count_connections(topology, config.sparsity) == evolver.connections()
