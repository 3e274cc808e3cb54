"""What rounding and folding of a normalised convolutional network cost, and that they are exact.

`python -m tests.benchmarks.rounding RUN` takes a directory of `esl train` and prints

- the accuracy on the test split of the unrounded weights, with the normalisation's running
  statistics, in float32, beside that of the integer network;
- how many samples of the last validation the exact simulator decides otherwise than the network
  in evaluation, by which the training chose its epoch.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from esl_lava.arrays import Array
from esl_lava.data.config import Encoding
from esl_lava.data.datasets import load, split_validation
from esl_lava.data.samples import Samples
from esl_lava.engines.integers import weighted
from esl_lava.engines.native import fire
from esl_lava.engines.normalised import make_neuron
from esl_lava.experiments.export import lower_model
from esl_lava.models.convolutional import SpikingCNN
from esl_lava.models.restore import restore
from esl_lava.models.stored import load_model
from esl_lava.simulate import simulate
from esl_lava.topology import INPUT, LayerSpec

PORTION = 500
Decide = Callable[[Array], Array]


def decide_in_floats(model: SpikingCNN, inputs: Array) -> Array:
    """Classes that unrounded weights choose, of inputs (batch, steps, neurons)."""
    x = torch.from_numpy(inputs).float()
    batch, steps, _ = x.shape
    maps = {INPUT: x.transpose(0, 1).reshape(steps, batch, *model.topology.input_shape)}
    neuron = make_neuron(model.config.voltage_decay, model.config.tau_grad, model.config.scale_grad)
    for layer in model.topology.layers:
        part = model.get_submodule(layer.name)
        arriving = maps[layer.source].flatten(0, 1)
        z = weighted(arriving, part.synapse.weight * part.span.unit, layer)
        norm = part.norm
        if norm is not None:
            moments = norm.running_mean, norm.running_var
            z = functional.batch_norm(z, *moments, norm.weight, norm.bias, eps=norm.eps)
        z = z.view(steps, batch, *z.shape[1:])
        maps[layer.name] = z if layer.readout else fire(z, neuron)
    return maps[model.topology.layers[-1].name].sum(0).argmax(1).numpy()


def decide_in_evaluation(model: SpikingCNN, inputs: Array) -> Array:
    """Classes that the network in evaluation chooses, of inputs (batch, steps, neurons)."""
    potentials: Tensor = model(torch.from_numpy(inputs).transpose(1, 2).float())
    return potentials.sum(2).argmax(1).numpy()


def decisions(data: Samples, encoding: Encoding, *ways: Decide) -> Iterator[tuple[Array, ...]]:
    """Yield for each portion of the samples its labels and what each way decides."""
    for first in range(0, len(data), PORTION):
        part = data.choose(slice(first, first + PORTION))
        inputs = np.array(part.spikes(encoding))
        yield part.labels, *(np.asarray(way(inputs)) for way in ways)


def _residual(layer: LayerSpec) -> bool:
    return bool(layer.shortcut or layer.identity)


@torch.no_grad()
def main(run: Path) -> None:
    """Print both."""
    saved, experiment = load_model(run / "model.pt")
    model = restore(saved)
    if not isinstance(model, SpikingCNN) or any(map(_residual, model.topology.layers)):
        sys.exit(f"{run}: not a convolutional network without residual blocks")
    network = lower_model(run / "model.pt")
    name, encoding = experiment.data.name, experiment.encoding
    ways: tuple[Decide, ...] = (
        lambda inputs: decide_in_floats(model, inputs),
        lambda inputs: np.asarray(simulate(network, inputs).decisions),
        lambda inputs: decide_in_evaluation(model, inputs),
    )
    test = load(name, "test")
    rows = list(decisions(test, encoding, *ways[:2]))
    floats, integers = (sum(int((row[0] == row[k]).sum()) for row in rows) for k in (1, 2))
    print(f"test accuracy in float32   {floats / len(test):.2%} of {len(test):,}")
    print(f"test accuracy in integers  {integers / len(test):.2%} of {len(test):,}")
    _, validation = split_validation(
        load(name, "train"), experiment.data.validation, experiment.seed
    )
    differ = sum(int((a != b).sum()) for _, a, b in decisions(validation, encoding, *ways[1:]))
    print(f"decisions of the last validation that differ  {differ} of {len(validation):,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
