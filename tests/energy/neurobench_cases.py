"""Networks and inputs whose operations the neurobench package has counted."""

from dataclasses import replace
from typing import Any

import numpy as np

from esl_lava.network import INPUT, INTEGRATOR, Convolution, Cuba, Input, Matrix, Network
from tests.graphs import a_layer, a_network


def masked(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> Any:
    """Draw even weights and their mask. Some allowed weights are 0."""
    mask = rng.random(shape) < density
    return np.where(mask, 2 * rng.integers(-20, 24, shape), 0), mask


def mlp() -> tuple[Network, Any]:
    rng = np.random.default_rng(1)
    hidden = Matrix.from_dense(*masked(rng, (30, 40), 0.2))
    second = Matrix.from_dense(*masked(rng, (20, 30), 0.5))
    readout = Matrix.from_dense(*masked(rng, (5, 20), 1.0))
    network = a_network(
        (
            a_layer("hidden1", hidden, Cuba(4096, 2048, 30), bias=np.arange(30) % 3),
            a_layer("hidden2", second, Cuba(2048, 1024, 20)),
            a_layer("readout", readout, INTEGRATOR, bias=np.ones(5, np.int32)),
        )
    )
    return network, (rng.random((6, 7, 40)) < 0.3).astype(np.uint8)


def conv() -> tuple[Network, Any]:
    rng = np.random.default_rng(2)
    kernel, allowed = masked(rng, (6, 2, 3, 3), 0.4)
    first = Convolution(kernel, (2, 9, 8), (2, 1), (1, 1), allowed=allowed)
    kernel, allowed = masked(rng, (4, 3, 2, 3), 0.6)
    second = Convolution(kernel, first.out_shape, (1, 2), (0, 1), (2, 1), 2, allowed)
    readout = Matrix.from_dense(*masked(rng, (5, second.n_post), 0.3))
    network = a_network(
        (
            a_layer("conv1", first, Cuba(4096, 2048, 40)),
            a_layer("conv2", second, Cuba(4096, 2048, 10)),
            a_layer("readout", readout, INTEGRATOR),
        )
    )
    return network, (rng.random((5, 6, 2, 9, 8)) < 0.25).astype(np.uint8)


def graded() -> tuple[Network, Any]:
    network, _ = mlp()
    given = np.random.default_rng(3).integers(-4, 5, (6, 7, 40))
    given[:, 2] = given[:, 2].clip(-1, 1)  # a call whose inputs are not graded
    return replace(network, input_range=(-4, 4)), given


def recurrent() -> tuple[Network, Any]:
    rng = np.random.default_rng(4)
    own, second = masked(rng, (20, 20), 0.3), masked(rng, (9, 9), 1.0)
    network = a_network(
        (
            a_layer(
                "own",
                Matrix.from_dense(*masked(rng, (20, 15), 0.4)),
                Cuba(4096, 2048, 60),
                recurrent=Matrix.from_dense(*own),
            ),
            a_layer(
                "again",
                Matrix.from_dense(*masked(rng, (9, 20), 0.4)),
                Cuba(1000, 300, 50),
                recurrent=Matrix.from_dense(*second),
            ),
            a_layer("readout", Matrix.from_dense(*masked(rng, (5, 9), 1.0)), INTEGRATOR),
        )
    )
    return network, (rng.random((5, 6, 15)) < 0.4).astype(np.uint8)


def delayed() -> tuple[Network, Any]:
    rng = np.random.default_rng(5)
    hidden = Matrix.from_dense(*masked(rng, (20, 15), 0.4))
    readout = Matrix.from_dense(*masked(rng, (5, 20), 0.7))
    network = a_network(
        (
            a_layer("hidden", hidden, Cuba(4096, 2048, 20), delays=rng.integers(0, 9, 20)),
            a_layer("readout", readout, INTEGRATOR, delays=[0, 2, 2, 1, 62]),
        )
    )
    return network, (rng.random((5, 6, 15)) < 0.4).astype(np.uint8)


def skipped() -> tuple[Network, Any]:
    """Build skips through a kernel and through a matrix."""
    rng = np.random.default_rng(10)
    kernel, allowed = masked(rng, (4, 2, 3, 3), 0.5)
    first = Convolution(kernel, (2, 6, 5), padding=(1, 1), allowed=allowed)
    kernel, allowed = masked(rng, (4, 4, 3, 3), 0.5)
    second = Convolution(kernel, first.out_shape, padding=(1, 1), allowed=allowed)
    kernel, allowed = masked(rng, (4, 2, 1, 1), 1.0)
    around = Convolution(kernel, first.in_shape, allowed=allowed)
    readout = Matrix.from_dense(*masked(rng, (5, 120), 0.3))
    past = Matrix.from_dense(*masked(rng, (5, 120), 0.2))
    network = a_network(
        (
            a_layer("conv1", first, Cuba(4096, 2048, 40)),
            a_layer("conv2", second, Cuba(4096, 2048, 60), skips=(Input(INPUT, around),)),
            a_layer("readout", readout, INTEGRATOR, skips=(Input("conv1", past),)),
        )
    )
    return network, (rng.random((4, 5, 60)) < 0.3).astype(np.uint8)


def graded_and_delayed() -> tuple[Network, Any]:
    network, _ = delayed()
    inputs = np.random.default_rng(7).integers(-4, 5, (5, 6, 15))
    return replace(network, input_range=(-4, 4)), inputs


CASES = {
    "mlp": mlp,
    "conv": conv,
    "recurrent": recurrent,
    "delayed": delayed,
    "skipped": skipped,
    "graded": graded,
    "graded and delayed": graded_and_delayed,
}
