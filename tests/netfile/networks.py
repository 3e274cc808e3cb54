"""Random networks with every feature, from a seed, and a comparison of two networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from esl_lava.chip import NEVER, SPIKE_RANGE
from esl_lava.netfile.writer import range_of_bits
from esl_lava.network import (
    INPUT,
    INTEGRATOR,
    Convolution,
    Cuba,
    Injection,
    Input,
    Layer,
    Matrix,
    Network,
)
from tests.graphs import a_layer, a_network


def random_network(seed: int, *, netx: bool = False) -> Network:
    """Return a network of one to four layers; with `netx`, only with features that netx has."""
    rng = np.random.default_rng(seed)
    maps = rng.random() < 0.7
    shape: tuple[int, ...] = tuple(rng.integers(1, 6, 3).tolist()) if maps else (7,)
    shapes = {INPUT: shape}
    layers = []
    for index in range(rng.integers(1, 5)):
        name = f"l{index}"
        n_pre = int(np.prod(shape))
        kinds = ["dense"] + ["conv"] * 2 * (len(shape) == 3) + ["input"] * (index == 0)
        kinds += ["reshaped"] * (index > 0 and not netx)
        kind = rng.choice(kinds)
        main: Matrix | Convolution | Injection
        if kind == "dense":
            main = random_connections(rng, int(rng.integers(1, 8)), n_pre)
        elif kind == "input":
            main = Injection(shape)
        else:
            main = random_convolution(rng, shape if kind == "conv" else (n_pre, 1, 1))
        out = a_layer(name, main, INTEGRATOR).shape
        n = main.n_post
        dense = isinstance(main, Matrix)
        recurrent = delays = bias = None
        if rng.random() < 0.3 and (dense or not netx):
            recurrent = random_connections(rng, n, n)
        if rng.random() < 0.3 and (not netx or (dense and recurrent is None)):
            delays = rng.integers(0, rng.choice([1, 63]), n)
        if rng.random() < 0.5 and not (netx and kind == "input"):
            bias = rng.integers(-4096, 4096, n)
            if rng.random() < 0.5:
                bias = np.repeat(bias[: out[0]], n // out[0])
        skips = []
        for source in rng.choice(sorted(shapes), 0 if netx else rng.integers(0, 3)):
            skips.append(Input(str(source), _skip(rng, shapes[source], out)))
        refractory = 0 if netx else int(rng.choice([0, 0, 0, 1, 62]))
        current, voltage, threshold = (
            _parameter(rng, n, out[0], high) for high in (4097, 4097, 30_000)
        )
        neuron = Cuba(current, voltage, threshold, refractory)
        layers.append(a_layer(name, main, neuron, bias, delays, recurrent, tuple(skips)))
        shape = shapes[name] = out
    if rng.random() < 0.3:
        layers.append(
            a_layer("readout", random_connections(rng, 3, int(np.prod(shape))), INTEGRATOR)
        )
    steps = int(rng.integers(1, 99)) if rng.random() < 0.5 else None
    bits = int(rng.integers(0, 25))
    ends = range_of_bits(bits)
    if rng.random() < 0.5:  # asymmetric, as for pixels and counts
        ends = -(1 << bits) * int(rng.integers(0, 2)), (1 << bits) - 1
    if not -(1 << 24) < ends[0] < ends[1]:
        ends = SPIKE_RANGE
    return a_network(tuple(layers), steps, {"seed": str(seed)}, ends)


def random_connections(rng: np.random.Generator, n_post: int, n_pre: int) -> Matrix:
    """Return a matrix with connections of weight 0; netx reads weights of this range exactly."""
    mask = rng.random((n_post, n_pre)) < 0.7
    return Matrix.from_dense(2 * rng.integers(-128, 128, mask.shape) * mask, mask)


def random_convolution(rng: np.random.Generator, in_shape: tuple[int, ...]) -> Convolution:
    """Return a convolution with any kernel, stride, padding, dilation and groups that fit."""
    channels = in_shape[0]
    groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    padding = rng.integers(0, 3, 2)
    size = [int(rng.integers(1, min(4, n + 2 * p) + 1)) for n, p in zip(in_shape[1:], padding)]
    dilation = [
        int(rng.integers(1, 3)) if 2 * (k - 1) < n + 2 * p else 1
        for n, p, k in zip(in_shape[1:], padding, size)
    ]
    shape = (groups * int(rng.integers(1, 3)), channels // groups, *size)
    mask = rng.random(shape) < 0.8
    kernel = rng.integers(-9, 9, shape) * mask
    stride = rng.integers(1, 4, 2)
    return Convolution(kernel, in_shape, stride, padding, dilation, groups, mask)  # type: ignore[arg-type]


def _skip(
    rng: np.random.Generator, shape: tuple[int, ...], out: tuple[int, ...]
) -> Matrix | Convolution:
    if len(shape) == 3 and shape == out and rng.random() < 0.7:
        kernel = rng.integers(-9, 9, (out[0], shape[0], 1, 1))
        return Convolution(kernel, shape)  # type: ignore[arg-type]
    return random_connections(rng, int(np.prod(out)), int(np.prod(shape)))


def _parameter(rng: np.random.Generator, neurons: int, channels: int, high: int) -> Any:
    size = rng.choice([0, 0, neurons, channels])
    if size == 0:
        return int(rng.integers(1, high))
    values = rng.integers(1, high, size)
    values[0] = min(high - 1, NEVER)
    return values


def assert_same(a: Any, b: Any) -> None:
    """Assert that all parts of two networks, layers or connections are equal and of one type."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert np.array_equal(a, b)
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            assert_same(one, other)
    elif isinstance(a, (Network, Layer, Matrix, Convolution, Input, Cuba, Injection)):
        for name in a.__dataclass_fields__:
            assert_same(getattr(a, name), getattr(b, name))
    else:
        assert a == b
