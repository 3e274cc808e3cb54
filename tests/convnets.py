"""VGGSNN and ResNet-19 as integer networks with random weights, in the form that export makes.

The first layer and the readout are dense.

Average pools are folded into the kernel or the matrix behind them (`export.normalised`): a
3 x 3 kernel becomes 6 x 6 with stride and padding 2, and a row of a matrix repeats each weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from esl_lava.export.normalised import connect
from esl_lava.network import INPUT, INTEGRATOR, Convolution, Cuba, Input, Layer, Network
from esl_lava.trained import Sliding

THRESHOLD = 600
"""A typical threshold: normalised layers have thresholds of 200 to 1,300."""
NEURON = Cuba(4096, 2048, THRESHOLD)
Shape = tuple[int, int, int]


class Draw:
    """Generator of random weights, layer by layer.

    Args:
        density: share of the positions that have a weight, in layers that are not dense.
        seed: random seed.
    """

    def __init__(self, density: float, seed: int) -> None:
        self._density = density
        self._rng = np.random.default_rng(seed)

    def _weights(self, shape: tuple[int, ...], dense: bool) -> tuple[Any, Any]:
        mask = self._rng.random(shape) < (1.0 if dense else self._density)
        weights = 2 * self._rng.integers(1, 128, shape) * self._rng.choice((-1, 1), shape)
        return np.where(mask, weights, 0).astype(np.int32), mask

    def kernel(
        self,
        source: Shape,
        channels: int,
        side: int = 3,
        pool: int = 1,
        stride: int = 1,
        dense: bool = False,
    ) -> Any:
        """Draw a kernel over the sums of `pool` x `pool` squares of a layer's maps."""
        weights, mask = self._weights((channels, source[0], side, side, 1), dense)
        return connect(weights, mask, Sliding(source, pool, stride, side // 2))

    def rows(self, source: Shape, outputs: int, pool: int, dense: bool = False) -> Any:
        """Draw a matrix over the sums of `pool` x `pool` squares of a layer's maps."""
        sums = source[0] * (source[1] // pool) * (source[2] // pool)
        weights, mask = self._weights((outputs, sums, 1, 1, 1), dense)
        return connect(weights, mask, Sliding(source, pool))


def vggsnn(density: float = 0.1, *, width: float = 1.0, side: int = 48, seed: int = 0) -> Network:
    """Make 64-128-AP-256-256-AP-512-512-AP-512-512-AP and a readout of 10, over two polarities.

    Args:
        density: density of the layers between the first layer and the readout.
        width: factor on the numbers of channels.
        side: rows and columns of the input.
        seed: random seed of the weights.
    """
    draw = Draw(density, seed)
    shape: Shape = (2, side, side)
    layers: list[Layer] = []
    source, pool = INPUT, 1
    for pair in ((64, 128), (256, 256), (512, 512), (512, 512)):
        for channels in pair:
            wide, first = round(width * channels), not layers
            kernel = draw.kernel(shape, wide, pool=pool, dense=first)
            name = f"conv{len(layers) + 1}"
            layers.append(Layer(name, (Input(source, kernel),), NEURON))
            source, shape, pool = name, kernel.out_shape, 1
        pool = 2
    rows = draw.rows(shape, 10, pool, dense=True)
    return Network((*layers, Layer("readout", (Input(source, rows),), INTEGRATOR)), steps=10)


def resnet19(density: float = 0.1, *, width: float = 1.0, side: int = 32, seed: int = 0) -> Network:
    """Make ResNet-19: a stem of 64, blocks of 128, 256 and 512, a global pool, 256 neurons.

    The readout has 10 classes. The input of a block is added to its second layer: through 1 x 1
    kernels if the shape changes, otherwise through weights from each neuron to the neuron at the
    same place, which add up to the threshold.

    Args:
        density: density of the layers between the first layer and the readout.
        width: factor on the numbers of channels.
        side: rows and columns of the input.
        seed: random seed of the weights.
    """
    draw = Draw(density, seed)
    kernel = draw.kernel((3, side, side), round(width * 64), dense=True)
    layers = [Layer("stem", (Input(INPUT, kernel),), NEURON)]
    for number, (blocks, channels, first) in enumerate(((3, 128, 1), (3, 256, 2), (2, 512, 2)), 1):
        for block in range(blocks):
            source, wide = layers[-1], round(width * channels)
            shape: Any = source.shape
            stride = first if block == 0 else 1
            name = f"block{number}{'abc'[block]}"
            entry = draw.kernel(shape, wide, stride=stride)
            main = draw.kernel(entry.out_shape, wide)
            if shape == main.out_shape:
                skips = [
                    Input(
                        source.name, Convolution(np.full((wide, 1, 1, 1), part), shape, groups=wide)
                    )
                    for part in (254, 254, THRESHOLD - 508)
                ]
            else:
                skips = [Input(source.name, draw.kernel(shape, wide, side=1, stride=stride))]
            layers.append(Layer(f"{name}_1", (Input(source.name, entry),), NEURON))
            layers.append(Layer(f"{name}_2", (Input(f"{name}_1", main), *skips), NEURON))
    maps: Any = layers[-1].shape
    fc = draw.rows(maps, round(width * 256), maps[1])
    layers.append(Layer("fc", (Input(layers[-1].name, fc),), NEURON))
    readout = draw.rows((fc.n_post, 1, 1), 10, 1, dense=True)
    layers.append(Layer("readout", (Input("fc", readout),), INTEGRATOR))
    return replace(Network(tuple(layers), steps=4), input_range=(-16, 15))
