"""How much smaller a sparse network's file is than SLAYER's own export of it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from esl_lava import netfile
from esl_lava.config import Experiment, from_mapping
from esl_lava.data.datasets import Images
from esl_lava.export import lower
from esl_lava.models.restore import restore
from esl_lava.models.stored import trained_layers
from esl_lava.training.trainer import Trainer

EPOCHS = 3
SEEDS = (1, 2)


def file_sizes() -> Iterator[tuple[str, list[float]]]:
    """784-800-10 at hidden density 0.16, trained on MNIST: bytes of SLAYER's file over ours.

    Without ESL_LAVA_DATA there is no MNIST to train on, and it is downloaded.
    """
    from esl_lava.data.datasets import load

    data = load("mnist", "train")
    yield "netfile.mlp_d016.vs_slayer", [_ratio(seed, data) for seed in SEEDS]


def _ratio(seed: int, data: Images) -> float:
    experiment = _experiment(seed)
    saved = Trainer(experiment, data).run()
    model = restore(saved)
    model(torch.zeros(1, 784, experiment.encoding.steps))  # SLAYER exports after a forward only
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.h5", Path(folder) / "theirs.h5"
        network = lower(trained_layers(saved), steps=experiment.encoding.steps)
        netfile.write(network, ours)
        for layer in network.layers:
            mask = saved.masks.get(layer.name)
            if mask is not None:
                stored = netfile.read(ours).first.unrolled().mask()
                assert np.array_equal(stored, mask.reshape(stored.shape))
        with h5py.File(theirs, "w") as file:
            for index, name in enumerate((*model.topology.hidden_names, "readout")):
                model.get_submodule(name).export_hdf5(file.create_group(f"layer/{index}"))
        return theirs.stat().st_size / ours.stat().st_size


def _experiment(seed: int) -> Experiment:
    return from_mapping(
        {
            "seed": seed,
            "data": {"name": "mnist"},
            "model": {"layers": "800", "weight_scale": 2.0},
            "sparsity": {"density": 0.16, "t_iter": 540},
            "training": {"epochs": EPOCHS, "learning_rate": 0.005},
        }
    )
