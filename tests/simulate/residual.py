"""Networks with residual inputs: a narrow ResNet, and layers with skips from all earlier layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from esl_lava.network import INPUT, INTEGRATOR, Convolution, Cuba, Input, Layer, Matrix, Network

Spikes = npt.NDArray[Any]

LARGEST = 254
"""The largest weight. A larger one is divided among parallel inputs."""


def identity(source: str, channels: int, side: int, threshold: int) -> list[Input]:
    """Return an identity shortcut of weight `threshold`, in as many inputs as 8 bits need."""
    parts = [LARGEST] * (threshold // LARGEST)
    parts += [threshold % LARGEST] if threshold % LARGEST else []
    eye = np.eye(channels, dtype=int)[:, :, None, None]
    return [Input(source, Convolution(part * eye, (channels, side, side))) for part in parts]


def resnet(seed: int = 0, samples: int = 3, steps: int = 4) -> tuple[Network, Spikes]:
    """Build a stem, an identity block, a stride-2 block with a 1x1 shortcut, a pooled readout.

    Inputs are 8 x 8 pixels of 4 bits and a sign, which repeat in each step. Weights, thresholds and
    biases have the sizes that training produces.
    """
    rng = np.random.default_rng(seed)
    half = 2048

    def kernel(outputs: int, inputs: int, size: int, spread: float) -> Spikes:
        drawn = rng.normal(6, spread, (outputs, inputs, size, size))
        return 2 * np.round(drawn / 2).astype(int).clip(-127, 127)

    def bias(neurons: int, channels: int, threshold: int) -> Spikes:
        return np.repeat(rng.integers(-threshold // 4, threshold // 3, channels), neurons)

    def slid(weights: Spikes, in_shape: tuple[int, int, int], stride: int = 1) -> Convolution:
        pad = weights.shape[2] // 2
        return Convolution(weights, in_shape, (stride, stride), (pad, pad))

    small, large = (4, 8, 8), (6, 4, 4)
    stem = Input(INPUT, slid(kernel(4, 3, 3, 40), (3, 8, 8)))
    first = Input("stem", slid(kernel(4, 4, 3, 60), small))
    second = Input("block1.1", slid(kernel(4, 4, 3, 60), small))
    third = Input("block1.2", slid(kernel(6, 4, 3, 60), small, 2))
    fourth = Input("block2.1", slid(kernel(6, 6, 3, 50), large))
    shortcut = Input("block1.2", slid(kernel(6, 4, 1, 90), small, 2))
    pooled = np.repeat(rng.integers(-127, 128, (10, 6)), 16, axis=1)
    layers = (
        Layer("stem", (stem,), Cuba(4096, half, 1100), bias(64, 4, 1100)),
        Layer("block1.1", (first,), Cuba(4096, half, 290), bias(64, 4, 290)),
        Layer(
            "block1.2",
            (second, *identity("stem", 4, 8, 613)),
            Cuba(4096, half, 613),
            bias(64, 4, 613),
        ),
        Layer("block2.1", (third,), Cuba(4096, half, 270), bias(16, 6, 270)),
        Layer("block2.2", (fourth, shortcut), Cuba(4096, half, 250), bias(16, 6, 250)),
        Layer("readout", (Input("block2.2", Matrix.from_dense(pooled)),), INTEGRATOR),
    )
    pixels = rng.integers(-15, 16, (samples, 1, 3 * 64), np.int32)
    return Network(layers, steps, {}, (-15, 15)), np.repeat(pixels, steps, axis=1)


def from_everywhere(steps: int, seed: int = 1, samples: int = 4) -> tuple[Network, Spikes]:
    """Build skips over one or more layers, from the input and into the readout, and a branch."""
    rng = np.random.default_rng(seed)

    def brings(source: str, n_post: int, n_pre: int) -> Input:
        mask = rng.random((n_post, n_pre)) < 0.7
        return Input(
            source, Matrix.from_dense(np.where(mask, rng.integers(-90, 110, mask.shape), 0), mask)
        )

    def layer(name: str, neuron: Cuba, *inputs: Input) -> Layer:
        neurons = inputs[0].connections.n_post
        return Layer(name, inputs, neuron, rng.integers(-30, 60, neurons))

    leaky = Cuba(1500, 600, 170)
    layers = (
        layer("a", leaky, brings(INPUT, 9, 8)),
        layer("b", Cuba(4096, 0, 200), brings("a", 7, 9)),
        layer("branch", leaky, brings(INPUT, 6, 8)),
        layer(
            "joined",
            leaky,
            brings("branch", 7, 6),
            brings("a", 7, 9),
            brings(INPUT, 7, 8),
            brings("b", 7, 7),
        ),
        Layer(
            "readout", (brings("joined", 3, 7), brings("a", 3, 9), brings("b", 3, 7)), INTEGRATOR
        ),
    )
    return Network(layers, steps), (rng.random((samples, steps, 8)) < 0.4).astype(np.uint8)
