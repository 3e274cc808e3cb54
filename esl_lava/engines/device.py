"""Where a training computes: the CPU, or one GPU for each process."""

from __future__ import annotations

import logging

import torch

from esl_lava.errors import ConfigError
from esl_lava.sparsity.ranks import count

_logger = logging.getLogger(__name__)


def choose_device(wanted: str, served: bool) -> torch.device:
    """The device of a training; of several ranks, each takes the GPU of its number.

    Args:
        wanted: `training.device`.
        served: whether the network has passes for a GPU.

    Raises:
        ConfigError: where a GPU is asked for that is not there.
    """
    found = torch.cuda.device_count() if served and wanted != "cpu" else 0
    if wanted == "cuda" and not found:
        raise ConfigError(
            'training.device = "cuda": torch finds no GPU here '
            f'(torch {torch.__version__}); training.device = "cpu" trains without one'
        )
    if not found:
        return torch.device("cpu")
    rank = torch.distributed.get_rank() if count() > 1 else 0
    if rank >= found:
        raise ConfigError(
            f"training.device: rank {rank} needs a GPU of its own, torch finds {found}"
        )
    device = torch.device("cuda", rank)
    _logger.info("training on %s", torch.cuda.get_device_name(device))
    return device
