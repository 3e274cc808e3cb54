"""Choose the device of a training: the CPU, or one GPU for each process."""

from __future__ import annotations

import logging

import torch

from esl_lava.errors import ConfigError
from esl_lava.sparsity.ranks import count

_logger = logging.getLogger(__name__)


def choose_device(setting: str, supported: bool) -> torch.device:
    """Return the device of a training. Each rank takes the GPU with its own number.

    Args:
        setting: the value of `training.device`.
        supported: whether the forward and backward passes of the network can run on a GPU.

    Raises:
        ConfigError: if the setting needs a GPU and torch finds none, or if torch finds GPUs, but
            not one for each rank.
    """
    gpus = torch.cuda.device_count() if supported and setting != "cpu" else 0
    if setting == "cuda" and not gpus:
        raise ConfigError(
            f'training.device = "cuda": torch {torch.__version__} finds no GPU; '
            'training.device = "cpu" trains without a GPU',
            "unsupported",
            key="training.device",
            value=setting,
        )
    if not gpus:
        return torch.device("cpu")
    rank = torch.distributed.get_rank() if count() > 1 else 0
    if rank >= gpus:
        raise ConfigError(
            f"training.device: rank {rank} needs a GPU of its own, but torch finds only {gpus}",
            "unsupported",
            key="training.device",
            value=rank,
            limit=gpus - 1,
        )
    device = torch.device("cuda", rank)
    _logger.info("training on %s", torch.cuda.get_device_name(device))
    return device
